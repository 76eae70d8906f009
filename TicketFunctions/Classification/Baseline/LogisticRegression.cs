using System.Runtime.Intrinsics;

namespace TicketFunctions.Classification.Baseline;

/// <summary>Multinomial logistic regression with an L2 penalty, fitted by L-BFGS; up to four classes, one per vector lane.</summary>
internal static class LogisticRegression
{
    private const int History = 6;
    private const int MaxIterations = 60;
    private const double Tolerance = 2e-4;

    /// <summary>The weights by feature; <paramref name="labels"/> below zero leave an example out.</summary>
    public static Vector128<float>[] Fit(
        IReadOnlyList<Feature[]> rows, IReadOnlyList<int> labels, int classes, double penalty, int slots, CancellationToken cancellationToken)
    {
        var problem = new Problem(rows, labels, classes, penalty, slots);
        var weights = Minimise(problem, cancellationToken);
        return problem.Expand(weights, slots);
    }

    public static Vector128<float> Softmax(Vector128<float> scores, int classes)
    {
        if (classes < 4)
            scores = scores.WithElement(3, float.NegativeInfinity);
        var largest = MathF.Max(MathF.Max(scores[0], scores[1]), MathF.Max(scores[2], scores[3]));
        var exponentials = Vector128.Create(
            MathF.Exp(scores[0] - largest), MathF.Exp(scores[1] - largest), MathF.Exp(scores[2] - largest), MathF.Exp(scores[3] - largest));
        return exponentials / Vector128.Sum(exponentials);
    }

    public static (int Class, float Confidence) Best(Vector128<float> scores, int classes)
    {
        var probabilities = Softmax(scores, classes);
        var best = 0;
        for (var label = 1; label < classes; label++)
            best = probabilities[label] > probabilities[best] ? label : best;
        return (best, probabilities[best]);
    }

    public static Vector128<float> Score(Vector128<float>[] weights, ReadOnlySpan<Feature> features)
    {
        var scores = Vector128<float>.Zero;
        foreach (var feature in features)
            scores += weights[feature.Index] * feature.Value;
        return scores;
    }

    private static Vector128<float>[] Minimise(Problem problem, CancellationToken cancellationToken)
    {
        var size = problem.Size;
        var point = new Vector128<float>[size];
        var gradient = new Vector128<float>[size];
        var loss = problem.Evaluate(point, gradient);
        var steps = new List<(Vector128<float>[] Step, Vector128<float>[] Change, double Curvature)>(History);
        var start = Math.Sqrt(Dot(gradient, gradient));
        for (var iteration = 0; iteration < MaxIterations && Math.Sqrt(Dot(gradient, gradient)) > Tolerance * start; iteration++)
        {
            cancellationToken.ThrowIfCancellationRequested();
            var direction = Direction(gradient, steps);
            var slope = Dot(direction, gradient);
            var length = iteration == 0 ? 1 / start : 1;
            while (true)
            {
                var next = new Vector128<float>[size];
                for (var i = 0; i < size; i++)
                    next[i] = point[i] + direction[i] * (float)length;
                var nextGradient = new Vector128<float>[size];
                var nextLoss = problem.Evaluate(next, nextGradient);
                if (nextLoss > loss + 1e-4 * length * slope)
                {
                    length /= 2;
                    if (length < 1e-8)
                        return point;
                    continue;
                }

                Remember(steps, point, next, gradient, nextGradient);
                (point, gradient, loss) = (next, nextGradient, nextLoss);
                break;
            }
        }

        return point;
    }

    private static void Remember(
        List<(Vector128<float>[] Step, Vector128<float>[] Change, double Curvature)> steps,
        Vector128<float>[] point, Vector128<float>[] next, Vector128<float>[] gradient, Vector128<float>[] nextGradient)
    {
        // The old point and gradient are not needed again: their arrays hold the differences.
        for (var i = 0; i < point.Length; i++)
        {
            point[i] = next[i] - point[i];
            gradient[i] = nextGradient[i] - gradient[i];
        }

        var curvature = Dot(point, gradient);
        if (curvature <= 0)
            return;
        if (steps.Count == History)
            steps.RemoveAt(0);
        steps.Add((point, gradient, curvature));
    }

