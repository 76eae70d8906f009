using System.Numerics;

namespace TicketFunctions.Classification.Baseline;

/// <summary>One active feature of a text: its place in the weight table and its value.</summary>
internal readonly record struct Feature(int Index, float Value);

/// <summary>Turns a text into features: hashed words, word pairs and character n-grams, and signals counted by topic.</summary>
internal sealed class FeatureExtractor(Lexicon lexicon)
{
    public const int WordSlots = 1 << 17;
    public const int CharSlots = 1 << 17;
    public const int SignalSlots = 512;
    public const int CharBase = WordSlots;
    public const int SignalBase = WordSlots + CharSlots;
    public const int Slots = SignalBase + SignalSlots;

    private const int NegationReach = 3;
    private const int PhraseLength = 4;
    private const int StemLength = 6;
    private const int TopicVariants = 4;
    private const int ShapeBase = Lexicon.MaxTopics * TopicVariants;

    /// <summary>Active in every text, in texts that ask nothing and in texts that only ask, and calmly: a decision can be shifted by them.</summary>
    public const int Always = SignalBase + ShapeBase;
    public const int AsksNothing = Always + 26;
    public const int OnlyAsks = Always + 7;

    /// <summary>How much each group weighs in the score; found by cross-validation, and flat around it.</summary>
    private const float WordScale = 1.5f;
    private const float CharScale = 1f;
    public const float SignalScale = 0.3f;

    private readonly ulong _negators = Mask(lexicon, "negator");
    private readonly ulong _interrogatives = Mask(lexicon, "interrogative");
    private readonly ulong _contrasts = Mask(lexicon, "contrast");
    private readonly ulong _positive = Mask(lexicon, "positive", "delight", "fondness", "joy", "gratitude", "solved");
    private readonly ulong _negative = Mask(lexicon, "negative", "outrage", "failure", "breakage", "sorrow");

    public List<Feature> Extract(string text)
    {
        var document = Document.Parse(text);
        var tokens = document.Tokens;
        var topics = new ulong[tokens.Count];
        for (var i = 0; i < tokens.Count; i++)
            FindTopics(document, i, topics);
        for (var i = 0; i < tokens.Count; i++)
        {
            if (tokens[i].StartsClause && (topics[i] & _interrogatives) != 0)
                document.MarkQuestion(tokens[i].Sentence);
        }

        var words = new List<int>(tokens.Count * 4);
        var characters = new List<int>(tokens.Count * 15);
        var signals = new float[SignalSlots];
        var (negatedUntil, negatedClause) = (-1, -1);
        var (positive, negative, afterContrast) = (0, 0, 0);
        for (var i = 0; i < tokens.Count; i++)
        {
            var token = tokens[i];
            var word = document.Text(token);
            var negated = i <= negatedUntil && token.Clause == negatedClause;
            var question = document.IsQuestion(token.Sentence);
            AddWords(words, document, i, negated);
            AddCharacters(characters, word);
            for (var rest = topics[i]; rest != 0; rest &= rest - 1)
                signals[BitOperations.TrailingZeroCount(rest) * TopicVariants + (negated ? 1 : 0) + (question ? 2 : 0)]++;
            if ((topics[i] & _contrasts) != 0)
                afterContrast = 0;
            if (!question)
            {
                var polarity = ((topics[i] & _positive) != 0 ? 1 : 0) - ((topics[i] & _negative) != 0 ? 1 : 0);
                if (negated)
                    polarity = -polarity;
                positive += Math.Max(polarity, 0);
                negative += Math.Max(-polarity, 0);
                afterContrast += polarity;
            }

            if ((topics[i] & _negators) != 0)
                (negatedUntil, negatedClause) = (i + NegationReach, token.Clause);
        }

        AddShape(signals.AsSpan(ShapeBase), document, positive, negative, afterContrast);
        return Collect(words, characters, signals);
    }

    private static ulong Mask(Lexicon lexicon, params ReadOnlySpan<string> topics)
    {
        var mask = 0UL;
        for (var i = 0; i < lexicon.Topics.Count; i++)
        {
            if (topics.Contains(lexicon.Topics[i]))
                mask |= 1UL << i;
        }

        return mask;
    }

    /// <summary>Adds the topics of the word at <paramref name="first"/> and of the phrases that begin there.</summary>
    private void FindTopics(Document document, int first, ulong[] topics)
    {
        var tokens = document.Tokens;
        var context = Hashing.Seed;
        for (var i = first; i < Math.Min(first + PhraseLength, tokens.Count) && tokens[i].Sentence == tokens[first].Sentence; i++)
        {
            var word = document.Text(tokens[i]);
            topics[first] |= lexicon.Lookup(context, word);
            context = Hashing.Add(Hashing.Add(context, word), ' ');
            if (!lexicon.Continues(context))
                break;
        }
    }

