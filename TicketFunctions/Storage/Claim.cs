using TicketFunctions.Tickets;

namespace TicketFunctions.Storage;

/// <summary>A claim on one ticket.</summary>
/// <param name="Id">The ticket.</param>
/// <param name="LeaseToken">A new token, kept by the caller.</param>
/// <param name="ExpectedSha256">The hash of the text that the ticket must have; null for any text.</param>
/// <param name="ExpectedText">That text as the caller has it. Where it is the row's to the letter, the server need neither hash nor return it.</param>
/// <param name="Force">Claim it even if it is processed or parked.</param>
/// <param name="OnlyDue">Not while it waits for its next attempt.</param>
/// <param name="ReuseAfter">Only decisions with a higher id are reused; 0 for all.</param>
public sealed record ClaimRequest(Guid Id, Guid LeaseToken, byte[]? ExpectedSha256 = null, string? ExpectedText = null, bool Force = false, bool OnlyDue = false, long ReuseAfter = 0)
{
    /// <summary>Whether both ask for the same.</summary>
    public bool IsLike(ClaimRequest other) =>
        (Id, Force, OnlyDue, ReuseAfter) == (other.Id, other.Force, other.OnlyDue, other.ReuseAfter)
        && ExpectedSha256.AsSpan().SequenceEqual(other.ExpectedSha256);
}

/// <summary>What all claims of a process have in common.</summary>
/// <param name="Lease">How long a claim holds.</param>
/// <param name="MaxAttempts">Attempts before a ticket is parked.</param>
/// <param name="Reusable">Whose decisions are as good as a new one. When there are none, texts are not locked: it costs nothing to decide twice.</param>
public sealed record ClaimTerms(TimeSpan Lease, int MaxAttempts, IReadOnlyList<ClassifierIdentity> Reusable)
{
    internal string[] Providers { get; } = [.. Reusable.Select(identity => identity.Provider)];

    internal string[] Models { get; } = [.. Reusable.Select(identity => identity.Model)];

    internal string[] PromptVersions { get; } = [.. Reusable.Select(identity => identity.PromptVersion)];

    internal string[] TaxonomyVersions { get; } = [.. Reusable.Select(identity => identity.TaxonomyVersion)];
}

/// <summary>The place of a ticket in the order of those that nobody has tried yet.</summary>
public readonly record struct FreshTicket(DateTime CreatedAt, Guid Id);

/// <summary>What a claim of due tickets got.</summary>
/// <param name="Tickets">Those that the caller holds now, in the order in which they were due.</param>
/// <param name="Found">How many were due, those included that somebody else got in the same moment.</param>
/// <param name="Last">The last of them that nobody had tried yet: where the next claim may go on.</param>
public sealed record DueClaim(IReadOnlyList<ClaimedTicket> Tickets, int Found, FreshTicket? Last);

/// <summary>What a claim by id found. <paramref name="Description"/> is the text of the row; null when there is none.</summary>
public abstract record Claim(string? Description)
{
    /// <summary>No row has this id.</summary>
    public sealed record NotFound() : Claim((string?)null);

    /// <summary>The caller holds the ticket now.</summary>
    public sealed record Held(ClaimedTicket Ticket) : Claim(Ticket.Description);

    /// <summary>The ticket has its labels. <paramref name="Origin"/> is the newest decision that gave it these; null when a person did.</summary>
    public sealed record Processed(string Description, Labels Labels, LabelOrigin? Origin) : Claim(Description);

    /// <summary>The ticket could be claimed, but its text is not the expected one.</summary>
    public sealed record OtherText(string Description) : Claim(Description);

    /// <summary>Somebody has the row locked, and it was not waited for.</summary>
    public sealed record PassedOver() : Claim((string?)null);

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

    /// <summary>The lease is held and the row is as it was, but a trigger of the team's own dropped the update without an error; nothing was written.</summary>
    Refused,

    /// <summary>The lease belongs to somebody else by now, or to nobody; nothing was written.</summary>
    LeaseLost,

    /// <summary>Somebody has the row locked, and it was not waited for; nothing was written.</summary>
    PassedOver,
}

/// <summary>Whether a failed attempt does not count, and so parks nothing.</summary>
public enum Spare
{
    Never,

    /// <summary>If no model has answered anybody since this ticket failed last: then it is not the ticket's fault.</summary>
    InOutage,
    Always,
}

/// <summary>How the end of a failed attempt was recorded.</summary>
public enum FailStatus
{
    Waiting,

    /// <summary>The ticket waits, and the attempt does not count.</summary>
    Spared,
    Parked,

    /// <summary>The text was edited meanwhile and is due at once.</summary>
    Stale,

    /// <summary>The lease belongs to somebody else by now, or to nobody; nothing was written.</summary>
    LeaseLost,
}

/// <summary>An earlier decision on the same text, and what it took, or would have.</summary>
public sealed record EarlierDecision
{
    public required string Category { get; init; }
    public required string Sentiment { get; init; }
    public float? Confidence { get; init; }
    public bool NeedsReview { get; init; }
    public required string Provider { get; init; }
    public required string Model { get; init; }
    public required string PromptVersion { get; init; }
    public required string TaxonomyVersion { get; init; }
    public string? ServedModel { get; init; }
    public int? SavedTokens { get; init; }
    public decimal? SavedCost { get; init; }
}

/// <summary>What came of asking for the lock on a ticket's text.</summary>
/// <param name="Owned">The ticket is still held.</param>
/// <param name="Locked">The lock is held: nobody else has the same text classified.</param>
/// <param name="Earlier">The newest decision on the text that is as good as a new one.</param>
public sealed record TextLock(bool Owned, bool Locked, EarlierDecision? Earlier);

/// <summary>Which decisions are meant: those that meet every condition given.</summary>
/// <param name="PromptVersion">Made with this version of the prompt.</param>
/// <param name="Model">Made by this model; <c>baseline</c> means every version of the embedded one.</param>
/// <param name="Label">With this category or sentiment.</param>
/// <param name="Since">Made then or later.</param>
public sealed record DecisionFilter(string? PromptVersion, string? Model, string? Label, DateTime? Since);

/// <summary>A processed ticket and the decision that gave it its labels.</summary>
public sealed record DecidedTicket
{
    public required Guid Id { get; init; }
    public required string Description { get; init; }
    public required long DecisionId { get; init; }
    public required string Category { get; init; }
    public required string Sentiment { get; init; }
    public required string Source { get; init; }
    public required string Provider { get; init; }
    public required string Model { get; init; }
    public required string PromptVersion { get; init; }
    public required string TaxonomyVersion { get; init; }

    public Labels Labels => new(Category, Sentiment);
}

/// <summary>What gave a ticket its labels.</summary>
public sealed record LabelOrigin(string Model, float? Confidence);

/// <summary>What is left to do.</summary>
/// <param name="Unprocessed">Tickets without labels.</param>
/// <param name="InFlight">Those of them that somebody holds.</param>
/// <param name="Parked">Those of them whose attempts are used up.</param>
/// <param name="OldestSeconds">The age of the oldest unprocessed ticket.</param>
/// <param name="OldestWaitingSeconds">The age of the oldest one that is not parked.</param>
public sealed record Backlog(long Unprocessed, long InFlight, long Parked, double OldestSeconds, double OldestWaitingSeconds);

/// <summary>A ticket whose attempts are used up. <paramref name="AgeSeconds"/> is since it was created; null when nobody knows.</summary>
public sealed record ParkedTicket(Guid Id, DateTime ParkedAt, int Attempts, string? LastError, double? AgeSeconds);
