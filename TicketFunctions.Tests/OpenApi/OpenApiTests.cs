using System.Net;
using System.Reflection;
using System.Text;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Routing;
using Microsoft.Azure.Functions.Worker;
using Microsoft.Extensions.DependencyInjection;
using TicketFunctions.Tests.Support;
using TicketFunctions.Triggers;

namespace TicketFunctions.Tests.OpenApi;

/// <summary><c>GET /openapi.json</c> says what the host does: no more, no less.</summary>
public sealed class OpenApiTests(TicketApp app) : IClassFixture<TicketApp>
{
    [Fact]
    public async Task Every_function_and_every_address_of_the_host_is_in_the_document_and_nothing_else()
    {
        var document = await ReadDocumentAsync(app);

        Assert.StartsWith("3.1.", (string?)document["openapi"], StringComparison.Ordinal);
        var documented = document["paths"]!.AsObject()
            .SelectMany(path => path.Value!.AsObject().Select(verb => $"{verb.Key.ToUpperInvariant()} {path.Key}")).Order().ToArray();
        var functions =
            from type in typeof(ProcessTicket).Assembly.GetTypes()
            from method in type.GetMethods()
            from parameter in method.GetParameters()
            let trigger = parameter.GetCustomAttribute<HttpTriggerAttribute>()
            where method.IsDefined(typeof(FunctionAttribute)) && trigger is not null
            from verb in trigger.Methods!
            select $"{verb.ToUpperInvariant()} /{trigger.Route}";
        var served =
            from endpoint in app.Services.GetRequiredService<EndpointDataSource>().Endpoints.OfType<RouteEndpoint>()
            from verb in endpoint.Metadata.GetRequiredMetadata<HttpMethodMetadata>().HttpMethods
            select $"{verb} {endpoint.RoutePattern.RawText}";

        // HEAD is served beside GET and is not written down: it is the same without the body.
        Assert.Equal(functions.Where(IsNoHead).Order(), documented);
        Assert.Equal(served.Where(IsNoHead).Order(), documented);
        static bool IsNoHead(string call) => !call.StartsWith("HEAD ", StringComparison.Ordinal);
        Assert.All(
            document["paths"]!.AsObject().SelectMany(path => path.Value!.AsObject()),
            verb => Assert.Equal(
                verb.Value!["responses"]!.AsObject().ContainsKey("401"), verb.Value["security"]!.AsArray().Count > 0));
    }

    [Fact]
    public async Task Every_type_of_problem_is_an_example()
    {
        var document = await ReadDocumentAsync(app);

        var types = (from maker in typeof(Problem).GetMethods(BindingFlags.Public | BindingFlags.Static)
                     where maker.ReturnType == typeof(Problem) && maker.GetParameters() is not [{ ParameterType.Name: nameof(Exception) }]
                     select maker.Name).Count();
        var schema = document["components"]!["schemas"]!["Problem"]!;
        var examples = schema["examples"]!.AsArray();
        Assert.Equal(types, examples.Count);
        Assert.Equal(
            schema["properties"]!["type"]!["enum"]!.AsArray().Select(type => (string?)type).Order(),
            examples.Select(example => (string?)example!["type"]).Distinct().Order());
    }

    [OpenApiFact]
    public async Task The_linter_finds_nothing()
    {
        var (exitCode, output) = OpenApiTools.Lint(await app.Http.GetStringAsync("/openapi.json"));

        Assert.True(exitCode == 0, output);
    }

    [Fact]
    public async Task The_labels_are_those_of_the_configuration()
    {
        await using var other = await TicketApp.StartAsync(
            ("Taxonomy__Categories__0__Label", "Averia"), ("Taxonomy__Categories__1__Label", "Consulta"),
            ("Taxonomy__Sentiments__0__Label", "Bien"), ("Taxonomy__Sentiments__1__Label", "Mal"));

        Assert.Equal(["Tecnico", "Facturacion", "Comercial", "Otro"], ReadEnum(await ReadDocumentAsync(app), "category"));
        var document = await ReadDocumentAsync(other);
        Assert.Equal(["Averia", "Consulta"], ReadEnum(document, "category"));
        Assert.Equal(["Bien", "Mal"], ReadEnum(document, "sentiment"));

        static IEnumerable<string?> ReadEnum(JsonNode document, string member) =>
            document["components"]!["schemas"]!["TicketAnswer"]!["properties"]![member]!["anyOf"]![0]!["enum"]!.AsArray().Select(label => (string?)label);
    }

    [Fact]
    public async Task The_headers_of_a_signature_are_required_where_there_is_a_secret()
    {
        await using var signed = await TicketApp.StartAsync(("Webhooks__Secret", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));

        Assert.Empty(ReadRequired(await ReadDocumentAsync(app)));
        Assert.Equal(["webhook-id", "webhook-timestamp", "webhook-signature"], ReadRequired(await ReadDocumentAsync(signed)));

        static IEnumerable<string?> ReadRequired(JsonNode document) =>
            document["paths"]!["/process-ticket"]!["post"]!["parameters"]!.AsArray()
                .Where(parameter => (bool?)parameter!["required"] == true).Select(parameter => (string?)parameter!["name"]);
    }

