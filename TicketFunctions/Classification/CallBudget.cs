namespace TicketFunctions.Classification;

/// <summary>The time all calls of one attempt have together.</summary>
internal sealed class CallBudget : IDisposable
{
    private readonly CancellationTokenSource _total;
    private readonly CancellationTokenSource _either;
    private readonly TimeProvider _time;
    private readonly TimeSpan _length;
    private readonly long _started;

    public CallBudget(TimeSpan length, TimeProvider time, CancellationToken stopping)
    {
        _total = new CancellationTokenSource(length, time);
        _either = CancellationTokenSource.CreateLinkedTokenSource(stopping, _total.Token);
        _time = time;
        _length = length;
        _started = time.GetTimestamp();
        Stopping = stopping;
    }

    /// <summary>Cancelled when the time is over, or the process stops.</summary>
    public CancellationToken Token => _either.Token;

    /// <summary>Cancelled when the process stops.</summary>
    public CancellationToken Stopping { get; }

    public TimeSpan Remaining => _length - _time.GetElapsedTime(_started);

    public void Dispose()
    {
        _either.Dispose();
        _total.Dispose();
    }
}
