using System.Collections.Concurrent;
using System.Diagnostics.Metrics;

namespace TicketFunctions.Tests.Support;

/// <summary>One measurement.</summary>
public sealed record Measurement(Instrument Instrument, double Value, IReadOnlyDictionary<string, string?> Tags)
{
    public string Name => Instrument.Name;
}

/// <summary>Everything that some meters of this process measure, whoever causes it.</summary>
public sealed class Measurements : IDisposable
{
    private readonly ConcurrentQueue<Measurement> _all = new();
    private readonly MeterListener _listener;

    public Measurements(params string[] meters)
    {
        _listener = new MeterListener
        {
            InstrumentPublished = (instrument, listener) =>
            {
                if (meters.Contains(instrument.Meter.Name))
                {
                    listener.EnableMeasurementEvents(instrument);
                }
            },
        };
        _listener.SetMeasurementEventCallback<double>((instrument, value, tags, _) => Add(instrument, value, tags));
        _listener.SetMeasurementEventCallback<long>((instrument, value, tags, _) => Add(instrument, value, tags));
        _listener.Start();
    }

    /// <summary>What was measured so far.</summary>
    public IReadOnlyCollection<Measurement> All => _all;

    /// <summary>Asks the gauges, as an exporter does, and returns what they tell.</summary>
    public IReadOnlyList<Measurement> ReadGauges()
    {
        var before = _all.Count;
        _listener.RecordObservableInstruments();
        return [.. _all.Skip(before).Where(measurement => measurement.Instrument.IsObservable)];
    }

    public void Dispose() => _listener.Dispose();

    private void Add(Instrument instrument, double value, ReadOnlySpan<KeyValuePair<string, object?>> tags) =>
        _all.Enqueue(new Measurement(instrument, value, tags.ToArray().ToDictionary(tag => tag.Key, tag => tag.Value?.ToString())));
}
