using System.Security.Cryptography;
using System.Text;
using Dapper;
using Npgsql;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Soak;

/// <summary>Judges by what the database kept of every change and by what the model was asked; never by what the workers say.</summary>
internal sealed class SoakOracle(string database, SoakModel model, Action<Guid?, string> violate)
{
    /// <param name="quiet">When the faults stopped.</param>
    /// <param name="due">Until when tickets waited for their next attempt, as last seen after that.</param>
    /// <param name="acknowledged">Tickets whose insert was confirmed and that nobody deleted.</param>
    /// <param name="orphans">Tickets of killed workers.</param>
    /// <param name="faults">When anything else was broken or came back.</param>
    /// <returns>The figures, in words.</returns>
    public async Task<string> CheckAsync(
        DateTime quiet, IReadOnlyDictionary<Guid, DateTime> due, ICollection<Guid> acknowledged, IReadOnlyList<Orphan> orphans, IReadOnlyList<DateTime> faults)
    {
        await using var connection = new NpgsqlConnection(database);
        var changes = (await connection.QueryAsync<TicketChange>(TicketAudit.Read)).ToList();
        var rows = (await connection.QueryAsync<Row>(
            """
            select id, description, category, sentiment, processed, attempts, parked_at, ticket_id is not null as has_work
            from tickets
            left join ticket_work on ticket_id = id
            """)).ToList();
        var decisions = (await connection.QueryAsync<DecisionRow>("select ticket_id, category, sentiment, source, attempts, text_sha256 from ticket_decisions")).ToList();
        var locks = await connection.QuerySingleAsync<int>("select count(*) from ticket_text_locks");

        CheckHistory(changes);
        CheckRows(rows, locks);
        CheckDecisions(changes, decisions);
        var paid = CheckCalls(changes);
        foreach (var id in acknowledged.Except(rows.Select(row => row.Id)))
        {
            violate(id, "its insert was confirmed and it is gone; expected to be there (I2)");
        }

        var recovered = CheckRecovery(rows, changes, quiet, due);
        var (worst, measured) = MeasureKills(changes, orphans, faults);
        var bound = SoakRun.Lease + SoakRun.Sweep;
        return $"{decisions.Count} decisions, {decisions.Count(decision => decision.Source == "reused")} of them saved a call by reuse; "
            + $"at most {paid} answered calls for a text each time it was given to a ticket.\n"
            + $"Tickets: {rows.Count(row => row.Processed)} processed, {rows.Count(row => row.ParkedAt is not null)} parked; "
            + $"all done {recovered.TotalSeconds:0.0} s after the faults had stopped and all workers were up.\n"
            + $"Killed workers' tickets: {orphans.Count}, of which {measured} recovered undisturbed, the worst in {worst.TotalSeconds:0.0} s (lease + sweep: {bound.TotalSeconds:0.0} s).";
    }

    /// <summary>I1, I3: labelled once for each text it was given, and then left alone until the next one.</summary>
    private void CheckHistory(List<TicketChange> changes)
    {
        foreach (var history in changes.GroupBy(change => change.TicketId))
        {
            var effects = 0;
            foreach (var change in history)
            {
                var isEdit = change.OldText != change.Text;
                effects = isEdit ? 0 : effects;
                if (change is { WasProcessed: true, Text: not null } && !isEdit)
                {
                    violate(change.TicketId, $"changed at {change.At:HH:mm:ss.fff} by {change.Application} after it was final; expected no change but an edit (I3)");
                }

                if (change is { WasProcessed: false, Processed: true } && ++effects > 1)
                {
                    violate(change.TicketId, $"processed {effects} times with the same text; expected once (I1)");
                }

                if (change.Processed == true && (change.Category, change.Sentiment) != SoakModel.LabelsOf(change.Text!))
                {
                    violate(change.TicketId, $"labelled {change.Category}, {change.Sentiment}; expected {SoakModel.LabelsOf(change.Text!)}, of the text it had then");
                }
            }
        }
    }

    /// <summary>I2, I5, I8.</summary>
    private void CheckRows(List<Row> rows, int locks)
    {
        foreach (var row in rows)
        {
            if (!row.Processed && row.ParkedAt is null)
            {
                violate(row.Id, $"neither processed nor parked at the end, attempts {row.Attempts}; expected one of them (I2)");
            }

            if (row.Processed ? row.Category is null || row.Sentiment is null || row.HasWork : row.Category is not null || row.Sentiment is not null)
            {
                violate(row.Id, $"processed {row.Processed}, labels '{row.Category}', '{row.Sentiment}', work row {row.HasWork}; expected all of it or nothing (I8)");
            }

            if (row.Attempts > SoakRun.MaxAttempts)
            {
                violate(row.Id, $"{row.Attempts} attempts; expected {SoakRun.MaxAttempts} at most (I5)");
            }
        }

        if (locks > 0)
        {
            violate(null, $"{locks} locks on texts are left; expected none (I8)");
        }
    }

