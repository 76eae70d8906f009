using System.Collections.Frozen;
using System.Globalization;
using System.Net;
using System.Text;

namespace TicketFunctions.Classification;

/// <summary>Masks what identifies a person in a text: e-mail addresses, IBANs, payment cards, national ids and phone numbers.</summary>
/// <remarks>
/// Scanners by hand, each of which looks at a bounded stretch from where it stands, because the rules look behind and .NET's
/// linear regular expressions cannot. The kinds go one after the other, those with check digits before phone numbers.
/// What joins a number to its surroundings (see <see cref="IsJoint"/>) never lies inside another match: so no mask makes room for another,
/// and masking twice is masking once.
/// </remarks>
public static class PersonalData
{
    // A card has 19 digits at most; one more tells that a number is longer.
    private const int MaxDigits = 20;
    private const int MaxGroups = 8;

    private const string CheckLetters = "TRWAGMYFPDXBNJZSQVHLCKE";

    // The countries and lengths of the IBAN registry, https://www.swift.com/standards/data-standards/iban.
    private static readonly FrozenDictionary<string, int> IbanLengths = (
        "AD24AE23AL28AT20AZ28BA20BE16BG22BH22BI27BR29BY28CH21CR22CY28CZ24DE22DJ27DK18DO28EE20EG29ES24FI18FK18FO18FR27GB22GE22"
        + "GI23GL18GR27GT28HN28HR21HU28IE22IL23IQ23IS26IT27JO30KW30KZ20LB28LC32LI21LT20LU20LV21LY25MC27MD24ME22MK19MN20MR27MT31"
        + "MU30NI28NL18NO15OM23PK24PL28PS29PT25QA29RO24RS22RU33SA24SC31SD18SE24SI19SK24SM27SO23ST25SV28TL23TN24TR26UA29VA22VG24"
        + "XK20YE30")
        .Chunk(4)
        .ToFrozenDictionary(entry => new string(entry, 0, 2), entry => int.Parse(entry.AsSpan(2), CultureInfo.InvariantCulture));

    // Country codes with the fewest and the most digits after them; https://www.itu.int/oth/T0202.aspx.
    private static readonly (string Code, int Min, int Max)[] Plans =
    [
        ("1", 10, 10), ("7", 10, 10), ("30", 10, 10), ("31", 9, 9), ("32", 8, 9), ("33", 9, 9), ("34", 9, 9), ("39", 8, 11), ("40", 9, 9),
        ("41", 9, 9), ("43", 8, 12), ("44", 9, 10), ("45", 8, 8), ("46", 7, 9), ("47", 8, 8), ("48", 9, 9), ("49", 7, 11), ("51", 8, 9),
        ("52", 10, 11), ("53", 8, 8), ("54", 10, 11), ("55", 10, 11), ("56", 9, 9), ("57", 8, 10), ("58", 10, 10), ("212", 9, 9),
        ("351", 9, 9), ("352", 6, 9), ("353", 8, 9), ("376", 6, 6), ("502", 8, 8), ("503", 8, 8), ("504", 8, 8), ("505", 8, 8),
        ("506", 8, 8), ("507", 8, 8), ("591", 8, 8), ("593", 8, 9), ("595", 9, 9), ("598", 8, 8),
    ];

    // In these lists an entry of more than four letters is the beginning of a word, a shorter one is the word.
    private static readonly string[] PhoneWords =
    [
        "tel", "tels", "telef", "teléf", "telep", "telem", "telf", "tlf", "tlfn", "tfn", "tfno", "móvil", "movil", "celul", "cel", "celu", "cell",
        "mobil", "phone", "fone", "fones", "fijo", "fixo", "fax", "sms", "whats", "wasap", "guasa", "wsp", "wpp", "zap", "llama", "llamá", "llame",
        "lláme", "call", "ligue", "ligar", "contac", "contác", "contat",
    ];

    private static readonly string[] ReferenceWords =
    [
        "pedid", "ped", "orden", "order", "encomend", "factur", "fact", "fatura", "fac", "fra", "invoice", "inv", "recibo", "receipt", "boleto",
        "fiscal", "ticket", "chamado", "caso", "case", "incidenci", "expedient", "ref", "refer", "códig", "codig", "cód", "cod", "code", "error",
        "erro", "serie", "série", "serial", "lote", "sku", "ean", "imei", "isbn", "tracking", "seguimiento", "guía", "guia", "albar", "protocol",
        "reserv", "booking", "transac", "transaç", "operac", "licen", "contrat", "contract", "id", "nif", "nipc", "cif", "cnpj", "vat",
    ];

