using System.Globalization;
using System.Net.Http.Json;

namespace TicketFunctions.Compare;

/// <summary>What the stub has counted since it was reset.</summary>
/// <param name="Calls">Chat completions asked for.</param>
/// <param name="Faulty">Those of them that failed on purpose.</param>
/// <param name="Bad">Requests that were none.</param>
/// <param name="Milliseconds">From the first call to the last answer.</param>
/// <param name="BySecond">Calls by the second since the first.</param>
internal sealed record StubLedger(long Calls, long Faulty, long Bad, double Milliseconds, int[] BySecond);

/// <summary>The model stub in a process of its own.</summary>
internal sealed class StubProcess : IAsyncDisposable
{
    private readonly Child _child;
    private readonly HttpClient _http;
    private readonly string _behaviour;

    private StubProcess(Child child, int port, string behaviour)
    {
        _child = child;
        _http = new HttpClient { BaseAddress = new Uri($"http://127.0.0.1:{port}") };
        _behaviour = behaviour;
    }

    public int Pid => _child.Pid;

    /// <summary>As the settings of a model want it.</summary>
    public string Endpoint => $"{_http.BaseAddress}v1";

    public static async Task<StubProcess> StartAsync(BenchOptions options, CancellationToken cancellationToken)
    {
        var port = Machine.FindFreePort();
        var child = Child.Start(new Launch([.. Ourselves(), "stub", "--port", $"{port}"]), options.Log("stub"));
        var stub = new StubProcess(child, port, $"dialect={options.Dialect}&faults={Uri.EscapeDataString(options.Faults)}&seed={options.Seed}");
        try
        {
            await Contestants.ListenAsync(child, port, cancellationToken);
            await stub.SetAsync(TimeSpan.Zero, cancellationToken);
            return stub;
        }
        catch
        {
            await stub.DisposeAsync();
            throw;
        }
    }

    /// <summary>Sets the latency and forgets what was counted.</summary>
    public async Task SetAsync(TimeSpan latency, CancellationToken cancellationToken)
    {
        using var set = await _http.GetAsync(
            string.Create(CultureInfo.InvariantCulture, $"/admin/set?latency={latency.TotalMilliseconds}&{_behaviour}"), cancellationToken);
        set.EnsureSuccessStatusCode();
        using var reset = await _http.GetAsync("/admin/reset", cancellationToken);
        reset.EnsureSuccessStatusCode();
    }

    public async Task<StubLedger> ReadAsync(CancellationToken cancellationToken) =>
        (await _http.GetFromJsonAsync<StubLedger>("/admin/ledger", cancellationToken))!;

    public async ValueTask DisposeAsync()
    {
        _http.Dispose();
        await _child.DisposeAsync();
    }

    /// <summary>How this program was started: by its own executable or by `dotnet`.</summary>
    private static string[] Ourselves() => Path.GetFileNameWithoutExtension(Environment.ProcessPath) == "dotnet"
        ? [Environment.ProcessPath!, typeof(StubProcess).Assembly.Location]
        : [Environment.ProcessPath!];
}
