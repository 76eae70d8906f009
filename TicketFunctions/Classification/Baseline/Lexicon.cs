using System.Runtime.InteropServices;

namespace TicketFunctions.Classification.Baseline;

/// <summary>Words and short phrases grouped by topic; it gives the model vocabulary that the examples lack.</summary>
/// <remarks>Only hashes are kept: the model file carries the lexicon, not its text.</remarks>
internal sealed class Lexicon
{
    public const int MaxTopics = 64;

    /// <summary>Entries under this name have no topic: they keep shorter entries with a * from matching.</summary>
    private const string Exceptions = "none";

    private readonly Dictionary<ulong, ulong> _topicsByHash;

    public Lexicon(IReadOnlyList<string> topics, Dictionary<ulong, ulong> topicsByHash)
    {
        Topics = topics;
        _topicsByHash = topicsByHash;
    }

    public IReadOnlyList<string> Topics { get; }

    public IReadOnlyDictionary<ulong, ulong> TopicsByHash => _topicsByHash;

    /// <summary>Reads lines of "topic: entry, entry"; an entry may be a phrase and end in * to match any ending.</summary>
    public static Lexicon Parse(IEnumerable<string> lines)
    {
        var topics = new List<string>();
        var entries = new Dictionary<ulong, ulong>();
        foreach (var line in lines.Where(line => line.Length > 0 && line[0] != '#'))
        {
            var colon = line.IndexOf(':', StringComparison.Ordinal);
            var topic = line[..colon];
            if (topic != Exceptions && !topics.Contains(topic))
                topics.Add(topic);
            foreach (var entry in line[(colon + 1)..].Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries))
            {
                // The beginnings of a phrase are entries without a topic: where there is none, no phrase goes on.
                for (var space = entry.IndexOf(' ', StringComparison.Ordinal); space > 0; space = entry.IndexOf(' ', space + 1))
                    entries.TryAdd(HashOf(entry[..(space + 1)]), 0);
                ref var mask = ref CollectionsMarshal.GetValueRefOrAddDefault(entries, HashOf(entry), out _);
                if (topic != Exceptions)
                    mask |= 1UL << topics.IndexOf(topic);
            }
        }

        return topics.Count <= MaxTopics
            ? new Lexicon(topics, entries)
            : throw new InvalidDataException($"A lexicon has at most {MaxTopics} topics; this one has {topics.Count}.");
    }

    /// <summary>Whether some phrase begins with the words in <paramref name="context"/>, a blank after each.</summary>
    public bool Continues(ulong context) => _topicsByHash.ContainsKey(context);

    /// <summary>The topics of a word that follows the words already in <paramref name="context"/>; the longest entry wins.</summary>
    public ulong Lookup(ulong context, ReadOnlySpan<char> word)
    {
        var found = 0UL;
        var hash = context;
        for (var i = 0; i < word.Length; i++)
        {
            hash = Hashing.Add(hash, word[i]);
            if (_topicsByHash.TryGetValue(Hashing.Add(hash, '*'), out var topics))
                found = topics;
        }

        return _topicsByHash.TryGetValue(hash, out var exact) ? exact : found;
    }

    private static ulong HashOf(string entry) => Hashing.Add(Hashing.Seed, Folding.Fold(entry));
}