    // What may stand between such a word and its number.
    private static readonly string[] LinkWords =
    [
        "n", "nº", "º", "no", "nro", "num", "núm", "número", "numero", "number", "es", "el", "is", "é", "o", "the", "de", "do", "da", "del", "con", "com",
        "with", "mi", "my", "meu",
    ];

    // A call goes to a number; so does an order, but that is a person's.
    private static readonly string[] TowardsWords = ["al", "ao", "at", "on", "me"];

    private static readonly string[] UnitWords =
    [
        "eur", "euro", "euros", "usd", "gbp", "brl", "mxn", "ars", "cop", "clp", "reais", "pesos", "dólares", "dolares", "dollars", "bytes", "kb", "mb",
        "gb", "ms",
    ];

    // A soft hyphen, a zero-width space, a word joiner, a byte order mark: pages and PDFs leave them within addresses and numbers.
    private static readonly char[] Unseen = ['\u00AD', '\u200B', '\u2060', '\uFEFF'];

    private enum Clue
    {
        None,
        Phone,
        Reference,
    }

    /// <summary>The text with <c>[email]</c>, <c>[iban]</c>, <c>[card]</c>, <c>[id]</c> and <c>[phone]</c> in the places of such data; the same instance when there is none.</summary>
    /// <remarks>It is read as it is seen: where something is masked, soft hyphens and zero-width blanks are left out.</remarks>
    public static string Mask(string text)
    {
        var seen = text.AsSpan().ContainsAny(Unseen) ? string.Concat(text.Split(Unseen)) : text;
        var masked = MaskSeen(seen);
        return masked == seen ? text : masked;
    }

    private static string MaskSeen(string text)
    {
        text = Replace(text, "[email]", FindEmail);
        text = Replace(text, "[iban]", (text, at, _) => (at, FindIbanEnd(text, at)));
        text = Replace(text, "[card]", (text, at, _) => (at, FindCardEnd(text, at)));
        text = Replace(text, "[id]", (text, at, _) => (at, FindIdEnd(text, at)));
        return Replace(text, "[phone]", (text, at, floor) => (at, FindPhoneEnd(text, at, floor)));
    }

    /// <param name="text">Where to look.</param>
    /// <param name="mask">What to write instead.</param>
    /// <param name="find">Answers the match at an index, not before the floor; its end is 0 when there is none.</param>
    private static string Replace(string text, string mask, Func<string, int, int, (int Start, int End)> find)
    {
        StringBuilder? masked = null;
        var floor = 0;
        for (var i = 0; i < text.Length; i++)
        {
            var (start, end) = find(text, i, floor);
            if (end > 0)
            {
                (masked ??= new StringBuilder(text.Length)).Append(text, floor, start - floor).Append(mask);
                floor = end;
                i = end - 1;
            }
        }

        return masked?.Append(text, floor, text.Length - floor).ToString() ?? text;
    }

    // No run crosses an at sign of its kind, so that no character is read more than a few times.
    private static (int Start, int End) FindEmail(string text, int at, int floor)
    {
        var sign = MeasureAtSign(text, at);
        if (sign == 0)
        {
            return default;
        }

        var start = at;
        while (start > floor && IsLocalPart(text[start - 1]) && !(sign == 3 && start >= 3 && MeasureAtSign(text, start - 3) == 3))
        {
            start--;
        }

        while (start < at && !char.IsLetterOrDigit(text[start]) && text[start] != '_')
        {
            start++;
        }

        return start < at ? (start, FindDomainEnd(text, at + sign)) : default;
    }

    /// <summary>The length of an at sign, also a wide one, or as links have it: %40; or 0.</summary>
    private static int MeasureAtSign(string text, int at) =>
        text[at] is '@' or '\uFF20' or '\uFE6B' ? 1
        : text[at] == '%' && text.AsSpan(at + 1).StartsWith("40") ? 3
        : 0;