    private static void AddWords(List<int> words, Document document, int i, bool negated)
    {
        var tokens = document.Tokens;
        var token = tokens[i];
        var word = document.Text(token);
        var stem = Stem(word);
        var hash = Hashing.Add(Hashing.Seed, word);
        words.Add(Hashing.Slot(hash, WordSlots));
        if (stem.Length < word.Length)
            words.Add(Hashing.Slot(Hashing.Add(Hashing.Add(Hashing.Seed, '~'), stem), WordSlots));
        if (token.Accented)
            words.Add(Hashing.Slot(Hashing.Add(hash, '\''), WordSlots));
        if (negated)
            words.Add(Hashing.Slot(Hashing.Add(Hashing.Add(Hashing.Seed, '!'), stem), WordSlots));
        if (token.StartsClause && (i == 0 || tokens[i - 1].Sentence != token.Sentence))
            words.Add(Hashing.Slot(Hashing.Add(Hashing.Add(Hashing.Seed, '^'), word), WordSlots));
        if (i > 0 && tokens[i - 1].Clause == token.Clause)
        {
            var pair = Hashing.Add(Hashing.Add(Hashing.Add(Hashing.Seed, Stem(document.Text(tokens[i - 1]))), ' '), stem);
            words.Add(Hashing.Slot(pair, WordSlots));
        }
    }

    private static ReadOnlySpan<char> Stem(ReadOnlySpan<char> word)
    {
        if (word.Length > StemLength)
            return word[..StemLength];
        if (word.Length > 4 && word[^1] == 's')
            word = word[..^1];
        return word.Length > 4 && word[^1] is 'a' or 'o' or 'e' ? word[..^1] : word;
    }

    private static void AddCharacters(List<int> characters, ReadOnlySpan<char> word)
    {
        if (word.Length < 3 || word[0] == '0')
            return;
        Span<char> padded = stackalloc char[Math.Min(word.Length, 30) + 2];
        padded[0] = padded[^1] = '_';
        word[..(padded.Length - 2)].CopyTo(padded[1..]);
        for (var start = 0; start + 3 <= padded.Length; start++)
        {
            var hash = Hashing.Add(Hashing.Seed, padded.Slice(start, 2));
            for (var end = start + 2; end < Math.Min(start + 5, padded.Length); end++)
            {
                hash = Hashing.Add(hash, padded[end]);
                characters.Add(CharBase + Hashing.Slot(hash, CharSlots));
            }
        }
    }

    private static void AddShape(Span<float> shape, Document document, int positive, int negative, int afterContrast)
    {
        var questions = 0;
        for (var sentence = 0; sentence < document.Sentences; sentence++)
            questions += document.IsQuestion(sentence) ? 1 : 0;
        var length = document.Tokens.Count;
        shape[0] = 1;
        shape[1] = document.QuestionMarks;
        shape[2] = document.Exclamations;
        shape[3] = document.Ellipses;
        shape[4] = document.Shouted;
        shape[5] = document.Elongated;
        shape[6] = questions;
        shape[OnlyAsks - Always] = questions > 0 && questions >= document.Sentences - 1 && document.Emphatic == 0 ? 1 : 0;
        shape[8] = positive > negative ? 1 : 0;
        shape[9] = negative > positive ? 1 : 0;
        shape[10] = positive + negative == 0 ? 1 : 0;
        shape[11] = Math.Max(positive - negative, 0);
        shape[12] = Math.Max(negative - positive, 0);
        shape[13] = Math.Max(afterContrast, 0);
        shape[14] = Math.Max(-afterContrast, 0);
        shape[15] = positive > 0 && negative == 0 ? 1 : 0;
        shape[16] = negative > 0 && positive == 0 ? 1 : 0;
        shape[17 + Math.Min(BitOperations.Log2((uint)length + 1), 7)] = 1;
        shape[25] = questions == 0 && positive + negative == 0 ? 1 : 0;
        shape[AsksNothing - Always] = questions == 0 ? 1 : 0;
        shape[27] = document.Emphatic;
        shape[28] = positive > 0 && negative > 0 ? 1 : 0;
    }

    /// <summary>Words and characters are binary and of unit length together; signals grow with the logarithm of their count.</summary>
    private static List<Feature> Collect(List<int> words, List<int> characters, float[] signals)
    {
        var features = new List<Feature>(words.Count + characters.Count + 32);
        AddUnique(features, words, WordScale);
        AddUnique(features, characters, CharScale);
        for (var i = 0; i < signals.Length; i++)
        {
            if (signals[i] != 0)
                features.Add(new Feature(SignalBase + i, SignalScale * MathF.Log2(1 + signals[i])));
        }

        return features;
    }

    private static void AddUnique(List<Feature> features, List<int> indices, float scale)
    {
        indices.Sort();
        var first = features.Count;
        var previous = -1;
        foreach (var index in indices)
        {
            if (index != previous)
                features.Add(new Feature(index, 0));
            previous = index;
        }

        var value = scale / MathF.Sqrt(Math.Max(features.Count - first, 1));
        for (var i = first; i < features.Count; i++)
            features[i] = features[i] with { Value = value };
    }
}
