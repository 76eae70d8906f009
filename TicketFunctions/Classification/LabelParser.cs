using System.Text.Json;
using TicketFunctions.Tickets;

namespace TicketFunctions.Classification;

/// <summary>Reads the labels out of what a model wrote.</summary>
public static class LabelParser
{
    private static readonly JsonDocumentOptions Strict = new() { AllowDuplicateProperties = false, MaxDepth = 8 };

    /// <summary>Reads an answer: one JSON object, at most inside one code fence. Nothing is repaired or guessed.</summary>
    /// <param name="text">What the model wrote.</param>
    /// <param name="taxonomy">The labels there are.</param>
    /// <param name="labels">The labels, when there are two.</param>
    /// <param name="error">Else what is wrong, for the model to read; it repeats nothing of the answer.</param>
    /// <returns>Labelled, Empty, Unparseable or OffTaxonomy.</returns>
    public static CallOutcome Parse(string text, Taxonomy taxonomy, out Labels? labels, out string error)
    {
        labels = null;
        if (text.AsSpan().IsWhiteSpace())
        {
            error = "está vacía.";
            return CallOutcome.Empty;
        }

        try
        {
            using var document = JsonDocument.Parse(StripFence(text), Strict);
            if (document.RootElement.ValueKind != JsonValueKind.Object)
            {
                error = "no es un objeto JSON.";
                return CallOutcome.Unparseable;
            }

            var outcome = Read(document.RootElement, "category", taxonomy.FindCategory, out var category, out error);
            if (outcome != CallOutcome.Labelled)
            {
                return outcome;
            }

            outcome = Read(document.RootElement, "sentiment", taxonomy.FindSentiment, out var sentiment, out error);
            if (outcome == CallOutcome.Labelled)
            {
                labels = new Labels(category, sentiment);
            }

            return outcome;
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            // The latter is a name with half of a surrogate pair, met in looking for duplicates.
            error = "no es JSON válido, o tiene texto alrededor.";
            return CallOutcome.Unparseable;
        }
    }

    private static CallOutcome Read(JsonElement root, string name, Func<string, string?> find, out string label, out string error)
    {
        label = "";
        if (!root.TryGetProperty(name, out var value) || value.ValueKind != JsonValueKind.String)
        {
            error = $"falta \"{name}\" o no es texto.";
            return CallOutcome.Unparseable;
        }

        try
        {
            label = find(value.GetString()!) ?? "";
        }
        catch (Exception e) when (e is InvalidOperationException or ArgumentException)
        {
            // A lone surrogate: not a label.
        }

        error = label.Length > 0 ? "" : $"\"{name}\" no es una etiqueta de la lista.";
        return label.Length > 0 ? CallOutcome.Labelled : CallOutcome.OffTaxonomy;
    }

    private static string StripFence(string text)
    {
        var trimmed = text.Trim();
        if (!trimmed.StartsWith("```", StringComparison.Ordinal) || !trimmed.EndsWith("```", StringComparison.Ordinal) || trimmed.Length < 6)
        {
            return trimmed;
        }

        var firstLine = trimmed.IndexOf('\n', StringComparison.Ordinal);
        return firstLine < 0 ? trimmed : trimmed[(firstLine + 1)..^3];
    }
}
