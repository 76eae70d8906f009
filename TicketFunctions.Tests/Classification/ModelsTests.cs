using System.Text.Json;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using TicketFunctions.Classification;
using TicketFunctions.Hosting;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Classification;

/// <summary>What servers say of their models, and what they are shown to say it.</summary>
public sealed class ModelsTests : IAsyncLifetime
{
    private const string Tags =
        """
        {"models":[
          {"name":"nomic-embed-text:latest","size":274302450,"details":{"family":"nomic-bert","parameter_size":"137M","quantization_level":"F16"}},
          {"name":"llama3.2:latest","model":"llama3.2:latest","modified_at":"2026-05-04T17:37:44Z","size":2019393189,"digest":"a80c4f17acd5",
           "details":{"parent_model":"","format":"gguf","family":"llama","families":["llama"],"parameter_size":"3.2B","quantization_level":"Q4_K_M"}},
          {"name":"gpt-oss:120b-cloud","size":384}
        ]}
        """;

    private ModelServer _server = null!;

    public async Task InitializeAsync() => _server = await ModelServer.StartAsync();

    public Task DisposeAsync() => _server.DisposeAsync().AsTask();

    [Fact]
    public async Task Ollama_tells_sizes_and_by_a_request_for_each_model_its_limits()
    {
        _server.On("GET /api/tags", Tags);
        _server.On("POST /api/show", (context, body) => (string?)JsonNode.Parse(body)!["model"] switch
        {
            "llama3.2:latest" => context.Response.WriteAsync(
                """{"license":"…","model_info":{"general.architecture":"llama","llama.context_length":131072},"capabilities":["completion","tools"]}"""),
            "nomic-embed-text:latest" => context.Response.WriteAsync("""{"model_info":{"nomic-bert.context_length":2048},"capabilities":["embedding"]}"""),
            _ => context.Response.WriteAsync("""{"remote_host":"https://ollama.com","capabilities":["completion"]}"""),
        });

        var offer = await ListAsync(("Model__Provider", "ollama"), ("Model__Endpoint", _server.Authority));

        Assert.Equal(
            [
                new("ollama", _server.Authority, "llama3.2:latest", 2019393189, "3.2B", "Q4_K_M", 131072, true, null, null, true),
                new("ollama", _server.Authority, "gpt-oss:120b-cloud", 384, null, null, null, null, null, null, false),
                new("ollama", _server.Authority, "nomic-embed-text:latest", 274302450, "137M", "F16", 2048, false, null, null, false),
            ],
            offer.Models);
        Assert.Empty(offer.Faults);
        Assert.Empty(offer.Missing);
    }

    [Fact]
    public async Task A_request_for_limits_that_fails_or_hangs_costs_the_limits_only()
    {
        _server.On("GET /api/tags", Tags);
        _server.On("POST /api/show", (context, body) => body.Contains("llama", StringComparison.Ordinal)
            ? ModelServer.Hang(context, body)
            : context.Response.WriteAsync("<html>"));

        var offer = await ListAsync(("Model__Provider", "ollama"), ("Model__Endpoint", _server.Authority), ("Model__Name", "LLAMA3.2:LATEST"));

        Assert.Equal(3, offer.Models.Count);
        Assert.True(offer.Models[0].Configured);
        Assert.All(offer.Models, model => Assert.Equal((null, null), (model.ContextLength, model.StructuredOutput)));
        Assert.Empty(offer.Faults);
    }

    [Fact]
    public async Task Hugging_Face_tells_prices_limits_and_schemas_for_each_who_serves_a_model()
    {
        _server.On(
            "GET /v1/models",
            """
            {"object":"list","data":[
              {"id":"meta-llama/Llama-3.3-70B-Instruct","object":"model","owned_by":"meta-llama","architecture":{"input_modalities":["text"]},"providers":[
                {"provider":"one","status":"live","context_length":131072,"pricing":{"input":0.59,"output":0.79},"supports_tools":true,"supports_structured_output":false},
                {"provider":"two","status":"live","context_length":8192,"pricing":{"input":0.13,"output":0.9},"supports_tools":true,"supports_structured_output":true},
                {"provider":"three","status":"error"}]},
              {"id":"a/b","providers":[{"provider":"one","supports_structured_output":false}]},
              {"id":"c/d","providers":[]}
            ]}
            """);

        var offer = await ListAsync(
            ("Model__Provider", "huggingface"), ("Model__Endpoint", _server.Root), ("Model__ApiKey", "hf"), ("Model__Name", "meta-llama/Llama-3.3-70B-Instruct:two"));

        Assert.Equal(
            [
                new("huggingface", _server.Authority, "meta-llama/Llama-3.3-70B-Instruct", null, null, null, 131072, true, 0.13m, 0.79m, true),
                new("huggingface", _server.Authority, "a/b", null, null, null, null, false, null, null, false),
                new("huggingface", _server.Authority, "c/d", null, null, null, null, null, null, null, false),
            ],
            offer.Models);
        Assert.Equal("Bearer hf", Assert.Single(_server.Requests).Headers.Authorization);
        Assert.Empty(offer.Missing);
    }

