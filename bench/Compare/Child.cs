using System.Diagnostics;
using System.Runtime.InteropServices;

namespace TicketFunctions.Compare;

/// <summary>What to start: the program with its words, and what it adds to the environment.</summary>
internal sealed record Launch(string[] Command, string? Folder = null, params (string Name, string Value)[] Environment);

/// <summary>A process of a run. It writes to a file of its own, and is ended with everything it started.</summary>
internal sealed partial class Child : IAsyncDisposable
{
    private static readonly TimeSpan StopLimit = TimeSpan.FromSeconds(5);
    private static readonly HashSet<Child> Living = [];

    private readonly Process _process;
    private readonly string _log;

    private Child(Process process, string log)
    {
        _process = process;
        _log = log;
    }

    public int Pid => _process.Id;

    public bool HasExited => _process.HasExited;

    public int ExitCode => _process.ExitCode;

    public string Output => File.Exists(_log) ? File.ReadAllText(_log) : "";

    /// <summary>Whatever becomes of the run, nothing it started outlives it.</summary>
    static Child() => AppDomain.CurrentDomain.ProcessExit += (_, _) =>
    {
        lock (Living)
        {
            foreach (var child in Living)
            {
                child.Kill();
            }
        }
    };

    public static Child Start(Launch launch, string log)
    {
        // The shell only redirects and becomes the program: its output costs us nothing.
        var start = new ProcessStartInfo("/bin/sh", ["-c", "log=$1; shift; exec \"$@\" >\"$log\" 2>&1 </dev/null", "sh", log, .. launch.Command])
        {
            WorkingDirectory = launch.Folder ?? Path.GetDirectoryName(log)!,
        };
        foreach (var (name, value) in launch.Environment)
        {
            start.Environment[name] = value;
        }

        var child = new Child(Process.Start(start)!, log);
        lock (Living)
        {
            Living.Add(child);
        }

        return child;
    }

    /// <summary>Runs a program to its end.</summary>
    /// <returns>What it printed.</returns>
    /// <exception cref="BenchException">It failed, or took longer than the limit.</exception>
    public static async Task<string> RunAsync(Launch launch, string log, TimeSpan limit, CancellationToken cancellationToken)
    {
        await using var child = Start(launch, log);
        await child.WaitAsync(limit, cancellationToken);
        return child.ExitCode == 0 ? child.Output : throw child.Failed($"{Path.GetFileName(launch.Command[0])} ended with {child.ExitCode}");
    }

    public async Task WaitAsync(TimeSpan limit, CancellationToken cancellationToken)
    {
        using var stop = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        stop.CancelAfter(limit);
        try
        {
            await _process.WaitForExitAsync(stop.Token);
        }
        catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
        {
            throw Failed($"it did not end within {limit.TotalSeconds:0} s");
        }
    }

    public BenchException Failed(string what)
    {
        var tail = Output.TrimEnd().Split('\n').TakeLast(8);
        return new BenchException($"{what}. The end of {_log}:{Environment.NewLine}{string.Join(Environment.NewLine, tail)}");
    }

    public async ValueTask DisposeAsync()
    {
        if (!_process.HasExited)
        {
            _ = kill(Pid, 15);
            using var limit = new CancellationTokenSource(StopLimit);
            try
            {
                await _process.WaitForExitAsync(limit.Token);
            }
            catch (OperationCanceledException)
            {
                Kill();
                await _process.WaitForExitAsync(CancellationToken.None);
            }
        }

        lock (Living)
        {
            Living.Remove(this);
        }

        _process.Dispose();
    }

    private void Kill()
    {
        try
        {
            _process.Kill(entireProcessTree: true);
        }
        catch (Exception e) when (e is InvalidOperationException or System.ComponentModel.Win32Exception)
        {
            // It has ended by itself.
        }
    }

    [LibraryImport("libc")]
    private static partial int kill(int pid, int signal);
}

/// <summary>Says what could not be measured and why, in a sentence or two.</summary>
internal class BenchException(string message) : Exception(message);

/// <summary>Says what is wrong with what was asked for.</summary>
internal sealed class UsageException(string message) : BenchException(message);
