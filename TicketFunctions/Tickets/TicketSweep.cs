using Microsoft.Extensions.Options;
using TicketFunctions.Classification;
using TicketFunctions.Storage;

namespace TicketFunctions.Tickets;

/// <summary>Why a run of the sweep ended.</summary>
public enum SweepEnd
{
    NothingDue,
    TimeBudget,
    ModelUnavailable,

    /// <summary>The daily budget for model calls is used up.</summary>
    BudgetSpent,
    Stopped,
}

/// <summary>What one run of the sweep did.</summary>
/// <param name="Claimed">Tickets taken.</param>
/// <param name="Labelled">Tickets that got their labels.</param>
/// <param name="Waiting">Tickets that got no labels and wait for their next attempt.</param>
/// <param name="Parked">Tickets whose attempts are used up, those of dead processes included.</param>
/// <param name="End">Why the run ended.</param>
/// <param name="Elapsed">How long it took.</param>
public sealed record SweepSummary(int Claimed, int Labelled, int Waiting, int Parked, SweepEnd End, TimeSpan Elapsed)
{
    /// <summary>Why the run ended, in words.</summary>
    public string Why => End switch
    {
        SweepEnd.NothingDue => "nothing due",
        SweepEnd.TimeBudget => "time budget",
        SweepEnd.ModelUnavailable => "model unavailable",
        SweepEnd.BudgetSpent => "daily budget spent",
        _ => "stopped",
    };
}

