using System.CommandLine;
using Spectre.Console;
using TicketFunctions.Storage;
using TicketFunctions.Tickets;

namespace TicketFunctions.Hosting.AspNetCore.Commands;

/// <summary><c>sweep</c>: classifies everything that is due, now.</summary>
internal static class SweepCommand
{
    public static Command Create()
    {
        var command = new Command("sweep", "Classify every ticket that is due, now. Safe while the service runs.");
        command.SetAction((_, cancellationToken) => CommandLine.Guarded(RunAsync, cancellationToken));
        return command;
    }

    private static async Task<int> RunAsync(CancellationToken cancellationToken)
    {
        await using var session = await DatabaseSession.OpenAsync(migrateEmbedded: true, cancellationToken);
        var summary = await RunAsync(session.Services, cancellationToken);
        return summary.End switch
        {
            SweepEnd.Stopped => CommandLine.Interrupted,
            SweepEnd.NothingDue when summary is { Waiting: 0, Parked: 0 } => CommandLine.Success,
            _ => CommandLine.Failure,
        };
    }

    /// <summary>Sweeps until nothing is due, with a bar for people, and prints what it did.</summary>
    internal static async Task<SweepSummary> RunAsync(IServiceProvider services, CancellationToken cancellationToken)
    {
        var backlog = await services.GetRequiredService<TicketStore>().CountBacklogAsync(cancellationToken);
        var sweep = services.GetRequiredService<TicketSweep>();
        var summary = await ProgressBar.ShowAsync(
            "Classifying", backlog.Unprocessed - backlog.Parked, progress => sweep.RunAsync(progress, cancellationToken));
        CommandLine.Screen.WriteLine(
            $"{summary.Labelled} labelled, {summary.Waiting} to retry, {summary.Parked} parked, in {summary.Elapsed.TotalSeconds:0.0} s ({summary.Why}).");
        return summary;
    }
}
