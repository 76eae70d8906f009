using System.Text;

namespace TicketFunctions.Classification.Baseline;

/// <summary>Folds letters and digits to lower case without accents, so that "Cobró", "COBRO" and "cobro" are one word.</summary>
internal static class Folding
{
    private static readonly char[] Table = CreateTable();

    /// <summary>The folded character, or U+0000 when it is no part of a word.</summary>
    public static char Fold(char character) =>
        character < Table.Length ? Table[character]
        : char.IsLetterOrDigit(character) ? char.ToLowerInvariant(character)
        : '\0';

    public static string Fold(string text) => string.Create(text.Length, text, (span, source) =>
    {
        for (var i = 0; i < span.Length; i++)
            span[i] = Fold(source[i]) is var folded and not '\0' ? folded : source[i];
    });

    private static char[] CreateTable()
    {
        var table = new char[0x250];
        for (var c = '\0'; c < table.Length; c++)
        {
            if (char.IsLetterOrDigit(c))
                table[c] = char.ToLowerInvariant(c.ToString().Normalize(NormalizationForm.FormKD)[0]);
        }

        return table;
    }
}
