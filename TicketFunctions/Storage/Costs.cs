using System.Text.Json.Serialization;

namespace TicketFunctions.Storage;

/// <summary>What the current UTC day took so far, by the database's clock, and what it would have taken without reuse.</summary>
/// <param name="Calls">Model calls.</param>
/// <param name="Tokens">Tokens read and written.</param>
/// <param name="Cost">Their price; null when none is known.</param>
/// <param name="SavedCalls">Decisions reused: each saved one call or more.</param>
/// <param name="SavedTokens">What the originals of those took.</param>
/// <param name="SavedCost">What the originals of those cost.</param>
/// <param name="SecondsLeft">Until the next UTC day.</param>
public sealed record DaySum(long Calls, long Tokens, decimal? Cost, long SavedCalls, long SavedTokens, decimal? SavedCost, double SecondsLeft);

/// <summary>What one model did and took on one UTC day, or all did together.</summary>
/// <param name="Day">As <c>2026-11-20</c>; null in the total.</param>
/// <param name="Model">The model asked for; null in the total.</param>
/// <param name="Decisions">Labels given, the reused ones included.</param>
/// <param name="Reused">Decisions that needed no call.</param>
/// <param name="FailedAttempts">Attempts without labels whose last call was this model's.</param>
/// <param name="Calls">Calls, whatever came of them.</param>
/// <param name="TokensIn">Tokens read.</param>
/// <param name="TokensOut">Tokens written.</param>
/// <param name="Cost">Their price; null when none is known.</param>
/// <param name="SavedTokens">What the originals of the reused decisions took.</param>
/// <param name="SavedCost">What they cost.</param>
public sealed record CostRow(
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] string? Day,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] string? Model,
    long Decisions,
    long Reused,
    long FailedAttempts,
    long Calls,
    long TokensIn,
    long TokensOut,
    decimal? Cost,
    long SavedTokens,
    decimal? SavedCost);
