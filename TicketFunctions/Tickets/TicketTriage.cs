using System.Text.Json;
using Microsoft.Extensions.Options;
using Npgsql;
using TicketFunctions.Classification;
using TicketFunctions.Storage;

namespace TicketFunctions.Tickets;

/// <summary>What became of one attempt at a ticket.</summary>
public abstract record TriageResult
{
    private TriageResult()
    {
    }

    /// <summary>The row has its labels. <paramref name="Source"/> is model, reused, baseline, or stored when it had them already.</summary>
    public sealed record Labelled(Guid Id, Labels Labels, string Source, string? Model, float? Confidence) : TriageResult;

    public sealed record NotFound : TriageResult;

    /// <summary>The text the caller gave is not the row's.</summary>
    public sealed record DescriptionMismatch : TriageResult;

    /// <summary>The row's text has nothing in it that could be classified.</summary>
    public sealed record BlankText : TriageResult;

    /// <summary>Somebody else holds the ticket, or has the same text classified. Zero: the ticket is due at once.</summary>
    public sealed record InProgress(TimeSpan RetryAfter) : TriageResult;

    /// <summary>No labels this time; the sweep comes back to it after <paramref name="RetryAfter"/>.</summary>
    public sealed record RetryLater(FailureKind Kind, TimeSpan RetryAfter) : TriageResult;

    /// <summary>A forced decision did not come about: the ticket keeps the labels it had, and nobody tries again by himself.</summary>
    /// <param name="Kind">Why.</param>
    /// <param name="RetryAfter">When it makes sense to ask again; null when nobody knows.</param>
    public sealed record NotForced(FailureKind Kind, TimeSpan? RetryAfter = null) : TriageResult;

    /// <summary>The attempts are used up; nobody tries again until the text changes or somebody forces it.</summary>
    public sealed record Parked(FailureKind Kind) : TriageResult;
}

/// <summary>Claims a ticket, has it classified without holding a connection, and writes what came of it. Used by HTTP and timer alike.</summary>
public sealed partial class TicketTriage : IDisposable
{
    /// <summary>The wait suggested to a client that meets a ticket or its text in somebody else's hands: about the length of a model call.</summary>
    private static readonly TimeSpan TypicalAttempt = TimeSpan.FromSeconds(3);

    /// <summary>How often another process's work on a text is asked about.</summary>
    private static readonly TimeSpan AskAgain = TimeSpan.FromMilliseconds(200);

    /// <summary>Tickets that wait for tomorrow's budget come within so long of its start, not all at once.</summary>
    private static readonly TimeSpan Spread = TimeSpan.FromMinutes(5);

    private const string NoStandIn = "unavailable: no model can be reached, and a stand-in replaces no labels";

    private readonly TicketStore _store;
    private readonly ITicketClassifier _classifier;
    private readonly Spending _spending;
    private readonly TriageOptions _options;
    private readonly TimeProvider _time;
    private readonly ILogger<TicketTriage> _logger;

    /// <summary>How long a ticket waits for another one with the same text. After it, its own calls must still fit into its lease.</summary>
    private readonly TimeSpan _patience;

    private readonly SemaphoreSlim _alone;
    private readonly GroupCommit<ClaimRequest, Claim> _claims;
    private readonly GroupCommit<(ClaimedTicket, Decision), WriteStatus> _completions;
    private readonly TextsUnderWay _underWay = new();

    public TicketTriage(
        TicketStore store,
        ITicketClassifier classifier,
        Spending spending,
        IOptions<TriageOptions> options,
        IOptions<SweepOptions> sweepOptions,
        IOptions<ModelOptions> modelOptions,
        TimeProvider time,
        ILogger<TicketTriage> logger)
    {
        _store = store;
        _classifier = classifier;
        _spending = spending;
        _options = options.Value;
        _time = time;
        _logger = logger;
        var total = modelOptions.Value.TotalTimeout!.Value;
        MaxDelay = (_options.Lease - total) / 2;
        _patience = new[] { _options.Lease / 3, total, MaxDelay }.Min();

        // The baseline's decisions are not worth waiting for: they cost nothing.
        Terms = new ClaimTerms(_options.Lease, _options.MaxAttempts, [.. classifier.Identities.Where(identity => identity.Source == "model")]);
        _alone = new SemaphoreSlim(Math.Max(1, store.MaxConnections / 4));
        _claims = new((requests, wait) => store.ClaimAsync(requests, Terms, wait), claim => claim is Claim.PassedOver, enough: 1, _alone);
        _completions = new(store.CompleteAsync, status => status == WriteStatus.PassedOver, enough: Math.Min(64, sweepOptions.Value.Concurrency), _alone);
    }

