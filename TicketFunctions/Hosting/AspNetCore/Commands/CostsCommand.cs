using System.CommandLine;
using System.Globalization;
using System.Text.Json;
using Spectre.Console;
using TicketFunctions.Storage;
using TicketFunctions.Tickets;

namespace TicketFunctions.Hosting.AspNetCore.Commands;

/// <summary><c>costs</c>: what models were asked and what that cost, by day and model.</summary>
internal static class CostsCommand
{
    private const int Days = 30;

    private static readonly JsonSerializerOptions Json = new(JsonSerializerDefaults.Web) { WriteIndented = true };

    public static Command Create()
    {
        var since = new Option<DateOnly?>("--since")
        {
            Description = $"The first day, in UTC, like 2026-11-20; by default the last {Days} days.",
            CustomParser = result =>
            {
                if (DateOnly.TryParseExact(result.Tokens[0].Value, "yyyy-MM-dd", CultureInfo.InvariantCulture, DateTimeStyles.None, out var date))
                {
                    return date;
                }

                result.AddError("--since is not a date; write it like 2026-11-20.");
                return null;
            },
        };
        var json = new Option<bool>("--json") { Description = "Write JSON." };
        var command = new Command("costs", "Show what models were asked, what that cost and what reuse saved, by day and model, and what is left today.") { since, json };
        command.SetAction((parsed, cancellationToken) => CommandLine.Guarded(
            token => RunAsync(parsed.GetValue(since), parsed.GetValue(json), token), cancellationToken));
        return command;
    }

    private static async Task<int> RunAsync(DateOnly? since, bool json, CancellationToken cancellationToken)
    {
        await using var session = await DatabaseSession.OpenAsync(migrateEmbedded: true, cancellationToken);
        var first = since ?? DateOnly.FromDateTime(session.Services.GetRequiredService<TimeProvider>().GetUtcNow().UtcDateTime).AddDays(1 - Days);
        var rows = await session.Services.GetRequiredService<TicketStore>().SumCostsAsync(first, cancellationToken);
        var today = await session.Services.GetRequiredService<Spending>().ReadTodayAsync(cancellationToken);
        if (json)
        {
            Console.WriteLine(JsonSerializer.Serialize(new { since = first, days = rows.SkipLast(1), total = rows[^1], today }, Json));
        }
        else
        {
            Show(first, rows, today);
        }

        return CommandLine.Success;
    }

    private static void Show(DateOnly since, IReadOnlyList<CostRow> rows, Today today)
    {
        var screen = CommandLine.Screen;
        if (!screen.Profile.Capabilities.Interactive)
        {
            // Where nobody's window sets a width, a row is a line.
            screen.Profile.Width = 200;
        }

        if (rows.Count == 1)
        {
            screen.WriteLine($"No decisions since {since:yyyy-MM-dd}.");
        }
        else
        {
            var table = new Table().AddColumns(
                "day", "model", "decisions", "reused", "failed attempts", "calls", "tokens in", "tokens out", "cost", "saved tokens", "saved cost");
            foreach (var row in rows)
            {
                table.AddRow(
                    row.Day ?? "total", Markup.Escape(row.Model ?? ""), Format(row.Decisions), Format(row.Reused), Format(row.FailedAttempts), Format(row.Calls),
                    Format(row.TokensIn), Format(row.TokensOut), Format(row.Cost), Format(row.SavedTokens), Format(row.SavedCost));
            }

            screen.Write(table);
        }

        screen.WriteLine((today.Left.Tokens, today.Left.Cost) switch
        {
            (null, null) => "No daily budget is set (Model__TokensPerDay, Model__CostPerDay).",
            ({ } tokens, null) => $"Left today: {Format(tokens)} tokens.",
            (null, { } cost) => $"Left today: {Format(cost)}.",
            ({ } tokens, { } cost) => $"Left today: {Format(tokens)} tokens, {Format(cost)}.",
        });
    }

    private static string Format(long count) => count.ToString(CultureInfo.InvariantCulture);

    private static string Format(decimal? cost) => cost?.ToString("0.00####", CultureInfo.InvariantCulture) ?? "-";
}
