using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using TicketFunctions.Storage;

namespace TicketFunctions.Tickets;

/// <summary>A category and a sentiment, each a label of the taxonomy.</summary>
public sealed record Labels(string Category, string Sentiment);

/// <summary>A ticket this process holds: nobody else may classify it until the lease ends.</summary>
/// <param name="Id">The ticket.</param>
/// <param name="Description">The text as it was stored when the ticket was claimed.</param>
/// <param name="LeaseToken">The proof of holding it, repeated by every write.</param>
/// <param name="Attempts">Attempts at this text, this one included.</param>
/// <param name="TextSha256">The hash of its text, by which the text is locked.</param>
/// <param name="Previous">The labels it has when it was processed already and somebody asked for another decision.</param>
/// <param name="Turn">The lock on its text, where the claim got it, and what was decided about the text before.</param>
public sealed record ClaimedTicket(
    Guid Id, string Description, Guid LeaseToken, int Attempts, byte[] TextSha256, Labels? Previous = null, TextLock? Turn = null)
{
    /// <summary>Whether the ticket was processed already.</summary>
    public bool WasProcessed => Previous is not null;
}

/// <summary>What counts as the same text, and as a text at all.</summary>
public static class TicketText
{
    /// <summary>The longest text a request may carry, and the most of a stored text that a model gets to read, in UTF-16 units.</summary>
    public const int MaxLength = 16_000;

    /// <summary>Longer than an address (254) or a number may be.</summary>
    private const int MaxWord = 320;

    /// <summary>
    /// The most combining marks in a row of a text in any language. To normalise more takes time that grows with their square: minutes
    /// for a million. https://unicode.org/reports/tr15/#Stream_Safe_Text_Format
    /// </summary>
    private const int MaxMarks = 30;

    /// <summary>Unicode normalisation form C without blanks at either end. A text that no language writes is not normalised.</summary>
    /// <exception cref="ArgumentException">The text holds a lone surrogate; neither a parsed body nor Postgres yields one.</exception>
    public static string Normalize(string text) =>
        !IsStreamSafe(text) ? text.Trim()
        // .NET refuses the noncharacter U+FFFE, which JSON and Postgres both carry. It composes with nothing.
        : !text.Contains('\uFFFE', StringComparison.Ordinal) ? text.Normalize(NormalizationForm.FormC).Trim()
        : string.Join('\uFFFE', text.Split('\uFFFE').Select(part => part.Normalize(NormalizationForm.FormC))).Trim();

    /// <summary>The hash that stands for a text: SHA-256 of its normal form in UTF-8.</summary>
    public static byte[] Hash(string normalized) => SHA256.HashData(Encoding.UTF8.GetBytes(normalized));

    private static bool IsStreamSafe(string text)
    {
        var marks = 0;
        foreach (var rune in text.EnumerateRunes())
        {
            // There are none before U+0300; what .NET does not know yet may be one.
            marks = rune.Value >= 0x300 && Rune.GetUnicodeCategory(rune) is var category && (IsMark(category) || category == UnicodeCategory.OtherNotAssigned) ? marks + 1 : 0;
            if (marks > MaxMarks)
            {
                return false;
            }
        }

        return true;
    }

    public static bool AreSame(string left, string right) =>
        left == right || Normalize(left) == Normalize(right);

    /// <summary>Whether anything can be seen: not only blanks, controls, zero-width or filler characters.</summary>
    public static bool IsVisible(string text)
    {
        foreach (var rune in text.EnumerateRunes())
        {
            if (IsVisible(rune))
            {
                return true;
            }
        }

        return false;
    }

    private static bool IsMark(UnicodeCategory category) =>
        category is UnicodeCategory.NonSpacingMark or UnicodeCategory.SpacingCombiningMark or UnicodeCategory.EnclosingMark;

    private static bool IsVisible(Rune rune) => Rune.GetUnicodeCategory(rune) switch
    {
        UnicodeCategory.Control
            or UnicodeCategory.Format
            or UnicodeCategory.SpaceSeparator
            or UnicodeCategory.LineSeparator
            or UnicodeCategory.ParagraphSeparator
            or UnicodeCategory.NonSpacingMark
            or UnicodeCategory.EnclosingMark
            or UnicodeCategory.SpacingCombiningMark
            or UnicodeCategory.PrivateUse => false,
        // Unassigned to .NET's tables may be a new emoji; the noncharacters are unassigned for ever.
        UnicodeCategory.OtherNotAssigned => (rune.Value & 0xFFFE) != 0xFFFE && rune.Value is not (>= 0xFDD0 and <= 0xFDEF),
        // Letters and symbols that are drawn as nothing: Hangul fillers and the blank Braille pattern.
        _ => rune.Value is not (0x115F or 0x1160 or 0x3164 or 0xFFA0 or 0x2800),
    };

    /// <summary>
    /// The text as a model reads it: at most <see cref="MaxLength"/>, never half a character, nor half a word or number if that can be:
    /// half an address or a card number would not be known for what it is, and not be masked.
    /// </summary>
    public static string Clip(string text)
    {
        if (text.Length <= MaxLength)
        {
            return text;
        }

        var end = FindWordEnd(text);
        return char.IsHighSurrogate(text[end - 1]) ? text[..(end - 1)] : text[..end];
    }

    /// <summary>The last end of a word without digits, or the whole length when there is none near.</summary>
    private static int FindWordEnd(string text)
    {
        var end = 0;
        for (var i = MaxLength; i > MaxLength - MaxWord; i--)
        {
            if (!char.IsWhiteSpace(text[i]))
            {
                // A group of digits may belong to the next one.
                end = char.IsDigit(text[i]) ? 0 : end;
            }
            else if (end > i + 1)
            {
                return end;
            }
            else
            {
                end = i;
            }
        }

        return MaxLength;
    }
}