    /// <summary>How long a claimed ticket may wait before its attempt begins: that must still fit into the lease.</summary>
    internal TimeSpan MaxDelay { get; }

    /// <summary>What every claim is made by.</summary>
    public ClaimTerms Terms { get; }

    /// <summary>Classifies one ticket on request.</summary>
    /// <param name="id">The ticket.</param>
    /// <param name="expectedText">The text the caller believes it has; null when it did not say.</param>
    /// <param name="force">Decide again even if it is processed or parked.</param>
    /// <param name="aborted">The caller has gone. Observed only until the claim is sent.</param>
    /// <param name="stopping">The process stops: the ticket is given back.</param>
    public async Task<TriageResult> ProcessAsync(
        Guid id, string? expectedText, bool force, CancellationToken aborted, CancellationToken stopping)
    {
        // The server compares it before the claim: a wrong guess of a client must leave no trace on the ticket.
        var expected = expectedText is null ? null : TicketText.Hash(TicketText.Normalize(expectedText));

        // A text that changes under our hands is classified again at once; an author who types faster leaves it to the sweep.
        for (var round = 1; ; round++)
        {
            // A claim that nobody waits for would hold the ticket until its lease ends.
            aborted.ThrowIfCancellationRequested();

            // What was forced is not forced again: by then the labels are somebody else's later ones.
            // And who lost the ticket does not try it before its time: it may have been his own failure that was written.
            var claim = await _claims.RunAsync(new ClaimRequest(id, Guid.NewGuid(), expected, expected is null ? null : expectedText, force && round == 1, OnlyDue: round > 1));
            if (Mismatches(claim.Description))
            {
                if (claim is Claim.Held unwanted)
                {
                    await GiveBackAsync(unwanted.Ticket, TimeSpan.Zero);
                }

                return new TriageResult.DescriptionMismatch();
            }

            switch (claim)
            {
                case Claim.Held { Ticket: var ticket }:
                    var result = await ProcessClaimedAsync(ticket, stopping, force && round == 1);
                    if (result is TriageResult.InProgress { RetryAfter.Ticks: 0 } && round < 3)
                    {
                        continue;
                    }

                    return result;

                case Claim.OtherText:
                    // It is the expected one once it is normalised, which the server does not do.
                    expected = null;
                    round--;
                    continue;

                case Claim.Processed(_, var labels, var origin):
                    return new TriageResult.Labelled(id, labels, "stored", origin?.Model, origin?.Confidence);

                case Claim.InProgress(_, var remaining):
                    return new TriageResult.InProgress(remaining < TypicalAttempt ? remaining : TypicalAttempt);

                case Claim.Parked(var description, var error):
                    return TicketText.IsVisible(description) ? new TriageResult.Parked(ReadKind(error)) : new TriageResult.BlankText();

                default:
                    return new TriageResult.NotFound();
            }
        }

        bool Mismatches(string? stored) => expectedText is not null && stored is not null && !TicketText.AreSame(expectedText, stored);
    }

    /// <summary>Decides again about a processed ticket, unless it is no longer as it was found.</summary>
    /// <param name="id">The ticket.</param>
    /// <param name="found">The labels it was found with.</param>
    /// <param name="reuseAfter">Decisions with a higher id may be reused.</param>
    /// <param name="stopping">Nothing is claimed any more.</param>
    /// <param name="giveBack">The ticket is given back.</param>
    /// <returns>Null when the ticket was edited, corrected or deleted meanwhile, or somebody else holds it.</returns>
    public async Task<TriageResult?> ReprocessAsync(Guid id, Labels found, long reuseAfter, CancellationToken stopping, CancellationToken giveBack)
    {
        stopping.ThrowIfCancellationRequested();
        if (await _claims.RunAsync(new ClaimRequest(id, Guid.NewGuid(), Force: true, ReuseAfter: reuseAfter)) is not Claim.Held { Ticket: var ticket })
        {
            return null;
        }

        if (ticket.Previous != found)
        {
            await GiveBackAsync(ticket, TimeSpan.Zero);
            return null;
        }

        return await ProcessClaimedAsync(ticket, giveBack, reuseAfter: reuseAfter);
    }