    /// <summary>The end of the last label that can be a top-level domain, or 0. A change to or from a script without cases ends the domain.</summary>
    private static int FindDomainEnd(string text, int start)
    {
        var end = 0;
        for (var label = start; label < text.Length; label++)
        {
            var isCaseless = IsCaseless(text[label]);
            var letters = label;
            while (letters < text.Length && IsLetter(text[letters]))
            {
                letters++;
            }

            var next = letters;
            while (next < text.Length && (IsLetter(text[next]) || char.IsDigit(text[next]) || text[next] == '-'))
            {
                next++;
            }

            // "juan@example.com.Gracias" lacks a blank.
            if (next == label || text[label] == '-' || (end > 0 && char.IsUpper(text[label]) && char.IsLower(text[label - 2])))
            {
                break;
            }

            if (label > start && text.AsSpan(label, next - label).StartsWith("xn--", StringComparison.OrdinalIgnoreCase))
            {
                end = next;
            }
            else if (label > start && letters - label >= 2 && (letters == next || text[letters] == '-' || !IsWord(text[letters - 1])))
            {
                end = letters;
            }

            if (next == text.Length || text[next] != '.')
            {
                break;
            }

            label = next;

            bool IsLetter(char c) => IsMark(c) || (char.IsLetter(c) && IsCaseless(c) == isCaseless);
        }

        return end;
    }

    private static int FindIbanEnd(string text, int at)
    {
        if (at + 4 > text.Length
            || !char.IsAsciiLetter(text[at])
            || !char.IsAsciiLetter(text[at + 1])
            || !char.IsAsciiDigit(text[at + 2])
            || !char.IsAsciiDigit(text[at + 3])
            || IsJoinedBefore(text, at)
            || !IbanLengths.TryGetValue(text.Substring(at, 2).ToUpperInvariant(), out var length))
        {
            return 0;
        }

        var end = at + 4;
        var remainder = 0;
        for (var count = 4; count < length; count++)
        {
            end += MeasureCellSeparator(text, end);
            if (end >= text.Length || !char.IsAsciiLetterOrDigit(text[end]))
            {
                return 0;
            }

            remainder = Append(remainder, text[end++]);
        }

        for (var i = at; i < at + 4; i++)
        {
            remainder = Append(remainder, text[i]);
        }

        return remainder == 1 && !IsJoinedAfter(text, end) ? end : 0;

        // ISO 13616: letters count from A = 10.
        static int Append(int remainder, char c) => char.IsAsciiDigit(c)
            ? ((remainder * 10) + c - '0') % 97
            : ((remainder * 100) + (c & 0x1F) + 9) % 97;
    }

    private static int FindCardEnd(string text, int at)
    {
        if (!char.IsAsciiDigit(text[at]) || IsJoinedBefore(text, at))
        {
            return 0;
        }

        // In cells and lines only as cards have it printed: other columns may add up to anything.
        var groups = new Groups(text, at, MeasureCellSeparator);
        for (var count = groups.Count; count > 0; count--)
        {
            if (IsCard(groups.Digits(count), groups.Shape(count))
                && (groups.Shape(count) is "4444" or "465" or "464" || !text.AsSpan(at, groups.End(count) - at).ContainsAny('\t', '\r', '\n'))
                && !IsJoinedAfter(text, groups.End(count)))
            {
                return groups.End(count);
            }
        }

        return 0;
    }

    // Shorter groups before the last are a list of numbers, of phones, or an order of Amazon: 3-7-7.
    private static bool IsCard(ReadOnlySpan<char> digits, ReadOnlySpan<char> shape) =>
        digits.Length is >= 13 and <= 19
        && shape[0] >= '4'
        && !shape[..^1].ContainsAny('1', '2')
        && IsIssued(int.Parse(digits[..4], CultureInfo.InvariantCulture), digits.Length)
        && HasLuhnDigit(digits);

