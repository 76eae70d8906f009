using System.Collections.Concurrent;
using System.Diagnostics;
using System.Net;
using System.Net.Http.Json;
using System.Text.Json.Nodes;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Faults;

/// <summary>The built product as a process of its own, over a test's database and model stub. It is killed when the test ends.</summary>
public sealed class WorkerProcess : IAsyncDisposable
{
    private readonly Process _process;
    private readonly ConcurrentQueue<string> _output = new();
    private readonly TaskCompletionSource<string> _address = new(TaskCreationOptions.RunContinuationsAsynchronously);

    private bool _isStarted;

    private WorkerProcess(string database, ModelStub model, string name, IEnumerable<(string Name, string Value)> settings)
    {
        var start = new ProcessStartInfo("dotnet", [Path.Combine(AppContext.BaseDirectory, "TicketFunctions.dll"), "serve"])
        {
            RedirectStandardError = true,
            RedirectStandardOutput = true,
            WorkingDirectory = AppContext.BaseDirectory,
            Environment =
            {
                ["ASPNETCORE_URLS"] = "http://127.0.0.1:0",
                ["ConnectionStrings__Tickets"] = $"{database};Application Name={name}",
                ["Model__Endpoint"] = model.Endpoint,
                ["Model__Name"] = "stub-model",
                ["Model__ApiKey"] = "stub-key",
                ["SweepSchedule"] = "* * * * * *",
            },
        };
        foreach (var (setting, value) in settings)
        {
            start.Environment[setting] = value;
        }

        _process = new Process { StartInfo = start };
        _process.OutputDataReceived += (_, line) => Read(line.Data);
        _process.ErrorDataReceived += (_, line) => Read(line.Data);
    }

    public HttpClient Http { get; } = new() { Timeout = TimeSpan.FromSeconds(30) };

    /// <summary>Everything it printed, its log included.</summary>
    public string Output => string.Join('\n', _output);

    /// <summary>Starts a worker that sweeps every second and waits until it serves.</summary>
    public static Task<WorkerProcess> StartAsync(TicketApp app, string name, params (string Name, string Value)[] settings) =>
        StartAsync(app.ConnectionString, app.Model, name, settings);

    /// <param name="database">The connection string.</param>
    /// <param name="model">Who answers.</param>
    /// <param name="name">Its sessions' application name.</param>
    /// <param name="settings">Settings by their environment names, over the defaults.</param>
    /// <inheritdoc cref="StartAsync(TicketApp, string, ValueTuple{string, string}[])"/>
    public static async Task<WorkerProcess> StartAsync(string database, ModelStub model, string name, params (string Name, string Value)[] settings)
    {
        var worker = new WorkerProcess(database, model, name, settings);
        try
        {
            worker._isStarted = worker._process.Start();
            worker._process.BeginOutputReadLine();
            worker._process.BeginErrorReadLine();
            var address = worker._address.Task.WaitAsync(TimeSpan.FromSeconds(60));
            if (await Task.WhenAny(address, worker._process.WaitForExitAsync()) != address)
            {
                Assert.Fail($"The worker ended with {worker._process.ExitCode}: {worker.Output}");
            }

            worker.Http.BaseAddress = new Uri(await address);
            return worker;
        }
        catch
        {
            await worker.DisposeAsync();
            throw;
        }
    }

    /// <summary>Asks for a ticket, or sends the webhook of its insert.</summary>
    /// <returns>The status; null when the worker is gone.</returns>
    public async Task<HttpStatusCode?> PostAsync(Guid id, bool isWebhook = false, bool isAsync = false)
    {
        var body = new JsonObject { ["id"] = id.ToString() };
        if (isWebhook)
        {
            body = new JsonObject { ["type"] = "INSERT", ["schema"] = "public", ["table"] = "tickets", ["record"] = body, ["old_record"] = null };
        }

        try
        {
            using var request = new HttpRequestMessage(HttpMethod.Post, "/process-ticket") { Content = JsonContent.Create(body) };
            if (isAsync)
            {
                request.Headers.Add("Prefer", "respond-async");
            }

            using var response = await Http.SendAsync(request);
            return response.StatusCode;
        }
        catch (Exception e) when (e is HttpRequestException or IOException or ObjectDisposedException or OperationCanceledException)
        {
            return null;
        }
    }

    /// <summary>SIGKILL: nothing in the process gets to know of it.</summary>
    public async Task KillAsync()
    {
        _process.Kill();
        await _process.WaitForExitAsync();
    }

    /// <summary>SIGTERM, as a container's host sends it.</summary>
    public async Task TerminateAsync()
    {
        using var kill = Process.Start("kill", ["-TERM", $"{_process.Id}"]);
        await kill.WaitForExitAsync();
        Assert.Equal(0, kill.ExitCode);
    }

    /// <returns>The exit code; fails when the process has not ended within the limit.</returns>
    public async Task<int> WaitForExitAsync(TimeSpan limit)
    {
        await _process.WaitForExitAsync().WaitAsync(limit);
        return _process.ExitCode;
    }

    public async ValueTask DisposeAsync()
    {
        if (_isStarted)
        {
            await KillAsync();
        }

        _process.Dispose();
        Http.Dispose();
    }

    private void Read(string? line)
    {
        if (line is null)
        {
            return;
        }

        _output.Enqueue(line);
        if (line.StartsWith("Listening", StringComparison.Ordinal))
        {
            _address.TrySetResult(line["Listening".Length..].Trim());
        }
    }
}