    /// <summary>One for each committed classification, no more, with the labels of its text.</summary>
    private void CheckDecisions(List<TicketChange> changes, List<DecisionRow> decisions)
    {
        var made = decisions.ToLookup(decision => (decision.TicketId, Convert.ToHexString(decision.TextSha256)));
        var effects = changes.Where(change => change is { WasProcessed: false, Processed: true }).ToLookup(change => (change.TicketId, Hash(change.Text!)));
        foreach (var key in made.Select(group => group.Key).Union(effects.Select(group => group.Key)))
        {
            if (made[key].Count() != effects[key].Count())
            {
                violate(key.TicketId, $"{made[key].Count()} decisions for {effects[key].Count()} classifications of one text; expected as many");
            }

            foreach (var decision in made[key].Where(decision => decision.Attempts > SoakRun.MaxAttempts))
            {
                violate(key.TicketId, $"decided in attempt {decision.Attempts}; expected {SoakRun.MaxAttempts} at most (I5)");
            }

            if (effects[key].FirstOrDefault() is { } effect)
            {
                foreach (var decision in made[key].Where(decision => (decision.Category, decision.Sentiment) != SoakModel.LabelsOf(effect.Text!)))
                {
                    violate(key.TicketId, $"decided {decision.Category}, {decision.Sentiment}; expected {SoakModel.LabelsOf(effect.Text!)}");
                }
            }
        }
    }

    /// <summary>I6: paid calls are bounded by the attempts, each time a ticket is given a text.</summary>
    /// <returns>The most answered calls for a text, for each time it was given to a ticket.</returns>
    private int CheckCalls(List<TicketChange> changes)
    {
        var most = 0;
        foreach (var given in changes.Where(change => change.Text is not null && change.OldText != change.Text).GroupBy(change => change.Text!))
        {
            var answered = model.AnsweredFor(given.Key);
            most = Math.Max(most, (answered + given.Count() - 1) / given.Count());
            if (answered > given.Count() * SoakRun.MaxAttempts * SoakRun.AnswersPerAttempt)
            {
                violate(given.First().TicketId, $"{answered} answered calls for a text given {given.Count()} times; expected {SoakRun.MaxAttempts} × {SoakRun.AnswersPerAttempt} for each at most (I6)");
            }
        }

        return most;
    }

    /// <summary>I2: within a lease and two sweeps after the faults stopped, or two sweeps after the wait it was in.</summary>
    private TimeSpan CheckRecovery(List<Row> rows, List<TicketChange> changes, DateTime quiet, IReadOnlyDictionary<Guid, DateTime> due)
    {
        var worst = TimeSpan.Zero;
        var processedAt = changes.Where(change => change is { WasProcessed: false, Processed: true }).GroupBy(change => change.TicketId).ToDictionary(group => group.Key, group => group.Last().At);
        foreach (var row in rows.Where(row => row.Processed || row.ParkedAt is not null))
        {
            var done = row.ParkedAt ?? processedAt[row.Id];
            var from = quiet + SoakRun.Lease;
            if (due.TryGetValue(row.Id, out var waited) && waited > from)
            {
                from = waited;
            }

            worst = done - quiet > worst ? done - quiet : worst;
            if (done > from + (2 * SoakRun.Sweep) + SoakRun.Slack)
            {
                violate(row.Id, $"done {(done - quiet).TotalSeconds:0.0} s after the faults stopped; expected {(from - quiet + (2 * SoakRun.Sweep)).TotalSeconds:0.0} s (I2)");
            }
        }

        return worst;
    }

    /// <summary>I12, where nothing but the kill kept the ticket from being done: no other fault of ours, none of the model, no edit.</summary>
    private (TimeSpan Worst, int Measured) MeasureKills(List<TicketChange> changes, IReadOnlyList<Orphan> orphans, IReadOnlyList<DateTime> faults)
    {
        var worst = TimeSpan.Zero;
        var measured = 0;
        var histories = changes.ToLookup(change => change.TicketId);
        var repeated = orphans.GroupBy(orphan => orphan.Id).Where(group => group.Count() > 1).Select(group => group.Key).ToHashSet();
        foreach (var orphan in orphans.Where(orphan => !model.IsFaulty(orphan.Text) && !repeated.Contains(orphan.Id)))
        {
            var next = histories[orphan.Id].FirstOrDefault(change => change.At > orphan.KilledAt);
            if (next is not { WasProcessed: false, Processed: true } || next.Text != orphan.Text
                || faults.Any(fault => fault > orphan.KilledAt - SoakRun.Slack && fault < next.At))
            {
                continue;
            }

            measured++;
            var took = next.At - orphan.KilledAt;
            worst = took > worst ? took : worst;
            if (took > SoakRun.Lease + SoakRun.Sweep + SoakRun.Slack)
            {
                violate(orphan.Id, $"done {took.TotalSeconds:0.0} s after its worker was killed; expected {(SoakRun.Lease + SoakRun.Sweep).TotalSeconds:0.0} s (I12)");
            }
        }

        return (worst, measured);
    }

    private static string Hash(string text) => Convert.ToHexString(SHA256.HashData(Encoding.UTF8.GetBytes(text.Normalize())));

    private sealed record Row(Guid Id, string Description, string? Category, string? Sentiment, bool Processed, int? Attempts, DateTime? ParkedAt, bool HasWork);

    private sealed record DecisionRow(Guid TicketId, string Category, string Sentiment, string Source, int Attempts, byte[] TextSha256);
}