    /// <summary>Whether the first four digits belong to issuers of cards of that length; ISO/IEC 7812.</summary>
    private static bool IsIssued(int prefix, int length) => prefix switch
    {
        >= 4000 and <= 4999 => length is 13 or 16 or 19, // Visa
        (>= 5100 and <= 5599) or (>= 2221 and <= 2720) => length == 16, // Mastercard
        (>= 3400 and <= 3499) or (>= 3700 and <= 3799) => length == 15, // American Express
        (>= 3000 and <= 3059) or 3095 or (>= 3600 and <= 3699) or (>= 3800 and <= 3999) => length >= 14, // Diners
        (>= 3528 and <= 3589) or (>= 2200 and <= 2204) => length >= 16, // JCB, Mir
        (>= 5000 and <= 5099) or (>= 5600 and <= 5899) or (>= 6000 and <= 6999) => true, // Maestro, Discover, UnionPay and national ones
        _ => false,
    };

    private static bool HasLuhnDigit(ReadOnlySpan<char> digits)
    {
        var sum = 0;
        for (var i = 0; i < digits.Length; i++)
        {
            var digit = digits[^(i + 1)] - '0';
            sum += i % 2 == 0 ? digit : (digit * 2 / 10) + (digit * 2 % 10);
        }

        return sum % 10 == 0;
    }

    private static int FindIdEnd(string text, int at)
    {
        if (!char.IsAsciiLetterOrDigit(text[at]) || IsJoinedBefore(text, at))
        {
            return 0;
        }

        if (char.IsAsciiLetter(text[at]))
        {
            return FindNieEnd(text, at);
        }

        var groups = new Groups(text, at);
        for (var count = groups.Count; count > 0; count--)
        {
            var digits = groups.Digits(count);
            var end = groups.Shape(count) switch
            {
                "b" or "92" or "3332" => HasCpfDigits(digits) && !IsJoinedAfter(text, groups.End(count)) ? groups.End(count) : 0,
                "8" or "233" => FindCheckLetterEnd(text, groups.End(count), int.Parse(digits, CultureInfo.InvariantCulture)),
                _ => 0,
            };
            if (end > 0)
            {
                return end;
            }
        }

        return 0;
    }

    private static int FindNieEnd(string text, int at)
    {
        var prefix = "XYZ".IndexOf(char.ToUpperInvariant(text[at]), StringComparison.Ordinal);
        var first = at + 1 + MeasureSeparator(text, at + 1);
        if (prefix < 0 || first >= text.Length || !char.IsAsciiDigit(text[first]) || !CanSeparate(text, at + 1, first, text[at]))
        {
            return 0;
        }

        var groups = new Groups(text, first);
        for (var count = groups.Count; count > 0; count--)
        {
            if (groups.Shape(count) is "7" or "133")
            {
                return FindCheckLetterEnd(
                    text, groups.End(count), (prefix * 10_000_000) + int.Parse(groups.Digits(count), CultureInfo.InvariantCulture));
            }
        }

        return 0;
    }

    private static int FindCheckLetterEnd(string text, int end, int number)
    {
        var at = end + MeasureSeparator(text, end);
        return at < text.Length
            && char.ToUpperInvariant(text[at]) == CheckLetters[number % CheckLetters.Length]
            && CanSeparate(text, end, at, text[at])
            && !IsJoinedAfter(text, at + 1)
            ? at + 1
            : 0;
    }

    // After a blank "y", "a" and "e" are words; after a full stop any letter may begin one.
    private static bool CanSeparate(string text, int start, int end, char letter) => (end - start) switch
    {
        1 when IsSpace(text[start]) => char.IsAsciiLetterUpper(letter),
        1 => text[start] != '.',
        _ => true,
    };

    private static bool HasCpfDigits(ReadOnlySpan<char> digits) =>
        digits.ContainsAnyExcept(digits[0]) && GetCpfDigit(digits[..9]) == digits[9] && GetCpfDigit(digits[..10]) == digits[10];

    private static char GetCpfDigit(ReadOnlySpan<char> digits)
    {
        var sum = 0;
        for (var i = 0; i < digits.Length; i++)
        {
            sum += (digits[i] - '0') * (digits.Length + 1 - i);
        }

        return (char)('0' + (sum * 10 % 11 % 10));
    }

    private static int FindPhoneEnd(string text, int at, int floor)
    {
        var end = text[at] switch
        {
            // "1.0.0+20240312" is a version.
            '+' => FindInternationalEnd(text, at + 1, isGlued: at > floor && IsWord(text[at - 1])),
            '(' => text.AsSpan(at + 1).StartsWith('+') ? FindInternationalEnd(text, at + 2, isGlued: false) : FindAreaEnd(text, at + 1),
            >= '0' and <= '9' when !IsJoinedBefore(text, at) => FindNationalEnd(text, at),
            _ => 0,
        };
        return end > 0 && IsAmount(text, at, end) ? 0 : end;
    }

