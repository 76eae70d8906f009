using System.Net;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Triggers;

/// <summary><c>GET /models</c>.</summary>
public sealed class ListModelsTests
{
    [Fact]
    public async Task It_lists_what_the_configured_server_offers()
    {
        await using var server = await ModelServer.StartAsync();
        server.On("GET /api/tags", """{"models":[{"name":"llama3.2:latest","size":2019393189,"details":{"parameter_size":"3.2B","quantization_level":"Q4_K_M"}}]}""");
        server.On("POST /api/show", """{"model_info":{"llama.context_length":131072},"capabilities":["completion"]}""");
        await using var app = await TicketApp.StartAsync(("Model__Provider", "ollama"), ("Model__Endpoint", server.Root), ("Model__Name", "llama3.2"));

        var response = await app.Http.GetAsync("/models");

        Assert.Equal(HttpStatusCode.OK, response.StatusCode);
        JsonAssert.Equal(
            $$"""
            {"models": [{
              "provider": "ollama", "endpoint": "{{server.Authority}}", "name": "llama3.2:latest", "sizeBytes": 2019393189, "parameters": "3.2B", "quantization": "Q4_K_M",
              "contextLength": 131072, "structuredOutput": true, "inputPricePerMillion": null, "outputPricePerMillion": null, "configured": true
            }]}
            """,
            await response.ReadJsonAsync());
        Assert.DoesNotContain(app.Log, entry => entry.Message.Contains("stub-key", StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_server_that_gives_no_list_is_a_problem_and_beside_one_that_does_a_fault()
    {
        await using var server = await ModelServer.StartAsync();
        await using var app = await TicketApp.StartAsync(("Model__Endpoint", server.Root), ("Model__AttemptTimeout", "00:00:00.5"));

        server.On("GET /v1/models", """{"error":"canary"}""", 503, ("Retry-After", "9"));
        var unavailable = await app.Http.GetAsync("/models");
        var problem = await unavailable.AssertProblemAsync(503, "upstream-unavailable");
        Assert.Equal($"compatible at {server.Authority} answered HTTP 503.", (string?)problem["detail"]);
        Assert.Equal(TimeSpan.FromSeconds(9), unavailable.Headers.RetryAfter?.Delta);

        server.On("GET /v1/models", "canary", 401);
        var refused = await app.Http.GetAsync("/models");
        Assert.DoesNotContain("stub-key", (await refused.AssertProblemAsync(503, "upstream-unavailable")).ToJsonString(), StringComparison.Ordinal);
        Assert.Equal(TimeSpan.FromSeconds(30), refused.Headers.RetryAfter?.Delta);

        server.On("GET /v1/models", "<html>canary</html>");
        Assert.DoesNotContain("canary", (await (await app.Http.GetAsync("/models")).AssertProblemAsync(502, "upstream-invalid")).ToJsonString(), StringComparison.Ordinal);

        server.On("GET /v1/models", ModelServer.Hang);
        await (await app.Http.GetAsync("/models")).AssertProblemAsync(504, "upstream-timeout");

        await using var two = await TicketApp.StartAsync(("Model__Endpoint", $"{server.Root},{app.Model.Endpoint}"), ("Model__AttemptTimeout", "00:00:00.5"));
        var both = await (await two.Http.GetAsync("/models")).ReadJsonAsync();
        Assert.Equal("stub-model", (string?)Assert.Single(both["models"]!.AsArray())!["name"]);
        Assert.StartsWith($"compatible at {server.Authority} did not answer in time", (string?)Assert.Single(both["faults"]!.AsArray()), StringComparison.Ordinal);
    }

    [Fact]
    public async Task One_request_too_many_is_429()
    {
        await using var server = await ModelServer.StartAsync();
        var arrived = new TaskCompletionSource();
        var release = new TaskCompletionSource();
        server.On("GET /v1/models", async (context, _) =>
        {
            arrived.TrySetResult();
            await release.Task;
            await Microsoft.AspNetCore.Http.HttpResponseWritingExtensions.WriteAsync(context.Response, """{"data":[]}""");
        });
        await using var app = await TicketApp.StartAsync(("Model__Endpoint", server.Root), ("Triage__MaxConcurrentRequests", "1"));

        var first = app.Http.GetAsync("/models");
        await arrived.Task.WaitAsync(TimeSpan.FromSeconds(30));
        await (await app.Http.GetAsync("/models")).AssertProblemAsync(429, "rate-limited");
        release.SetResult();

        Assert.Equal(HttpStatusCode.OK, (await first).StatusCode);
    }
}
