using Microsoft.Azure.Functions.Worker;
using TicketFunctions.Tickets;

namespace TicketFunctions.Triggers;

/// <summary>The timer that classifies what no webhook brought, and what failed before.</summary>
public sealed class SweepTickets(TicketSweep sweep, WorkDrain drain)
{
    [Function(nameof(SweepTickets))]
    public async Task RunAsync([TimerTrigger("%SweepSchedule%")] TimerInfo timer, CancellationToken cancellationToken)
    {
        using var stopping = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, drain.Token);
        await sweep.RunAsync(progress: null, stopping.Token);
    }
}
