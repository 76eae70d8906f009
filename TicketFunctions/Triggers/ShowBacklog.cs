using Microsoft.Azure.Functions.Worker;
using TicketFunctions.Storage;
using TicketFunctions.Tickets;

namespace TicketFunctions.Triggers;

/// <summary><c>GET /backlog</c>: what is left to do, and what today cost.</summary>
public sealed class ShowBacklog(TicketStore store, Spending spending)
{
    [Function(nameof(ShowBacklog))]
    public async Task<IResult> RunAsync(
        [HttpTrigger(AuthorizationLevel.Function, "get", Route = "backlog")] HttpRequest request,
        CancellationToken cancellationToken)
    {
        var backlog = await store.CountBacklogAsync(cancellationToken);
        var today = await spending.ReadTodayAsync(cancellationToken);
        return Results.Json(
            new BacklogAnswer(
                backlog.Unprocessed, backlog.InFlight, backlog.Parked, backlog.OldestSeconds, today.Spent, today.Saved, today.Left),
            AnswerJson.Default.BacklogAnswer);
    }
}
