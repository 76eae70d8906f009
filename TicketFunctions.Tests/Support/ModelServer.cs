using System.Collections.Concurrent;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using Microsoft.Extensions.Logging;

namespace TicketFunctions.Tests.Support;

/// <summary>One request as it came over the wire.</summary>
/// <param name="Line">Its method and path.</param>
/// <param name="Headers">Its headers.</param>
/// <param name="Body">Its body.</param>
/// <param name="Protocol">Like <c>HTTP/1.1</c>.</param>
/// <param name="Connection">Which connection carried it.</param>
public sealed record ModelRequest(string Line, IHeaderDictionary Headers, string Body, string Protocol, string Connection);

/// <summary>A server whose every address a test scripts, for what <see cref="ModelStub"/> is too well-behaved. Unknown ones are 404.</summary>
public sealed class ModelServer : IAsyncDisposable
{
    /// <summary>Two labels.</summary>
    public const string Completion =
        """
        {
          "id": "c1", "object": "chat.completion", "created": 1760000000, "model": "m",
          "choices": [{ "index": 0, "finish_reason": "stop", "message": { "role": "assistant", "content": "{\"category\":\"Otro\",\"sentiment\":\"Neutral\"}" } }]
        }
        """;

    private readonly WebApplication _app;
    private readonly ConcurrentQueue<ModelRequest> _requests = new();
    private readonly ConcurrentDictionary<string, Func<HttpContext, string, Task>> _answers = new();

    private ModelServer(WebApplication app) => _app = app;

    /// <summary>Scheme, host and port.</summary>
    public string Root { get; private set; } = "";

    /// <summary>Host and port.</summary>
    public string Authority => new Uri(Root).Authority;

    public IReadOnlyCollection<ModelRequest> Requests => _requests;

    /// <param name="certificate">For TLS.</param>
    /// <param name="protocols">What it speaks, where there is TLS.</param>
    public static async Task<ModelServer> StartAsync(X509Certificate2? certificate = null, HttpProtocols protocols = HttpProtocols.Http1AndHttp2)
    {
        var builder = WebApplication.CreateSlimBuilder(["--hostBuilder:reloadConfigOnChange=false"]);
        builder.Logging.ClearProviders();
        builder.WebHost.UseKestrelHttpsConfiguration();
        builder.WebHost.ConfigureKestrel(kestrel => kestrel.Listen(System.Net.IPAddress.Loopback, 0, listen =>
        {
            if (certificate is not null)
            {
                listen.Protocols = protocols;
                listen.UseHttps(certificate);
            }
        }));
        var server = new ModelServer(builder.Build());
        server._app.Run(server.AnswerAsync);
        await server._app.StartAsync();
        server.Root = server._app.Urls.Single();
        return server;
    }

    /// <param name="line">Like <c>GET /v1/models</c>.</param>
    /// <param name="answer">Gets the request and its body.</param>
    public void On(string line, Func<HttpContext, string, Task> answer) => _answers[line] = answer;

    public void On(string line, string json, int status = 200, params (string Name, string Value)[] headers) => On(line, (context, _) =>
    {
        context.Response.StatusCode = status;
        context.Response.ContentType = "application/json";
        foreach (var (name, value) in headers)
        {
            context.Response.Headers[name] = value;
        }

        return context.Response.WriteAsync(json);
    });

    /// <summary>Never answers, until the caller gives up.</summary>
    public static Task Hang(HttpContext context, string body) => new TaskCompletionSource().Task.WaitAsync(context.RequestAborted);

    public async ValueTask DisposeAsync() => await _app.DisposeAsync();

    private async Task AnswerAsync(HttpContext context)
    {
        var line = $"{context.Request.Method} {context.Request.Path}";
        var body = await new StreamReader(context.Request.Body, Encoding.UTF8).ReadToEndAsync();

        // A copy: the server uses the collection again for the connection's next request.
        _requests.Enqueue(new ModelRequest(line, new HeaderDictionary(context.Request.Headers.ToDictionary()), body, context.Request.Protocol, context.Connection.Id));
        context.Response.StatusCode = StatusCodes.Status404NotFound;
        if (_answers.TryGetValue(line, out var answer))
        {
            context.Response.StatusCode = StatusCodes.Status200OK;
            try
            {
                await answer(context, body);
            }
            catch (OperationCanceledException) when (context.RequestAborted.IsCancellationRequested)
            {
                // The caller gave up on us.
            }
        }
    }
}
