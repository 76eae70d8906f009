using System.Collections.Concurrent;
using Microsoft.Extensions.Options;
using TicketFunctions.Classification;
using TicketFunctions.Storage;

namespace TicketFunctions.Tickets;

/// <summary>What became of decisions that were done again.</summary>
/// <param name="Decided">The old and the new labels of each ticket that was decided again.</param>
/// <param name="Failed">Tickets that got no new labels and keep the old ones.</param>
/// <param name="Changed">Tickets that were edited, corrected, deleted or taken by somebody else meanwhile, and were left alone.</param>
/// <param name="End">Why the run ended.</param>
/// <param name="Calls">What a dry run paid for; a real one is in the decisions.</param>
public sealed record ReprocessSummary(
    IReadOnlyList<(Labels Old, Labels New)> Decided, int Failed, int Changed, SweepEnd End, IReadOnlyList<CallRecord> Calls);

/// <summary>Decides again about tickets that have their labels: by a new prompt or model, or where the old decision is in doubt.</summary>
public sealed class TicketReprocess(
    TicketStore store, TicketTriage triage, ITicketClassifier classifier, Spending spending, WorkDrain drain, IOptions<SweepOptions> options, TimeProvider time)
{
    /// <summary>So many tickets in a row without a model end the run.</summary>
    private const int UnavailableInARow = 5;

    /// <summary>So many tickets in a row that found no database end the run by their exception.</summary>
    private const int BrokenInARow = 5;

    /// <param name="tickets">What <see cref="TicketStore.FindDecidedAsync"/> found.</param>
    /// <param name="dryRun">Ask the model and change nothing. The calls are recorded as spent.</param>
    /// <param name="progress">Told the tickets done so far.</param>
    /// <param name="stopping">Begins no other ticket; what is under way has <see cref="WorkDrain.Grace"/> to finish.</param>
    public async Task<ReprocessSummary> RunAsync(
        IReadOnlyList<DecidedTicket> tickets, bool dryRun, IProgress<int>? progress, CancellationToken stopping)
    {
        using var grace = new CancellationTokenSource(Timeout.InfiniteTimeSpan, time);
        await using var registration = stopping.Register(() => grace.CancelAfter(WorkDrain.Grace));
        using var giveBack = CancellationTokenSource.CreateLinkedTokenSource(drain.Token, grace.Token);
        var newest = await store.FindNewestDecisionAsync(stopping);
        var run = new Run();
        var texts = new ConcurrentDictionary<string, Lazy<Task<ClassificationResult>>>(StringComparer.Ordinal);
        await Parallel.ForEachAsync(
            tickets,
            new ParallelOptions { MaxDegreeOfParallelism = options.Value.Concurrency },
            async (ticket, _) =>
            {
                if (stopping.IsCancellationRequested)
                {
                    run.Stop(SweepEnd.Stopped);
                }

                if (run.End is not null)
                {
                    return;
                }

                try
                {
                    if (dryRun)
                    {
                        await TryAsync(ticket, run, texts, giveBack.Token);
                    }
                    else
                    {
                        run.Count(ticket.Labels, await triage.ReprocessAsync(ticket.Id, ticket.Labels, FindReusable(ticket), stopping, giveBack.Token));
                    }

                    progress?.Report(run.Done);
                }
                catch (OperationCanceledException) when (stopping.IsCancellationRequested || giveBack.IsCancellationRequested)
                {
                    run.Stop(SweepEnd.Stopped);
                }
                catch (Exception e) when (StorageFaults.IsUnavailable(e) && run.CountBroken() < BrokenInARow)
                {
                    // One row may be locked or cut off while the others go on.
                }
            });
        return new ReprocessSummary(run.Decided, run.Failed, run.Changed, run.End ?? SweepEnd.NothingDue, run.Calls);

        // What another prompt or model decided may be replaced by what this one decided about the same text at any time.
        // What this one decided itself is to be decided anew.
        long FindReusable(DecidedTicket ticket) =>
            classifier.Identities.Any(identity => (identity.Provider, identity.Model, identity.PromptVersion, identity.TaxonomyVersion)
                == (ticket.Provider, ticket.Model, ticket.PromptVersion, ticket.TaxonomyVersion))
                ? newest
                : 0;
    }

    /// <summary>Asks about each text once, whatever the number of tickets that have it.</summary>
    private async Task TryAsync(
        DecidedTicket ticket, Run run, ConcurrentDictionary<string, Lazy<Task<ClassificationResult>>> texts, CancellationToken giveBack)
    {
        if (await spending.FindWaitAsync(giveBack) is not null)
        {
            run.Stop(SweepEnd.BudgetSpent);
            return;
        }

        var text = TicketText.Normalize(ticket.Description);
        var own = new Lazy<Task<ClassificationResult>>(() => classifier.ClassifyAsync(TicketText.Clip(text), giveBack));
        var answer = texts.GetOrAdd(text, own);
        var isOwn = answer == own;
        var result = await answer.Value;
        if (isOwn)
        {
            spending.Add(result.Calls);
            run.Add(result.Calls);
            var textSha256 = TicketText.Hash(text);
            await triage.RecordFailureAsync(
                new ClaimedTicket(ticket.Id, ticket.Description, Guid.NewGuid(), 0, textSha256),
                new FailedAttempt("dry_run", "a dry run of reprocess", textSha256, result.Calls),
                time.GetTimestamp(),
                giveBack);
        }

        run.Count(ticket.Labels, result switch
        {
            // As in earnest: it replaces no labels.
            ClassificationResult.Labelled { Identity.Source: "baseline" } when classifier.Identities.Any(identity => identity.Source == "model") =>
                new TriageResult.NotForced(FailureKind.UpstreamUnavailable),
            ClassificationResult.Labelled labelled => new TriageResult.Labelled(ticket.Id, labelled.Labels, labelled.Identity.Source, labelled.Identity.Model, labelled.Confidence),
            ClassificationResult.Failed failed => new TriageResult.NotForced(failed.Kind),
            _ => throw new InvalidOperationException($"No arm for {result.GetType().Name}."),
        }, isOwn);
    }

    /// <summary>The sums of one run, counted by many at once.</summary>
    private sealed class Run
    {
        private readonly Lock _lock = new();
        private readonly List<(Labels Old, Labels New)> _decided = [];
        private readonly List<CallRecord> _calls = [];
        private int _unavailable;
        private int _broken;

        public IReadOnlyList<(Labels Old, Labels New)> Decided => _decided;

        public IReadOnlyList<CallRecord> Calls => _calls;

        public int Failed { get; private set; }

        public int Changed { get; private set; }

        public SweepEnd? End { get; private set; }

        public int Done
        {
            get
            {
                lock (_lock)
                {
                    return _decided.Count + Failed + Changed;
                }
            }
        }

        public void Stop(SweepEnd end)
        {
            lock (_lock)
            {
                End ??= end;
            }
        }

        public void Add(IReadOnlyList<CallRecord> calls)
        {
            lock (_lock)
            {
                _calls.AddRange(calls);
            }
        }

        /// <returns>How many found no database in a row.</returns>
        public int CountBroken()
        {
            lock (_lock)
            {
                Failed++;
                return ++_broken;
            }
        }

        /// <param name="old">The labels it has.</param>
        /// <param name="result">What became of it.</param>
        /// <param name="isOwn">Not the answer about another ticket with its text: that one is counted already.</param>
        public void Count(Labels old, TriageResult? result, bool isOwn = true)
        {
            lock (_lock)
            {
                _broken = 0;
                switch (result)
                {
                    case TriageResult.Labelled labelled:
                        _decided.Add((old, labelled.Labels));
                        _unavailable = isOwn ? 0 : _unavailable;
                        break;
                    case TriageResult.NotForced { Kind: FailureKind.BudgetSpent }:
                        Failed++;
                        End ??= SweepEnd.BudgetSpent;
                        break;
                    case TriageResult.NotForced { Kind: FailureKind.UpstreamUnavailable or FailureKind.UpstreamTimeout }:
                        Failed++;
                        if (isOwn && ++_unavailable == UnavailableInARow)
                        {
                            End ??= SweepEnd.ModelUnavailable;
                        }

                        break;
                    case TriageResult.NotForced or TriageResult.BlankText:
                        Failed++;
                        _unavailable = isOwn ? 0 : _unavailable;
                        break;
                    // The same text is under way elsewhere, and its decision did not come in time.
                    case TriageResult.InProgress { RetryAfter.Ticks: > 0 }:
                        Failed++;
                        break;
                    default:
                        Changed++;
                        break;
                }
            }
        }
    }
}
