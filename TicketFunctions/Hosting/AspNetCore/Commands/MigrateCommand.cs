using System.CommandLine;
using TicketFunctions.Storage;

namespace TicketFunctions.Hosting.AspNetCore.Commands;

/// <summary><c>migrate</c>: brings the database up to date, keeping the Supabase CLI's history.</summary>
internal static class MigrateCommand
{
    public static Command Create()
    {
        var command = new Command("migrate", "Apply the missing migrations to the database, as `supabase db push` would.");
        command.SetAction((_, cancellationToken) => CommandLine.Guarded(RunAsync, cancellationToken));
        return command;
    }

    private static async Task<int> RunAsync(CancellationToken cancellationToken)
    {
        await using var session = await DatabaseSession.OpenAsync(migrateEmbedded: false, cancellationToken);
        Console.WriteLine($"Database: {session.Database.Description}");
        var applied = await session.Services.GetRequiredService<Migrations>().ApplyAsync(cancellationToken);
        foreach (var migration in applied)
        {
            Console.WriteLine($"Applied {migration.Version}_{migration.Name}");
        }

        Console.WriteLine(applied.Count == 0 ? "Up to date." : $"{applied.Count} applied.");
        return CommandLine.Success;
    }
}