    /// <summary>Does the work on a ticket that is held already. Ends with the ticket written, waiting, parked or given back.</summary>
    /// <param name="ticket">The claimed ticket.</param>
    /// <param name="stopping">The process stops: the ticket is given back.</param>
    /// <param name="force">Ask the model even if the same text was decided before.</param>
    /// <param name="reuseAfter">Only decisions with a higher id are reused; 0 for all.</param>
    /// <param name="answered">Told that there are labels, which are still to be written, with others if some come in a moment. Null when a client waits for the ticket.</param>
    public async Task<TriageResult> ProcessClaimedAsync(
        ClaimedTicket ticket, CancellationToken stopping, bool force = false, long reuseAfter = 0, Action? answered = null)
    {
        var result = await AttemptAsync(ticket, force, reuseAfter, answered, stopping);
        Telemetry.CountOutcome(result);
        return result;
    }

    public void Dispose()
    {
        _claims.Dispose();
        _completions.Dispose();
        _alone.Dispose();
    }

    private async Task<TriageResult> AttemptAsync(ClaimedTicket ticket, bool force, long reuseAfter, Action? answered, CancellationToken stopping)
    {
        if (!TicketText.IsVisible(ticket.Description))
        {
            await EndAsync(ticket, "blank: the text has nothing in it to classify", TimeSpan.Zero, park: true, Spare.Never, TimeSpan.Zero);
            Log.Blank(_logger, ticket.Id);
            return new TriageResult.BlankText();
        }

        var text = TicketText.Normalize(ticket.Description);
        var textSha256 = TicketText.Hash(text);
        var started = _time.GetTimestamp();
        var isAsked = false;
        try
        {
            var turn = Terms.Reusable.Count == 0 ? new TextLock(Owned: true, Locked: true, null)
                // By our own hash, which is the one that is recorded; the server may have another.
                : ticket.Turn is { } taken && textSha256.AsSpan().SequenceEqual(ticket.TextSha256) ? taken
                : await TakeTurnAsync(ticket, textSha256, force, reuseAfter, stopping);
            ticket = ticket with { TextSha256 = textSha256 };
            if (!turn.Owned)
            {
                Log.LeaseLost(_logger, ticket.Id);
                return new TriageResult.InProgress(TimeSpan.Zero);
            }

            if (turn.Earlier is { } earlier && !force)
            {
                return await CompleteAsync(ticket, Reuse(earlier, textSha256, _time.GetElapsedTime(started)), isPatient: false, started, stopping);
            }

            if (!turn.Locked && !force)
            {
                Log.SameText(_logger, ticket.Id);
                await GiveBackAsync(ticket, TypicalAttempt);
                return new TriageResult.InProgress(TypicalAttempt);
            }

            // Until what came of it is stored: who waits for it then finds it.
            using var underWay = turn.Locked ? _underWay.Enter(textSha256) : null;
            if (Terms.Reusable.Count > 0 && await _spending.FindWaitAsync(stopping) is { } untilTomorrow)
            {
                return await DeferAsync(ticket, untilTomorrow + (Spread * Random.Shared.NextDouble()));
            }

            isAsked = true;
            var result = await _classifier.ClassifyAsync(TicketText.Clip(text), stopping);
            _spending.Add(result.Calls);
            if (result is ClassificationResult.Labelled)
            {
                // Not after a failure: who counts those must not have asked many more in the meantime.
                answered?.Invoke();
            }

            return result switch
            {
                // It stands in where there are no labels; those there are may be a model's.
                ClassificationResult.Labelled { Identity.Source: "baseline" } when ticket.WasProcessed && Terms.Reusable.Count > 0 => await FailAsync(
                    ticket, textSha256, new ClassificationResult.Failed(FailureKind.UpstreamUnavailable, NoStandIn, null, result.Calls), started, stopping),
                ClassificationResult.Labelled labelled => await CompleteAsync(
                    ticket,
                    new Decision(
                        labelled.Labels,
                        labelled.Identity,
                        textSha256,
                        labelled.Confidence,
                        labelled.NeedsReview,
                        labelled.Calls,
                        _time.GetElapsedTime(started)),
                    isPatient: answered is not null,
                    started,
                    stopping),
                ClassificationResult.Failed failed => await FailAsync(ticket, textSha256, failed, started, stopping),
                var other => throw new InvalidOperationException($"No arm for {other.GetType().Name}."),
            };
        }
        catch (OperationCanceledException) when (stopping.IsCancellationRequested)
        {
            await GiveBackAsync(ticket, TimeSpan.Zero);
            throw;
        }
        catch (Exception e) when (!isAsked && StorageFaults.IsUnavailable(e))
        {
            // No attempt was made; and who has the same text must not wait for the end of the lease. If this fails too, it ends by itself.
            await ((Task)GiveBackAsync(ticket, _options.BackoffAfter(1))).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            throw;
        }
    }