    /// <summary>After a plus: as many digits as the country has, else anything of 8 to 15 digits (E.164) that is not glued.</summary>
    private static int FindInternationalEnd(string text, int at, bool isGlued)
    {
        if (at >= text.Length || text[at] is < '1' or > '9')
        {
            return 0;
        }

        var groups = new Groups(text, at, MeasureWideSeparator);
        var other = 0;
        for (var count = groups.Count; count > 0; count--)
        {
            // A single digit at the end belongs to what follows.
            if (groups.Shape(count)[^1] == '1' || IsJoinedAfter(text, groups.End(count)))
            {
                continue;
            }

            if (IsPlanned(groups.Digits(count)))
            {
                return groups.End(count);
            }

            if (other == 0 && !isGlued && groups.Digits(count).Length is >= 8 and <= 15)
            {
                other = groups.End(count);
            }
        }

        return other;
    }

    private static bool IsPlanned(ReadOnlySpan<char> digits)
    {
        foreach (var (code, min, max) in Plans)
        {
            if (digits.StartsWith(code))
            {
                var number = digits[code.Length..];

                // One more for the zero in "+44 (0)20".
                return number.Length >= min && number.Length <= (number[0] == '0' ? max + 1 : max);
            }
        }

        return false;
    }

    /// <summary>After a parenthesis: an area code, its end, and groups as numbers have them.</summary>
    private static int FindAreaEnd(string text, int at)
    {
        if (at >= text.Length || !char.IsAsciiDigit(text[at]))
        {
            return 0;
        }

        var groups = new Groups(text, at, MeasureWideSeparator);
        if (groups.Count < 2 || text[groups.End(1)] != ')')
        {
            return 0;
        }

        for (var count = groups.Count; count > 1; count--)
        {
            if (groups.Shape(count) is "254" or "29" or "27" or "28" or "234" or "244" or "2322" or "22222"
                    or "333" or "334" or "344" or "3222" or "3322" or "36" or "37" or "38" or "433" or "434"
                && !text.AsSpan(groups.End(1) + 1, groups.End(count) - groups.End(1) - 1).ContainsAny('(', ')')
                && !IsJoinedAfter(text, groups.End(count)))
            {
                return groups.End(count);
            }
        }

        return 0;
    }

    /// <summary>
    /// Digits without a plus or a parenthesis are ambiguous, and these are the rules. The word before them decides: a reference ("pedido",
    /// "invoice", "#") keeps them; a telephone ("tel.", "llámenme al") makes a phone of 7 to 15 digits in one run, or of 7 to 10 in groups.
    /// With neither it is a phone when it is written like one: nine digits from 6, 7, 8 or 9, also in one run; in groups also the
    /// Portuguese 2…, and 3-3-4 and 2-5-4 as in North America and Brazil; 00 and a country's number. The doubt is for masking: a classifier
    /// loses nothing by it. Other runs stay. An amount stays, and so do four groups with dots that are an IP address.
    /// </summary>
    private static int FindNationalEnd(string text, int at)
    {
        var groups = new Groups(text, at);
        if (groups.Count == 0 || groups.Digits(groups.Count).Length < 7)
        {
            return 0;
        }

        var clue = FindClue(text, at);
        for (var count = clue == Clue.Reference ? 0 : groups.Count; count > 0; count--)
        {
            var digits = groups.Digits(count);
            var shape = groups.Shape(count);
            var end = groups.End(count);
            if ((IsNational(digits, shape) || (clue == Clue.Phone && IsCalled(digits, shape)))
                && !IsJoinedAfter(text, end)
                && !(count == 4 && IPAddress.TryParse(text.AsSpan(at, end - at), out _)))
            {
                return end;
            }
        }

        return 0;
    }

    private static bool IsNational(ReadOnlySpan<char> digits, ReadOnlySpan<char> shape) => shape switch
    {
        "9" or "27" or "36" or "3222" => digits[0] >= '6',
        "234" or "2322" or "333" => digits[0] is '2' or >= '6',
        "334" => digits[0] >= '2',
        "1334" => digits[0] == '1',
        "254" => digits[0] != '0' && digits[2] == '9',
        _ => digits.StartsWith("00") && shape[^1] != '1' && IsPlanned(digits[2..]),
    };

