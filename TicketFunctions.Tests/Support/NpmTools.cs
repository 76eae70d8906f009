using System.ComponentModel;
using System.Diagnostics;
using System.Text;

namespace TicketFunctions.Tests.Support;

/// <summary>A test that needs programs of npm: where they cannot be installed it is skipped, and in CI it fails.</summary>
[AttributeUsage(AttributeTargets.Method)]
public abstract class NpmFactAttribute : FactAttribute
{
    protected NpmFactAttribute(NpmTools tools)
    {
        if (Environment.GetEnvironmentVariable("CI") != "true")
        {
            Skip = tools.Problem;
        }
    }
}

/// <summary>Programs that npm installs from a package.json and its lock file into a folder that git ignores.</summary>
public sealed class NpmTools
{
    private static readonly string[] Files = ["package.json", "package-lock.json"];

    private readonly string _source;
    private readonly string _folder;
    private readonly string _check;
    private readonly Lazy<string?> _installation;

    /// <param name="source">The folder of the test project that holds both files.</param>
    /// <param name="name">The name of the folder they are installed into.</param>
    /// <param name="check">A script that runs with <c>--version</c> where the installation is good.</param>
    public NpmTools(string source, string name, string check)
    {
        _source = Path.Combine(TestPostgres.SolutionFolder, "TicketFunctions.Tests", source);
        _folder = Path.Combine(TestPostgres.SolutionFolder, ".tools", name);
        _check = check;
        _installation = new Lazy<string?>(Install);
    }

    /// <summary>Why there are none, or null.</summary>
    public string? Problem => _installation.Value;

    /// <summary>Runs a script of one of the packages.</summary>
    /// <param name="script">Its path below node_modules.</param>
    /// <param name="arguments">What follows.</param>
    /// <param name="folder">The working folder; null for the one of the installation.</param>
    /// <param name="input">What it reads.</param>
    public (int ExitCode, string Output) Run(string script, string[] arguments, string? folder = null, string? input = null)
    {
        Assert.True(Problem is null, Problem);
        return Start(["node", PathOf(script), .. arguments], folder ?? _folder, input);
    }

    private string PathOf(string script) => Path.IsPathRooted(script) ? script : Path.Combine(_folder, "node_modules", script);

    private string? Install()
    {
        var unfinished = $"{_folder}.new-{Guid.NewGuid():N}";
        try
        {
            var wanted = Path.Combine(_source, Files[0]);
            if (File.Exists(PathOf(_check)) && File.ReadAllText(Path.Combine(_folder, Files[0])) == File.ReadAllText(wanted))
            {
                return null;
            }

            Directory.CreateDirectory(unfinished);
            foreach (var file in Files)
            {
                File.Copy(Path.Combine(_source, file), Path.Combine(unfinished, file));
            }

            // Not `npm ci`: some packages have a program for each platform as an optional package, and a feed need not carry them all.
            var (exitCode, output) = Start(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], unfinished, null);
            if (exitCode != 0)
            {
                return $"npm could not install {wanted}: {output}";
            }

            if (Directory.Exists(_folder))
            {
                Directory.Delete(_folder, recursive: true);
            }

            Directory.Move(unfinished, _folder);
            (exitCode, output) = Start(["node", PathOf(_check), "--version"], _folder, null);
            return exitCode == 0 ? null : $"{_check} does not run here: {output}";
        }
        catch (Exception e) when (e is Win32Exception or IOException or UnauthorizedAccessException)
        {
            return $"{_source} could not be installed: {e.Message}";
        }
        finally
        {
            if (Directory.Exists(unfinished))
            {
                Directory.Delete(unfinished, recursive: true);
            }
        }
    }

    private static (int ExitCode, string Output) Start(string[] command, string folder, string? input)
    {
        string[] all = OperatingSystem.IsWindows() ? ["cmd.exe", "/d", "/c", .. command] : command;
        var start = new ProcessStartInfo(all[0], all[1..])
        {
            WorkingDirectory = folder,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            Environment =
            {
                // Nothing but the database is called, and nothing is written outside of the folder.
                ["DO_NOT_TRACK"] = "1",
                ["SUPABASE_TELEMETRY_DISABLED"] = "1",
                ["SUPABASE_NO_UPDATE_NOTIFIER"] = "1",
                ["SUPABASE_NO_KEYRING"] = "1",
                ["SUPABASE_HOME"] = Path.Combine(folder, ".home"),
                ["REDOCLY_TELEMETRY"] = "off",
                ["REDOCLY_SUPPRESS_UPDATE_NOTICE"] = "true",
            },
        };
        start.Environment.Remove("SUPABASE_ACCESS_TOKEN");
        start.Environment.Remove("SUPABASE_DB_PASSWORD");
        using var process = Process.Start(start)!;
        var error = new StringBuilder();
        process.ErrorDataReceived += (_, line) => error.AppendLine(line.Data);
        process.BeginErrorReadLine();
        process.StandardInput.Write(input);
        process.StandardInput.Close();
        var output = process.StandardOutput.ReadToEnd();
        if (!process.WaitForExit(TimeSpan.FromMinutes(3)))
        {
            process.Kill(entireProcessTree: true);
            return (-1, "It did not end within 3 minutes.");
        }

        // Until its last error line is here, too.
        process.WaitForExit();
        return (process.ExitCode, $"{output}{error}".Trim());
    }
}
