using System.Threading.Channels;

namespace TicketFunctions.Tests.Support;

/// <summary>The usual time, which tells when somebody begins to wait by it.</summary>
public sealed class WaitingTime : TimeProvider
{
    private readonly Channel<bool> _waits = Channel.CreateUnbounded<bool>();

    /// <summary>Completes when so many more waits have begun; fails when one of them did not within 30 s.</summary>
    public async Task WaitForAsync(int waits)
    {
        for (var wait = 1; wait <= waits; wait++)
        {
            await _waits.Reader.ReadAsync().AsTask().WaitAsync(TimeSpan.FromSeconds(30));
        }
    }

    public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period)
    {
        var timer = base.CreateTimer(callback, state, dueTime, period);
        _waits.Writer.TryWrite(true);
        return timer;
    }
}