    [OpenApiFact]
    public async Task What_the_schema_of_a_body_takes_the_host_takes_and_what_it_refuses_the_host_refuses()
    {
        var id = await app.AddTicketAsync("No imprime.");
        string[] good =
        [
            """{"id":"@id"}""",
            """{"id":"@id","description":"No imprime."}""",
            """{"type":"INSERT","schema":"public","table":"tickets","record":{"id":"@id"}}""",
            """{"type":"UPDATE","schema":"public","table":"tickets","record":{"id":"@id","description":null,"processed":null,"more":1},"old_record":{"id":"@id"},"more":1}""",
            """{"type":"DELETE","schema":"public","table":"tickets","record":null,"old_record":{"id":"@id"}}""",
            """{"type":"INSERT","schema":"other","table":"other","record":{"id":"@id","processed":true},"old_record":null}""",
        ];
        string[] bad =
        [
            "{}",
            "[]",
            "null",
            "\"@id\"",
            """{"id":null}""",
            """{"id":1}""",
            """{"id":"no-uuid"}""",
            """{"id":"@id","more":1}""",
            """{"id":"@id","description":null}""",
            """{"id":"@id","description":""}""",
            $$"""{"id":"@id","description":"{{new string('x', 16_001)}}"}""",
            """{"id":"@id","processed":true}""",
            """{"schema":"public","table":"tickets","record":{"id":"@id"}}""",
            """{"type":"TRUNCATE","schema":"public","table":"tickets","record":{"id":"@id"}}""",
            """{"type":"INSERT","table":"tickets","record":{"id":"@id"}}""",
            """{"type":"INSERT","schema":null,"table":"tickets","record":{"id":"@id"}}""",
            """{"type":"INSERT","schema":"public","record":{"id":"@id"}}""",
            """{"type":"INSERT","schema":"public","table":"tickets"}""",
            """{"type":"INSERT","schema":"public","table":"tickets","record":[]}""",
            """{"type":"INSERT","schema":"public","table":"tickets","record":{}}""",
            """{"type":"INSERT","schema":"public","table":"tickets","record":{"id":"@id","processed":"true"}}""",
            """{"type":"INSERT","schema":"public","table":"tickets","record":{"id":"@id","description":1}}""",
            """{"type":"INSERT","schema":"public","table":"tickets","record":{"id":"@id"},"old_record":1}""",
        ];
        var bodies = good.Concat(bad).Select(body => body.Replace("@id", id.ToString(), StringComparison.Ordinal)).ToList();

        var errors = OpenApiTools.Validate(
            await ReadDocumentAsync(app),
            bodies.Select(body => ("/paths/~1process-ticket/post/requestBody/content/application~1json/schema", true, JsonNode.Parse(body))));

        for (var i = 0; i < bodies.Count; i++)
        {
            var answer = await app.PostAsync(bodies[i]);
            var status = (int)answer.StatusCode;
            Assert.True(i < good.Length ? status == 200 && errors[i] is null : status is 400 or 422 && errors[i] is not null, $"{status} for {bodies[i]}: {errors[i]}");
        }
    }

    /// <summary>Calls every operation so that it gives each of its answers.</summary>
    [OpenApiFact]
    public async Task Every_answer_is_documented_and_everything_documented_is_answered()
    {
        var calls = new RecordedCalls();
        await using var usual = await TicketApp.StartAsync(("Keys__Function", "f"), ("Keys__Admin", "a"), ("Triage__MaxConcurrentRequests", "2"));
        await using var server = await ModelServer.StartAsync();
        await using var slow = await TicketApp.StartAsync(
            usual.ConnectionString, null, ("Model__Endpoint", server.Root), ("Model__AttemptTimeout", "00:00:00.5"));
        await using var broken = await TicketApp.StartAsync(
            usual.ConnectionString,
            services =>
            {
                services.AddTransient<ProcessTicket>(_ => throw new InvalidOperationException());
                services.AddTransient<ShowBacklog>(_ => throw new InvalidOperationException());
                services.AddTransient<ListModels>(_ => throw new InvalidOperationException());
                services.AddTransient<CheckHealth>(_ => throw new InvalidOperationException());
            },
            ("Docs__Enabled", "false"));
        await using var away = await TicketApp.StartAsync("Host=127.0.0.1;Port=1;Username=nobody;Database=nothing", null);
        using var caller = calls.CreateClient(usual, "f");

        await ProcessAsync(usual, caller);
        await RefuseAsync(usual, caller);
        await FillAsync(usual, caller);
        foreach (var path in new[] { "/backlog", "/models", "/health/live", "/health/ready", "/openapi.json", "/docs", "/docs/nothing" })
        {
            await caller.GetAsync(path);
        }

        foreach (var file in new[] { "index.html", "index.js", "swagger-ui.css", "swagger-ui-bundle.js", "favicon-32x32.png", "LICENSE" })
        {
            var answer = await caller.GetAsync("/docs/" + file);
            Assert.Equal(HttpStatusCode.OK, answer.StatusCode);
            using var again = new HttpRequestMessage(HttpMethod.Get, "/docs/" + file) { Headers = { IfNoneMatch = { answer.Headers.ETag! } } };
            Assert.Equal(HttpStatusCode.NotModified, (await caller.SendAsync(again)).StatusCode);
        }

        using (var nobody = calls.CreateClient(usual))
        using (var admin = calls.CreateClient(usual, "a"))
        {
            await PostAsync(nobody, "{}");
            await nobody.GetAsync("/backlog");
            await nobody.GetAsync("/models");
            await PostAsync(nobody, "", "/admin/functions/SweepTickets");
            await PostAsync(admin, "", "/admin/functions/SweepTickets");
            await PostAsync(admin, "", "/admin/functions/Nothing");
        }

        using (var client = calls.CreateClient(slow))
        {
            server.On("GET /v1/models", ModelServer.Hang);
            await client.GetAsync("/models");
            server.On("GET /v1/models", "<html/>");
            await client.GetAsync("/models");
            server.On("GET /v1/models", "{}", 503);
            await client.GetAsync("/models");
        }

        using (var client = calls.CreateClient(broken))
        {
            await PostAsync(client, "{}");
            foreach (var path in new[] { "/backlog", "/models", "/health/ready", "/docs", "/docs/index.html" })
            {
                await client.GetAsync(path);
            }
        }

        using (var client = calls.CreateClient(away))
        {
            await PostIdAsync(client, Guid.NewGuid());
            await client.GetAsync("/backlog");
            await client.GetAsync("/health/ready");
        }

        calls.AssertMatches(await ReadDocumentAsync(usual));
    }

