using Microsoft.Azure.Functions.Worker;
using TicketFunctions.Tickets;

namespace TicketFunctions.Triggers;

/// <summary>The timer that classifies what no webhook brought, and what failed before.</summary>
public sealed class SweepTickets(TicketSweep sweep)
{
    [Function(nameof(SweepTickets))]
    public Task RunAsync([TimerTrigger("%SweepSchedule%")] TimerInfo timer, CancellationToken cancellationToken) =>
        sweep.RunAsync(progress: null, cancellationToken);
}
