using System.CommandLine;
using System.Globalization;
using System.Text.Encodings.Web;
using System.Text.Json;
using Spectre.Console;
using TicketFunctions.Storage;

namespace TicketFunctions.Hosting.AspNetCore.Commands;

/// <summary><c>parked</c>: the tickets that nobody tries any more, and why. Their texts are not shown.</summary>
internal static class ParkedCommand
{
    private static readonly JsonSerializerOptions Json = new(JsonSerializerDefaults.Web)
    {
        WriteIndented = true,
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    public static Command Create()
    {
        var json = new Option<bool>("--json") { Description = "Write a JSON array." };
        var command = new Command("parked", "List the tickets whose attempts are used up, the longest parked first. `revive` gives them a new start.") { json };
        command.SetAction((parsed, cancellationToken) => CommandLine.Guarded(token => RunAsync(parsed.GetValue(json), token), cancellationToken));
        return command;
    }

    private static async Task<int> RunAsync(bool json, CancellationToken cancellationToken)
    {
        await using var session = await DatabaseSession.OpenAsync(migrateEmbedded: true, cancellationToken);
        var tickets = await session.Services.GetRequiredService<TicketStore>().FindParkedAsync(cancellationToken);
        if (json)
        {
            Console.WriteLine(JsonSerializer.Serialize(tickets, Json));
        }
        else
        {
            Show(tickets);
        }

        return CommandLine.Success;
    }

    private static void Show(IReadOnlyList<ParkedTicket> tickets)
    {
        var screen = CommandLine.Screen;
        if (!screen.Profile.Capabilities.Interactive)
        {
            // Where nobody's window sets a width, a row is a line.
            screen.Profile.Width = 200;
        }

        if (tickets.Count > 0)
        {
            var table = new Table().AddColumns(
                new TableColumn("ticket").NoWrap(), new TableColumn("parked since (UTC)").NoWrap(), new TableColumn("age").NoWrap(), new TableColumn("attempts"), new TableColumn("last error"));
            foreach (var ticket in tickets)
            {
                table.AddRow(
                    ticket.Id.ToString(),
                    ticket.ParkedAt.ToString("yyyy-MM-dd HH:mm:ss", CultureInfo.InvariantCulture),
                    FormatAge(ticket.AgeSeconds),
                    ticket.Attempts.ToString(CultureInfo.InvariantCulture),
                    Markup.Escape(ticket.LastError ?? "-"));
            }

            screen.Write(table);
        }

        screen.WriteLine($"{tickets.Count} parked.");
    }

    private static string FormatAge(double? seconds) => seconds switch
    {
        null => "-",
        >= 86_400 => string.Create(CultureInfo.InvariantCulture, $"{seconds / 86_400:0.0} d"),
        >= 3_600 => string.Create(CultureInfo.InvariantCulture, $"{seconds / 3_600:0.0} h"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{seconds / 60:0.0} min"),
    };
}