    /// <summary>The answers to a good request.</summary>
    private static async Task ProcessAsync(TicketApp usual, HttpClient caller)
    {
        var id = await usual.AddTicketAsync("Se apaga sola.");
        await PostIdAsync(caller, id);
        await PostIdAsync(caller, id);
        await PostIdAsync(caller, await usual.AddTicketAsync("Se apaga sola."));
        var byHand = await usual.AddTicketAsync("Etiquetado antes de que cambiaran las etiquetas.");
        await usual.ExecuteAsync("update tickets set category = 'De antes', sentiment = 'Raro', processed = true where id = @byHand", new { byHand });
        await PostIdAsync(caller, byHand);
        await PostAsync(caller, """{"type":"DELETE","schema":"public","table":"tickets","record":null}""");
        using var request = new HttpRequestMessage(HttpMethod.Post, "/process-ticket")
        {
            Content = new StringContent($$"""{"id":"{{id}}"}""", Encoding.UTF8, "application/json"),
            Headers = { { "Prefer", "respond-async" } },
        };
        await caller.SendAsync(request);
        usual.Model.On("Sin etiquetas.", ModelStub.Content("none"));
        await PostIdAsync(caller, await usual.AddTicketAsync("Sin etiquetas."));
        usual.Model.On("Sin respuesta.", ModelStub.Json(504, new JsonObject()));
        await PostIdAsync(caller, await usual.AddTicketAsync("Sin respuesta."));
        usual.Model.On("Sin modelo.", ModelStub.Json(500, new JsonObject()));
        await PostIdAsync(caller, await usual.AddTicketAsync("Sin modelo."));
    }

    /// <summary>The answers to a bad request.</summary>
    private static async Task RefuseAsync(TicketApp usual, HttpClient caller)
    {
        await PostAsync(caller, "{");
        await PostAsync(caller, "{}");
        await PostAsync(caller, """{"id":"no-uuid"}""");
        await PostAsync(caller, new string(' ', 65 * 1024));
        await caller.PostAsync("/process-ticket", new StringContent("{}", Encoding.UTF8, "text/plain"));
        await PostIdAsync(caller, Guid.NewGuid());
        await PostAsync(caller, $$"""{"id":"{{await usual.AddTicketAsync("Un texto.")}}","description":"Otro."}""");
    }

    /// <summary>The answers while all places are taken.</summary>
    private static async Task FillAsync(TicketApp usual, HttpClient caller)
    {
        var first = await usual.AddTicketAsync("Ocupa un sitio.");
        var holds = new[] { usual.Model.Hold("Ocupa un sitio."), usual.Model.Hold("Ocupa el otro.") };
        var one = PostIdAsync(caller, first);
        await holds[0].Arrived;
        var other = PostIdAsync(caller, await usual.AddTicketAsync("Ocupa el otro."));
        await holds[1].Arrived;
        await PostIdAsync(caller, first);
        await caller.GetAsync("/models");
        holds[1].Release();
        await other;
        await PostIdAsync(caller, first);
        holds[0].Release();
        await one;
    }

    private static async Task<JsonNode> ReadDocumentAsync(TicketApp app) => JsonNode.Parse(await app.Http.GetStringAsync("/openapi.json"))!;

    private static Task<HttpResponseMessage> PostIdAsync(HttpClient client, Guid id) => PostAsync(client, $$"""{"id":"{{id}}"}""");

    private static Task<HttpResponseMessage> PostAsync(HttpClient client, string body, string path = "/process-ticket") =>
        client.PostAsync(path, new StringContent(body, Encoding.UTF8, "application/json"));
}
