using System.Runtime.Intrinsics;

namespace TicketFunctions.Classification.Baseline;

/// <summary>The linear scores of one label, quantised to a byte a weight, and the temperature that makes them probabilities.</summary>
internal sealed class Head
{
    /// <summary>Each region of the feature table has weights of its own order of magnitude, hence a step of its own.</summary>
    private static readonly int[] Regions = [0, FeatureExtractor.CharBase, FeatureExtractor.SignalBase, FeatureExtractor.Slots];

    private readonly sbyte[] _weights;
    private readonly float[] _steps;
    private readonly int _classes;
    private readonly float _temperature;

    private Head(int classes, float temperature, float[] steps, sbyte[] weights)
    {
        _classes = classes;
        _temperature = temperature;
        _steps = steps;
        _weights = weights;
    }

    public static Head Quantise(Vector128<float>[] weights, int classes, float temperature)
    {
        var steps = new float[Regions.Length - 1];
        var quantised = new sbyte[FeatureExtractor.Slots * 4];
        for (var region = 0; region < steps.Length; region++)
        {
            var largest = 0f;
            for (var slot = Regions[region]; slot < Regions[region + 1]; slot++)
            {
                for (var label = 0; label < classes; label++)
                    largest = MathF.Max(largest, MathF.Abs(weights[slot][label]));
            }

            steps[region] = MathF.Max(largest, 1e-9f) / sbyte.MaxValue;
            for (var slot = Regions[region]; slot < Regions[region + 1]; slot++)
            {
                for (var label = 0; label < classes; label++)
                    quantised[slot * 4 + label] = (sbyte)MathF.Round(weights[slot][label] / steps[region]);
            }
        }

        return new Head(classes, temperature, steps, quantised);
    }

    public (int Class, float Confidence) Decide(ReadOnlySpan<Feature> features) =>
        LogisticRegression.Best(Score(features) / _temperature, _classes);

    public static Head Read(BinaryReader reader)
    {
        var classes = reader.ReadByte();
        var temperature = reader.ReadSingle();
        var steps = new float[Regions.Length - 1];
        for (var region = 0; region < steps.Length; region++)
            steps[region] = reader.ReadSingle();
        var weights = new sbyte[FeatureExtractor.Slots * 4];
        var column = new byte[FeatureExtractor.Slots];
        for (var label = 0; label < classes; label++)
        {
            reader.BaseStream.ReadExactly(column);
            for (var slot = 0; slot < column.Length; slot++)
                weights[slot * 4 + label] = (sbyte)column[slot];
        }

        return new Head(classes, temperature, steps, weights);
    }

    public void Write(BinaryWriter writer)
    {
        writer.Write((byte)_classes);
        writer.Write(_temperature);
        foreach (var step in _steps)
            writer.Write(step);
        // Class by class: neighbouring zeros compress better.
        for (var label = 0; label < _classes; label++)
        {
            for (var slot = 0; slot < FeatureExtractor.Slots; slot++)
                writer.Write(_weights[slot * 4 + label]);
        }
    }

    private Vector128<float> Score(ReadOnlySpan<Feature> features)
    {
        var scores = Vector128<float>.Zero;
        foreach (var feature in features)
        {
            var step = _steps[feature.Index < Regions[1] ? 0 : feature.Index < Regions[2] ? 1 : 2];
            var weights = _weights.AsSpan(feature.Index * 4, 4);
            scores += Vector128.Create((float)weights[0], weights[1], weights[2], weights[3]) * (feature.Value * step);
        }

        return scores;
    }
}
