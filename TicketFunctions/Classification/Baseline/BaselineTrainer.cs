using System.Runtime.Intrinsics;

namespace TicketFunctions.Classification.Baseline;

/// <summary>What came of a training: the model, and the temperatures that calibrate its confidences.</summary>
public sealed record TrainingResult(BaselineModel Model, int Examples, int Sources, float CategoryTemperature, float SentimentTemperature)
{
    /// <summary>Writes the model file that the assembly embeds.</summary>
    public void Save(string path)
    {
        using var file = File.Create(path);
        Model.Write(file);
    }
}

/// <summary>Scores on texts of sources the scoring model had not seen.</summary>
public sealed record CrossValidationRow(
    string Name,
    int Examples,
    Evaluation Category,
    Evaluation CategoryWithoutOther,
    Evaluation Sentiment,
    Evaluation SentimentWithoutNeutral,
    double NeutralCalledNegative);

/// <summary>How far confidences are from accuracy (ECE over ten bins), and what is right among what is not abstained on.</summary>
public sealed record CalibrationRow(string Name, double ExpectedCalibrationError, double Coverage, double CoveredAccuracy, double Accuracy);

/// <summary>The scores by held-out source, by language and of all texts, and the calibration of the same predictions.</summary>
public sealed record CrossValidation(IReadOnlyList<CrossValidationRow> Rows, IReadOnlyList<CalibrationRow> Calibration);

/// <summary>Trains and validates the baseline. The same files give the same model.</summary>
public static class BaselineTrainer
{
    private const int CalibrationFolds = 6;

    /// <summary>Otro is the answer when nothing else fits, so it has to win by a margin.</summary>
    private static readonly Task Category = new(
        BaselineModel.Categories, data => data.Category, 0.5, [(FeatureExtractor.Always, 3, -0.4f)]);

    /// <summary>Who only asks is seldom complaining; who asks nothing seldom has no opinion, and praises more than the tickets here do.</summary>
    private static readonly Task Sentiment = new(
        BaselineModel.Sentiments,
        data => data.Sentiment,
        0.5,
        [
            (FeatureExtractor.OnlyAsks, 1, 0.4f),
            (FeatureExtractor.AsksNothing, 1, -0.3f),
            (FeatureExtractor.AsksNothing, 2, 0.2f),
        ]);

    public static TrainingResult Train(ExampleSet set, IProgress<double>? progress = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(set);
        var data = new Data(set);
        // Temperatures come from sources the scoring model has not seen; of its own examples it is always too sure.
        var scores = Score(data, Math.Min(CalibrationFolds, data.Sources.Count), done => progress?.Report(done * 0.8), cancellationToken);
        var categoryTemperature = FitTemperature(scores.Category, data, Category);
        var sentimentTemperature = FitTemperature(scores.Sentiment, data, Sentiment);
        var category = Fit(data, Category, _ => true, cancellationToken);
        var sentiment = Fit(data, Sentiment, _ => true, cancellationToken);
        progress?.Report(1);
        var model = new BaselineModel(
            set.Lexicon,
            Head.Quantise(category, Category.Names.Count, categoryTemperature),
            Head.Quantise(sentiment, Sentiment.Names.Count, sentimentTemperature),
            [.. set.Hash]);
        return new TrainingResult(model, set.Examples.Count, data.Sources.Count, categoryTemperature, sentimentTemperature);
    }

    /// <summary>Holds out each source in turn: texts of one source resemble each other, so random splits would flatter.</summary>
    public static CrossValidation CrossValidate(ExampleSet set, IProgress<double>? progress = null, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(set);
        var data = new Data(set);
        var scores = Score(data, data.Sources.Count, done => progress?.Report(done), cancellationToken);
        var predictions = data.Examples
            .Select((example, i) => new Prediction(example, Best(scores.Category[i], Category), Best(scores.Sentiment[i], Sentiment)))
            .ToArray();
        var rows = data.Sources.Select(source => Row(source, predictions.Where(prediction => prediction.Example.Source == source)))
            .Concat(predictions.GroupBy(prediction => prediction.Example.Language)
                .OrderBy(group => group.Key, StringComparer.Ordinal)
                .Select(group => Row(group.Key, group)))
            .Append(Row("all", predictions))
            .ToArray();
        return new CrossValidation(rows,
        [
            Calibration("category", scores.Category, data, Category, BaselineModel.CategoryThreshold),
            Calibration("sentiment", scores.Sentiment, data, Sentiment, BaselineModel.SentimentThreshold),
        ]);
    }

    private static Vector128<float>[] Fit(Data data, Task task, Func<int, bool> includes, CancellationToken cancellationToken)
    {
        var labels = task.Labels(data).Select((label, i) => includes(i) ? label : -1).ToArray();
        var weights = LogisticRegression.Fit(data.Features, labels, task.Names.Count, task.Penalty, FeatureExtractor.Slots, cancellationToken);
        foreach (var (feature, label, shift) in task.Shifts)
            weights[feature] = weights[feature].WithElement(label, weights[feature][label] + shift / FeatureExtractor.SignalScale);
        return weights;
    }

