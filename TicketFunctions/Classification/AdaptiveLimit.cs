namespace TicketFunctions.Classification;

/// <summary>
/// So many calls at once as the server takes: half as many after it said "too many", one more after each round of answers.
/// Additive increase, multiplicative decrease, as TCP does it: https://www.rfc-editor.org/rfc/rfc5681#section-3.1
/// </summary>
internal sealed class AdaptiveLimit(int max)
{
    private readonly Lock _lock = new();
    private readonly LinkedList<TaskCompletionSource<int>> _waiting = new();
    private double _limit = max;
    private int _inUse;
    private int _decreases;

    /// <summary>Calls under way and waiting.</summary>
    public int Load
    {
        get
        {
            lock (_lock)
            {
                return _inUse + _waiting.Count;
            }
        }
    }

    /// <summary>Waits for a place.</summary>
    /// <returns>A stamp to leave with.</returns>
    public ValueTask<int> EnterAsync(CancellationToken cancellationToken)
    {
        lock (_lock)
        {
            if (_inUse < (int)_limit)
            {
                _inUse++;
                return new ValueTask<int>(_decreases);
            }

            return WaitAsync(_waiting.AddLast(new TaskCompletionSource<int>(TaskCreationOptions.RunContinuationsAsynchronously)), cancellationToken);
        }
    }

    private async ValueTask<int> WaitAsync(LinkedListNode<TaskCompletionSource<int>> place, CancellationToken cancellationToken)
    {
        await using var registration = cancellationToken.Register(() =>
        {
            lock (_lock)
            {
                if (place.List is not null)
                {
                    _waiting.Remove(place);
                    place.Value.SetCanceled(cancellationToken);
                }
            }
        });
        return await place.Value.Task;
    }

    /// <param name="stamp">What <see cref="EnterAsync"/> gave.</param>
    /// <param name="refused">True when the server said "too many", false when it answered, null when neither.</param>
    public void Leave(int stamp, bool? refused)
    {
        lock (_lock)
        {
            if (refused == true && stamp == _decreases)
            {
                // Once for all the calls that were under way together.
                _limit = Math.Max(1, Math.Min(_limit, _inUse) / 2);
                _decreases++;
            }
            else if (refused == false)
            {
                _limit = Math.Min(max, _limit + (1 / _limit));
            }

            _inUse--;
            while (_inUse < (int)_limit && _waiting.First is { } next)
            {
                _waiting.RemoveFirst();
                _inUse++;
                next.Value.SetResult(_decreases);
            }
        }
    }
}
