using TicketFunctions.Classification;
using TicketFunctions.Storage;

namespace TicketFunctions.Tickets;

/// <summary>What decides: two decisions of equal identity on equal texts are the same decision.</summary>
/// <param name="Source"><c>model</c> or <c>baseline</c>.</param>
/// <param name="Provider">Who serves the model.</param>
/// <param name="Model">The model asked for.</param>
/// <param name="PromptVersion">Changes with every change of the prompt.</param>
/// <param name="TaxonomyVersion">Changes with every change of the labels, their descriptions or synonyms.</param>
/// <param name="Parameters">Temperature and the like, as a JSON object.</param>
public sealed record ClassifierIdentity(
    string Source, string Provider, string Model, string PromptVersion, string TaxonomyVersion, string Parameters);

/// <summary>The evidence of one classification, as it is recorded with the labels.</summary>
/// <param name="Labels">The labels.</param>
/// <param name="Identity">Who decided.</param>
/// <param name="TextSha256">The hash of the text decided about.</param>
/// <param name="Confidence">From evidence, else null.</param>
/// <param name="NeedsReview">A person should look at it.</param>
/// <param name="Calls">The calls it took.</param>
/// <param name="Latency">How long it took.</param>
/// <param name="Reused">The earlier decision on the same text, where there was one.</param>
public sealed record Decision(
    Labels Labels,
    ClassifierIdentity Identity,
    byte[] TextSha256,
    float? Confidence,
    bool NeedsReview,
    IReadOnlyList<CallRecord> Calls,
    TimeSpan Latency,
    EarlierDecision? Reused = null)
{
    /// <summary>What the calls took together.</summary>
    public Usage Usage { get; } = Usage.Of(Calls);

    /// <summary><c>model</c>, <c>reused</c> or <c>baseline</c>.</summary>
    public string Source => Reused is null ? Identity.Source : "reused";

    /// <summary>The model as the provider names it.</summary>
    public string? ServedModel => Reused is null ? Calls.LastOrDefault(call => call.Outcome == CallOutcome.Labelled)?.ServedModel : Reused.ServedModel;
}

/// <summary>An attempt that took calls and left no labels.</summary>
/// <param name="Kind">Which kind of fault, as it is recorded: <c>upstream_invalid</c>, <c>stale</c>, …</param>
/// <param name="Reason">In our own words.</param>
/// <param name="TextSha256">The hash of the text that was asked about.</param>
/// <param name="Calls">The calls it took.</param>
public sealed record FailedAttempt(string Kind, string Reason, byte[] TextSha256, IReadOnlyList<CallRecord> Calls);

/// <summary>What calls took together; null where no provider said, or no price is known.</summary>
public sealed record Usage(int? TokensIn, int? TokensOut, decimal? Cost)
{
    public static Usage Of(IReadOnlyList<CallRecord> calls)
    {
        var (tokensIn, tokensOut, cost) = ((int?)null, (int?)null, (decimal?)null);
        for (var i = 0; i < calls.Count; i++)
        {
            tokensIn = Add(tokensIn, calls[i].TokensIn);
            tokensOut = Add(tokensOut, calls[i].TokensOut);
            cost = Add(cost, calls[i].Cost);
        }

        return new Usage(tokensIn, tokensOut, cost);
    }

    private static T? Add<T>(T? left, T? right)
        where T : struct, System.Numerics.IAdditionOperators<T, T, T> => left is null ? right : right is null ? left : left.Value + right.Value;
}
