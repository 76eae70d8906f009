using System.Diagnostics;
using System.Text;

namespace TicketFunctions.Tests.Commands;

/// <summary>How a command ended, and what it printed.</summary>
public sealed record CommandResult(int ExitCode, string Output, string Error)
{
    public string[] Lines => Output.Split('\n', StringSplitOptions.RemoveEmptyEntries);
}

/// <summary>The built product, run as a process: in a folder of its own, and with no settings but those a test gives it.</summary>
public sealed class Product : IDisposable
{
    private static readonly string[] Settings =
    [
        "ASPNETCORE_", "DOTNET_ENVIRONMENT", "DOTNET_HTTP_PORTS", "DOTNET_URLS",
        "ConnectionStrings__", "EmbeddedPostgres__", "Keys__", "Model__", "Storage__", "SUPABASE_", "Sweep", "Taxonomy__", "Triage__", "Webhooks__",
        "AZURE_", "HF_", "HUGGINGFACEHUB_", "IDENTITY_", "OLLAMA_", "OPENAI_", "OTEL_",
    ];

    private readonly (string Name, string Value)[] _settings;

    public Product(params (string Name, string Value)[] settings)
    {
        _settings = settings;
        Folder = Directory.CreateTempSubdirectory("ticketfunctions-").FullName;
    }

    /// <summary>The current folder of the process.</summary>
    public string Folder { get; }

    /// <summary>Where the program is.</summary>
    public string ProgramFolder { get; init; } = AppContext.BaseDirectory;

    /// <summary>Runs a command to its end, with nothing on standard input.</summary>
    public Task<CommandResult> RunAsync(params string[] arguments) => RunAsync("", [], arguments);

    /// <summary>Runs a command to its end.</summary>
    public async Task<CommandResult> RunAsync(string input, (string Name, string Value)[] settings, params string[] arguments)
    {
        await using var process = Start(arguments, settings);
        await process.Input.WriteAsync(input);
        process.Input.Close();
        var exitCode = await process.WaitForExitAsync();
        return new CommandResult(exitCode, process.Output, process.Error);
    }

    public ProductProcess Start(string[] arguments, params (string Name, string Value)[] settings) => Start(arguments, pipeInto: null, settings);

    /// <param name="arguments">The command.</param>
    /// <param name="pipeInto">A shell command that reads what the product prints, or null.</param>
    /// <param name="settings">More settings.</param>
    public ProductProcess Start(string[] arguments, string? pipeInto, (string Name, string Value)[] settings)
    {
        string[] command = ["dotnet", Path.Combine(ProgramFolder, "TicketFunctions.dll"), .. arguments];
        if (OperatingSystem.IsLinux())
        {
            // Whoever runs the tests in the background may have SIGINT ignored, and children inherit that.
            command = ["env", "--default-signal=INT", .. command];
        }

        if (pipeInto is not null)
        {
            command = ["sh", "-c", $"\"$@\" | {pipeInto}", "sh", .. command];
        }

        var start = new ProcessStartInfo(command[0], command[1..])
        {
            WorkingDirectory = Folder,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            StandardInputEncoding = new UTF8Encoding(encoderShouldEmitUTF8Identifier: false),
            StandardOutputEncoding = Encoding.UTF8,
            StandardErrorEncoding = Encoding.UTF8,
        };
        foreach (var name in start.Environment.Keys.Where(name => Settings.Any(prefix => name.StartsWith(prefix, StringComparison.OrdinalIgnoreCase))).ToList())
        {
            start.Environment.Remove(name);
        }

        foreach (var (name, value) in _settings.Concat(settings))
        {
            start.Environment[name] = value;
        }

        return new ProductProcess(Process.Start(start)!);
    }

    public void Dispose() => Directory.Delete(Folder, recursive: true);
}

/// <summary>The product while it runs. It is killed when the test ends.</summary>
public sealed class ProductProcess : IAsyncDisposable
{
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(90);

    private readonly Process _process;
    private readonly StringBuilder _output = new();
    private readonly StringBuilder _error = new();
    private readonly List<(string Text, TaskCompletionSource<string> Found)> _awaited = [];
    private readonly Task _read;

    internal ProductProcess(Process process)
    {
        _process = process;
        _read = Task.WhenAll(ReadAsync(process.StandardOutput, _output), ReadAsync(process.StandardError, _error));
    }

    public StreamWriter Input => _process.StandardInput;

    public string Output => Read(_output);

    public string Error => Read(_error);

    /// <summary>The first line that holds this text, on either stream, as soon as it is there.</summary>
    public async Task<string> ReadLineWithAsync(string text)
    {
        var found = new TaskCompletionSource<string>(TaskCreationOptions.RunContinuationsAsynchronously);
        lock (_awaited)
        {
            _awaited.Add((text, found));
        }

        Match();
        var first = await Task.WhenAny(found.Task, _read).WaitAsync(Patience);
        Assert.True(first == found.Task || found.Task.IsCompleted, $"The product ended without saying '{text}'. It said: {Output}{Error}");
        return await found.Task;
    }

    /// <summary>A client for the address that <c>serve</c> says it listens on.</summary>
    public async Task<HttpClient> ConnectAsync()
    {
        var line = await ReadLineWithAsync("Listening");
        return new HttpClient { BaseAddress = new Uri(line["Listening".Length..].Trim()), Timeout = Patience };
    }

    /// <param name="signal">A name that <c>kill</c> knows: INT, TERM, KILL.</param>
    public async Task SignalAsync(string signal)
    {
        using var kill = Process.Start("kill", [$"-{signal}", $"{_process.Id}"]);
        await kill.WaitForExitAsync();
        Assert.Equal(0, kill.ExitCode);
    }

    public async Task<int> WaitForExitAsync()
    {
        await _process.WaitForExitAsync().WaitAsync(Patience);
        await _read.WaitAsync(Patience);
        return _process.ExitCode;
    }

    public async ValueTask DisposeAsync()
    {
        if (!_process.HasExited)
        {
            _process.Kill();
            await _process.WaitForExitAsync();
        }

        _process.Dispose();
    }

    private async Task ReadAsync(StreamReader from, StringBuilder into)
    {
        while (await from.ReadLineAsync() is { } line)
        {
            lock (into)
            {
                into.Append(line).Append('\n');
            }

            Match();
        }
    }

    private void Match()
    {
        lock (_awaited)
        {
            foreach (var (text, found) in _awaited)
            {
                if ($"{Output}{Error}".Split('\n').FirstOrDefault(line => line.Contains(text, StringComparison.Ordinal)) is { } line)
                {
                    found.TrySetResult(line);
                }
            }
        }
    }

    private static string Read(StringBuilder text)
    {
        lock (text)
        {
            return text.ToString();
        }
    }
}
