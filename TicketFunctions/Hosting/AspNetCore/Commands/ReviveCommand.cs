using System.CommandLine;
using TicketFunctions.Storage;

namespace TicketFunctions.Hosting.AspNetCore.Commands;

/// <summary><c>revive</c>: gives parked tickets a new start, as an edit of their text would.</summary>
internal static class ReviveCommand
{
    public static Command Create()
    {
        var ids = new Argument<Guid[]>("id")
        {
            Description = "Parked tickets, as `parked` lists them.",
            Arity = ArgumentArity.ZeroOrMore,
            CustomParser = result =>
            {
                var read = result.Tokens.Select(token => Guid.TryParseExact(token.Value, "D", out var id) ? id : (Guid?)null).ToList();
                if (read.Contains(null))
                {
                    result.AddError("An id is not a UUID in its usual form, 8-4-4-4-12 hexadecimal digits.");
                }

                return [.. read.OfType<Guid>()];
            },
        };
        var all = new Option<bool>("--all") { Description = "Every parked ticket." };
        var command = new Command("revive", "Give parked tickets a new start: all their attempts, due at once. The service, or `sweep`, then tries them again.") { ids, all };
        command.Validators.Add(result =>
        {
            var named = result.GetResult(ids)?.Tokens.Count > 0;
            if (named == result.GetValue(all))
            {
                result.AddError("Say which tickets: give their ids, or --all.");
            }
        });
        command.SetAction((parsed, cancellationToken) => CommandLine.Guarded(
            token => RunAsync(parsed.GetValue(all) ? null : [.. parsed.GetRequiredValue(ids).Distinct()], token), cancellationToken));
        return command;
    }

    /// <param name="ids">Which; null for all.</param>
    /// <param name="cancellationToken">Ctrl-C.</param>
    private static async Task<int> RunAsync(Guid[]? ids, CancellationToken cancellationToken)
    {
        await using var session = await DatabaseSession.OpenAsync(migrateEmbedded: true, cancellationToken);
        var revived = await session.Services.GetRequiredService<TicketStore>().ReviveAsync(ids, cancellationToken);
        if (ids is null)
        {
            Console.WriteLine($"{revived.Count} revived.");
            return CommandLine.Success;
        }

        Console.WriteLine($"{revived.Count} of {ids.Length} revived.");
        return revived.Count == ids.Length
            ? CommandLine.Success
            : CommandLine.Fail(CommandLine.Failure, ids.Except(revived).Select(id => $"{id} is not parked."));
    }
}
