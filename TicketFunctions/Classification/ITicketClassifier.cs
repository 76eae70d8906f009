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

    /// <summary>There were labels, and the database refuses to store them: a constraint or trigger of the team's own.</summary>
    StorageRefused,
}

/// <summary>How one attempt at classifying a text ended.</summary>
public abstract record ClassificationResult
{
    private ClassificationResult()
    {
    }

    /// <summary>Two labels of the taxonomy and what they cost.</summary>
    /// <param name="Labels">The labels.</param>
    /// <param name="Confidence">From evidence, else null; never the model's opinion of itself.</param>
    /// <param name="NeedsReview">A person should look at it.</param>
    /// <param name="TokensIn">Tokens read by the model, over all calls.</param>
    /// <param name="TokensOut">Tokens written by the model, over all calls.</param>
    /// <param name="ModelCalls">Calls made.</param>
    public sealed record Labelled(
        Labels Labels, float? Confidence, bool NeedsReview, int? TokensIn, int? TokensOut, int ModelCalls) : ClassificationResult;

    /// <summary>No labels.</summary>
    /// <param name="Kind">Which kind of fault.</param>
    /// <param name="Reason">A sentence in our own words: no text of the ticket or the model in it.</param>
    /// <param name="RetryAfter">What the provider asked for.</param>
    /// <param name="WasAnswered">The model had answered before, and not with labels: the attempt was paid.</param>
    public sealed record Failed(FailureKind Kind, string Reason, TimeSpan? RetryAfter = null, bool WasAnswered = false) : ClassificationResult;
}

/// <summary>Decides about a text. Implemented by the language model and by the embedded baseline.</summary>
public interface ITicketClassifier
{
    ClassifierIdentity Identity { get; }

    /// <summary>Never throws for what a model or a network can do; only for cancellation.</summary>
    Task<ClassificationResult> ClassifyAsync(string text, CancellationToken cancellationToken);
}
