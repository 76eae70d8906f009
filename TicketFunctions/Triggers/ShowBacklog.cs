using Microsoft.Azure.Functions.Worker;
using TicketFunctions.Storage;

namespace TicketFunctions.Triggers;

/// <summary><c>GET /backlog</c>: what is left to do.</summary>
public sealed class ShowBacklog(TicketStore store)
{
    [Function(nameof(ShowBacklog))]
    public async Task<IResult> RunAsync(
        [HttpTrigger(AuthorizationLevel.Function, "get", Route = "backlog")] HttpRequest request,
        CancellationToken cancellationToken)
    {
        var backlog = await store.CountBacklogAsync(cancellationToken);
        return Results.Json(
            new BacklogAnswer(backlog.Unprocessed, backlog.InFlight, backlog.Parked, backlog.OldestSeconds),
            AnswerJson.Default.BacklogAnswer);
    }
}