    /// <summary>Scores each example by a model that was fitted without the sources of the example's fold.</summary>
    private static (Vector128<float>[] Category, Vector128<float>[] Sentiment) Score(
        Data data, int folds, Action<double> report, CancellationToken cancellationToken)
    {
        var category = new Vector128<float>[data.Examples.Count];
        var sentiment = new Vector128<float>[data.Examples.Count];
        var done = 0;
        var options = new ParallelOptions { CancellationToken = cancellationToken, MaxDegreeOfParallelism = Environment.ProcessorCount };
        Parallel.For(0, 2 * folds, options, job =>
        {
            var fold = job / 2;
            var (scores, task) = job % 2 == 0 ? (category, Category) : (sentiment, Sentiment);
            var weights = Fit(data, task, i => data.SourceOf[i] % folds != fold, cancellationToken);
            for (var i = 0; i < scores.Length; i++)
            {
                if (data.SourceOf[i] % folds == fold)
                    scores[i] = LogisticRegression.Score(weights, data.Features[i]);
            }

            report(Interlocked.Increment(ref done) / (2.0 * folds));
        });
        return (category, sentiment);
    }

    /// <summary>The temperature of least log loss; the loss has one minimum in it, so a golden-section search finds it.</summary>
    private static float FitTemperature(Vector128<float>[] scores, Data data, Task task)
    {
        var labels = task.Labels(data);

        double Loss(double temperature) => scores
            .Select((score, i) => labels[i] < 0
                ? 0
                : -Math.Log(Math.Max(LogisticRegression.Softmax(score / (float)temperature, task.Names.Count)[labels[i]], 1e-9f)))
            .Sum();

        var ratio = (Math.Sqrt(5) - 1) / 2;
        var (low, high) = (0.1, 10.0);
        while (high - low > 0.005)
        {
            var (left, right) = (high - ratio * (high - low), low + ratio * (high - low));
            if (Loss(left) < Loss(right))
                high = right;
            else
                low = left;
        }

        return (float)((low + high) / 2);
    }

    private static CalibrationRow Calibration(string name, Vector128<float>[] scores, Data data, Task task, float threshold)
    {
        const int Bins = 10;
        var labels = task.Labels(data);
        var temperature = FitTemperature(scores, data, task);
        var outcomes = scores
            .Select((score, i) => (Label: labels[i], Best: LogisticRegression.Best(score / temperature, task.Names.Count)))
            .Where(outcome => outcome.Label >= 0)
            .Select(outcome => (outcome.Best.Confidence, Correct: outcome.Best.Class == outcome.Label ? 1.0 : 0.0))
            .ToArray();
        var covered = outcomes.Where(outcome => outcome.Confidence >= threshold).ToArray();
        return new CalibrationRow(
            name,
            outcomes.GroupBy(outcome => Math.Min((int)(outcome.Confidence * Bins), Bins - 1))
                .Sum(bin => Math.Abs(bin.Sum(outcome => outcome.Correct - outcome.Confidence))) / Math.Max(outcomes.Length, 1),
            (double)covered.Length / Math.Max(outcomes.Length, 1),
            covered.Select(outcome => outcome.Correct).DefaultIfEmpty().Average(),
            outcomes.Select(outcome => outcome.Correct).DefaultIfEmpty().Average());
    }

    private static CrossValidationRow Row(string name, IEnumerable<Prediction> predictions)
    {
        var all = predictions.ToArray();
        var category = all.Where(one => one.Example.Category is not null)
            .Select(one => (Gold: one.Example.Category!, one.Category)).ToArray();
        var sentiment = all.Where(one => one.Example.Sentiment is not null)
            .Select(one => (Gold: one.Example.Sentiment!, one.Sentiment)).ToArray();
        return new CrossValidationRow(
            name,
            all.Length,
            Evaluation.Of(category),
            Evaluation.Of(category.Where(pair => pair.Gold != Category.Names[^1])),
            Evaluation.Of(sentiment),
            Evaluation.Of(sentiment.Where(pair => pair.Gold != "Neutral")),
            sentiment.Where(pair => pair.Gold == "Neutral").Select(pair => pair.Sentiment == "Negativo" ? 1.0 : 0.0).DefaultIfEmpty().Average());
    }

    private static string Best(Vector128<float> scores, Task task) =>
        task.Names[LogisticRegression.Best(scores, task.Names.Count).Class];

    /// <summary>One label to learn. Penalty and shifts are those of the best scores on held-out sources.</summary>
    private sealed record Task(
        IReadOnlyList<string> Names, Func<Data, int[]> Labels, double Penalty, IReadOnlyList<(int Feature, int Label, float Shift)> Shifts);

    private sealed record Prediction(Example Example, string Category, string Sentiment);

    /// <summary>The examples as the fits need them.</summary>
    private sealed class Data
    {
        public Data(ExampleSet set)
        {
            var extractor = new FeatureExtractor(set.Lexicon);
            Examples = set.Examples;
            Features = [.. set.Examples.Select(example => extractor.Extract(example.Text).ToArray())];
            Category = [.. set.Examples.Select(example => Index(BaselineModel.Categories, example.Category))];
            Sentiment = [.. set.Examples.Select(example => Index(BaselineModel.Sentiments, example.Sentiment))];
            Sources = [.. set.Examples.Select(example => example.Source).Distinct()];
            var numbers = Sources.Select((source, i) => (source, i)).ToDictionary(pair => pair.source, pair => pair.i);
            SourceOf = [.. set.Examples.Select(example => numbers[example.Source])];
        }

        public IReadOnlyList<Example> Examples { get; }

        public IReadOnlyList<Feature[]> Features { get; }

        public int[] Category { get; }

        public int[] Sentiment { get; }

        public IReadOnlyList<string> Sources { get; }

        public int[] SourceOf { get; }

        private static int Index(IReadOnlyList<string> labels, string? label)
        {
            for (var i = 0; i < labels.Count; i++)
            {
                if (labels[i] == label)
                    return i;
            }

            return label is null ? -1 : throw new InvalidDataException($"'{label}' is none of {string.Join(", ", labels)}.");
        }
    }
}
