using Microsoft.Azure.Functions.Worker;
using TicketFunctions.Storage;

namespace TicketFunctions.Triggers;

/// <summary><c>GET /backlog</c>: what is left to do.</summary>
public sealed class ShowBacklog(TicketStore store)
{
    [Function(nameof(ShowBacklog))]
    public async Task<IResult> RunAsync(
        [HttpTrigger(AuthorizationLevel.Function, "get", Route = "backlog")] HttpRequest request,
        CancellationToken cancellationToken) =>
        Results.Json(await store.CountBacklogAsync(cancellationToken), AnswerJson.Default.Backlog);
}
