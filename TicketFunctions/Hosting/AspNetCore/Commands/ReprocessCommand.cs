using System.CommandLine;
using System.Globalization;
using Spectre.Console;
using TicketFunctions.Classification;
using TicketFunctions.Storage;
using TicketFunctions.Tickets;

namespace TicketFunctions.Hosting.AspNetCore.Commands;

/// <summary><c>reprocess</c>: decides again, and shows how the new labels differ from the old ones.</summary>
internal static class ReprocessCommand
{
    /// <summary>What has no zone is UTC.</summary>
    private static readonly string[] SinceForms = ["yyyy-MM-dd", "yyyy-MM-dd'T'HH:mm:ss.FFFFFFFK"];

    public static Command Create()
    {
        var promptVersion = new Option<string?>("--prompt-version") { Description = "Decisions made with this version of the prompt." };
        var model = new Option<string?>("--model") { Description = "Decisions made by this model; `baseline` for all of the embedded one." };
        var label = new Option<string?>("--label") { Description = "Decisions with this category or sentiment." };
        var since = new Option<DateTime?>("--since")
        {
            Description = "Decisions made at this time (UTC) or later, like 2026-11-20 or 2026-11-20T08:30:00Z.",
            CustomParser = result =>
            {
                if (DateTime.TryParseExact(
                    result.Tokens[0].Value, SinceForms, CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal | DateTimeStyles.AdjustToUniversal, out var time))
                {
                    return time;
                }

                result.AddError("--since is not a time; write it like 2026-11-20 or 2026-11-20T08:30:00Z.");
                return null;
            },
        };
        var limit = new Option<int?>("--limit")
        {
            Description = "At most so many tickets, the oldest first.",
            CustomParser = result =>
            {
                if (int.TryParse(result.Tokens[0].Value, NumberStyles.None, CultureInfo.InvariantCulture, out var count) && count > 0)
                {
                    return count;
                }

                result.AddError($"--limit must be a whole number from 1 to {int.MaxValue}.");
                return null;
            },
        };
        var dryRun = new Option<bool>("--dry-run") { Description = "Ask the model, show old against new labels, and change nothing. The calls are paid." };
        var command = new Command(
            "reprocess",
            "Decide again about tickets that have their labels, by the prompt and the model configured now. Conditions add up; at least one is needed. "
            + "Labels corrected by a person are left alone.")
        {
            promptVersion, model, label, since, limit, dryRun,
        };
        command.Validators.Add(result =>
        {
            if (new Option[] { promptVersion, model, label, since }.All(option => result.GetResult(option) is null))
            {
                result.AddError("Say which decisions: give --prompt-version, --model, --label or --since.");
            }
        });
        command.SetAction((parsed, cancellationToken) => CommandLine.Guarded(
            token => RunAsync(
                new DecisionFilter(parsed.GetValue(promptVersion), parsed.GetValue(model), parsed.GetValue(label), parsed.GetValue(since)),
                parsed.GetValue(limit),
                parsed.GetValue(dryRun),
                token),
            cancellationToken));
        return command;
    }

    private static async Task<int> RunAsync(DecisionFilter filter, int? limit, bool dryRun, CancellationToken cancellationToken)
    {
        await using var session = await DatabaseSession.OpenAsync(migrateEmbedded: true, cancellationToken);
        var tickets = await session.Services.GetRequiredService<TicketStore>().FindDecidedAsync(filter, limit, cancellationToken);
        var reprocess = session.Services.GetRequiredService<TicketReprocess>();
        var summary = await ProgressBar.ShowAsync("Deciding again", tickets.Count, progress => reprocess.RunAsync(tickets, dryRun, progress, cancellationToken));

        Show("category", summary.Decided.Select(pair => (pair.Old.Category, pair.New.Category)));
        Show("sentiment", summary.Decided.Select(pair => (pair.Old.Sentiment, pair.New.Sentiment)));
        var differ = summary.Decided.Count(pair => pair.Old != pair.New);
        var why = summary.End switch
        {
            SweepEnd.ModelUnavailable => " Ended early: no model can be reached.",
            SweepEnd.BudgetSpent => " Ended early: the daily budget is spent.",
            SweepEnd.Stopped => " Ended early: stopped.",
            _ => "",
        };
        Console.WriteLine(
            $"{tickets.Count} found, {summary.Decided.Count} decided again, {differ} {(dryRun ? "would change" : "changed")}, "
            + $"{summary.Failed} failed and keep their labels, {summary.Changed} were changed meanwhile and left alone.{why}");
        if (dryRun)
        {
            var usage = Usage.Of(summary.Calls);
            Console.WriteLine(string.Create(
                CultureInfo.InvariantCulture,
                $"Nothing was changed. The dry run took {summary.Calls.Count} calls, {usage.TokensIn ?? 0} tokens in, {usage.TokensOut ?? 0} out, cost {usage.Cost?.ToString("0.######", CultureInfo.InvariantCulture) ?? "unknown"}."));
        }

        return summary.End == SweepEnd.Stopped ? CommandLine.Interrupted
            : summary is { Failed: 0, End: SweepEnd.NothingDue } ? CommandLine.Success
            : CommandLine.Failure;
    }

    /// <summary>Old labels down, new ones across.</summary>
    private static void Show(string name, IEnumerable<(string Old, string New)> pairs)
    {
        var counts = pairs.CountBy(pair => pair).ToDictionary();
        if (counts.Count == 0)
        {
            return;
        }

        var columns = counts.Keys.Select(pair => pair.New).Distinct().Order(StringComparer.Ordinal).ToList();
        var table = new Table().AddColumn($"{name}: old \\ new").AddColumns([.. columns.Select(Markup.Escape)]);
        foreach (var row in counts.Keys.Select(pair => pair.Old).Distinct().Order(StringComparer.Ordinal))
        {
            table.AddRow([Markup.Escape(row), .. columns.Select(column => counts.GetValueOrDefault((row, column)).ToString(CultureInfo.InvariantCulture))]);
        }

        CommandLine.Screen.Write(table);
    }
}
