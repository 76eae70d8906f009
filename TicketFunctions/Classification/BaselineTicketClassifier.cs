using TicketFunctions.Classification.Baseline;
using TicketFunctions.Tickets;

namespace TicketFunctions.Classification;

/// <summary>The embedded statistical classifier: no account, no network, no cost.</summary>
public sealed class BaselineTicketClassifier(Taxonomy taxonomy) : ITicketClassifier
{
    /// <summary>The model itself is loaded for the first ticket that it decides about.</summary>
    public IReadOnlyList<ClassifierIdentity> Identities => field ??=
    [
        new("baseline", "embedded", $"baseline-{Convert.ToHexStringLower(BaselineModel.ReadTrainingDataHash())[..8]}", "none", taxonomy.Version, "{}"),
    ];

    /// <summary>A label the baseline may answer and the taxonomy has no word for, or null.</summary>
    public static string? FindMissing(Taxonomy taxonomy) =>
        BaselineModel.Categories.FirstOrDefault(label => taxonomy.FindCategory(label) is null)
        ?? BaselineModel.Sentiments.FirstOrDefault(label => taxonomy.FindSentiment(label) is null);

    /// <summary>Always labels; where the baseline would rather abstain, the decision asks for a review.</summary>
    public Task<ClassificationResult> ClassifyAsync(string text, CancellationToken cancellationToken)
    {
        var prediction = BaselineModel.Default.Predict(text);
        var labels = new Labels(taxonomy.FindCategory(prediction.Category)!, taxonomy.FindSentiment(prediction.Sentiment)!);
        return Task.FromResult<ClassificationResult>(new ClassificationResult.Labelled(
            labels,
            Identities[0],
            Math.Min(prediction.CategoryConfidence, prediction.SentimentConfidence),
            prediction.Abstains,
            Calls: []));
    }
}