    private static Vector128<float>[] Direction(
        Vector128<float>[] gradient, List<(Vector128<float>[] Step, Vector128<float>[] Change, double Curvature)> steps)
    {
        var direction = new Vector128<float>[gradient.Length];
        AddScaled(direction, gradient, -1);
        var factors = new double[steps.Count];
        for (var i = steps.Count - 1; i >= 0; i--)
        {
            factors[i] = Dot(steps[i].Step, direction) / steps[i].Curvature;
            AddScaled(direction, steps[i].Change, -factors[i]);
        }

        if (steps.Count > 0)
            AddScaled(direction, direction, steps[^1].Curvature / Dot(steps[^1].Change, steps[^1].Change) - 1);
        for (var i = 0; i < steps.Count; i++)
            AddScaled(direction, steps[i].Step, factors[i] - Dot(steps[i].Change, direction) / steps[i].Curvature);
        return direction;
    }

    private static double Dot(Vector128<float>[] left, Vector128<float>[] right)
    {
        var sum = 0.0;
        for (var i = 0; i < left.Length; i++)
            sum += Vector128.Dot(left[i], right[i]);
        return sum;
    }

    private static void AddScaled(Vector128<float>[] target, Vector128<float>[] source, double factor)
    {
        var scale = (float)factor;
        for (var i = 0; i < target.Length; i++)
            target[i] += source[i] * scale;
    }

    /// <summary>The examples in compressed rows over the features that occur in at least two of them.</summary>
    private sealed class Problem
    {
        private readonly List<int> _slots = [];
        private readonly List<int> _starts = [0];
        private readonly List<int> _labels = [];
        private readonly Feature[] _cells;
        private readonly float[] _weights;
        private readonly int _classes;
        private readonly float _penalty;

        public Problem(IReadOnlyList<Feature[]> rows, IReadOnlyList<int> labels, int classes, double penalty, int slots)
        {
            _classes = classes;
            var counts = new int[slots];
            for (var row = 0; row < rows.Count; row++)
            {
                if (labels[row] < 0)
                    continue;
                foreach (var feature in rows[row])
                    counts[feature.Index]++;
            }

            var columns = new int[slots];
            for (var slot = 0; slot < slots; slot++)
            {
                columns[slot] = counts[slot] < 2 ? -1 : _slots.Count;
                if (counts[slot] >= 2)
                    _slots.Add(slot);
            }

            var cells = new List<Feature>();
            for (var row = 0; row < rows.Count; row++)
            {
                if (labels[row] < 0)
                    continue;
                foreach (var feature in rows[row])
                {
                    if (columns[feature.Index] >= 0)
                        cells.Add(new Feature(columns[feature.Index], feature.Value));
                }

                _starts.Add(cells.Count);
                _labels.Add(labels[row]);
            }

            _cells = [.. cells];
            _penalty = (float)(penalty / Math.Max(_labels.Count, 1));
            // Half-way between the classes as they come and all classes counting alike.
            var support = new double[classes];
            foreach (var label in _labels)
                support[label]++;
            _weights = new float[classes];
            for (var label = 0; label < classes; label++)
                _weights[label] = support[label] == 0 ? 0 : (float)(Math.Sqrt(_labels.Count / (classes * support[label])) / _labels.Count);
        }

        public int Size => _slots.Count;

        public double Evaluate(Vector128<float>[] weights, Vector128<float>[] gradient)
        {
            var loss = 0.5 * _penalty * Dot(weights, weights);
            for (var i = 0; i < weights.Length; i++)
                gradient[i] = weights[i] * _penalty;
            for (var row = 0; row < _labels.Count; row++)
            {
                var cells = _cells.AsSpan(_starts[row].._starts[row + 1]);
                var label = _labels[row];
                var probabilities = Softmax(Score(weights, cells), _classes);
                loss -= _weights[label] * Math.Log(Math.Max(probabilities[label], 1e-30f));
                var error = probabilities.WithElement(label, probabilities[label] - 1) * _weights[label];
                foreach (var cell in cells)
                    gradient[cell.Index] += error * cell.Value;
            }

            return loss;
        }

        public Vector128<float>[] Expand(Vector128<float>[] weights, int slots)
        {
            var expanded = new Vector128<float>[slots];
            for (var i = 0; i < weights.Length; i++)
                expanded[_slots[i]] = weights[i];
            return expanded;
        }
    }
}
