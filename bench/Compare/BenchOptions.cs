namespace TicketFunctions.Compare;

/// <summary>What a run measures, how long, and where it writes.</summary>
internal sealed record BenchOptions
{
    /// <summary>The tickets of each client in a cell with a slow model.</summary>
    private const int Turns = 150;

    public static readonly string[] AllSuites = ["http", "sweep", "start", "duplicates", "database", "scale"];

    /// <summary>As it was typed.</summary>
    public required string CommandLine { get; init; }

    /// <summary>The folder of the solution.</summary>
    public required string Solution { get; init; }

    /// <summary>The report, and the logs of everything that was started.</summary>
    public required string Output { get; init; }

    public required IReadOnlyList<string> Suites { get; init; }

    public required int Rounds { get; init; }

    /// <summary>The length of a cell under load, with a slow model the least of it.</summary>
    public required int Seconds { get; init; }

    /// <summary>The load before it that is not measured.</summary>
    public required int WarmUp { get; init; }

    /// <summary>The contestants by name; empty means all.</summary>
    public required IReadOnlyList<string> Only { get; init; }

    /// <summary>The model's latencies, in milliseconds.</summary>
    public required IReadOnlyList<int> Latencies { get; init; }

    /// <summary>Clients or calls at once; empty means what the bars speak of.</summary>
    public required IReadOnlyList<int> Clients { get; init; }

    /// <summary>A published TicketFunctions of another commit, as one more contestant.</summary>
    public string? Other { get; init; }

    public required string Dialect { get; init; }

    public required string Faults { get; init; }

    public required int Seed { get; init; }

    /// <summary>Requests without the text.</summary>
    public required bool IdsOnly { get; init; }

    /// <summary>Rows per claim of the product's sweep.</summary>
    public required int BatchSize { get; init; }

    /// <summary>Tickets a sweep drains at 0 ms.</summary>
    public required int Backlog { get; init; }

    /// <summary>Processed rows of the large database.</summary>
    public required int Rows { get; init; }

    /// <summary>Tickets processed in one database to see what dead rows are left.</summary>
    public required int Bloat { get; init; }

    /// <summary>A missed bar is a failure.</summary>
    public required bool Assert { get; init; }

    /// <summary>Tickets enough for the fastest contestant, also where the model's latency makes a cell longer.</summary>
    public int Tickets => (30_000 * (Seconds + WarmUp)) + (Turns * Clients.DefaultIfEmpty(256).Max());

    public string Artifacts => Path.Combine(Solution, "artifacts", "bench");

    /// <summary>
    /// So long that each client sends about <see cref="Turns"/> tickets. All clients begin at once, so that their first tickets wait for each other,
    /// and what is under way at the end is not counted: of few and long turns that would be a large part.
    /// </summary>
    public int SecondsAt(int latency) => Math.Max(Seconds, latency * Turns / 1000);

    public bool Includes(string contestant) => Only.Count == 0 || Only.Contains(contestant);

    public string Log(string name)
    {
        var folder = Path.Combine(Output, "logs");
        Directory.CreateDirectory(folder);
        return Path.Combine(folder, $"{name}.log");
    }

    /// <summary>The cells of a suite: the latencies and clients that the bars speak of, or all pairs of what was asked for.</summary>
    public IEnumerable<(int Latency, int Clients)> Pairs(params (int Latency, int Clients)[] usual) => Clients.Count == 0
        ? usual.Where(pair => Latencies.Contains(pair.Latency))
        : Latencies.SelectMany(latency => Clients.Select(clients => (latency, clients)));
}
