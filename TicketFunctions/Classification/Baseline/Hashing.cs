namespace TicketFunctions.Classification.Baseline;

/// <summary>FNV-1a over UTF-16, extended character by character; stable across processes and machines.</summary>
internal static class Hashing
{
    public const ulong Seed = 14695981039346656037;

    public static ulong Add(ulong hash, char character) => (hash ^ character) * 1099511628211;

    public static ulong Add(ulong hash, ReadOnlySpan<char> text)
    {
        foreach (var character in text)
            hash = Add(hash, character);
        return hash;
    }

    /// <summary>Spreads a hash over a table of a power-of-two size.</summary>
    public static int Slot(ulong hash, int size)
    {
        hash = (hash ^ (hash >> 33)) * 0xff51afd7ed558ccd;
        hash = (hash ^ (hash >> 33)) * 0xc4ceb9fe1a85ec53;
        return (int)(hash >> 33) & (size - 1);
    }
}
