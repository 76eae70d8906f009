using System.Diagnostics;
using System.Globalization;
using System.Text.Json;
using System.Text.RegularExpressions;

namespace TicketFunctions.Compare;

/// <summary>What wrk says of a load.</summary>
internal sealed record LoadResult(long Requests, long Microseconds, double P50, double P99, double Max, long Statuses, long Broken)
{
    public long Errors => Statuses + Broken;

    public double PerSecond => Requests / (Microseconds / 1e6);
}

/// <summary>What the suites share: the server, the stub, the load, and the cells so far.</summary>
internal sealed partial class Bench(BenchOptions options, BenchPostgres postgres, StubProcess stub, string template) : IAsyncDisposable
{
    private static readonly JsonSerializerOptions Json = new(JsonSerializerDefaults.Web);

    private readonly Dictionary<string, string?> _missing = [];

    public BenchOptions Options => options;

    public BenchPostgres Postgres => postgres;

    public StubProcess Stub => stub;

    /// <summary>The database that cells are copied from.</summary>
    public string Template => template;

    public List<Cell> Cells { get; } = [];

    /// <summary>Contestants that were left out, and why.</summary>
    public SortedDictionary<string, string> LeftOut { get; } = [];

    public static async Task<Bench> StartAsync(BenchOptions options, CancellationToken cancellationToken)
    {
        var postgres = await BenchPostgres.StartAsync(options.Solution, cancellationToken);
        try
        {
            Say($"Filling a database with {options.Tickets} tickets …");
            var template = await postgres.CreateTemplateAsync(options.Tickets, cancellationToken);
            return new Bench(options, postgres, await StubProcess.StartAsync(options, cancellationToken), template);
        }
        catch
        {
            await postgres.DisposeAsync();
            throw;
        }
    }

    /// <summary>Those of a list that were asked for and can run here.</summary>
    public async Task<List<Contestant>> ChooseAsync(IEnumerable<Contestant> all, CancellationToken cancellationToken)
    {
        var chosen = new List<Contestant>();
        foreach (var contestant in all.Where(contestant => options.Includes(contestant.Name)))
        {
            // A drain may need what its name's server does not.
            var key = contestant.Is;
            if (!_missing.TryGetValue(key, out var missing))
            {
                _missing[key] = missing = await contestant.FindMissing(cancellationToken);
                if (missing is not null)
                {
                    LeaveOut(contestant.Name, missing);
                }
            }

            if (missing is null)
            {
                chosen.Add(contestant);
            }
        }

        return chosen;
    }

    /// <summary>Sends tickets to a contestant, closed loop: each client sends its next one when the last is answered.</summary>
    /// <param name="url">Where to.</param>
    /// <param name="clients">Connections.</param>
    /// <param name="seconds">How long.</param>
    /// <param name="first">The number of the first ticket.</param>
    /// <param name="copies">How often each is sent.</param>
    /// <param name="block">After how many others it is sent again.</param>
    /// <param name="cancellationToken">Stops it.</param>
    public async Task<LoadResult> LoadAsync(string url, int clients, int seconds, long first, int copies, int block, CancellationToken cancellationToken)
    {
        var output = await WrkAsync(clients, seconds, "tickets", url, [$"{first}", $"{copies}", $"{block}", options.IdsOnly ? "true" : "false"], cancellationToken);
        var line = output.Split('\n').FirstOrDefault(line => line.StartsWith("JSON ", StringComparison.Ordinal)) ?? throw new BenchException($"wrk said nothing of what it measured: {output}");
        return JsonSerializer.Deserialize<LoadResult>(line["JSON ".Length..], Json)!;
    }

    public async Task<Canary> MeasureCanaryAsync(CancellationToken cancellationToken)
    {
        await stub.SetAsync(TimeSpan.Zero, cancellationToken);
        var output = await WrkAsync(32, 1, "canary", $"{stub.Endpoint}/chat/completions", [], cancellationToken);
        return new Canary(double.Parse(RequestsPerSecond().Match(output).Groups[1].Value, CultureInfo.InvariantCulture), Canary.MeasureSync(postgres.DataFolder));
    }

    /// <summary>Waits until what the load left behind is through, and counts.</summary>
    public async Task<(long Rows, StubLedger Ledger)> SettleAsync(string database, CancellationToken cancellationToken)
    {
        using var timer = new PeriodicTimer(TimeSpan.FromMilliseconds(200));
        var waited = Stopwatch.StartNew();
        var rows = -1L;
        for (var unchanged = 0; unchanged < 4 && waited.Elapsed < TimeSpan.FromSeconds(30); unchanged++)
        {
            var now = await postgres.CountProcessedAsync(database, cancellationToken);
            if (now != rows)
            {
                rows = now;
                unchanged = 0;
            }

            await timer.WaitForNextTickAsync(cancellationToken);
        }

        return (rows, await stub.ReadAsync(cancellationToken));
    }

    /// <summary>Runs one cell. What fails is recorded, and the run goes on.</summary>
    public async Task MeasureAsync(string what, Cell blank, Func<Cell, Task<Cell>> measure, CancellationToken cancellationToken)
    {
        Cell cell;
        try
        {
            cell = await measure(blank);
        }
        catch (Exception e) when (e is not OperationCanceledException || !cancellationToken.IsCancellationRequested)
        {
            cell = blank with { Invalid = e is BenchException ? e.Message : $"{e.GetType().Name}: {e.Message}" };
        }

        Cells.Add(cell);
        Say($"{what}: {Report.Describe(cell)}");
    }

    /// <summary>Works on a fresh copy of a database, and drops it.</summary>
    public async Task<Cell> OnCopyAsync(string template, Func<string, Task<Cell>> work, CancellationToken cancellationToken)
    {
        var database = await postgres.CopyAsync(template, cancellationToken);
        try
        {
            return await work(database);
        }
        finally
        {
            await postgres.DropAsync(database, CancellationToken.None);
        }
    }

    public void LeaveOut(string name, string why)
    {
        LeftOut[name] = why;
        Say($"{name} is left out: {why}.");
    }

    public static void Say(string text) => Console.Error.WriteLine($"{DateTime.Now:HH:mm:ss} {text}");

    public async ValueTask DisposeAsync()
    {
        await stub.DisposeAsync();
        await postgres.DisposeAsync();
    }

    private Task<string> WrkAsync(int clients, int seconds, string script, string url, string[] words, CancellationToken cancellationToken) => Child.RunAsync(
        new Launch(["wrk", "-t1", $"-c{clients}", $"-d{seconds}s", "--timeout", "30s", "-s", Path.Combine(AppContext.BaseDirectory, "Load", $"{script}.lua"), url, "--", .. words]),
        options.Log("wrk"), TimeSpan.FromSeconds(seconds + 60), cancellationToken);

    [GeneratedRegex(@"Requests/sec:\s+([\d.]+)")]
    private static partial Regex RequestsPerSecond();
}
