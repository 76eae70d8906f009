namespace TicketFunctions.Classification;

/// <summary>How well one class is found: precision, recall, F1 and how often it occurs in the gold labels.</summary>
public sealed record ClassScore(string Label, double Precision, double Recall, double F1, int Support);

/// <summary>Scores of predicted labels against gold labels. Macro-F1 is the mean over the classes that occur in gold.</summary>
public sealed record Evaluation(
    int Count,
    double Accuracy,
    double MacroF1,
    IReadOnlyList<ClassScore> Classes,
    IReadOnlyDictionary<(string Gold, string Predicted), int> Confusion)
{
    /// <summary>Compares each gold label with its prediction; predictions outside the gold classes count as misses.</summary>
    public static Evaluation Of(IEnumerable<(string Gold, string Predicted)> pairs)
    {
        ArgumentNullException.ThrowIfNull(pairs);
        var confusion = pairs.GroupBy(pair => pair).ToDictionary(group => group.Key, group => group.Count());
        var count = confusion.Values.Sum();
        var correct = confusion.Where(cell => cell.Key.Gold == cell.Key.Predicted).Sum(cell => cell.Value);
        var classes = confusion.Keys
            .SelectMany(cell => new[] { cell.Gold, cell.Predicted })
            .Distinct()
            .Order(StringComparer.Ordinal)
            .Select(label => Score(label, confusion))
            .ToArray();
        var occurring = classes.Where(score => score.Support > 0).ToArray();
        return new Evaluation(
            count,
            Ratio(correct, count),
            occurring.Length == 0 ? 0 : occurring.Average(score => score.F1),
            classes,
            confusion);
    }

    private static ClassScore Score(string label, Dictionary<(string Gold, string Predicted), int> confusion)
    {
        var support = confusion.Where(cell => cell.Key.Gold == label).Sum(cell => cell.Value);
        var predicted = confusion.Where(cell => cell.Key.Predicted == label).Sum(cell => cell.Value);
        var hits = confusion.GetValueOrDefault((label, label));
        return new ClassScore(
            label,
            Ratio(hits, predicted),
            Ratio(hits, support),
            Ratio(2 * hits, support + predicted),
            support);
    }

    private static double Ratio(int part, int whole) => whole == 0 ? 0 : (double)part / whole;
}
