using TicketFunctions.Classification;

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
public sealed record Decision(
    Labels Labels,
    string Source,
    ClassifierIdentity Identity,
    byte[] TextSha256,
    float? Confidence,
    bool NeedsReview,
    IReadOnlyList<CallRecord> Calls,
    TimeSpan Latency)
{
    public int? TokensIn => Calls.Where(call => call.TokensIn is not null).Aggregate((int?)null, (sum, call) => (sum ?? 0) + call.TokensIn);

    public int? TokensOut => Calls.Where(call => call.TokensOut is not null).Aggregate((int?)null, (sum, call) => (sum ?? 0) + call.TokensOut);
}
