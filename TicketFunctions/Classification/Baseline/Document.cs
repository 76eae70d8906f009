using System.Globalization;
using System.Text;

namespace TicketFunctions.Classification.Baseline;

/// <summary>A word, number, emoji or other unit of a <see cref="Document"/>; the text is folded to plain lower case.</summary>
internal readonly record struct Token(int Start, int Length, int Sentence, int Clause, bool Accented, bool StartsClause);

/// <summary>A text cut into folded tokens, clauses and sentences, with the marks of tone that folding loses.</summary>
internal sealed class Document
{
    /// <summary>Reading stops here, so that a pasted log costs no more than a long e-mail.</summary>
    private const int MaxCharacters = 4096;

    private readonly char[] _folded;
    private readonly List<Token> _tokens = [];
    private readonly List<bool> _questions = [false];
    private int _length;
    private int _wordStart;
    private int _wordUpper;
    private int _clause;
    private bool _wordAccented;
    private bool _wordNumeric = true;
    private bool _clauseOpen;

    private Document(int capacity) => _folded = new char[capacity];

    public IReadOnlyList<Token> Tokens => _tokens;

    public int Exclamations { get; private set; }

    public int QuestionMarks { get; private set; }

    /// <summary>Question marks followed by another mark: "??", "?!".</summary>
    public int Emphatic { get; private set; }

    public int Ellipses { get; private set; }

    public int Shouted { get; private set; }

    public int Elongated { get; private set; }

    public int Sentences => _questions.Count;

    public bool IsQuestion(int sentence) => _questions[sentence];

    public void MarkQuestion(int sentence) => _questions[sentence] = true;

    public ReadOnlySpan<char> Text(Token token) => _folded.AsSpan(token.Start, token.Length);

    public static Document Parse(string text)
    {
        var span = text.AsSpan(0, Math.Min(text.Length, MaxCharacters));
        // Every character is copied at most once; currency and emoticons need up to two places for one.
        var document = new Document(2 * span.Length + 2);
        for (var i = 0; i < span.Length;)
        {
            Rune.DecodeFromUtf16(span[i..], out var rune, out var width);
            i += document.Read(rune, span[(i + width)..]) + width;
        }

        document.EndWord();
        return document;
    }

    /// <summary>Reads one character and returns how many of the following ones it has consumed too.</summary>
    private int Read(Rune rune, ReadOnlySpan<char> rest)
    {
        if (rune.IsBmp && Folding.Fold((char)rune.Value) is var folded and not '\0')
        {
            Append((char)rune.Value, folded);
            if (folded is 's' or 'p' && rest.StartsWith("://") && Word is "http" or "https")
            {
                _length = _wordStart;
                Append('@', '@');
                EndWord();
                var end = rest.IndexOfAny(' ', '\n', '\t');
                return end < 0 ? rest.Length : end;
            }

            return 0;
        }

        var category = Rune.GetUnicodeCategory(rune);
        if (category is UnicodeCategory.NonSpacingMark or UnicodeCategory.EnclosingMark or UnicodeCategory.Format or UnicodeCategory.ModifierSymbol)
        {
            _wordAccented |= category == UnicodeCategory.NonSpacingMark;
            return 0;
        }

        if (rune.Value is '\'' or '’' && _length > _wordStart)
            return 0;
        EndWord();
        switch (rune.Value)
        {
            case '?':
                QuestionMarks++;
                if (rest is [('?' or '!'), ..])
                    Emphatic++;
                _questions[^1] = true;
                EndSentence();
                break;
            case '¿':
                EndSentence();
                _questions[^1] = true;
                break;
            case '!':
                Exclamations++;
                EndSentence();
                break;
            case '.' or '…':
                if (rune.Value == '…' || rest.StartsWith(".."))
                    Ellipses++;
                if (rest.IsEmpty || !char.IsLetterOrDigit(rest[0]))
                    EndSentence();
                break;
            case '\n' or '\r':
                EndSentence();
                break;
            case ':' or ';' or '=' when Mouth(rest) is var mouth and not '\0':
                Symbol(':', mouth);
                return rest[0] == '-' ? 2 : 1;
            case ',' or ';' or ':' or '(' or ')' or '¡':
                EndClause();
                break;
            case '@':
                Symbol('@');
                break;
            case '%':
                Symbol('%');
                break;
            default:
                if (category == UnicodeCategory.CurrencySymbol)
                    Symbol('$');
                else if (category == UnicodeCategory.OtherSymbol)
                    Symbol(rune);
                break;
        }

        return 0;
    }

    private ReadOnlySpan<char> Word => _folded.AsSpan(_wordStart, _length - _wordStart);

    private static char Mouth(ReadOnlySpan<char> rest)
    {
        var mouth = rest switch
        {
            ['-', var second, ..] => second,
            [var first, ..] => first,
            _ => '\0',
        };
        return mouth switch { ')' or 'D' or ']' => ')', '(' or '[' => '(', _ => '\0' };
    }

    private void Append(char original, char folded)
    {
        // "Buenisimoooo" is "buenisimo" said loudly; doubled letters are spelling.
        if (_length - _wordStart >= 2 && _folded[_length - 1] == folded && _folded[_length - 2] == folded && !char.IsAsciiDigit(folded))
        {
            Elongated++;
            return;
        }

        _folded[_length++] = folded;
        _wordAccented |= original >= '\u0080' && folded < '\u0080';
        _wordNumeric &= char.IsAsciiDigit(folded);
        if (char.IsUpper(original))
            _wordUpper++;
    }

    private void Symbol(Rune rune)
    {
        _length += rune.EncodeToUtf16(_folded.AsSpan(_length));
        _wordNumeric = false;
        EndWord();
    }

    private void Symbol(char first, char second = '\0')
    {
        _folded[_length++] = first;
        if (second != '\0')
            _folded[_length++] = second;
        _wordNumeric = false;
        EndWord();
    }

    private void EndWord()
    {
        if (_length > _wordStart)
        {
            // Status codes are words of their own; of other numbers only the length means something.
            if (_wordNumeric && Word is not [('4' or '5'), _, _])
                _folded.AsSpan(_wordStart, _length - _wordStart).Fill('0');
            if (_wordUpper >= 3 && _wordUpper == _length - _wordStart)
                Shouted++;
            _tokens.Add(new Token(_wordStart, _length - _wordStart, _questions.Count - 1, _clause, _wordAccented, !_clauseOpen));
            _clauseOpen = true;
        }

        _wordStart = _length;
        _wordUpper = 0;
        _wordAccented = false;
        _wordNumeric = true;
    }

    private void EndClause()
    {
        if (!_clauseOpen)
            return;
        _clause++;
        _clauseOpen = false;
    }

    private void EndSentence()
    {
        if (!_clauseOpen)
            return;
        EndClause();
        _questions.Add(false);
    }
}
