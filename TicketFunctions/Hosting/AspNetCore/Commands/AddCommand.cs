using System.CommandLine;
using TicketFunctions.Storage;
using TicketFunctions.Tickets;

namespace TicketFunctions.Hosting.AspNetCore.Commands;

/// <summary><c>add</c>: a new ticket for trying things out, where no psql is at hand.</summary>
internal static class AddCommand
{
    public static Command Create()
    {
        var text = new Argument<string>("text") { Description = "What the customer wrote." };
        var command = new Command("add", "Insert a ticket and print its id. The service, or `sweep`, then classifies it.") { text };
        command.SetAction((parsed, cancellationToken) =>
            CommandLine.Guarded(token => RunAsync(parsed.GetRequiredValue(text), token), cancellationToken));
        return command;
    }

    private static async Task<int> RunAsync(string text, CancellationToken cancellationToken)
    {
        if (!TicketText.IsVisible(text))
        {
            throw new FormatException("The text has nothing visible in it; write what the customer wrote.");
        }

        await using var session = await DatabaseSession.OpenAsync(migrateEmbedded: true, cancellationToken);
        var id = Guid.NewGuid();
        await session.Services.GetRequiredService<TicketStore>().InsertAsync(id, text, cancellationToken);
        Console.WriteLine(id);
        return CommandLine.Success;
    }
}