    /// <summary>
    /// Waits until nobody else has the same text classified, or until there is a decision on it, for as long as patience lasts.
    /// Somebody who forces a decision waits for nobody, and keeps others waiting if he can.
    /// </summary>
    private async Task<TextLock> TakeTurnAsync(
        ClaimedTicket ticket, byte[] textSha256, bool force, long reuseAfter, CancellationToken stopping)
    {
        var started = _time.GetTimestamp();
        while (true)
        {
            // Found before we ask: it may end while we do.
            var holder = _underWay.Find(textSha256);
            var turn = await _store.LockTextAsync(ticket, textSha256, reuseAfter, Terms, stopping);
            var left = _patience - _time.GetElapsedTime(started);
            if (force || !turn.Owned || turn.Locked || turn.Earlier is not null || left <= TimeSpan.Zero)
            {
                return turn;
            }

            holder ??= _underWay.Find(textSha256);
            await (holder is null ? Task.Delay(left < AskAgain ? left : AskAgain, _time, stopping) : holder.WaitAsync(left, _time, stopping))
                .ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            stopping.ThrowIfCancellationRequested();
        }
    }

    private Decision Reuse(EarlierDecision earlier, byte[] textSha256, TimeSpan latency) => new(
        new Labels(earlier.Category, earlier.Sentiment),
        Terms.Reusable.First(model => (model.Provider, model.Model, model.PromptVersion, model.TaxonomyVersion)
            == (earlier.Provider, earlier.Model, earlier.PromptVersion, earlier.TaxonomyVersion)),
        textSha256,
        earlier.Confidence,
        earlier.NeedsReview,
        Calls: [],
        latency,
        earlier);

    private async Task<TriageResult> DeferAsync(ClaimedTicket ticket, TimeSpan wait)
    {
        if (await GiveBackAsync(ticket, wait, "deferred: the daily budget for model calls is used up") != WriteStatus.Written)
        {
            Log.LeaseLost(_logger, ticket.Id);
            return new TriageResult.InProgress(TimeSpan.Zero);
        }

        Log.Deferred(_logger, ticket.Id);
        return ticket.WasProcessed ? new TriageResult.NotForced(FailureKind.BudgetSpent, wait) : new TriageResult.RetryLater(FailureKind.BudgetSpent, wait);
    }

    private async Task<TriageResult> CompleteAsync(ClaimedTicket ticket, Decision decision, bool isPatient, long claimed, CancellationToken stopping)
    {
        WriteStatus status;
        try
        {
            // What failed once is not sent again among others.
            status = await WritePersistentlyAsync(
                isRepeated => isRepeated ? _completions.RunAloneAsync((ticket, decision)) : _completions.RunAsync((ticket, decision), isPatient), claimed, stopping);
        }
        catch (PostgresException e) when (!StorageFaults.IsPassing(e))
        {
            return await RefuseAsync(e.MessageText.Contains(TicketStore.LeftUnprocessed, StringComparison.Ordinal) ? "a trigger leaves the ticket unprocessed" : $"SQLSTATE {e.SqlState}");
        }

        switch (status)
        {
            case WriteStatus.Written:
                Log.Labelled(_logger, ticket.Id, decision.Source, (long)decision.Latency.TotalMilliseconds, ticket.Attempts, decision.Calls.Count);
                return new TriageResult.Labelled(
                    ticket.Id, decision.Labels, decision.Source, decision.Identity.Model, decision.Confidence);

            case WriteStatus.Refused:
                return await RefuseAsync("a trigger drops the update");

            case WriteStatus.Stale:
                Log.Stale(_logger, ticket.Id);
                await RecordFailureAsync(
                    ticket, new FailedAttempt("stale", "the text or the labels were changed meanwhile", decision.TextSha256, decision.Calls), claimed, stopping);
                await GiveBackAsync(ticket, TimeSpan.Zero);
                return new TriageResult.InProgress(TimeSpan.Zero);

            default:
                // Another worker took over after our lease, or our own write was committed and its receipt lost on the way.
                Log.LeaseLost(_logger, ticket.Id);
                await RecordFailureAsync(ticket, new FailedAttempt("lease_lost", "the lease had ended", decision.TextSha256, decision.Calls), claimed, stopping);

                // If the ticket is gone, its text is still locked: until the lease ends, if this fails too.
                await ((Task)GiveBackAsync(ticket, TimeSpan.Zero)).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
                return new TriageResult.InProgress(TimeSpan.Zero);
        }

        Task<TriageResult> RefuseAsync(string why) => FailAsync(
            ticket,
            decision.TextSha256,
            new ClassificationResult.Failed(FailureKind.StorageRefused, $"refused: the database does not take these labels for this row ({why})", null, decision.Calls),
            claimed,
            stopping);
    }