    [Fact]
    public async Task Other_servers_are_read_as_far_as_they_go()
    {
        _server.On(
            "GET /v1/models",
            """
            {"data":[
              {"id":"vllm","max_model_len":32768},
              {"id":"open-router","context_length":128000,"pricing":{"prompt":"0.00000015","completion":"0.0000006"},"supported_parameters":["temperature","structured_outputs"]},
              {"id":"plain"}
            ]}
            """);

        var offer = await ListAsync(
            ("Model__Endpoint", _server.Root), ("Model__Name", "plain"), ("Model__InputPricePerMillion", "0.5"),
            ("Model__Fallbacks__0__Name", "open-router"), ("Model__Fallbacks__0__OutputPricePerMillion", "0.7"));

        Assert.Equal(
            [
                new("compatible", _server.Authority, "open-router", null, null, null, 128000, true, 0.15m, 0.7m, true),
                new("compatible", _server.Authority, "plain", null, null, null, null, null, 0.5m, null, true),
                new("compatible", _server.Authority, "vllm", null, null, null, 32768, null, null, null, false),
            ],
            offer.Models);

        // One address is asked once, however many models are configured there.
        Assert.Single(_server.Requests);
    }

    [Fact]
    public async Task Azure_lists_what_may_be_deployed_so_a_deployments_name_is_not_missed_there()
    {
        _server.On(
            "GET /openai/v1/models",
            """
            {"object":"list","data":[
              {"id":"gpt-4.1-mini-2025-04-14","status":"succeeded","lifecycle_status":"generally-available","capabilities":{"fine_tune":true,"inference":true,"chat_completion":true,"embeddings":false}},
              {"id":"text-embedding-3-small","capabilities":{"inference":true,"chat_completion":false,"embeddings":true}}
            ]}
            """);

        var offer = await ListAsync(("Model__Provider", "azure-openai"), ("Model__Endpoint", _server.Root), ("Model__Name", "our-deployment"), ("Model__ApiKey", "az"));

        Assert.Equal([("gpt-4.1-mini-2025-04-14", null), ("text-embedding-3-small", false)], offer.Models.Select(model => (model.Name, model.StructuredOutput)));
        Assert.Empty(offer.Missing);
        var request = Assert.Single(_server.Requests);
        Assert.Equal(("az", ""), ((string?)request.Headers["api-key"], request.Headers.Authorization.ToString()));
    }

    [Fact]
    public async Task Every_server_is_asked_and_one_that_fails_does_not_hide_the_others()
    {
        await using var other = await ModelServer.StartAsync();
        _server.On("GET /api/tags", """{"models":null}""");
        other.On("GET /api/tags", "{}", 500);
        other.On("GET /v1/models", """[{"id":"m"}]""");

        var offer = await ListAsync(
            ("Model__Provider", "ollama"), ("Model__Endpoint", $"{_server.Authority},{other.Authority}"), ("Model__BaselineStandsIn", "true"),
            ("Model__Fallbacks__0__Endpoint", other.Root), ("Model__Fallbacks__0__Name", "m"));

        Assert.Equal([("compatible", "m", true), ("baseline", offer.Models[1].Name, true)], offer.Models.Select(model => (model.Provider, model.Name, model.Configured)));
        Assert.Equal([$"ollama at {other.Authority} answered HTTP 500."], offer.Faults.Select(fault => fault.Reason));
        Assert.Equal([$"llama3.2 is not among the models that ollama at {_server.Authority} offers; get it with `ollama pull llama3.2`."], offer.Missing);
        Assert.True(offer.Answered);
    }

    [Fact]
    public async Task Without_a_model_the_embedded_one_is_listed()
    {
        var model = Assert.Single((await ListAsync()).Models);

        Assert.Equal(("baseline", null, true), (model.Provider, model.Endpoint, model.Configured));
        Assert.StartsWith("baseline-", model.Name, StringComparison.Ordinal);
        Assert.InRange(model.SizeBytes!.Value, 100_000, 100_000_000);
    }

