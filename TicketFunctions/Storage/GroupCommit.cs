using System.Threading.Tasks.Sources;
using Npgsql;

namespace TicketFunctions.Storage;

/// <summary>
/// Gathers what comes while a statement is on its way into the next one: one round trip and one commit for all.
/// None waits while no statement is on its way, but for a moment the patient ones; none for a slow one; and one member's fault is not the others'.
/// </summary>
/// <typeparam name="TItem">What is asked.</typeparam>
/// <typeparam name="TResult">What comes of it.</typeparam>
/// <param name="run">Runs one statement for all. Told to wait for rows that somebody has locked, or to pass them over.</param>
/// <param name="isPassedOver">Tells what came of an item that was passed over: it is sent again, alone.</param>
/// <param name="enough">Items for which a statement is worth its while: patient ones do not wait for more.</param>
/// <param name="alone">Places for statements for one, of all groups: each may wait for a lock, and together they must leave connections for the others.</param>
internal sealed class GroupCommit<TItem, TResult>(
    Func<IReadOnlyList<TItem>, bool, Task<TResult[]>> run, Func<TResult, bool> isPassedOver, int enough, SemaphoreSlim alone) : IDisposable
{
    /// <summary>Items in one statement at most.</summary>
    private const int MaxMembers = 256;

    /// <summary>Statements at once: one as long as each is done in time, more where the way to the database is long, or something holds one up.</summary>
    private const int MaxStatements = 4;

    /// <summary>Milliseconds that an item waits for the statement before it: that takes a few where the database is near.</summary>
    private const int MaxDelay = 25;

    /// <summary>Milliseconds that a patient item waits for others while no statement is on its way.</summary>
    private const int Patience = 10;

    /// <summary>How long an item waits to be sent alone: as long as a statement waits for a connection.</summary>
    private static readonly TimeSpan MaxWait = TimeSpan.FromSeconds(5);

    private readonly Lock _lock = new();
    private readonly Queue<Member> _waiting = new();
    private Timer? _timer;
    private long? _timedFor;
    private int _hurried;
    private int _running;

    /// <param name="item">What is asked.</param>
    /// <param name="isPatient">No client waits for what comes of it: it may wait a moment for others.</param>
    public ValueTask<TResult> RunAsync(TItem item, bool isPatient = false)
    {
        var member = new Member(item, isPatient);
        lock (_lock)
        {
            _waiting.Enqueue(member);
            _hurried += isPatient ? 0 : 1;
            if (_running > 0 || MayWait())
            {
                LimitDelay(FindLimit());
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

    /// <summary>Starts a statement for what has waited for long.</summary>
    private void SendOverdue()
    {
        lock (_lock)
        {
            _timedFor = null;
            if (_waiting.Count == 0)
            {
                return;
            }

            if (FindLimit() > Environment.TickCount64)
            {
                LimitDelay(FindLimit());
                return;
            }

            _running++;
        }

        _ = DrainAsync();
    }

    /// <summary>Whether all that waits is patient, too little, and young. Under the lock.</summary>
    private bool MayWait() => _hurried == 0 && _waiting.Count < enough && _waiting.TryPeek(out var oldest) && oldest.Since + Patience > Environment.TickCount64;

    /// <summary>Until when the oldest item that waits may wait. Under the lock.</summary>
    private long FindLimit() => _waiting.Peek().Since + (_running > 0 ? MaxDelay : Patience);

    /// <summary>Has somebody look after what waits then. Under the lock.</summary>
    private void LimitDelay(long limit)
    {
        // With all places taken, whichever statement ends next takes what waits.
        if (_running < MaxStatements && (_timedFor is null || limit < _timedFor))
        {
            _timedFor = limit;
            _timer ??= new Timer(static group => ((GroupCommit<TItem, TResult>)group!).SendOverdue(), this, Timeout.Infinite, Timeout.Infinite);
            _timer.Change(Math.Max(0, limit - Environment.TickCount64), Timeout.Infinite);
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

            // A single one goes on right here, where no other waits for this thread.
            var isLast = members.Length == 1 && EndIfIdle();
            for (var i = 0; i < members.Length; i++)
            {
                if (isPassedOver(results[i]))
                {
                    _ = RunAloneAsync(members[i]);
                }
                else
                {
                    members[i].SetResult(results[i], inLine: isLast);
                }
            }

            if (isLast)
            {
                return;
            }
        }
    }

    /// <summary>Ends this line of statements when there is nothing for it to do.</summary>
    private bool EndIfIdle()
    {
        lock (_lock)
        {
            if (_waiting.Count > 0 && !MayWait())
            {
                return false;
            }

            _running--;
            if (_waiting.Count > 0)
            {
                LimitDelay(FindLimit());
            }

            return true;
        }
    }

    private Member[]? TakeNext()
    {
        lock (_lock)
        {
            if (EndIfIdle())
            {
                return null;
            }

            var members = new Member[Math.Min(MaxMembers, _waiting.Count)];
            for (var i = 0; i < members.Length; i++)
            {
                members[i] = _waiting.Dequeue();
                _hurried -= members[i].IsPatient ? 0 : 1;
            }

            if (_waiting.Count > 0)
            {
                LimitDelay(FindLimit());
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

    private sealed class Member(TItem item, bool isPatient = false) : IValueTaskSource<TResult>
    {
        private ManualResetValueTaskSourceCore<TResult> _core = new() { RunContinuationsAsynchronously = true };

        public TItem Item => item;

        public bool IsPatient => isPatient;

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