    private async Task<TriageResult> FailAsync(
        ClaimedTicket ticket, byte[] textSha256, ClassificationResult.Failed failed, long claimed, CancellationToken stopping)
    {
        var attempt = new FailedAttempt(JsonNamingPolicy.SnakeCaseLower.ConvertName($"{failed.Kind}"), failed.Reason, textSha256, failed.Calls);
        await RecordFailureAsync(ticket, attempt, claimed, stopping);

        // A model that did not answer in time may have been paid, also when the next one could not be reached.
        var isOutage = failed is { Kind: FailureKind.UpstreamUnavailable or FailureKind.UpstreamBusy, WasAnswered: false } && failed.Calls.All(call => call.Outcome != CallOutcome.TimedOut);

        // Without a call the breaker knows best when to try again.
        var spareWait = failed.Calls.Count == 0 && failed.RetryAfter is { } reopens ? Within(TimeSpan.FromSeconds(1), reopens) : WaitAfter(1);
        var wait = WaitAfter(ticket.Attempts);
        var status = await EndAsync(
            ticket,
            $"{failed.Kind}: {failed.Reason}",
            wait,
            park: ticket.Attempts >= _options.MaxAttempts,
            !isOutage ? Spare.Never : failed.Calls.Count == 0 ? Spare.Always : Spare.InOutage,
            spareWait);
        switch (status)
        {
            case FailStatus.Stale:
                Log.Stale(_logger, ticket.Id);
                return new TriageResult.InProgress(TimeSpan.Zero);

            case FailStatus.LeaseLost:
                // Another worker has it, or has finished; or our own write was committed and its receipt lost.
                Log.LeaseLost(_logger, ticket.Id);
                return new TriageResult.InProgress(TimeSpan.Zero);
        }

        Log.Failed(_logger, ticket.Id, failed.Kind, failed.Reason, ticket.Attempts, _options.MaxAttempts, ticket.WasProcessed ? "keeps its labels" : status.ToString());
        return ticket.WasProcessed ? new TriageResult.NotForced(failed.Kind)
            : status == FailStatus.Parked ? new TriageResult.Parked(failed.Kind)
            : new TriageResult.RetryLater(failed.Kind, status == FailStatus.Spared ? spareWait : wait);

        TimeSpan WaitAfter(int attempts) => Within(_options.BackoffAfter(attempts), failed.RetryAfter ?? TimeSpan.Zero);

        // What a provider asks for is honoured within reason: some ask for a day.
        static TimeSpan Within(TimeSpan least, TimeSpan asked) =>
            asked <= least ? least : asked < TriageOptions.MaxBackoff ? asked : TriageOptions.MaxBackoff;
    }

    /// <summary>A processed ticket keeps its old labels, and no further attempt is made for a forced one.</summary>
    private async Task<FailStatus> EndAsync(ClaimedTicket ticket, string error, TimeSpan wait, bool park, Spare spare, TimeSpan spareWait)
    {
        if (!ticket.WasProcessed)
        {
            return await _store.FailAsync(ticket, error, wait, park, spare, spareWait, CancellationToken.None);
        }

        return await _store.ForgetAsync(ticket, CancellationToken.None) == WriteStatus.Written ? FailStatus.Waiting : FailStatus.LeaseLost;
    }

    /// <summary>Takes one ticket for its next attempt, if it is due; null when it is not, or somebody else has it.</summary>
    public async Task<ClaimedTicket?> ClaimAsync(Guid id) =>
        (await _claims.RunAsync(new ClaimRequest(id, Guid.NewGuid(), OnlyDue: true)) as Claim.Held)?.Ticket;