    [Fact]
    public async Task What_a_server_says_is_clean_short_and_of_the_right_type_or_left_out()
    {
        var longName = new string('x', 5000);
        _server.On(
            "GET /v1/models",
            $$$"""
            {"data":[
              {"id":"\u001b[31mred\u0007\u202e \u2028line\nbreak"},
              {"id":"{{{longName}}}","max_model_len":"many","pricing":{"prompt":-1,"completion":[]}},
              {"id":"\ud800"},{"id":7},{"id":null},{"id":""},{"id":" \u200b"},{"name":"nameless"},null,5,"text",[{"id":"nested"}],
              {"id":"m","context_length":-5,"providers":{"context_length":1},"capabilities":["chat_completion"],"supported_parameters":"all"},
              {"id":"n","context_length":1e400,"providers":[null,7,{"context_length":[],"pricing":7,"supports_structured_output":"yes"}]}
            ]}
            """);

        var offer = await ListAsync(("Model__Endpoint", _server.Root), ("Model__Name", "m"));

        Assert.Equal(["m", "n", longName[..120], "[31mred linebreak"], offer.Models.Select(model => model.Name));
        Assert.All(offer.Models, model => Assert.Equal(model with { Name = "", Configured = false }, new("compatible", _server.Authority, "", null, null, null, null, null, null, null, false)));
        Assert.Empty(offer.Faults);
    }

    [Theory]
    [InlineData("<html>canary</html>")]
    [InlineData("")]
    [InlineData("null")]
    [InlineData("\"canary\"")]
    [InlineData("{}")]
    [InlineData("""{"data":"canary"}""")]
    [InlineData("""{"data":{"id":"canary"}}""")]
    [InlineData("""{"data":[{"id":"canary"}""")]
    public async Task An_answer_that_is_no_list_is_told_without_repeating_it(string answer)
    {
        _server.On("GET /v1/models", answer);

        var fault = await FailAsync();

        Assert.Equal((FailureKind.UpstreamInvalid, $"compatible at {_server.Authority} answered something that is no list of models; check Model__Endpoint."), (fault.Kind, fault.Reason));
    }

    [Fact]
    public async Task Ten_megabytes_and_an_endless_answer_are_not_read_to_their_end()
    {
        foreach (var length in new[] { 10_000_000, int.MaxValue })
        {
            _server.On("GET /v1/models", async (context, _) =>
            {
                var piece = new byte[65_536];
                piece.AsSpan().Fill((byte)' ');
                for (long written = 0; written < length; written += piece.Length)
                {
                    await context.Response.Body.WriteAsync(piece, context.RequestAborted);
                }
            });

            Assert.Equal(FailureKind.UpstreamInvalid, (await FailAsync()).Kind);
        }
    }

    [Theory]
    [InlineData(301, FailureKind.UpstreamUnavailable, "redirects (HTTP 301), which is not followed; set Model__Endpoint to the final address.")]
    [InlineData(204, FailureKind.UpstreamInvalid, "answered something that is no list of models; check Model__Endpoint.")]
    [InlineData(400, FailureKind.UpstreamUnavailable, "answered HTTP 400.")]
    [InlineData(401, FailureKind.UpstreamUnavailable, "does not take the key (HTTP 401); mend Model__ApiKey.")]
    [InlineData(403, FailureKind.UpstreamUnavailable, "does not take the key (HTTP 403); mend Model__ApiKey.")]
    [InlineData(404, FailureKind.UpstreamUnavailable, "has no list of models there (HTTP 404); check Model__Endpoint.")]
    [InlineData(429, FailureKind.UpstreamUnavailable, "answered HTTP 429.")]
    [InlineData(500, FailureKind.UpstreamUnavailable, "answered HTTP 500.")]
    [InlineData(504, FailureKind.UpstreamTimeout, "did not answer in time; try again, or give it longer with Model__AttemptTimeout.")]
    public async Task An_error_is_told_with_the_setting_to_mend(int status, FailureKind kind, string reason)
    {
        _server.On("GET /v1/models", status == 204 ? "" : """{"error":"canary"}""", status, ("Location", "/elsewhere"), ("Retry-After", "7"));

        var fault = await FailAsync(("Model__ApiKey", "canary"));

        Assert.Equal((kind, $"compatible at {_server.Authority} {reason}"), (fault.Kind, fault.Reason));
        Assert.Equal(status is 429 or 500 ? TimeSpan.FromSeconds(7) : null, fault.RetryAfter);
        Assert.Single(_server.Requests);
    }

