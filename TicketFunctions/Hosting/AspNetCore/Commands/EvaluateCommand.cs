using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using Spectre.Console;
using TicketFunctions.Classification;
using TicketFunctions.Tickets;

namespace TicketFunctions.Hosting.AspNetCore.Commands;

/// <summary><c>evaluate</c>: scores the classifier against labelled texts.</summary>
internal static class EvaluateCommand
{
    /// <summary>What a failed classification counts as: no label of anybody's.</summary>
    private const string NoLabel = "(none)";

    public static Command Create()
    {
        var file = new Argument<FileInfo>("file") { Description = """One JSON object a line: {"text": …, "category": …, "sentiment": …}; a row may lack either label.""" };
        file.AcceptExistingOnly();
        file.Validators.Add(result =>
        {
            if (result.Tokens is [{ Value: var path }] && Directory.Exists(path))
            {
                result.AddError($"'{path}' is a folder; give a file.");
            }
        });
        var json = new Option<bool>("--json") { Description = "Write JSON." };
        var command = new Command("evaluate", "Score the classifier on labelled texts: accuracy, macro-F1, a table per class, the confusion matrix.") { file, json };
        command.SetAction((parsed, cancellationToken) => CommandLine.Guarded(
            token => RunAsync(parsed.GetRequiredValue(file), parsed.GetValue(json), token), cancellationToken));
        return command;
    }

    private static async Task<int> RunAsync(FileInfo file, bool json, CancellationToken cancellationToken)
    {
        using var host = await CommandServices.StartAsync(cancellationToken);
        var taxonomy = host.Services.GetRequiredService<Taxonomy>();
        var classifier = host.Services.GetRequiredService<ITicketClassifier>();
        var rows = Read(file, taxonomy).ToList();
        if (rows.Count == 0)
        {
            throw new FormatException($"{file.Name} has no rows.");
        }

        var answers = await ClassifyAsync(classifier, rows, showProgress: !json, cancellationToken);
        var unanswered = answers.Count(labels => labels is null);

        var category = Evaluation.Of(Pair(rows, answers, row => row.Category, labels => labels.Category));
        var sentiment = Evaluation.Of(Pair(rows, answers, row => row.Sentiment, labels => labels.Sentiment));
        if (json)
        {
            Console.WriteLine(new JsonObject
            {
                ["model"] = classifier.Identities[0].Model,
                ["rows"] = rows.Count,
                ["unanswered"] = unanswered,
                ["category"] = ToJson(category),
                ["sentiment"] = ToJson(sentiment),
            }.ToJsonString(new JsonSerializerOptions(JsonSerializerDefaults.Web) { WriteIndented = true }));
        }
        else
        {
            CommandLine.Screen.WriteLine($"{rows.Count} rows, {classifier.Identities[0].Model}{(unanswered > 0 ? $"; {unanswered} got no labels" : "")}");
            Show("Category", category);
            Show("Sentiment", sentiment);
        }

        return unanswered == 0 ? CommandLine.Success : CommandLine.Failure;
    }

    private static IEnumerable<Row> Read(FileInfo file, Taxonomy taxonomy)
    {
        var number = 0;
        foreach (var line in File.ReadLines(file.FullName))
        {
            number++;
            if (string.IsNullOrWhiteSpace(line))
            {
                continue;
            }

            Row? row;
            try
            {
                row = JsonSerializer.Deserialize<Row>(line, JsonSerializerOptions.Web);
            }
            catch (JsonException)
            {
                row = null;
            }

            if (row?.Text is null)
            {
                throw new FormatException($"{file.Name}, line {number}: is not a JSON object with a \"text\".");
            }

            yield return row with
            {
                Category = Resolve(row.Category, taxonomy.FindCategory, file, number),
                Sentiment = Resolve(row.Sentiment, taxonomy.FindSentiment, file, number),
            };
        }
    }