    /// <summary>Gives a ticket back with which nothing was begun: one that was never tried is as new.</summary>
    public Task<WriteStatus> ReturnAsync(ClaimedTicket ticket) =>
        ticket.Attempts == 1 ? _store.ForgetAsync(ticket, CancellationToken.None) : GiveBackAsync(ticket, TimeSpan.Zero);

    /// <summary>The attempt does not count. A processed ticket keeps its labels.</summary>
    private Task<WriteStatus> GiveBackAsync(ClaimedTicket ticket, TimeSpan wait, string? reason = null) => ticket.WasProcessed
        ? _store.ForgetAsync(ticket, CancellationToken.None)
        : _store.ReleaseAsync(ticket, wait, reason, CancellationToken.None);

    /// <summary>What calls cost is spent, whatever becomes of the ticket.</summary>
    /// <param name="ticket">The ticket, claimed or as a claim would be.</param>
    /// <param name="failure">The attempt; without a call there is nothing to record.</param>
    /// <param name="claimed">The timestamp since which it is held: passing faults are outlasted for as long as a lease from then.</param>
    /// <param name="stopping">Tries no more.</param>
    internal async Task RecordFailureAsync(ClaimedTicket ticket, FailedAttempt failure, long claimed, CancellationToken stopping)
    {
        if (failure.Calls.Count > 0)
        {
            await WritePersistentlyAsync(_ => new ValueTask<int>(_store.RecordFailureAsync(ticket, failure, CancellationToken.None)), claimed, stopping);
        }
    }

    /// <summary>What was paid is worth trying for as long as the ticket is ours. Repeating is safe: the lease token is good for one write.</summary>
    private async Task<T> WritePersistentlyAsync<T>(Func<bool, ValueTask<T>> write, long claimed, CancellationToken stopping)
    {
        for (var attempt = 1; ; attempt++)
        {
            try
            {
                return await write(attempt > 1);
            }
            catch (Exception e) when (StorageFaults.IsPassing(e) && _time.GetElapsedTime(claimed) < _options.Lease && !stopping.IsCancellationRequested)
            {
                Log.WriteFailed(_logger, attempt, StorageFaults.NameOf(e));
                await Task.Delay(TimeSpan.FromMilliseconds(Math.Min(2000, 100 * Math.Pow(3, attempt - 1))), _time, stopping)
                    .ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            }
        }
    }

    private static FailureKind ReadKind(string? error) =>
        Enum.TryParse<FailureKind>(error?.Split(':')[0], out var kind) ? kind : FailureKind.UpstreamUnavailable;

    private static partial class Log
    {
        [LoggerMessage(Level = LogLevel.Information, Message = "Ticket {Id}: labelled ({Source}) in {Milliseconds} ms, attempt {Attempt}, {Calls} calls")]
        public static partial void Labelled(ILogger logger, Guid id, string source, long milliseconds, int attempt, int calls);

        [LoggerMessage(Level = LogLevel.Information, Message = "Ticket {Id}: its text or labels changed meanwhile, nothing was written")]
        public static partial void Stale(ILogger logger, Guid id);

        [LoggerMessage(Level = LogLevel.Information, Message = "Ticket {Id}: the same text is being classified for another ticket, given back")]
        public static partial void SameText(ILogger logger, Guid id);

        [LoggerMessage(Level = LogLevel.Information, Message = "Ticket {Id}: the daily budget for model calls is used up, deferred")]
        public static partial void Deferred(ILogger logger, Guid id);

        [LoggerMessage(Level = LogLevel.Information, Message = "Ticket {Id}: no longer held, nothing more was written")]
        public static partial void LeaseLost(ILogger logger, Guid id);

        [LoggerMessage(Level = LogLevel.Warning, Message = "Ticket {Id}: {Kind}, {Reason} (attempt {Attempt} of {MaxAttempts}, {Next})")]
        public static partial void Failed(ILogger logger, Guid id, FailureKind kind, string reason, int attempt, int maxAttempts, string next);

        [LoggerMessage(Level = LogLevel.Warning, Message = "Ticket {Id}: the text is blank, parked")]
        public static partial void Blank(ILogger logger, Guid id);

        [LoggerMessage(Level = LogLevel.Warning, Message = "Writing a classification failed (try {Attempt}, {Fault}), trying again")]
        public static partial void WriteFailed(ILogger logger, int attempt, string fault);
    }
}