    [Fact]
    public async Task Who_is_out_of_reach_hangs_or_wants_a_key_is_told_so()
    {
        _server.On("GET /v1/models", "{}", 401);
        Assert.Equal($"compatible at {_server.Authority} wants a key (HTTP 401); set Model__ApiKey.", (await FailAsync()).Reason);
        Assert.Equal(
            $"openai at {_server.Authority} does not take the key (HTTP 401); mend Model__ApiKey (or OPENAI_API_KEY).",
            (await FailAsync(("Model__Provider", "openai"), ("OPENAI_BASE_URL", _server.Root), ("OPENAI_API_KEY", "canary"))).Reason);

        _server.On("GET /v1/models", (context, _) =>
        {
            context.Abort();
            return Task.CompletedTask;
        });
        Assert.Equal($"compatible at {_server.Authority} cannot be reached; check Model__Endpoint.", (await FailAsync()).Reason);

        _server.On("GET /v1/models", ModelServer.Hang);
        var timedOut = await FailAsync(("Model__AttemptTimeout", "00:00:00.3"));
        Assert.Equal(
            (FailureKind.UpstreamTimeout, $"compatible at {_server.Authority} did not answer in time; try again, or give it longer with Model__AttemptTimeout."),
            (timedOut.Kind, timedOut.Reason));

        var away = await FailAsync(("Model__Provider", "ollama"), ("Model__Endpoint", "127.0.0.1:1"), ("Model__Fallbacks__0__Endpoint", "http://127.0.0.1:1"), ("Model__Fallbacks__0__Name", "m"));
        Assert.Equal(
            (FailureKind.UpstreamUnavailable, "ollama at 127.0.0.1:1 cannot be reached; start it with `ollama serve`, or check Model__Endpoint (or OLLAMA_HOST)."),
            (away.Kind, away.Reason));
    }

    [Fact]
    public async Task Giving_up_is_the_only_exception()
    {
        using var gone = new CancellationTokenSource();
        _server.On("GET /v1/models", async (context, body) =>
        {
            await gone.CancelAsync();
            await ModelServer.Hang(context, body);
        });
        await using var services = Build(("Model__Endpoint", _server.Root), ("Model__Name", "m"));

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => services.GetRequiredService<ModelCatalog>().ListAsync(gone.Token));
    }

    [Theory]
    [InlineData("openai", "/v1/chat/completions", "Bearer own", null)]
    [InlineData("huggingface", "/v1/chat/completions", "Bearer own", null)]
    [InlineData("azure-openai", "/openai/v1/chat/completions", null, "own")]
    [InlineData("compatible", "/v1/chat/completions", "Bearer own", null)]
    [InlineData("ollama", "/v1/chat/completions", "Bearer own", null)]
    public async Task Each_provider_is_shown_its_key_as_it_wants_it(string provider, string path, string? authorization, string? apiKey)
    {
        var request = await ClassifyAsync(path, ("Model__Provider", provider), ("Model__ApiKey", "own"));

        Assert.Equal((authorization, apiKey), ((string?)request.Headers.Authorization, (string?)request.Headers["api-key"]));
    }

    [Theory]
    [InlineData("compatible")]
    [InlineData("ollama")]
    public async Task A_server_that_needs_no_key_is_shown_none_of_another_provider(string provider)
    {
        var request = await ClassifyAsync(
            "/v1/chat/completions",
            ("Model__Provider", provider), ("OPENAI_API_KEY", "canary"), ("AZURE_OPENAI_API_KEY", "canary"), ("HF_TOKEN", "canary"), ("HUGGINGFACEHUB_API_TOKEN", "canary"));

        // The SDK sends something.
        Assert.Equal("Bearer none", request.Headers.Authorization);
        Assert.DoesNotContain("canary", JsonSerializer.Serialize(request.Headers), StringComparison.Ordinal);
    }

    private async Task<ModelRequest> ClassifyAsync(string path, params (string, string)[] settings)
    {
        _server.On($"POST {path}", ModelServer.Completion);
        await using var services = Build([("Model__Endpoint", _server.Root), ("Model__Name", "m"), .. settings]);

        Assert.IsType<ClassificationResult.Labelled>(await services.GetRequiredService<ITicketClassifier>().ClassifyAsync("hola", default));
        return Assert.Single(_server.Requests);
    }

    private async Task<ModelOfferFault> FailAsync(params (string, string)[] settings)
    {
        var offer = await ListAsync([("Model__Endpoint", _server.Root), ("Model__Name", "m"), .. settings]);

        Assert.False(offer.Answered);
        Assert.Empty(offer.Models);
        Assert.DoesNotContain("canary", string.Join('\n', offer.Faults), StringComparison.Ordinal);
        return offer.Faults[0];
    }

    private static async Task<ModelOffer> ListAsync(params (string Name, string Value)[] settings)
    {
        await using var services = Build(settings);
        return await services.GetRequiredService<ModelCatalog>().ListAsync(default);
    }

    private static ServiceProvider Build(params (string Name, string Value)[] settings)
    {
        var services = new ServiceCollection().AddLogging();
        services.AddTicketFunctions(new ConfigurationBuilder()
            .AddInMemoryCollection(settings.GroupBy(setting => setting.Name.Replace("__", ":", StringComparison.Ordinal), setting => setting.Value)
                .ToDictionary(setting => setting.Key, string? (setting) => setting.Last()))
            .Build());
        services.AddChatClients();
        return services.BuildServiceProvider();
    }
}