    private static bool IsCalled(ReadOnlySpan<char> digits, ReadOnlySpan<char> shape) => shape.Length == 1
        ? digits.Length is >= 7 and <= 15
        : shape is "28" or "34" or "37" or "44" or "45" or "144" or "244" or "322" or "344" or "433" or "2222" or "3322" or "22222";

    /// <summary>What the words before a number say of it; never further back than a few words of the same sentence.</summary>
    private static Clue FindClue(string text, int at)
    {
        var isTowards = false;
        var isParenthesised = false;
        for (var words = 0; words < 5; words++)
        {
            var end = at;
            var isDotted = false;
            while (end > 0 && at - end < 6 && (IsSpace(text[end - 1]) || IsDash(text[end - 1]) || text[end - 1] is ':' or '.' or '#' or '=' or '/' or '*' or '°' or '(' or ')'))
            {
                end--;
                if (text[end] == '#')
                {
                    return Clue.Reference;
                }

                isDotted |= text[end] == '.';
                isParenthesised |= text[end] is '(' or ')';
            }

            var start = end;
            while (start > 0 && end - start < 16 && char.IsLetter(text[start - 1]))
            {
                start--;
            }

            // A full stop after more than "núm", "ref" or "fact" ends a sentence.
            var word = text.AsSpan(start, end - start);
            if (word.IsEmpty || (isDotted && word.Length > 4))
            {
                return Clue.None;
            }

            if (IsAny(word, PhoneWords))
            {
                return Clue.Phone;
            }

            if (IsAny(word, ReferenceWords))
            {
                // "Llamen (por el pedido) 612345678"
                return isTowards || isParenthesised ? Clue.None : Clue.Reference;
            }

            if (IsAny(word, TowardsWords))
            {
                isTowards = true;
            }
            else if (!IsAny(word, LinkWords))
            {
                return Clue.None;
            }

            at = start;
        }

        return Clue.None;
    }

    private static bool IsAny(ReadOnlySpan<char> word, string[] list)
    {
        foreach (var entry in list)
        {
            if (entry.Length > 4 ? word.StartsWith(entry, StringComparison.OrdinalIgnoreCase) : word.Equals(entry, StringComparison.OrdinalIgnoreCase))
            {
                return true;
            }
        }

        return false;
    }

    // "5 € 612345678" has its amount before.
    private static bool IsAmount(string text, int start, int end)
    {
        var before = start > 0 && IsSpace(text[start - 1]) ? start - 2 : start - 1;
        var after = end < text.Length && IsSpace(text[end]) ? end + 1 : end;
        if ((IsCurrency(before) && !IsDigit(before - 1) && !(before > 0 && IsSpace(text[before - 1]) && IsDigit(before - 2)))
            || IsCurrency(after)
            || (after < text.Length && text[after] == '%'))
        {
            return true;
        }

        var wordEnd = after;
        while (wordEnd < text.Length && wordEnd - after < 8 && char.IsLetter(text[wordEnd]))
        {
            wordEnd++;
        }

        var word = text.AsSpan(after, wordEnd - after);
        foreach (var unit in UnitWords)
        {
            if (word.Equals(unit, StringComparison.OrdinalIgnoreCase))
            {
                return true;
            }
        }

        return false;

        bool IsCurrency(int at) => at >= 0 && at < text.Length && char.GetUnicodeCategory(text[at]) == UnicodeCategory.CurrencySymbol;
        bool IsDigit(int at) => at >= 0 && char.IsAsciiDigit(text[at]);
    }

    private static bool IsJoinedBefore(string text, int at) => at > 0 && (IsWord(text[at - 1]) || IsJoint(text, at - 1));

    private static bool IsJoinedAfter(string text, int end) => end < text.Length && (IsWord(text[end]) || IsJoint(text, end));

