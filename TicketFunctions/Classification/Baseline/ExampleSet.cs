using System.Security.Cryptography;
using System.Text;
using System.Text.Json;

namespace TicketFunctions.Classification.Baseline;

/// <summary>A labelled text; a label is absent where it does not apply or is ambiguous.</summary>
public sealed record Example(string Source, string Text, string? Category, string? Sentiment, string Language);

/// <summary>The training data of a folder: one JSON-lines file a source, and the lexicons beside it.</summary>
public sealed class ExampleSet
{
    private static readonly JsonSerializerOptions Options = new(JsonSerializerDefaults.Web);

    private ExampleSet(IReadOnlyList<Example> examples, Lexicon lexicon, byte[] hash)
    {
        Examples = examples;
        Lexicon = lexicon;
        Hash = hash;
    }

    public IReadOnlyList<Example> Examples { get; }

    /// <summary>SHA-256 over names and lines of all files, independent of line endings and of enumeration order.</summary>
    public IReadOnlyList<byte> Hash { get; }

    internal Lexicon Lexicon { get; }

    /// <summary>Reads Examples/*.jsonl and Lexicons/*.txt below <paramref name="folder"/>.</summary>
    public static ExampleSet Read(string folder)
    {
        using var sha = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);
        var examples = new List<Example>();
        foreach (var (name, lines) in ReadFiles(Path.Combine(folder, "Examples"), "*.jsonl", sha))
        {
            foreach (var line in lines.Where(line => line.Length > 0))
            {
                var row = JsonSerializer.Deserialize<Row>(line, Options)
                    ?? throw new InvalidDataException($"{name} has a line that is no example: {line}");
                examples.Add(new Example(name, row.Text, row.Category, row.Sentiment, row.Lang));
            }
        }

        var lexicon = Lexicon.Parse(ReadFiles(Path.Combine(folder, "Lexicons"), "*.txt", sha).SelectMany(file => file.Lines).ToList());
        return new ExampleSet(examples, lexicon, sha.GetHashAndReset());
    }

    /// <summary>The examples that <paramref name="includes"/> accepts; the hash stays that of the files.</summary>
    public ExampleSet Where(Func<Example, bool> includes) => new([.. Examples.Where(includes)], Lexicon, [.. Hash]);

    private static IEnumerable<(string Name, string[] Lines)> ReadFiles(string folder, string pattern, IncrementalHash sha)
    {
        foreach (var path in Directory.EnumerateFiles(folder, pattern).OrderBy(Path.GetFileName, StringComparer.Ordinal))
        {
            var lines = File.ReadAllLines(path);
            sha.AppendData(Encoding.UTF8.GetBytes(Path.GetFileName(path) + "\n" + string.Join('\n', lines) + "\n"));
            yield return (Path.GetFileNameWithoutExtension(path), lines);
        }
    }

    private sealed record Row(string Text, string? Category, string? Sentiment, string Lang);
}
