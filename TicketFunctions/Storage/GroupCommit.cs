using System.Threading.Tasks.Sources;
using Npgsql;

namespace TicketFunctions.Storage;

/// <summary>
/// Gathers what comes while a statement is on its way into the next one: one round trip and one commit for all.
/// Nobody waits while none is on its way, nor for a slow one, and one member's fault is not the others'.
/// </summary>
/// <typeparam name="TItem">What is asked.</typeparam>
/// <typeparam name="TResult">What comes of it.</typeparam>
/// <param name="run">Runs one statement for all. Told to wait for rows that somebody has locked, or to pass them over.</param>
/// <param name="isPassedOver">Tells what came of an item that was passed over: it is sent again, alone.</param>
/// <param name="alone">Places for statements for one, of all groups: each may wait for a lock, and together they must leave connections for the others.</param>
internal sealed class GroupCommit<TItem, TResult>(
    Func<IReadOnlyList<TItem>, bool, Task<TResult[]>> run, Func<TResult, bool> isPassedOver, SemaphoreSlim alone) : IDisposable
{
    /// <summary>Items in one statement at most.</summary>
    private const int MaxMembers = 256;

    /// <summary>Statements at once: one as long as each is done in time, more where the way to the database is long, or something holds one up.</summary>
    private const int MaxStatements = 4;

    /// <summary>How long an item waits for the statement before it: that takes a few milliseconds where the database is near.</summary>
    private static readonly TimeSpan MaxDelay = TimeSpan.FromMilliseconds(25);

    /// <summary>How long an item waits to be sent alone: as long as a statement waits for a connection.</summary>
    private static readonly TimeSpan MaxWait = TimeSpan.FromSeconds(5);

    private readonly Lock _lock = new();
    private readonly Queue<Member> _waiting = new();
    private Timer? _timer;
    private bool _isTimed;
    private int _running;

    public ValueTask<TResult> RunAsync(TItem item)
    {
        var member = new Member(item);
        lock (_lock)
        {
            _waiting.Enqueue(member);
            if (_running > 0)
            {
                LimitDelay(MaxDelay);
                return member.Result;
            }

            _running++;
        }

        // Not in line: what is in the thread pool's queue already may still come along.
        ThreadPool.UnsafeQueueUserWorkItem(static group => _ = group.DrainAsync(), this, preferLocal: false);
        return member.Result;
    }

    /// <summary>Sends a statement for this one only, which waits for locks.</summary>
    public ValueTask<TResult> RunAloneAsync(TItem item)
    {
        var member = new Member(item);
        _ = RunAloneAsync(member);
        return member.Result;
    }

    public void Dispose() => _timer?.Dispose();

    /// <summary>Starts another statement for what has waited for long.</summary>
    private void SendOverdue()
    {
        lock (_lock)
        {
            _isTimed = false;
            if (!_waiting.TryPeek(out var oldest))
            {
                return;
            }

            var left = MaxDelay - TimeSpan.FromMilliseconds(Environment.TickCount64 - oldest.Since);
            if (left > TimeSpan.Zero || _running == MaxStatements)
            {
                LimitDelay(left > TimeSpan.Zero ? left : MaxDelay);
                return;
            }

            _running++;
        }

        _ = DrainAsync();
    }

    /// <summary>Has somebody look after what waits when this time is over. Under the lock.</summary>
    private void LimitDelay(TimeSpan time)
    {
        if (!_isTimed)
        {
            _isTimed = true;
            _timer ??= new Timer(static group => ((GroupCommit<TItem, TResult>)group!).SendOverdue(), this, Timeout.Infinite, Timeout.Infinite);
            _timer.Change(time, Timeout.InfiniteTimeSpan);
        }
    }

    private async Task DrainAsync()
    {
        while (TakeNext() is { } members)
        {
            TResult[] results;
            try
            {
                results = await run(Array.ConvertAll(members, member => member.Item), false);
            }
            catch (PostgresException e) when (members.Length > 1 && StorageFaults.Find(e) != StorageFault.Disconnected)
            {
                // It may be the fault of one: a constraint, a trigger, a lock.
                Array.ForEach(members, member => _ = RunAloneAsync(member));
                continue;
            }
            catch (Exception e)
            {
                Array.ForEach(members, member => member.SetException(e));
                continue;
            }

            for (var i = 0; i < members.Length; i++)
            {
                if (isPassedOver(results[i]))
                {
                    _ = RunAloneAsync(members[i]);
                }
                else
                {
                    members[i].SetResult(results[i], inLine: members.Length == 1);
                }
            }
        }
    }

    private Member[]? TakeNext()
    {
        lock (_lock)
        {
            if (_waiting.Count == 0)
            {
                _running--;
                return null;
            }

            var members = new Member[Math.Min(MaxMembers, _waiting.Count)];
            for (var i = 0; i < members.Length; i++)
            {
                members[i] = _waiting.Dequeue();
            }

            if (_waiting.Count > 0)
            {
                LimitDelay(MaxDelay);
            }

            return members;
        }
    }

    private async Task RunAloneAsync(Member member)
    {
        try
        {
            if (!await alone.WaitAsync(MaxWait))
            {
                throw new TimeoutException("Too many rows are locked by somebody else.");
            }

            TResult result;
            try
            {
                result = (await run([member.Item], true))[0];
            }
            finally
            {
                alone.Release();
            }

            member.SetResult(result, inLine: true);
        }
        catch (Exception e)
        {
            member.SetException(e);
        }
    }

    private sealed class Member(TItem item) : IValueTaskSource<TResult>
    {
        private ManualResetValueTaskSourceCore<TResult> _core = new() { RunContinuationsAsynchronously = true };

        public TItem Item => item;

        /// <summary>Since when it waits, by <see cref="Environment.TickCount64"/>.</summary>
        public long Since { get; } = Environment.TickCount64;

        public ValueTask<TResult> Result => new(this, _core.Version);

        /// <param name="result">What came of it.</param>
        /// <param name="inLine">Whoever waits goes on on this thread.</param>
        public void SetResult(TResult result, bool inLine)
        {
            _core.RunContinuationsAsynchronously = !inLine;
            _core.SetResult(result);
        }

        public void SetException(Exception fault) => _core.SetException(fault);

        TResult IValueTaskSource<TResult>.GetResult(short token) => _core.GetResult(token);

        ValueTaskSourceStatus IValueTaskSource<TResult>.GetStatus(short token) => _core.GetStatus(token);

        void IValueTaskSource<TResult>.OnCompleted(Action<object?> continuation, object? state, short token, ValueTaskSourceOnCompletedFlags flags) =>
            _core.OnCompleted(continuation, state, token, flags);
    }
}
