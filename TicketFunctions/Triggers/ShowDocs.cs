using Microsoft.AspNetCore.Mvc;
using Microsoft.Azure.Functions.Worker;
using Microsoft.Extensions.Options;
using Microsoft.OpenApi;
using Swashbuckle.AspNetCore.SwaggerUI;

namespace TicketFunctions.Triggers;

/// <summary>The section <c>Docs</c>: whether there is a page to read about the calls and try them.</summary>
public sealed class DocsOptions
{
    /// <summary>The plain host turns it on unless it is set.</summary>
    public bool Enabled { get; set; }
}

/// <summary><c>GET /docs</c>: Swagger UI over <c>/openapi.json</c>.</summary>
public sealed class ShowDocs(DocsPage page)
{
    public const string Route = "docs";

    [Function(nameof(ShowDocs))]
    [Tags("Documentation")]
    [EndpointSummary("Go to the interactive page")]
    [ProducesResponseType(StatusCodes.Status301MovedPermanently, Description = "To the page.")]
    [ProducesHeader(StatusCodes.Status301MovedPermanently, "Location", "Where the page is.")]
    [ProducesProblem(nameof(Problem.NotFound))]
    public IResult Run([HttpTrigger(AuthorizationLevel.Anonymous, "get", Route = Route)] HttpRequest request) => page;

    [Function("ShowDocsFile")]
    [Tags("Documentation")]
    [EndpointSummary("Show a file of the interactive page")]
    [ApiParameter(ParameterLocation.Path, "file", "The name of the file.", Example = "index.html")]
    [ProducesResponseType<string>(
        StatusCodes.Status200OK, "text/html", "text/css", "text/javascript", "application/javascript", "image/png", "application/octet-stream", Description = "The file.")]
    [ProducesProblem(nameof(Problem.NotFound))]
    public IResult RunFile([HttpTrigger(AuthorizationLevel.Anonymous, "get", Route = Route + "/{file}")] HttpRequest request) => page;
}

/// <summary>The files of Swagger UI, which the package carries; the browser is told to ask nobody else for anything.</summary>
public sealed class DocsPage(IOptions<DocsOptions> options, IServiceProvider services) : IResult
{
    /// <summary>Swagger UI writes a style element into its page, and has pictures in its style sheet.</summary>
    private const string ContentSecurityPolicy =
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
        + "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

    private readonly Lazy<RequestDelegate> _files = new(() => CreateFiles(services));

    public Task ExecuteAsync(HttpContext httpContext)
    {
        if (!options.Value.Enabled)
        {
            return Problem.NotFound().ExecuteAsync(httpContext);
        }

        httpContext.Response.Headers.ContentSecurityPolicy = ContentSecurityPolicy;
        httpContext.Response.Headers.XContentTypeOptions = "nosniff";
        return _files.Value(httpContext);
    }

    private static RequestDelegate CreateFiles(IServiceProvider services)
    {
        var app = new ApplicationBuilder(services);
        var page = new SwaggerUIOptions
        {
            RoutePrefix = $"{TriggerFunctions.ReadRoutePrefix()}/{ShowDocs.Route}".Trim('/'),
            DocumentTitle = "TicketFunctions",
        };
        page.SwaggerEndpoint($"../{ShowOpenApi.Route}", "TicketFunctions");
        app.UseSwaggerUI(page);
        app.Run(context => Problem.NotFound().ExecuteAsync(context));
        return app.Build();
    }
}
