using System.Threading.Channels;
using TicketFunctions.Storage;

namespace TicketFunctions.Tickets;

/// <summary>
/// Tickets on their way through one run: claimed ahead, under way, ended. So many are claimed ahead as end while a claim is on its
/// way, or did a moment ago, twice over, and none while nothing ends: each holds its lease while it waits.
/// </summary>
internal sealed class SweepPipeline(TicketStore store, TicketTriage triage, SweepOptions options, TimeProvider time, CancellationToken giveBack)
{
    /// <summary>How long a place stays empty before the sweep looks for what has become due, and how often it looks for it in a long run.</summary>
    private static readonly TimeSpan LookAgain = TimeSpan.FromSeconds(1);

    /// <summary>Tickets under way for each call under way: those whose model has answered wait for the database, and it must keep up.</summary>
    private const int MaxUnwritten = 8;

    /// <summary>Tasks that ended; null when a model has answered, and there is room for another call.</summary>
    private readonly Channel<Task?> _events = Channel.CreateUnbounded<Task?>(new UnboundedChannelOptions { SingleReader = true });
    private readonly Queue<(ClaimedTicket Ticket, long ClaimedAt)> _ready = new();
    private Task<DueClaim>? _claim;
    private Task? _pause;
    private int _calling;
    private int _underWay;
    private int _asked;
    private int _ahead;
    private int _endedSinceClaim;
    private FreshTicket? _after;
    private bool _withWaiting = true;
    private long _lookedForWaitingAt;
    private bool _isExhausted;
    private bool _isLast;

    /// <summary>Whether nothing is claimed, and no claim on its way.</summary>
    public bool IsEmpty => _underWay == 0 && _ready.Count == 0 && _claim is null;

    public void Add(ClaimedTicket ticket) => _ready.Enqueue((ticket, time.GetTimestamp()));

    /// <summary>Starts what is ready, as far as there is room.</summary>
    /// <returns>How many.</returns>
    public int Start()
    {
        var started = 0;
        for (; _calling < options.Concurrency && _underWay < MaxUnwritten * options.Concurrency && _ready.TryDequeue(out var next); started++)
        {
            _calling++;
            _underWay++;
            var (ticket, claimedAt) = next;
            Watch(Task.Run(() => ProcessAsync(ticket, claimedAt), CancellationToken.None));
        }

        return started;
    }

    /// <summary>Sends a claim, unless one is on its way, enough is ready, or nothing was due a moment ago.</summary>
    public void ClaimAhead()
    {
        var room = options.Concurrency - _calling;
        var asked = Math.Min(options.BatchSize, room + _ahead - _ready.Count);
        if (_claim is not null || asked <= _ahead / 2 || (_isExhausted && (_underWay > 0 || _isLast)))
        {
            return;
        }

        _endedSinceClaim = 0;

        // What ended meanwhile may have left something due; after this claim there is nothing that could.
        _isLast = _underWay == 0 && _ready.Count == 0;
        _withWaiting |= _after is null || time.GetElapsedTime(_lookedForWaitingAt) >= LookAgain;

        // Not to be given up by a stop: what was claimed and nobody knows of would be held until its lease ends.
        _asked = asked;
        _claim = store.ClaimDueAsync(_asked, _after, _withWaiting, triage.Terms);
        Watch(_claim);
    }

    /// <summary>Waits until something happens.</summary>
    /// <returns>A ticket that ended; null when it is something else.</returns>
    public async Task<Task<TriageResult>?> NextAsync()
    {
        if (_isExhausted && _claim is null && _pause is null)
        {
            // With room left, what becomes due meanwhile must not wait for a call that hangs.
            _pause = Task.Delay(LookAgain, time, CancellationToken.None);
            Watch(_pause);
        }

        var happened = await _events.Reader.ReadAsync(CancellationToken.None);
        if (happened is null)
        {
            _calling--;
            _endedSinceClaim++;
        }
        else if (happened == _claim)
        {
            await TakeClaimAsync();
        }
        else if (happened == _pause)
        {
            _pause = null;
            _isExhausted = false;
        }
        else if (happened is Task<TriageResult> ended)
        {
            _underWay--;

            // Edited meanwhile: it is due at once.
            _isExhausted &= ended is not { IsCompletedSuccessfully: true, Result: TriageResult.InProgress { RetryAfter.Ticks: 0 } };
            return ended;
        }

        return null;
    }

    /// <summary>Gives back what was not begun. Where that fails, the lease ends by itself.</summary>
    public async Task GiveBackReadyAsync()
    {
        var returned = _ready.Select(next => triage.ReturnAsync(next.Ticket)).ToArray();
        _ready.Clear();
        await ((Task)Task.WhenAll(returned)).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
    }

    /// <summary>Waits for all that is under way, and gives back what was not started.</summary>
    public async Task DrainAsync()
    {
        while (_underWay > 0 || _claim is not null)
        {
            await ((Task)NextAsync()).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }

        await GiveBackReadyAsync();
    }

    private async Task TakeClaimAsync()
    {
        var claim = _claim!;
        _claim = null;
        var due = await claim;
        foreach (var ticket in due.Tickets)
        {
            Add(ticket);
        }

        if (_withWaiting)
        {
            _lookedForWaitingAt = time.GetTimestamp();
        }

        // With as many as asked for there may be more.
        var isShort = due.Found < _asked;
        _isExhausted = isShort && _after is null;
        _isLast &= due.Found == 0;
        _after = isShort ? null : due.Last ?? _after;
        _withWaiting &= !isShort && due.Last is null;

        // Calls end in waves: after one the next is to come, and finds its tickets ready.
        _ahead = Math.Min(Math.Max(2 * _endedSinceClaim, _ahead * 7 / 8), options.BatchSize);
    }

    private void Watch(Task task) => task.ContinueWith(
        static (ended, events) => ((Channel<Task?>)events!).Writer.TryWrite(ended), _events, CancellationToken.None, TaskContinuationOptions.ExecuteSynchronously, TaskScheduler.Default);

    private async Task<TriageResult> ProcessAsync(ClaimedTicket ticket, long claimedAt)
    {
        var isAnswered = false;
        try
        {
            // Claimed when calls were short, and waited while they became long: somebody else may have it before it is done.
            if (time.GetElapsedTime(claimedAt) > triage.MaxDelay)
            {
                await triage.ReturnAsync(ticket);
                return new TriageResult.InProgress(TimeSpan.Zero);
            }

            return await triage.ProcessClaimedAsync(ticket, giveBack, answered: Answered);
        }
        finally
        {
            Answered();
        }

        void Answered()
        {
            if (!isAnswered)
            {
                isAnswered = true;
                _events.Writer.TryWrite(null);
            }
        }
    }
}
