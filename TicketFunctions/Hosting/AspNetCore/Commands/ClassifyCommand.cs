using System.CommandLine;
using System.Globalization;
using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Serialization;
using Microsoft.Win32.SafeHandles;
using TicketFunctions.Classification;
using TicketFunctions.Tickets;

namespace TicketFunctions.Hosting.AspNetCore.Commands;

/// <summary><c>classify</c>: labels for a text, without a database.</summary>
internal static class ClassifyCommand
{
    public static Command Create()
    {
        var text = new Argument<string>("text") { Description = "The text; `-` reads one text a line from standard input and writes one JSON object a line, in order." };
        var json = new Option<bool>("--json") { Description = "Write JSON." };
        var command = new Command("classify", "Print the labels of a text. No database is involved.") { text, json };
        command.SetAction((parsed, cancellationToken) => CommandLine.Guarded(
            token => RunAsync(parsed.GetRequiredValue(text), parsed.GetValue(json), token), cancellationToken));
        return command;
    }

    private static async Task<int> RunAsync(string text, bool json, CancellationToken cancellationToken)
    {
        using var host = await CommandServices.StartAsync(cancellationToken);
        var classifier = host.Services.GetRequiredService<ITicketClassifier>();
        if (text != "-")
        {
            var line = await ClassifyAsync(classifier, text, cancellationToken);
            Console.WriteLine(json ? line.ToJson() : line.ToText());
            return line.Error is null ? CommandLine.Success : CommandLine.Failure;
        }

        // A closed pipe downstream ends the loop by an IOException, as it should.
        var failed = false;
        using var input = new StreamReader(Console.OpenStandardInput());
        await using var output = new StreamWriter(OpenOutput());
        // The console does not let go of who reads it.
        while (await input.ReadLineAsync(cancellationToken).AsTask().WaitAsync(cancellationToken) is { } read)
        {
            var line = await ClassifyAsync(classifier, read, cancellationToken);
            failed |= line.Error is not null;
            await output.WriteLineAsync(line.ToJson().AsMemory(), cancellationToken);
            await output.FlushAsync(cancellationToken);
        }

        return failed ? CommandLine.Failure : CommandLine.Success;
    }

    /// <summary>Standard output that notices when nobody reads it any more: .NET's own goes on in silence, and each line may cost money.</summary>
    private static Stream OpenOutput()
    {
        if (OperatingSystem.IsWindows())
        {
            return Console.OpenStandardOutput();
        }

        // Not for a file: there a FileStream keeps a position of its own.
        var stream = new FileStream(new SafeFileHandle(1, ownsHandle: false), FileAccess.Write, bufferSize: 0);
        return stream.CanSeek ? Console.OpenStandardOutput() : stream;
    }

    private static async Task<ClassifiedLine> ClassifyAsync(ITicketClassifier classifier, string text, CancellationToken cancellationToken)
    {
        var first = classifier.Identities[0];
        if (!TicketText.IsVisible(text))
        {
            return new ClassifiedLine(null, null, null, first.Source, first.Model, false, "blank: the text has nothing in it to classify");
        }

        return await classifier.ClassifyAsync(TicketText.Clip(TicketText.Normalize(text)), cancellationToken) switch
        {
            ClassificationResult.Labelled labelled => new ClassifiedLine(
                labelled.Labels.Category, labelled.Labels.Sentiment, labelled.Confidence, labelled.Identity.Source, labelled.Identity.Model, labelled.NeedsReview, null),
            ClassificationResult.Failed failed => new ClassifiedLine(
                null, null, null, first.Source, first.Model, false, failed.Reason),
            var other => throw new InvalidOperationException($"No arm for {other.GetType().Name}."),
        };
    }
}

/// <summary>One classified text as it is printed.</summary>
internal sealed record ClassifiedLine(
    string? Category,
    string? Sentiment,
    float? Confidence,
    string Source,
    string Model,
    bool NeedsReview,
    [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] string? Error)
{
    private static readonly JsonSerializerOptions Json = new(JsonSerializerDefaults.Web) { Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    public string ToJson() => JsonSerializer.Serialize(this, Json);

    public string ToText() => Error is null
        ? $"{Category}, {Sentiment}  (confidence {Confidence?.ToString("0.00", CultureInfo.InvariantCulture) ?? "unknown"}, {Source} {Model}{(NeedsReview ? ", needs review" : "")})"
        : $"no labels: {Error}";
}
