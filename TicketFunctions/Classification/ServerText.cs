using System.Globalization;
using System.Text;

namespace TicketFunctions.Classification;

/// <summary>What a server calls its models, as it may stand in a column, a metric or a terminal.</summary>
internal static class ServerText
{
    private const int MaxLength = 120;

    /// <summary>The text without what a terminal would obey or a column refuse, and not at any length; null when nothing is left.</summary>
    public static string? Clean(string? text)
    {
        if (text is { Length: > 0 and <= MaxLength } && !text.AsSpan().ContainsAnyExceptInRange('!', '~'))
        {
            return text;
        }

        var clean = new StringBuilder();
        foreach (var rune in (text ?? "").EnumerateRunes())
        {
            if (Rune.GetUnicodeCategory(rune) is not (UnicodeCategory.Control or UnicodeCategory.Format
                or UnicodeCategory.LineSeparator or UnicodeCategory.ParagraphSeparator or UnicodeCategory.PrivateUse or UnicodeCategory.OtherNotAssigned))
            {
                clean.Append(rune);
            }

            if (clean.Length >= MaxLength)
            {
                break;
            }
        }

        return string.IsNullOrWhiteSpace(clean.ToString()) ? null : clean.ToString().Trim();
    }
}
