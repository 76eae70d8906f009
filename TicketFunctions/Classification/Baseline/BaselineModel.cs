using System.IO.Compression;
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics;

namespace TicketFunctions.Classification.Baseline;

/// <summary>What the baseline says of a text; it abstains where its confidence in either label is too low to act on.</summary>
public readonly record struct BaselinePrediction(
    string Category, float CategoryConfidence, string Sentiment, float SentimentConfidence, bool Abstains);

/// <summary>The embedded statistical classifier of category and sentiment. Immutable, hence safe to share between threads.</summary>
public sealed class BaselineModel
{
    private const string Resource = "baseline.bin";
    private const uint Magic = 0x4D424654;
    private const ushort FormatVersion = 1;

    /// <summary>Chosen on out-of-source predictions: what stays above it is clearly more often right.</summary>
    internal const float CategoryThreshold = 0.55f;
    internal const float SentimentThreshold = 0.55f;

    private static readonly Lazy<BaselineModel> Shared = new(Load);

    private readonly FeatureExtractor _extractor;
    private readonly Head _category;
    private readonly Head _sentiment;

    internal BaselineModel(Lexicon lexicon, Head category, Head sentiment, byte[] trainingDataHash)
    {
        _extractor = new FeatureExtractor(lexicon);
        Lexicon = lexicon;
        _category = category;
        _sentiment = sentiment;
        TrainingDataHash = trainingDataHash;
    }

    /// <summary>The committed model, loaded once.</summary>
    public static BaselineModel Default => Shared.Value;

    internal static IReadOnlyList<string> Categories { get; } = ["Tecnico", "Facturacion", "Comercial", "Otro"];

    internal static IReadOnlyList<string> Sentiments { get; } = ["Negativo", "Neutral", "Positivo"];

    /// <summary>The <see cref="ExampleSet.Hash"/> of the data the model was trained from.</summary>
    public IReadOnlyList<byte> TrainingDataHash { get; }

    private Lexicon Lexicon { get; }

    /// <summary>Its size in the assembly, in bytes.</summary>
    internal static long Size
    {
        get
        {
            using var stream = Open();
            return stream.Length;
        }
    }

    /// <summary>The <see cref="TrainingDataHash"/> of the committed model, without the rest of it.</summary>
    public static byte[] ReadTrainingDataHash()
    {
        using var decompressed = new BrotliStream(Open(), CompressionMode.Decompress);
        using var reader = new BinaryReader(decompressed);
        return ReadHash(reader);
    }

    public static BaselineModel Load()
    {
        using var stream = Open();
        return Read(stream);
    }

    public BaselinePrediction Predict(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        var features = CollectionsMarshal.AsSpan(_extractor.Extract(text));
        var category = _category.Decide(features);
        var sentiment = _sentiment.Decide(features);
        return new BaselinePrediction(
            Categories[category.Class],
            category.Confidence,
            Sentiments[sentiment.Class],
            sentiment.Confidence,
            category.Confidence < CategoryThreshold || sentiment.Confidence < SentimentThreshold);
    }

    /// <summary>Reads a model file as <see cref="TrainingResult.Save"/> writes it.</summary>
    public static BaselineModel Read(Stream stream)
    {
        using var decompressed = new BrotliStream(stream, CompressionMode.Decompress);
        using var reader = new BinaryReader(decompressed);
        var hash = ReadHash(reader);
        var topics = new string[reader.ReadByte()];
        for (var i = 0; i < topics.Length; i++)
            topics[i] = reader.ReadString();
        var count = reader.ReadInt32();
        var entries = new Dictionary<ulong, ulong>(count);
        for (var i = 0; i < count; i++)
            entries.Add(reader.ReadUInt64(), reader.ReadUInt64());
        return new BaselineModel(new Lexicon(topics, entries), Head.Read(reader), Head.Read(reader), hash);
    }

    internal void Write(Stream stream)
    {
        using var compressed = new BrotliStream(stream, CompressionLevel.SmallestSize, leaveOpen: true);
        using var writer = new BinaryWriter(compressed);
        writer.Write(Magic);
        writer.Write(FormatVersion);
        writer.Write([.. TrainingDataHash]);
        writer.Write((byte)Lexicon.Topics.Count);
        foreach (var topic in Lexicon.Topics)
            writer.Write(topic);
        writer.Write(Lexicon.TopicsByHash.Count);
        foreach (var (hash, mask) in Lexicon.TopicsByHash.OrderBy(entry => entry.Key))
        {
            writer.Write(hash);
            writer.Write(mask);
        }

        _category.Write(writer);
        _sentiment.Write(writer);
    }

    private static byte[] ReadHash(BinaryReader reader) => reader.ReadUInt32() == Magic && reader.ReadUInt16() == FormatVersion
        ? reader.ReadBytes(32)
        : throw new InvalidDataException("The baseline model has another format; train it again.");

    private static Stream Open() => typeof(BaselineModel).Assembly.GetManifestResourceStream(Resource)
        ?? throw new InvalidOperationException($"The resource {Resource} is missing from the assembly.");
}
