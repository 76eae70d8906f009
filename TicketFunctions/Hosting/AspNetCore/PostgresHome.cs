using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Microsoft.Extensions.Logging;

namespace TicketFunctions.Hosting.AspNetCore;

/// <summary>The folder of one embedded server, and the account its programs run under.</summary>
internal sealed class PostgresHome(string folder, PostgresHome.Account? account = null)
{
    private static readonly TimeSpan ShortLimit = TimeSpan.FromSeconds(10);

    public string Folder => folder;

    public string DataFolder => Path.Combine(Folder, "data");

    public string LogFile => Path.Combine(Folder, "postgres.log");

    public string PasswordFile => Path.Combine(Folder, "password");

    /// <summary>Held by the owner of the server.</summary>
    public string LockFile => Path.Combine(Folder, "lock");

    /// <summary>Whether initdb has finished here.</summary>
    public bool HasData => File.Exists(Path.Combine(DataFolder, "PG_VERSION"));

    public static async Task<PostgresHome> PrepareAsync(string folder, ILogger logger, CancellationToken cancellationToken)
    {
        folder = Path.GetFullPath(folder);
        Directory.CreateDirectory(folder);
        var ours = new PostgresHome(folder);
        if (OperatingSystem.IsWindows() || !Environment.IsPrivilegedProcess) return ours;
        if (!OperatingSystem.IsLinux()) throw new EmbeddedPostgresException("Postgres refuses to run as root. Start this as an ordinary user.");

        var hash = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(folder)))[..12];
        var elsewhere = $"/var/tmp/ticketfunctions-{hash}";
        var said = "";
        foreach (var candidate in (string[])[folder, elsewhere])
        {
            Directory.CreateDirectory(candidate);
            if (candidate == elsewhere && await ours.StatAsync("%u %F", candidate, cancellationToken) != "0 directory")
            {
                throw new EmbeddedPostgresException($"{candidate} belongs to somebody else. Delete it, or choose another folder for Postgres.");
            }

            // The account must be able to pass through to the data.
            File.SetUnixFileMode(candidate, File.GetUnixFileMode(candidate) | UnixFileMode.GroupExecute | UnixFileMode.OtherExecute);
            var account = Account.Find(owner: await ours.StatAsync("%u", Path.Combine(candidate, "data"), cancellationToken));
            var home = new PostgresHome(candidate, account);
            (var exitCode, said) = await home.RunAsync(["/bin/sh", "-c", "cd \"$0\"", candidate], ShortLimit, cancellationToken);
            if (exitCode == 0)
            {
                if (candidate == elsewhere) PostgresLog.Elsewhere(logger, account.Name, folder, candidate);
                return home;
            }
        }

        throw new EmbeddedPostgresException($"Postgres refuses to run as root, and no other account can reach {folder} or {elsewhere} ({said}). Start this as an ordinary user.");
    }

    /// <summary>The lock that makes its holder the owner of the server; the system releases it when the process dies.</summary>
    public static FileStream? TryLock(string path)
    {
        try
        {
            return new FileStream(path, FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None);
        }
        catch (IOException) when (File.Exists(path))
        {
            return null;
        }
    }

    /// <summary>Makes a folder wholly or not at all; what a killed process left half-made is deleted.</summary>
    public static async Task BuildAsync(string folder, Func<string, Task> build)
    {
        DeleteUnfinished();
        try
        {
            var unfinished = Directory.CreateDirectory($"{folder}.new-{Guid.NewGuid():N}").FullName;
            await build(unfinished);
            Directory.Move(unfinished, folder);
        }
        finally
        {
            DeleteUnfinished();
        }

        void DeleteUnfinished()
        {
            foreach (var unfinished in Directory.EnumerateDirectories(Path.GetDirectoryName(folder)!, Path.GetFileName(folder) + ".new*"))
            {
                try
                {
                    Directory.Delete(unfinished, recursive: true);
                }
                catch (Exception e) when (e is IOException or UnauthorizedAccessException)
                {
                    // A program of the killed process still writes there. The next time will do.
                }
            }
        }
    }

    /// <summary>Gives what we made to the account of the server.</summary>
    public async Task HandOverAsync(string[] paths, CancellationToken cancellationToken)
    {
        if (account is not null) await RunAsync(["chown", "-h", $"{account.UserId}:{account.GroupId}", .. paths], ShortLimit, cancellationToken, asOurselves: true);
    }

    public ProcessStartInfo Command(string[] command, bool asOurselves = false)
    {
        // A session of its own: Ctrl-C in the terminal is for us, and we decide when the server goes.
        string[] session = OperatingSystem.IsLinux() && FindOnPath("setsid") is { } setsid ? [setsid] : [];
        string[] all = [.. session, .. asOurselves ? [] : account?.Prefix ?? [], .. command];
        var info = new ProcessStartInfo(all[0], all[1..])
        {
            WorkingDirectory = Folder,
            CreateNoWindow = true,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        foreach (var name in info.Environment.Keys.Where(name => name.StartsWith("PG", StringComparison.Ordinal)).ToArray())
        {
            info.Environment.Remove(name);
        }

        info.Environment["LC_ALL"] = "C";
        return info;
    }

    public async Task<(int ExitCode, string Output)> RunAsync(
        string[] command, TimeSpan limit, CancellationToken cancellationToken, bool asOurselves = false, string? workingFolder = null, bool readOutput = true)
    {
        var info = Command(command, asOurselves);
        info.WorkingDirectory = workingFolder ?? info.WorkingDirectory;
        using var process = Process.Start(info)!;
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        stop.CancelAfter(limit);
        try
        {
            process.StandardInput.Close();
            Task<string>[] output = readOutput ? [process.StandardOutput.ReadToEndAsync(stop.Token), process.StandardError.ReadToEndAsync(stop.Token)] : [];
            await process.WaitForExitAsync(stop.Token);
            return (process.ExitCode, string.Concat(await Task.WhenAll(output)).Trim());
        }
        catch (OperationCanceledException)
        {
            process.Kill(entireProcessTree: true);
            await process.WaitForExitAsync(CancellationToken.None);
            cancellationToken.ThrowIfCancellationRequested();
            throw new EmbeddedPostgresException($"{string.Join(' ', command)} did not end within {limit.TotalSeconds:0} s.");
        }
    }

    /// <summary>What postmaster.pid says about the server of the data folder; null when there is none or it is half-written.</summary>
    public (int Pid, int Port, bool IsReady)? ReadPidFile() =>
        ReadShared(Path.Combine(DataFolder, "postmaster.pid")).Split('\n') is { Length: > 3 } lines
        && int.TryParse(lines[0], CultureInfo.InvariantCulture, out var pid)
        && int.TryParse(lines[3], CultureInfo.InvariantCulture, out var port)
            ? (pid, port, lines.Length > 7 && lines[7].Trim() == "ready")
            : null;

    /// <summary>Whether the process is a living Postgres: after a crash its number may belong to anything.</summary>
    public static bool IsPostgres(int pid)
    {
        if (OperatingSystem.IsLinux())
        {
            return ReadShared($"/proc/{pid}/stat") is var stat && stat.Contains("(postgres)", StringComparison.Ordinal) && !stat.Contains(") Z", StringComparison.Ordinal);
        }

        try
        {
            using var process = Process.GetProcessById(pid);
            return process.ProcessName == "postgres";
        }
        catch (Exception e) when (e is ArgumentException or InvalidOperationException or Win32Exception)
        {
            return false;
        }
    }

    public string ReadLogTail() =>
        $"The last lines of {LogFile}:{Environment.NewLine}{string.Join(Environment.NewLine, ReadShared(LogFile).TrimEnd().Split('\n').TakeLast(12))}";

    /// <summary>The text of a file that another process may be writing; empty when it is not there.</summary>
    public static string ReadShared(string path)
    {
        try
        {
            using var reader = new StreamReader(new FileStream(path, FileMode.Open, FileAccess.Read, FileShare.ReadWrite | FileShare.Delete));
            return reader.ReadToEnd();
        }
        catch (IOException)
        {
            return "";
        }
    }

    public static string? FindOnPath(string program) =>
        (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator)
            .Concat(OperatingSystem.IsWindows() ? [] : ["/opt/homebrew/bin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"])
            .Where(Path.IsPathRooted)
            .Select(folder => Path.Combine(folder, program))
            .FirstOrDefault(File.Exists);

    private async Task<string> StatAsync(string format, string path, CancellationToken cancellationToken) =>
        (await RunAsync(["stat", "-c", format, path], ShortLimit, cancellationToken, asOurselves: true)).Output;

    internal sealed record Account(string Name, string UserId, string GroupId, string[] Prefix)
    {
        /// <summary>The owner of the data; else the usual account of Postgres, else the one without rights.</summary>
        public static Account Find(string owner)
        {
            var users = File.ReadLines("/etc/passwd").Select(line => line.Split(':')).Where(fields => fields.Length > 3).ToList();
            var user = users.Find(fields => fields[2] == owner && owner != "0")
                ?? users.Find(fields => fields[0] == "postgres")
                ?? users.Find(fields => fields[0] == "nobody")
                ?? throw new EmbeddedPostgresException("Postgres refuses to run as root, and there is no account `postgres` or `nobody`. Start this as an ordinary user.");
            var (name, userId, groupId) = (user[0], user[2], user[3]);
            string[] prefix =
                FindOnPath("setpriv") is { } setpriv ? [setpriv, $"--reuid={userId}", $"--regid={groupId}", "--clear-groups", "--"]
                : FindOnPath("runuser") is { } runuser ? [runuser, "-u", name, "--"]
                : FindOnPath("su") is { } su ? [su, "-m", "-s", "/bin/sh", "-c", "exec \"$@\"", name, "--", "sh"]
                : throw new EmbeddedPostgresException("Postgres refuses to run as root, and setpriv, runuser and su are missing. Install util-linux, or start this as an ordinary user.");
            return new Account(name, userId, groupId, prefix);
        }
    }
}

