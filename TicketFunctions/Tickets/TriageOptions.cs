using System.ComponentModel.DataAnnotations;

namespace TicketFunctions.Tickets;

/// <summary>The section <c>Triage</c>: how long a ticket is held and how often it is tried.</summary>
public sealed class TriageOptions
{
    /// <summary>How long a claim holds. It must outlast all model calls of one attempt.</summary>
    [Range(typeof(TimeSpan), "00:00:01", "01:00:00", ErrorMessage = "Triage__Lease must be between 00:00:01 and 01:00:00.")]
    public TimeSpan Lease { get; set; } = TimeSpan.FromSeconds(90);

    /// <summary>Attempts before a ticket is parked.</summary>
    [Range(1, 100, ErrorMessage = "Triage__MaxAttempts must be between 1 and 100.")]
    public int MaxAttempts { get; set; } = 5;

    /// <summary>Requests classified at once; one more is answered 429.</summary>
    [Range(1, 100_000, ErrorMessage = "Triage__MaxConcurrentRequests must be between 1 and 100000.")]
    public int MaxConcurrentRequests { get; set; } = 1000;

    /// <summary>Requests a minute for each function key, and as many in one go after a pause; one more is answered 429. None: no limit.</summary>
    [Range(1, 1_000_000, ErrorMessage = "Triage__RequestsPerMinute must be between 1 and 1000000.")]
    public int? RequestsPerMinute { get; set; }

    /// <summary>
    /// The wait after a failed attempt: a third of the lease, four times longer after each further failure, at most an hour.
    /// With the default lease: 30 s, 2 min, 8 min, 32 min.
    /// </summary>
    public TimeSpan BackoffAfter(int attempts)
    {
        // After a dozen any lease has reached the hour; many more would not fit into a TimeSpan.
        var wait = Lease / 3 * Math.Pow(4, Math.Min(attempts, 12) - 1);
        return wait < MaxBackoff ? wait : MaxBackoff;
    }

    internal static readonly TimeSpan MaxBackoff = TimeSpan.FromHours(1);
}

/// <summary>The section <c>Sweep</c>: how the timer drains the backlog.</summary>
public sealed class SweepOptions
{
    /// <summary>Rows per claim.</summary>
    [Range(1, 1000, ErrorMessage = "Sweep__BatchSize must be between 1 and 1000.")]
    public int BatchSize { get; set; } = 32;

    /// <summary>Model calls at once, in one run.</summary>
    [Range(1, 256, ErrorMessage = "Sweep__Concurrency must be between 1 and 256.")]
    public int Concurrency { get; set; } = 8;

    /// <summary>No ticket is claimed later than this after the start of a run.</summary>
    [Range(typeof(TimeSpan), "00:00:01", "00:09:00", ErrorMessage = "Sweep__TimeBudget must be between 00:00:01 and 00:09:00, below the functionTimeout of host.json.")]
    public TimeSpan TimeBudget { get; set; } = TimeSpan.FromMinutes(4);
}
