using System.ComponentModel;
using System.Diagnostics;
using Npgsql;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.SupabaseCli;

/// <summary>A test that needs the Supabase CLI: where it cannot be installed it is skipped, and in CI it fails.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class SupabaseCliFactAttribute : FactAttribute
{
    public SupabaseCliFactAttribute()
    {
        if (Environment.GetEnvironmentVariable("CI") != "true")
        {
            Skip = SupabaseCli.Problem;
        }
    }
}

/// <summary>The real Supabase CLI, installed by npm from the package.json and lock file beside this file into a folder that git ignores.</summary>
public static class SupabaseCli
{
    private static readonly string Folder = Path.Combine(TestPostgres.SolutionFolder, ".tools", "supabase-cli");
    private static readonly string Script = Path.Combine(Folder, "node_modules", "supabase", "dist", "supabase.js");
    private static readonly Lazy<string?> Installation = new(Install);

    /// <summary>Why there is no CLI, or null.</summary>
    public static string? Problem => Installation.Value;

    /// <summary>Runs <c>supabase db push</c> of one folder (which holds <c>supabase/</c>) on a database, and returns what it printed.</summary>
    public static string Push(string workFolder, string connectionString)
    {
        Assert.True(Problem is null, Problem);
        var database = new NpgsqlConnectionStringBuilder(connectionString);
        var uri = new UriBuilder("postgresql", database.Host!, database.Port, database.Database)
        {
            UserName = Uri.EscapeDataString(database.Username!),
            Password = Uri.EscapeDataString(database.Password ?? ""),
        };
        var (exitCode, output) = Run(["node", Script, "db", "push", "--workdir", workFolder, $"--remote={uri.Uri.AbsoluteUri}", "--yes"], workFolder);
        Assert.True(exitCode == 0, $"supabase db push ended with {exitCode}: {output}");
        return output;
    }

    private static string? Install()
    {
        var source = Path.Combine(TestPostgres.SolutionFolder, "TicketFunctions.Tests", "SupabaseCli");
        string[] files = ["package.json", "package-lock.json"];
        var unfinished = $"{Folder}.new-{Guid.NewGuid():N}";
        try
        {
            var wanted = Path.Combine(source, files[0]);
            if (File.Exists(Script) && File.ReadAllText(Path.Combine(Folder, files[0])) == File.ReadAllText(wanted))
            {
                return null;
            }

            Directory.CreateDirectory(unfinished);
            foreach (var file in files)
            {
                File.Copy(Path.Combine(source, file), Path.Combine(unfinished, file));
            }

            // Not `npm ci`: the CLI's programs are an optional package for each platform, and a feed need not carry them all.
            var (exitCode, output) = Run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], unfinished);
            if (exitCode != 0)
            {
                return $"npm could not install the Supabase CLI: {output}";
            }

            if (Directory.Exists(Folder))
            {
                Directory.Delete(Folder, recursive: true);
            }

            Directory.Move(unfinished, Folder);
            (exitCode, output) = Run(["node", Script, "--version"], Folder);
            return exitCode == 0 ? null : $"The Supabase CLI does not run here: {output}";
        }
        catch (Exception e) when (e is Win32Exception or IOException or UnauthorizedAccessException)
        {
            return $"The Supabase CLI could not be installed: {e.Message}";
        }
        finally
        {
            if (Directory.Exists(unfinished))
            {
                Directory.Delete(unfinished, recursive: true);
            }
        }
    }

    private static (int ExitCode, string Output) Run(string[] command, string folder)
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
                ["SUPABASE_TELEMETRY_DISABLED"] = "1",
                ["DO_NOT_TRACK"] = "1",
                ["SUPABASE_NO_UPDATE_NOTIFIER"] = "1",
                ["SUPABASE_NO_KEYRING"] = "1",
                ["SUPABASE_HOME"] = Path.Combine(folder, ".home"),
            },
        };
        start.Environment.Remove("SUPABASE_ACCESS_TOKEN");
        start.Environment.Remove("SUPABASE_DB_PASSWORD");
        using var process = Process.Start(start)!;
        process.StandardInput.Close();
        var error = process.StandardError.ReadToEndAsync();
        var output = process.StandardOutput.ReadToEnd();
        if (!process.WaitForExit(TimeSpan.FromMinutes(3)))
        {
            process.Kill(entireProcessTree: true);
            return (-1, "It did not end within 3 minutes.");
        }

        return (process.ExitCode, $"{output}{error.Result}".Trim());
    }
}
