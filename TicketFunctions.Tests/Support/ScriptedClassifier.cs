using TicketFunctions.Classification;
using TicketFunctions.Tickets;

namespace TicketFunctions.Tests.Support;

/// <summary>A classifier that does what a test says: for what no model stub can be made to do.</summary>
public sealed class ScriptedClassifier(params ClassifierIdentity[] identities) : ITicketClassifier
{
    public IReadOnlyList<ClassifierIdentity> Identities => identities;

    /// <summary>The texts it was asked about.</summary>
    public List<string> Texts { get; } = [];

    public required Func<string, ClassificationResult> Answer { get; set; }

    public static ClassifierIdentity Identity(string model, string source = "model") => new(source, "stub", model, "prompt-1", "taxonomy-1", "{}");

    /// <summary>A call that gave labels.</summary>
    public static CallRecord Call(string model, CallOutcome outcome = CallOutcome.Labelled, int? tokensIn = 100, int? tokensOut = 10, decimal? cost = null) =>
        new("stub", model, $"{model}-2026", outcome, null, tokensIn, tokensOut, cost, 7);

    public Task<ClassificationResult> ClassifyAsync(string text, CancellationToken cancellationToken)
    {
        lock (Texts)
        {
            Texts.Add(text);
        }

        return Task.FromResult(Answer(text));
    }
}
