namespace TicketFunctions.Classification;

/// <summary>The time that one call has, or all calls of one attempt together.</summary>
internal sealed class CallBudget : IDisposable
{
    private readonly CancellationTokenSource _end;
    private readonly CancellationTokenRegistration _stop;
    private readonly TimeProvider _time;
    private readonly TimeSpan _length;
    private readonly long _started;

    public CallBudget(TimeSpan length, TimeProvider time, CancellationToken stopping)
    {
        _end = new CancellationTokenSource(length, time);
        _stop = stopping.UnsafeRegister(static end => ((CancellationTokenSource)end!).Cancel(), _end);
        _time = time;
        _length = length;
        _started = time.GetTimestamp();
        Stopping = stopping;
    }

    /// <summary>Cancelled when the time is over, or with <see cref="Stopping"/>.</summary>
    public CancellationToken Token => _end.Token;

    /// <summary>Cancelled when the process stops, and for a call when the time of its attempt is over.</summary>
    public CancellationToken Stopping { get; }

    public TimeSpan Remaining => _length - _time.GetElapsedTime(_started);

    public void Dispose()
    {
        _stop.Dispose();
        _end.Dispose();
    }
}
