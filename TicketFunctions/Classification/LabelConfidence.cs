using System.Text;
using System.Text.Json;
using OpenAI.Chat;
using TicketFunctions.Tickets;

namespace TicketFunctions.Classification;

/// <summary>How sure a decision is, by evidence from outside the model's words.</summary>
internal static class LabelConfidence
{
    /// <summary>The probability of the less certain label: the product of the probabilities of the tokens it was written with.</summary>
    /// <returns>Null when the provider gave no probabilities, or not those of this answer.</returns>
    public static float? FromLogprobs(ChatCompletion? completion)
    {
        try
        {
            if (completion?.ContentTokenLogProbabilities is not { Count: > 0 } tokens || completion.Content is not [{ Text: { } text }])
            {
                return null;
            }

            var answer = Encoding.UTF8.GetBytes(text);
            var pieces = tokens.Select(token => token.Utf8Bytes is { } bytes ? bytes.ToArray() : Encoding.UTF8.GetBytes(token.Token)).ToList();
            var start = answer.AsSpan().IndexOf((byte)'{');
            if (start < 0 || !answer.AsSpan().SequenceEqual(pieces.SelectMany(piece => piece).ToArray()))
            {
                return null;
            }

            double? least = null;
            foreach (var (from, to) in FindLabels(answer, start))
            {
                double sum = 0;
                var at = 0;
                for (var i = 0; i < pieces.Count; i++)
                {
                    if (at < to && at + pieces[i].Length > from)
                    {
                        sum += tokens[i].LogProbability;
                    }

                    at += pieces[i].Length;
                }

                least = Math.Min(least ?? 1, Math.Exp(sum));
            }

            return least is >= 0 and <= 1 ? (float)least : null;
        }
        catch (Exception e) when (e is ArgumentException or JsonException or InvalidOperationException or FormatException or KeyNotFoundException)
        {
            // Evidence that cannot be read is none.
            return null;
        }
    }

    /// <summary>The share of two samples that agree on the label that divides them more.</summary>
    public static float FromSamples(Labels first, Labels second) => first == second ? 1 : 0.5f;

    /// <summary>Where the two labels stand in the answer, without their quotes.</summary>
    private static List<(int From, int To)> FindLabels(byte[] answer, int start)
    {
        var found = new List<(int, int)>();
        var reader = new Utf8JsonReader(answer.AsSpan(start), isFinalBlock: false, state: default);
        while (reader.Read() && !(reader.TokenType == JsonTokenType.EndObject && reader.CurrentDepth == 0))
        {
            if (reader.CurrentDepth == 1 && reader.TokenType == JsonTokenType.PropertyName
                && (reader.ValueTextEquals("category"u8) || reader.ValueTextEquals("sentiment"u8))
                && reader.Read() && reader.TokenType == JsonTokenType.String)
            {
                found.Add((start + (int)reader.TokenStartIndex + 1, start + (int)reader.BytesConsumed - 1));
            }
        }

        return found.Count == 2 ? found : [];
    }
}
