using System.Text.Json.Serialization;

namespace TicketFunctions.Compare;

/// <summary>One measurement: a contestant under one load, once.</summary>
internal sealed record Cell
{
    public required string Suite { get; init; }

    public required string Contestant { get; init; }

    public required int Round { get; init; }

    /// <summary>The model's latency in milliseconds.</summary>
    public int Latency { get; init; }

    /// <summary>Clients, or calls at once.</summary>
    public int Clients { get; init; }

    /// <summary>What is compared: tickets or rows a second, or, where a suite says so, milliseconds or bytes.</summary>
    public double Rate { get; init; }

    /// <summary>Milliseconds.</summary>
    public double? P50 { get; init; }

    public double? P99 { get; init; }

    public double? Max { get; init; }

    /// <summary>Microseconds of processor time for each ticket.</summary>
    public double? CpuService { get; init; }

    public double? CpuPostgres { get; init; }

    public double? CpuStub { get; init; }

    public double? CpuLoad { get; init; }

    /// <summary>MB, of all its processes.</summary>
    public double? Rss { get; init; }

    public double? Pss { get; init; }

    public long Requests { get; init; }

    public long Errors { get; init; }

    public long Rows { get; init; }

    public long Calls { get; init; }

    /// <summary>What only one suite knows.</summary>
    public IReadOnlyDictionary<string, double> More { get; init; } = new Dictionary<string, double>();

    public Canary? Canary { get; init; }

    /// <summary>Why it does not count; null when the work was done.</summary>
    public string? Invalid { get; init; }

    [JsonIgnore]
    public double? Cpu => CpuService is null ? null : CpuService + (CpuPostgres ?? 0);

    public static double Median(IEnumerable<double> values)
    {
        var sorted = values.Order().ToArray();
        return sorted.Length == 0 ? double.NaN : (sorted[sorted.Length / 2] + sorted[(sorted.Length - 1) / 2]) / 2;
    }
}
