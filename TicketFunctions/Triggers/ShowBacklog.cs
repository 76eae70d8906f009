using Microsoft.AspNetCore.Mvc;
using Microsoft.Azure.Functions.Worker;
using TicketFunctions.Storage;
using TicketFunctions.Tickets;

namespace TicketFunctions.Triggers;

/// <summary><c>GET /backlog</c>: what is left to do, and what today cost.</summary>
public sealed class ShowBacklog(TicketStore store, Spending spending)
{
    [Function(nameof(ShowBacklog))]
    [Tags("Operations")]
    [EndpointSummary("Show what is left to do, and what today cost")]
    [ProducesResponseType<BacklogAnswer>(StatusCodes.Status200OK, Description = "The counts, and the money of the current UTC day.")]
    [ProducesProblem(nameof(Problem.StorageUnavailable), nameof(Problem.InternalError))]
    public async Task<IResult> RunAsync(
        [HttpTrigger(AuthorizationLevel.Function, "get", Route = "backlog")] HttpRequest request,
        CancellationToken cancellationToken)
    {
        var backlog = await store.CountBacklogAsync(cancellationToken);
        var today = await spending.ReadTodayAsync(cancellationToken);
        return new JsonAnswer<BacklogAnswer>(
            new BacklogAnswer(
                backlog.Unprocessed, backlog.InFlight, backlog.Parked, backlog.OldestSeconds, today.Spent, today.Saved, today.Left),
            AnswerJson.Default.BacklogAnswer);
    }
}