    private static string? Resolve(string? label, Func<string, string?> find, FileInfo file, int number) =>
        label is null ? null
        : find(label) ?? throw new FormatException($"{file.Name}, line {number}: '{label}' is no label of the taxonomy.");

    private static Task<List<Labels?>> ClassifyAsync(
        ITicketClassifier classifier, List<Row> rows, bool showProgress, CancellationToken cancellationToken)
    {
        return showProgress ? ProgressBar.ShowAsync("Classifying", rows.Count, ClassifyAllAsync) : ClassifyAllAsync(null);

        async Task<List<Labels?>> ClassifyAllAsync(IProgress<int>? progress)
        {
            var answers = new List<Labels?>(rows.Count);
            foreach (var row in rows)
            {
                cancellationToken.ThrowIfCancellationRequested();
                var result = TicketText.IsVisible(row.Text!)
                    ? await classifier.ClassifyAsync(TicketText.Clip(TicketText.Normalize(row.Text!)), cancellationToken)
                    : null;
                answers.Add((result as ClassificationResult.Labelled)?.Labels);
                progress?.Report(answers.Count);
            }

            return answers;
        }
    }

    private static IEnumerable<(string Gold, string Predicted)> Pair(
        List<Row> rows, List<Labels?> answers, Func<Row, string?> gold, Func<Labels, string> predicted) =>
        rows.Zip(answers)
            .Where(pair => gold(pair.First) is not null)
            .Select(pair => (gold(pair.First)!, pair.Second is null ? NoLabel : predicted(pair.Second)));

    private static JsonObject ToJson(Evaluation evaluation) => new()
    {
        ["count"] = evaluation.Count,
        ["accuracy"] = Math.Round(evaluation.Accuracy, 4),
        ["macroF1"] = Math.Round(evaluation.MacroF1, 4),
        ["classes"] = new JsonArray([.. evaluation.Classes.Select(score => new JsonObject
        {
            ["label"] = score.Label,
            ["precision"] = Math.Round(score.Precision, 4),
            ["recall"] = Math.Round(score.Recall, 4),
            ["f1"] = Math.Round(score.F1, 4),
            ["support"] = score.Support,
        })]),
        ["confusion"] = new JsonArray([.. evaluation.Confusion
            .OrderBy(cell => cell.Key.Gold, StringComparer.Ordinal)
            .ThenBy(cell => cell.Key.Predicted, StringComparer.Ordinal)
            .Select(cell => new JsonObject
            {
                ["gold"] = cell.Key.Gold,
                ["predicted"] = cell.Key.Predicted,
                ["count"] = cell.Value,
            })]),
    };

    private static void Show(string title, Evaluation evaluation)
    {
        if (evaluation.Count == 0)
        {
            return;
        }

        var screen = CommandLine.Screen;
        screen.WriteLine();
        screen.WriteLine($"{title}: accuracy {Format(evaluation.Accuracy)}, macro-F1 {Format(evaluation.MacroF1)} over {evaluation.Count} rows");
        var scores = new Table().AddColumns("class", "precision", "recall", "F1", "rows");
        var confusion = new Table().AddColumn("gold \\ predicted");
        foreach (var score in evaluation.Classes)
        {
            scores.AddRow(Markup.Escape(score.Label), Format(score.Precision), Format(score.Recall), Format(score.F1), score.Support.ToString(CultureInfo.InvariantCulture));
            confusion.AddColumn(Markup.Escape(score.Label));
        }

        foreach (var gold in evaluation.Classes.Where(score => score.Support > 0))
        {
            confusion.AddRow([Markup.Escape(gold.Label), .. evaluation.Classes.Select(predicted =>
                evaluation.Confusion.GetValueOrDefault((gold.Label, predicted.Label)).ToString(CultureInfo.InvariantCulture))]);
        }

        screen.Write(scores);
        screen.Write(confusion);
    }

    private static string Format(double share) => share.ToString("0.000", CultureInfo.InvariantCulture);

    private sealed record Row(string? Text, string? Category, string? Sentiment);
}
