using Microsoft.AspNetCore.Mvc;
using Microsoft.Azure.Functions.Worker;
using TicketFunctions.Classification;

namespace TicketFunctions.Triggers;

/// <summary><c>GET /models</c>: what the configured servers offer.</summary>
public sealed class ListModels(ModelCatalog catalog, RequestLimit limit)
{
    [Function(nameof(ListModels))]
    [Tags("Operations")]
    [EndpointSummary("List the models that the configured servers offer")]
    [ProducesResponseType<ModelsAnswer>(StatusCodes.Status200OK, Description = "The models, and what is wrong with the servers that offer none.")]
    [ProducesProblem(
        nameof(Problem.RateLimited), nameof(Problem.UpstreamInvalid), nameof(Problem.UpstreamUnavailable), nameof(Problem.UpstreamTimeout),
        nameof(Problem.InternalError))]
    public async Task<IResult> RunAsync(
        [HttpTrigger(AuthorizationLevel.Function, "get", Route = "models")] HttpRequest request,
        CancellationToken cancellationToken)
    {
        var (place, problem) = limit.Enter(request);
        using (place)
        {
            if (problem is not null)
            {
                return problem;
            }

            var offer = await catalog.ListAsync(cancellationToken);
            return offer.Answered
                ? new JsonAnswer<ModelsAnswer>(
                    new ModelsAnswer(offer.Models, offer.Faults.Count > 0 ? [.. offer.Faults.Select(fault => fault.Reason)] : null),
                    AnswerJson.Default.ModelsAnswer)
                : Map(offer.Faults[0]);
        }
    }

    private static Problem Map(ModelOfferFault fault) => fault.Kind switch
    {
        FailureKind.UpstreamInvalid => Problem.UpstreamInvalid(fault.Reason),
        FailureKind.UpstreamTimeout => Problem.UpstreamTimeout(fault.Reason),
        _ => Problem.UpstreamUnavailable(fault.Reason, fault.RetryAfter ?? TimeSpan.FromSeconds(30)),
    };
}