internal static partial class PostgresLog
{
    [LoggerMessage(Level = LogLevel.Information, Message = "Postgres runs as {Account}, which cannot reach {Folder}; its data is in {Elsewhere}")]
    public static partial void Elsewhere(ILogger logger, string account, string folder, string elsewhere);

    [LoggerMessage(Level = LogLevel.Information, Message = "No Postgres found on this machine; installing {Package} into {Folder}")]
    public static partial void Installing(ILogger logger, string package, string folder);

    [LoggerMessage(Level = LogLevel.Information, Message = "Making a new Postgres {Major} database in {Folder}")]
    public static partial void Initialising(ILogger logger, int major, string folder);

    [LoggerMessage(Level = LogLevel.Information, Message = "Postgres {Version} of {BinFolder} listens on 127.0.0.1:{Port} (started here: {IsOwner})")]
    public static partial void Started(ILogger logger, Version version, string binFolder, int port, bool isOwner);

    [LoggerMessage(Level = LogLevel.Warning, Message = "A Postgres (process {Pid}) was left over on {Folder}; stopping it")]
    public static partial void StoppingLeftover(ILogger logger, int pid, string folder);

    [LoggerMessage(Level = LogLevel.Warning, Message = "Postgres on {Folder} did not stop in time")]
    public static partial void DidNotStop(ILogger logger, string folder);
}
