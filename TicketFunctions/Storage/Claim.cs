using TicketFunctions.Tickets;

namespace TicketFunctions.Storage;

/// <summary>What a claim by id found. <paramref name="Description"/> is the text of the row; null when there is none.</summary>
public abstract record Claim(string? Description)
{
    /// <summary>No row has this id.</summary>
    public sealed record NotFound() : Claim((string?)null);

    /// <summary>The caller holds the ticket now.</summary>
    public sealed record Held(ClaimedTicket Ticket) : Claim(Ticket.Description);

    /// <summary>The ticket has its labels.</summary>
    public sealed record Processed(string Description, Labels Labels) : Claim(Description);

    /// <summary>Somebody else holds the ticket, for at most <paramref name="Remaining"/>.</summary>
    public sealed record InProgress(string Description, TimeSpan Remaining) : Claim(Description);

    /// <summary>The attempts are used up.</summary>
    public sealed record Parked(string Description, string? LastError) : Claim(Description);
}

/// <summary>How a guarded write ended.</summary>
public enum WriteStatus
{
    Written,

    /// <summary>The lease is held, but the row's text or state is not the one that was classified; nothing was written.</summary>
    Stale,

    /// <summary>The lease belongs to somebody else by now, or to nobody; nothing was written.</summary>
    LeaseLost,
}

/// <summary>How the end of a failed attempt was recorded.</summary>
public enum FailStatus
{
    Waiting,
    Parked,

    /// <summary>The text was edited meanwhile and is due at once.</summary>
    Stale,

    /// <summary>The lease belongs to somebody else by now, or to nobody; nothing was written.</summary>
    LeaseLost,
}

/// <summary>An earlier decision on the same text.</summary>
public sealed record EarlierDecision(string Category, string Sentiment, float? Confidence);

/// <summary>What gave a ticket its labels.</summary>
public sealed record LabelOrigin(string Model, float? Confidence);

/// <summary>What is left to do. <paramref name="OldestSeconds"/> is the age of the oldest unprocessed ticket.</summary>
public sealed record Backlog(long Unprocessed, long InFlight, long Parked, double OldestSeconds);
