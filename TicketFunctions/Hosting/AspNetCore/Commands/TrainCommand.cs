using System.CommandLine;
using System.Globalization;
using Spectre.Console;
using TicketFunctions.Classification;
using TicketFunctions.Classification.Baseline;

namespace TicketFunctions.Hosting.AspNetCore.Commands;

/// <summary><c>train</c>: makes the embedded baseline's model file anew from the labelled examples.</summary>
internal static class TrainCommand
{
    private const string Folder = "TicketFunctions/Classification/Baseline";

    public static Command Create()
    {
        var data = new Option<DirectoryInfo>("--data")
        {
            Description = "The folder with Examples/*.jsonl and Lexicons/*.txt.",
            DefaultValueFactory = _ => new DirectoryInfo(Folder),
        };
        data.AcceptExistingOnly();
        var output = new Option<FileInfo>("--out")
        {
            Description = "Where to write the model; the next build embeds it.",
            DefaultValueFactory = _ => new FileInfo(Path.Combine(Folder, "baseline.bin")),
        };
        var crossValidate = new Option<bool>("--cross-validate") { Description = "Write nothing; score each source by a model that has not seen it." };
        var command = new Command("train", "Train the embedded baseline on its labelled examples.") { data, output, crossValidate };
        command.SetAction((parsed, cancellationToken) => CommandLine.Guarded(
            token => Task.Run(
                () => parsed.GetValue(crossValidate)
                    ? CrossValidate(parsed.GetRequiredValue(data), token)
                    : Train(parsed.GetRequiredValue(data), parsed.GetRequiredValue(output), token),
                token),
            cancellationToken));
        return command;
    }

    private static int Train(DirectoryInfo data, FileInfo output, CancellationToken cancellationToken)
    {
        var examples = ExampleSet.Read(data.FullName);
        var result = WithProgress("Training", progress => BaselineTrainer.Train(examples, progress, cancellationToken));
        result.Save(output.FullName);
        output.Refresh();
        CommandLine.Screen.WriteLine(
            $"{result.Examples} examples of {result.Sources} sources; {output.FullName}, {output.Length / 1024} KiB. Build again to embed it.");
        return CommandLine.Success;
    }

    private static int CrossValidate(DirectoryInfo data, CancellationToken cancellationToken)
    {
        var examples = ExampleSet.Read(data.FullName);
        var result = WithProgress("Validating", progress => BaselineTrainer.CrossValidate(examples, progress, cancellationToken));
        var table = new Table().AddColumns(
            "held out", "examples", "category F1", "without Otro", "sentiment F1", "without Neutral", "neutral called negative");
        foreach (var row in result.Rows)
        {
            table.AddRow(
                Markup.Escape(row.Name),
                row.Examples.ToString(CultureInfo.InvariantCulture),
                Format(row.Category),
                Format(row.CategoryWithoutOther),
                Format(row.Sentiment),
                Format(row.SentimentWithoutNeutral),
                Format(row.NeutralCalledNegative));
        }

        CommandLine.Screen.Write(table);
        foreach (var row in result.Calibration)
        {
            CommandLine.Screen.WriteLine(
                $"{row.Name}: calibration error {Format(row.ExpectedCalibrationError)}, accuracy {Format(row.Accuracy)}; "
                + $"does not abstain on {Format(row.Coverage)}, there {Format(row.CoveredAccuracy)}");
        }

        return CommandLine.Success;
    }

    private static T WithProgress<T>(string title, Func<IProgress<double>, T> run)
    {
        if (!CommandLine.Screen.Profile.Capabilities.Interactive)
        {
            return run(new Progress<double>());
        }

        return CommandLine.Screen.Progress().Start(context =>
        {
            var bar = context.AddTask(title, maxValue: 1);
            return run(new Progress<double>(done => bar.Value = done));
        });
    }

    private static string Format(Evaluation evaluation) => evaluation.Count == 0 ? "-" : Format(evaluation.MacroF1);

    private static string Format(double share) => share.ToString("0.000", CultureInfo.InvariantCulture);
}
