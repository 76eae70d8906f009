using System.Collections.Concurrent;

namespace TicketFunctions.Tests.Classification.Providers;

/// <summary>A clock that ends time-outs of this length when the test says so: not before the server has done what it does, and then at once.</summary>
public sealed class Alarm(TimeSpan length) : TimeProvider
{
    private readonly ConcurrentQueue<ITimer> _timers = new();

    public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period)
    {
        if (dueTime != length)
        {
            return base.CreateTimer(callback, state, dueTime, period);
        }

        var timer = base.CreateTimer(callback, state, Timeout.InfiniteTimeSpan, period);
        _timers.Enqueue(timer);
        return timer;
    }

    /// <summary>Ends those that run.</summary>
    public void Ring()
    {
        while (_timers.TryDequeue(out var timer))
        {
            timer.Change(TimeSpan.Zero, Timeout.InfiniteTimeSpan);
        }
    }
}
