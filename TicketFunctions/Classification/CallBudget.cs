namespace TicketFunctions.Classification;

/// <summary>The time that one call has, or all calls of one attempt together.</summary>
internal sealed class CallBudget : IDisposable
{
    private readonly CancellationTokenSource _end;
    private readonly CancellationTokenRegistration _stop;
    private readonly TimeProvider _time;
    private readonly TimeSpan _length;
    private readonly TimeSpan _least;
    private readonly long _started;

    /// <param name="length">The time there is.</param>
    /// <param name="time">The clock.</param>
    /// <param name="stopping">Ends it early.</param>
    /// <param name="least">What must be left for one more call to begin: one that is cut off is paid all the same.</param>
    public CallBudget(TimeSpan length, TimeProvider time, CancellationToken stopping, TimeSpan least = default)
    {
        _end = new CancellationTokenSource(length, time);
        _stop = stopping.UnsafeRegister(static end => ((CancellationTokenSource)end!).Cancel(), _end);
        _time = time;
        _length = length;
        _least = least;
        _started = time.GetTimestamp();
        Stopping = stopping;
    }

    /// <summary>Cancelled when the time is over, or with <see cref="Stopping"/>.</summary>
    public CancellationToken Token => _end.Token;

    /// <summary>Cancelled when the process stops, and for a call when the time of its attempt is over.</summary>
    public CancellationToken Stopping { get; }

    /// <summary>How long the next call may wait to begin; below zero when it is too late for one.</summary>
    public TimeSpan UntilLastCall => _length - _least - _time.GetElapsedTime(_started);

    public void Dispose()
    {
        _stop.Dispose();
        _end.Dispose();
    }
}
