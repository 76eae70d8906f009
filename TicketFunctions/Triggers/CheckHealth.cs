using Microsoft.AspNetCore.Mvc;
using Microsoft.Azure.Functions.Worker;
using TicketFunctions.Storage;

namespace TicketFunctions.Triggers;

/// <summary><c>GET /health/live</c> and <c>GET /health/ready</c>; some probes ask by HEAD.</summary>
public sealed class CheckHealth(TicketStore store)
{
    [Function("Live")]
    [Tags("Operations")]
    [EndpointSummary("Say that the process answers")]
    [ProducesResponseType<HealthAnswer>(StatusCodes.Status200OK, Description = "It does.")]
    public IResult Live([HttpTrigger(AuthorizationLevel.Anonymous, "get", "head", Route = "health/live")] HttpRequest request) =>
        new JsonAnswer<HealthAnswer>(new HealthAnswer("ok"), AnswerJson.Default.HealthAnswer);

    /// <summary>Writes to the database: one that was failed over to read-only, or lacks the migrations, is not ready.</summary>
    [Function("Ready")]
    [Tags("Operations")]
    [EndpointSummary("Say whether the database takes writes")]
    [ProducesResponseType<HealthAnswer>(StatusCodes.Status200OK, Description = "It does.")]
    [ProducesResponseType<HealthAnswer>(StatusCodes.Status503ServiceUnavailable, Description = "It does not, or the migrations were not applied.")]
    [ProducesProblem(nameof(Problem.InternalError))]
    public async Task<IResult> ReadyAsync(
        [HttpTrigger(AuthorizationLevel.Anonymous, "get", "head", Route = "health/ready")] HttpRequest request,
        CancellationToken cancellationToken)
    {
        try
        {
            await store.WriteHeartbeatAsync(cancellationToken);
            return new JsonAnswer<HealthAnswer>(new HealthAnswer("ok"), AnswerJson.Default.HealthAnswer);
        }
        catch (Exception e) when (StorageFaults.IsUnavailable(e))
        {
            return new JsonAnswer<HealthAnswer>(
                new HealthAnswer("unavailable", "The database takes no writes, or its migrations were not applied."),
                AnswerJson.Default.HealthAnswer,
                StatusCodes.Status503ServiceUnavailable);
        }
    }
}
