using System.Collections.Concurrent;
using System.Diagnostics;

namespace TicketFunctions.Tests.Faults;

/// <summary>A server that ends with the test's process, also when that is killed, and never runs as root.</summary>
public sealed class WatchedProcess : IAsyncDisposable
{
    /// <summary>Standard input ends when we let go of it or die.</summary>
    private const string Watchdog =
        """
        signal=$1
        shift
        exec 3<&0 </dev/null
        "$@" 3<&- &
        server=$!
        { read -r _ <&3; kill -$signal $server; } 2>/dev/null &
        exec 3<&-
        wait $server
        status=$?
        kill $! 2>/dev/null
        exit $status
        """;

    private static readonly Lazy<(string Path, Process Keeper)> TestsFolder = new(CreateFolder);

    private readonly Process _process;
    private readonly ConcurrentQueue<string> _output = new();
    private bool _isDisposed;

    private WatchedProcess(Process process) => _process = process;

    /// <summary>For the servers' files; any account can reach it, and it goes with the test's process.</summary>
    public static string Folder => TestsFolder.Value.Path;

    /// <summary>What it printed.</summary>
    public string Output => string.Join('\n', _output);

    public bool HasExited => _process.HasExited;

    /// <param name="account">User and group by number, to be taken when we are root.</param>
    /// <param name="signal">What ends it: TERM, QUIT.</param>
    /// <param name="command">The program and its arguments.</param>
    public static WatchedProcess Start((int User, int Group) account, string signal, params string[] command)
    {
        string[] all = [.. As(account), "/bin/sh", "-c", Watchdog, "watchdog", signal, .. command];
        var process = new Process
        {
            StartInfo = new ProcessStartInfo(all[0], all[1..])
            {
                WorkingDirectory = "/",
                RedirectStandardInput = true,
                RedirectStandardOutput = true,
                RedirectStandardError = true,
            },
        };
        var watched = new WatchedProcess(process);
        process.OutputDataReceived += (_, line) => watched.Read(line.Data);
        process.ErrorDataReceived += (_, line) => watched.Read(line.Data);
        process.Start();
        process.BeginOutputReadLine();
        process.BeginErrorReadLine();
        return watched;
    }

    /// <summary>Runs a command to its end.</summary>
    public static async Task RunAsync((int User, int Group) account, params string[] command)
    {
        string[] all = [.. As(account), .. command];
        using var process = Process.Start(new ProcessStartInfo(all[0], all[1..]) { WorkingDirectory = "/" })!;
        await process.WaitForExitAsync();
        Assert.True(process.ExitCode == 0, $"{command[0]} ended with {process.ExitCode}.");
    }

    /// <summary>Sends the signal and waits for the end.</summary>
    public async ValueTask DisposeAsync()
    {
        if (_isDisposed)
        {
            return;
        }

        _isDisposed = true;
        _process.StandardInput.Close();
        await _process.WaitForExitAsync().WaitAsync(TimeSpan.FromSeconds(30));
        _process.Dispose();
    }

    /// <summary>The test platform ends its process before handlers of the exit could delete much, so a process of its own does.</summary>
    private static (string Path, Process Keeper) CreateFolder()
    {
        var folder = Directory.CreateTempSubdirectory("ticketfunctions-faults-").FullName;
        if (!OperatingSystem.IsWindows())
        {
            File.SetUnixFileMode(folder, File.GetUnixFileMode(folder) | UnixFileMode.OtherRead | UnixFileMode.OtherExecute);
        }

        var keeper = Process.Start(new ProcessStartInfo("/bin/sh", ["-c", "trap '' INT HUP TERM; read -r _; until rm -rf \"$1\"; do sleep 1; done", "sh", folder])
        {
            WorkingDirectory = "/",
            RedirectStandardInput = true,
            RedirectStandardError = true,
        })!;
        return (folder, keeper);
    }

    private static string[] As((int User, int Group) account) => Environment.IsPrivilegedProcess && account.User != 0
        ? ["setpriv", $"--reuid={account.User}", $"--regid={account.Group}", "--clear-groups", "--"]
        : [];

    private void Read(string? line)
    {
        if (line is not null)
        {
            _output.Enqueue(line);
        }
    }
}
