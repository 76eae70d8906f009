using TicketFunctions.Tickets;

namespace TicketFunctions.Classification;

/// <summary>Why no labels came of an attempt.</summary>
public enum FailureKind
{
    /// <summary>The model answered, and not with labels.</summary>
    UpstreamInvalid,

    /// <summary>The model could not be reached, or refused to serve.</summary>
    UpstreamUnavailable,

    /// <summary>The time for the attempt ran out.</summary>
    UpstreamTimeout,

    /// <summary>All places for calls were taken for as long as the attempt had: no model was asked.</summary>
    UpstreamBusy,

    /// <summary>There were labels, and the database refuses to store them: a constraint or trigger of the team's own.</summary>
    StorageRefused,

    /// <summary>The daily budget for model calls is used up: no model was asked.</summary>
    BudgetSpent,
}

/// <summary>How one call of a model ended.</summary>
public enum CallOutcome
{
    /// <summary>Two labels of the taxonomy.</summary>
    Labelled,

    /// <summary>A second answer, asked for to compare it with the first.</summary>
    Sampled,

    /// <summary>Nothing was written.</summary>
    Empty,

    /// <summary>Not one JSON object with two texts in it.</summary>
    Unparseable,

    /// <summary>Words that mean no label.</summary>
    OffTaxonomy,

    /// <summary>Cut at the length limit.</summary>
    Truncated,

    /// <summary>The model declined.</summary>
    Refused,

    /// <summary>The provider's content filter stepped in.</summary>
    Filtered,

    /// <summary>What came is no chat completion.</summary>
    Malformed,

    /// <summary>The server did not take the request: its form, the key, the model's name.</summary>
    Rejected,

    /// <summary>Too many requests.</summary>
    RateLimited,

    /// <summary>The account's money is spent.</summary>
    QuotaSpent,

    /// <summary>Out of reach, broken off, or failing by itself.</summary>
    Unavailable,

    /// <summary>No answer in time.</summary>
    TimedOut,
}

/// <summary>One call of a model, as it is recorded: what it cost and how it ended, and nothing that was said.</summary>
/// <param name="Provider">Who serves the model.</param>
/// <param name="Model">The model asked for.</param>
/// <param name="ServedModel">The model as the provider names it in its answer.</param>
/// <param name="Outcome">How it ended.</param>
/// <param name="Status">The HTTP status, where it was an error.</param>
/// <param name="TokensIn">Tokens read.</param>
/// <param name="TokensOut">Tokens written.</param>
/// <param name="Cost">Their price, in the currency of the settings.</param>
/// <param name="LatencyMs">Milliseconds.</param>
public sealed record CallRecord(
    string Provider, string Model, string? ServedModel, CallOutcome Outcome, int? Status, int? TokensIn, int? TokensOut, decimal? Cost, int LatencyMs)
{
    /// <summary>Whether the model answered, and so may have been paid.</summary>
    public bool WasAnswered => Outcome <= CallOutcome.Malformed;
}

/// <summary>How one attempt at classifying a text ended, and the calls it took, in their order.</summary>
public abstract record ClassificationResult(IReadOnlyList<CallRecord> Calls)
{
    /// <summary>Two labels of the taxonomy.</summary>
    /// <param name="Labels">The labels.</param>
    /// <param name="Identity">Who decided.</param>
    /// <param name="Confidence">From evidence, else null; never the model's opinion of itself.</param>
    /// <param name="NeedsReview">A person should look at it.</param>
    /// <param name="Calls">The calls it took.</param>
    public sealed record Labelled(
        Labels Labels, ClassifierIdentity Identity, float? Confidence, bool NeedsReview, IReadOnlyList<CallRecord> Calls) : ClassificationResult(Calls);

    /// <summary>No labels.</summary>
    /// <param name="Kind">Which kind of fault.</param>
    /// <param name="Reason">A sentence in our own words: no text of the ticket or the model in it.</param>
    /// <param name="RetryAfter">When it makes sense to try again, as far as the provider or the breaker says.</param>
    /// <param name="Calls">The calls made; none when every model is known to be out of reach.</param>
    public sealed record Failed(FailureKind Kind, string Reason, TimeSpan? RetryAfter, IReadOnlyList<CallRecord> Calls) : ClassificationResult(Calls)
    {
        /// <summary>A model answered, and not with labels: the attempt was paid.</summary>
        public bool WasAnswered => Calls.Any(call => call.WasAnswered);
    }
}

/// <summary>Decides about a text. Implemented by the language models and by the embedded baseline.</summary>
public interface ITicketClassifier
{
    /// <summary>Who may decide, the first choice first. An earlier decision by any of them is as good as a new one.</summary>
    IReadOnlyList<ClassifierIdentity> Identities { get; }

    /// <summary>Never throws for what a model or a network can do; only for cancellation.</summary>
    Task<ClassificationResult> ClassifyAsync(string text, CancellationToken cancellationToken);
}
