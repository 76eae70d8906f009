using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Mvc;
using Microsoft.Azure.Functions.Worker;

namespace TicketFunctions.Triggers;

/// <summary><c>GET /openapi.json</c>: what this process answers to what.</summary>
public sealed class ShowOpenApi(OpenApiDescription description)
{
    /// <summary>Its address, below the prefix of all routes.</summary>
    public const string Route = "openapi.json";

    [Function(nameof(ShowOpenApi))]
    [Tags("Documentation")]
    [EndpointSummary("Show this document")]
    [ProducesResponseType<JsonObject>(StatusCodes.Status200OK, Description = "An OpenAPI 3.1 document.")]
    public IResult Run([HttpTrigger(AuthorizationLevel.Anonymous, "get", Route = Route)] HttpRequest request) =>
        Results.Text(description.Json, "application/json");
}
