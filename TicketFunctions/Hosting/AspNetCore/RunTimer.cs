using Microsoft.AspNetCore.Mvc;
using Microsoft.Azure.Functions.Worker;
using TicketFunctions.Triggers;

namespace TicketFunctions.Hosting.AspNetCore;

/// <summary><c>POST /admin/functions/{name}</c>, which the Functions host has of its own: runs a timer now.</summary>
/// <remarks>https://learn.microsoft.com/azure/azure-functions/functions-manually-run-non-http</remarks>
public sealed class RunTimer(TimerFunctions timers)
{
    [Function(nameof(RunTimer))]
    [Tags("Operations")]
    [EndpointSummary("Run a timer now")]
    [EndpointDescription("Starts the sweep and does not wait for its end. Needs the admin key.")]
    [ApiParameter(Microsoft.OpenApi.ParameterLocation.Path, "name", "The name of a function with a timer.", Example = nameof(SweepTickets))]
    [ProducesResponseType(StatusCodes.Status202Accepted, Description = "The run has started.")]
    [ProducesProblem(nameof(Problem.NotFound))]
    public IResult Run([HttpTrigger(AuthorizationLevel.Admin, "post", Route = "admin/functions/{name}")] HttpRequest request) =>
        timers.TryStart((string)request.RouteValues["name"]!) ? Results.Accepted() : Problem.NotFound();
}
