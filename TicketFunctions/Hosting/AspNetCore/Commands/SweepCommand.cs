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
        var screen = CommandLine.Screen;
        SweepSummary summary = null!;
        if (!screen.Profile.Capabilities.Interactive)
        {
            summary = await sweep.RunAsync(null, cancellationToken);
        }
        else
        {
            await screen.Progress()
                .Columns(new TaskDescriptionColumn(), new ProgressBarColumn(), new PercentageColumn(), new RemainingTimeColumn(), new SpinnerColumn())
                .StartAsync(async context =>
                {
                    var bar = context.AddTask("Classifying", maxValue: Math.Max(1, backlog.Unprocessed - backlog.Parked));
                    summary = await sweep.RunAsync(new Bar(bar), cancellationToken);
                    bar.Value = bar.MaxValue;
                });
        }

        screen.WriteLine(
            $"{summary.Labelled} labelled, {summary.Waiting} to retry, {summary.Parked} parked, in {summary.Elapsed.TotalSeconds:0.0} s ({summary.Why}).");
        return summary;
    }

    private sealed class Bar(ProgressTask bar) : IProgress<int>
    {
        public void Report(int value) => bar.Value = value;
    }
}