    /// <summary>Whether a dash, a dot or a decimal comma makes one of two numbers.</summary>
    private static bool IsJoint(string text, int at)
    {
        if (at == 0 || at + 1 >= text.Length || !char.IsAsciiDigit(text[at - 1]) || !char.IsAsciiDigit(text[at + 1]))
        {
            return false;
        }

        // Three digits and more after a comma are the next number of a list.
        return IsDash(text[at])
            || text[at] == '.'
            || (text[at] == ',' && !(at + 3 < text.Length && char.IsAsciiDigit(text[at + 2]) && char.IsAsciiDigit(text[at + 3])));
    }

    /// <summary>Whether a character glues a number to it. Not so in scripts without cases, which write no blanks there; nor "º".</summary>
    private static bool IsWord(char c) => char.IsDigit(c) || c == '_' || IsMark(c) || (char.IsLetter(c) && !IsCaseless(c));

    private static bool IsCaseless(char c) => char.GetUnicodeCategory(c) == UnicodeCategory.OtherLetter;

    // A variation selector makes an emoji of "☎", not a letter.
    private static bool IsMark(char c) => char.GetUnicodeCategory(c) == UnicodeCategory.NonSpacingMark && c is not (>= '\uFE00' and <= '\uFE0F');

    private static bool IsLocalPart(char c) => char.IsLetterOrDigit(c) || IsMark(c) || c is '.' or '_' or '%' or '+' or '-' or '\'' or '&' or '~';

    private static bool IsSpace(char c) => char.GetUnicodeCategory(c) == UnicodeCategory.SpaceSeparator;

    private static bool IsDash(char c) => c is '-' or (>= '\u2010' and <= '\u2015');

    /// <summary>The length of a blank, a dot, a dash or a dash between blanks; or 0.</summary>
    private static int MeasureSeparator(string text, int at)
    {
        if (at >= text.Length)
        {
            return 0;
        }

        if (IsSpace(text[at]))
        {
            return at + 2 < text.Length && IsDash(text[at + 1]) && IsSpace(text[at + 2]) ? 3 : 1;
        }

        return text[at] == '.' || IsDash(text[at]) ? 1 : 0;
    }

    /// <summary>Also a tab or a line break, as in a pasted table.</summary>
    private static int MeasureCellSeparator(string text, int at) =>
        at >= text.Length ? 0
        : text[at] == '\r' && at + 1 < text.Length && text[at + 1] == '\n' ? 2
        : text[at] is '\t' or '\r' or '\n' ? 1
        : MeasureSeparator(text, at);

    /// <summary>Also as in "+55 (11) 9": up to four characters, a parenthesis among them.</summary>
    private static int MeasureWideSeparator(string text, int at)
    {
        var end = at;
        while (end < text.Length && end - at < 4 && (IsSpace(text[end]) || IsDash(text[end]) || text[end] is '.' or '(' or ')'))
        {
            end++;
        }

        return text.AsSpan(at, end - at).ContainsAny('(', ')') ? end - at : MeasureSeparator(text, at);
    }

    /// <summary>Groups of digits with separators in between, as far as a number may go.</summary>
    private sealed class Groups
    {
        private readonly char[] _digits = new char[MaxDigits];
        private readonly char[] _shape = new char[MaxGroups];
        private readonly (int Digits, int End)[] _ends = new (int, int)[MaxGroups];

        public Groups(string text, int at)
            : this(text, at, MeasureSeparator)
        {
        }

        public Groups(string text, int at, Func<string, int, int> measureSeparator)
        {
            var total = 0;
            while (Count < MaxGroups && at < text.Length && char.IsAsciiDigit(text[at]))
            {
                var first = total;
                while (at < text.Length && char.IsAsciiDigit(text[at]))
                {
                    if (total == MaxDigits)
                    {
                        return;
                    }

                    _digits[total++] = text[at++];
                }

                _shape[Count] = "0123456789abcdefghijk"[total - first];
                _ends[Count++] = (total, at);
                at += measureSeparator(text, at);
            }
        }

        public int Count { get; private set; }

        /// <summary>The digits of the first groups.</summary>
        public ReadOnlySpan<char> Digits(int count) => _digits.AsSpan(0, _ends[count - 1].Digits);

        /// <summary>How long the first groups are: "3222" is 600 12 34 56; from 10 on it is a letter.</summary>
        public ReadOnlySpan<char> Shape(int count) => _shape.AsSpan(0, count);

        /// <summary>The index after the first groups.</summary>
        public int End(int count) => _ends[count - 1].End;
    }
}
