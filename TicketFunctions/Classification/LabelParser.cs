using System.Text;
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

        if (TryReadPlain(text) is (var plainCategory, var plainSentiment)
            && Find("category", plainCategory, taxonomy.FindCategory, out var known, out _) == CallOutcome.Labelled
            && Find("sentiment", plainSentiment, taxonomy.FindSentiment, out var knownSentiment, out error) == CallOutcome.Labelled)
        {
            labels = new Labels(known, knownSentiment);
            return CallOutcome.Labelled;
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

    /// <summary>An answer as nearly all are: two words, each once, and nothing else. Whatever is wrong with another is found out by the long way.</summary>
    private static (string Category, string Sentiment)? TryReadPlain(string text)
    {
        Span<byte> bytes = stackalloc byte[256];
        if (!Encoding.UTF8.TryGetBytes(text, bytes, out var length))
        {
            return null;
        }

        try
        {
            string? category = null;
            string? sentiment = null;
            var reader = new Utf8JsonReader(bytes[..length]);
            if (!reader.Read() || reader.TokenType != JsonTokenType.StartObject)
            {
                return null;
            }

            while (reader.Read() && reader.TokenType == JsonTokenType.PropertyName)
            {
                var isCategory = reader.ValueTextEquals("category"u8);
                if (!(isCategory || reader.ValueTextEquals("sentiment"u8)) || (isCategory ? category : sentiment) is not null
                    || !reader.Read() || reader.TokenType != JsonTokenType.String)
                {
                    return null;
                }

                _ = isCategory ? category = reader.GetString() : sentiment = reader.GetString();
            }

            // Once more, since only then it is known that nothing follows.
            return !reader.Read() && category is not null && sentiment is not null ? (category, sentiment) : null;
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            return null;
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

        string word;
        try
        {
            word = value.GetString()!;
        }
        catch (InvalidOperationException)
        {
            // Half of a surrogate pair: no word.
            word = "";
        }

        return Find(name, word, find, out label, out error);
    }

    private static CallOutcome Find(string name, string word, Func<string, string?> find, out string label, out string error)
    {
        try
        {
            label = find(word) ?? "";
        }
        catch (ArgumentException)
        {
            // A character that is none: no word.
            label = "";
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