/// <summary>Drains the backlog: claims what is due while models think, so that as many calls as allowed are under way at every moment.</summary>
public sealed partial class TicketSweep(
    TicketStore store,
    TicketTriage triage,
    WorkDrain drain,
    BacklogWatch backlog,
    IOptions<SweepOptions> sweepOptions,
    IOptions<TriageOptions> triageOptions,
    TimeProvider time,
    ILogger<TicketSweep> logger)
{
    /// <summary>
    /// So many tickets in a row that found no model end the run: to go on would ask once for each of the rest, and time-outs count.
    /// But it may be these tickets that the model's server fails at, so the newest one is tried before.
    /// </summary>
    private const int UnavailableInARow = 5;

    /// <summary>So many tickets in a row that found no database end the run by their exception.</summary>
    private const int BrokenInARow = 5;

    private readonly SweepOptions _sweep = sweepOptions.Value;

    /// <param name="progress">Told the tickets ended so far.</param>
    /// <param name="stopping">Ends the run: nothing more is claimed, and what is under way has <see cref="WorkDrain.Grace"/> to finish.</param>
    public async Task<SweepSummary> RunAsync(IProgress<int>? progress, CancellationToken stopping)
    {
        using var grace = new CancellationTokenSource(Timeout.InfiniteTimeSpan, time);
        await using var registration = stopping.Register(() => grace.CancelAfter(WorkDrain.Grace));
        using var giveBack = CancellationTokenSource.CreateLinkedTokenSource(drain.Token, grace.Token);
        var started = time.GetTimestamp();
        await store.ForgetProcessedAsync(stopping);
        await store.ForgetLocksAsync(stopping);
        var parked = await store.ParkExhaustedAsync(triageOptions.Value.MaxAttempts, stopping);
        Telemetry.CountInterrupted(parked);

        int claimed = 0, labelled = 0, waiting = 0, unavailable = 0, brokenInARow = 0;
        var triedNewest = false;
        SweepEnd? end = null;
        var pipeline = new SweepPipeline(store, triage, _sweep, time, giveBack.Token);
        try
        {
            while (true)
            {
                var doubtful = unavailable >= UnavailableInARow;
                end ??= stopping.IsCancellationRequested || giveBack.IsCancellationRequested ? SweepEnd.Stopped
                    : doubtful && triedNewest && pipeline.IsEmpty ? SweepEnd.ModelUnavailable
                    : time.GetElapsedTime(started) >= _sweep.TimeBudget ? SweepEnd.TimeBudget
                    : null;
                if (doubtful || end is not null)
                {
                    await pipeline.GiveBackReadyAsync();
                }

                claimed += pipeline.Start();
                if (end is null && !doubtful)
                {
                    triedNewest = false;
                    pipeline.ClaimAhead();
                }
                else if (end is null && pipeline.IsEmpty)
                {
                    // Not to be given up by a stop: what was claimed and nobody knows of would be held until its lease ends.
                    triedNewest = true;
                    if (await store.FindNewestAsync(CancellationToken.None) is { } newest && await triage.ClaimAsync(newest) is { } ticket)
                    {
                        pipeline.Add(ticket);
                        claimed += pipeline.Start();
                    }
                }

                if (pipeline.IsEmpty)
                {
                    end ??= doubtful ? SweepEnd.ModelUnavailable : null;
                    break;
                }

                if (await pipeline.NextAsync() is not { } ended)
                {
                    continue;
                }

                try
                {
                    Count(await ended);
                    brokenInARow = 0;
                }
                catch (Exception e) when (StorageFaults.IsUnavailable(e) && ++brokenInARow < BrokenInARow)
                {
                    // One row may be locked or cut off while the others go on; its lease runs out and it comes again.
                    Log.Broken(logger, e.GetType().Name);
                    waiting++;
                }

                progress?.Report(labelled + waiting + parked);
            }
        }
        catch (OperationCanceledException) when (stopping.IsCancellationRequested || giveBack.IsCancellationRequested)
        {
            end = SweepEnd.Stopped;
        }
        finally
        {
            // Nothing is left behind half done, whatever ended the loop.
            await pipeline.DrainAsync();
        }

        var summary = new SweepSummary(claimed, labelled, waiting, parked, end ?? SweepEnd.NothingDue, time.GetElapsedTime(started));
        Log.Swept(logger, summary.Claimed, summary.Labelled, summary.Waiting, summary.Parked, (long)summary.Elapsed.TotalMilliseconds, summary.Why);
        if (end != SweepEnd.Stopped && await backlog.CountAsync(CancellationToken.None) is { } left)
        {
            Log.Left(logger, left.Unprocessed, left.InFlight, left.Parked, (long)left.OldestWaitingSeconds);
        }

        return summary;

        void Count(TriageResult result)
        {
            unavailable = result switch
            {
                TriageResult.RetryLater { Kind: FailureKind.BudgetSpent or FailureKind.UpstreamBusy } => unavailable,
                TriageResult.RetryLater { Kind: FailureKind.UpstreamUnavailable or FailureKind.UpstreamTimeout }
                    or TriageResult.Parked { Kind: FailureKind.UpstreamUnavailable or FailureKind.UpstreamTimeout } => unavailable + 1,
                TriageResult.RetryLater or TriageResult.Parked or TriageResult.Labelled { Source: not "reused" } => 0,
                _ => unavailable,
            };
            switch (result)
            {
                case TriageResult.Labelled:
                    labelled++;
                    break;
                case TriageResult.RetryLater { Kind: FailureKind.BudgetSpent }:
                    // The rest of the backlog would be told the same, one by one.
                    end ??= SweepEnd.BudgetSpent;
                    waiting++;
                    break;
                case TriageResult.RetryLater or TriageResult.InProgress { RetryAfter.Ticks: > 0 }:
                    waiting++;
                    break;
                case TriageResult.Parked or TriageResult.BlankText:
                    parked++;
                    break;
            }
        }
    }

    private static partial class Log
    {
        [LoggerMessage(Level = LogLevel.Warning, Message = "A ticket could not be written ({Exception}); it comes again when its lease is over")]
        public static partial void Broken(ILogger logger, string exception);

        [LoggerMessage(Level = LogLevel.Information, Message = "Sweep: {Claimed} claimed, {Labelled} labelled, {Waiting} to retry, {Parked} parked in {Milliseconds} ms ({End})")]
        public static partial void Swept(ILogger logger, int claimed, int labelled, int waiting, int parked, long milliseconds, string end);

        [LoggerMessage(Level = LogLevel.Information, Message = "Backlog: {Unprocessed} unprocessed, {InFlight} in flight, {Parked} parked, the oldest that is not parked waits for {Seconds} s")]
        public static partial void Left(ILogger logger, long unprocessed, long inFlight, long parked, long seconds);
    }
}
