using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Commands;

/// <summary><c>models</c>.</summary>
public sealed class ModelsCommandTests : IAsyncLifetime, IDisposable
{
    private readonly Product _product = new();
    private ModelServer _server = null!;

    public async Task InitializeAsync() => _server = await ModelServer.StartAsync();

    public Task DisposeAsync() => _server.DisposeAsync().AsTask();

    public void Dispose() => _product.Dispose();

    [Fact]
    public async Task It_shows_what_is_on_offer_and_marks_what_answers()
    {
        _server.On("GET /api/tags", """{"models":[{"name":"zeta:1b","size":815319791},{"name":"llama3.2:latest","size":2019393189,"details":{"parameter_size":"3.2B","quantization_level":"Q4_K_M"}},{"name":"[red]tiny"}]}""");
        (string, string)[] settings = [("Model__Provider", "ollama"), ("OLLAMA_HOST", _server.Authority)];

        var table = await _product.RunAsync("", settings, "models");
        var json = await _product.RunAsync("", settings, "models", "--json");

        Assert.Equal((0, ""), (table.ExitCode, table.Error));
        Assert.Equal($"ollama at {_server.Authority}", table.Lines[0]);
        Assert.Equal(
            [
                ["model", "size", "parameters"],
                ["→ llama3.2:latest", "2.0 GB", "3.2B Q4_K_M"],
                ["zeta:1b", "815.3 MB", ""],
                ["[red]tiny", "", ""],
            ],
            table.Lines.Where(line => line.Contains('│', StringComparison.Ordinal)).Select(line => line.Split('│', StringSplitOptions.TrimEntries)[1..^1]));
        Assert.Equal((0, ""), (json.ExitCode, json.Error));
        Assert.Equal(
            [("llama3.2:latest", true), ("zeta:1b", false), ("[red]tiny", false)],
            JsonNode.Parse(json.Output)!.AsArray().Select(model => ((string?)model!["name"], (bool?)model["configured"])));
    }

    [Fact]
    public async Task A_model_that_is_not_on_offer_is_told_with_the_way_to_get_it()
    {
        _server.On("GET /api/tags", """{"models":[]}""");
        _server.On("GET /v1/models", """{"data":[{"id":"other"}]}""");

        var ollama = await _product.RunAsync("", [("Model__Provider", "ollama"), ("Model__Endpoint", _server.Authority)], "models");
        var json = await _product.RunAsync("", [("Model__Endpoint", _server.Root), ("Model__Name", "mine")], "models", "--json");

        Assert.Equal(
            new CommandResult(1, "", $"warning: llama3.2 is not among the models that ollama at {_server.Authority} offers; get it with `ollama pull llama3.2`.\n"), ollama);
        Assert.Equal(1, json.ExitCode);
        Assert.Equal($"warning: mine is not among the models that compatible at {_server.Authority} offers; choose one of them with Model__Name.\n", json.Error);
        Assert.Equal("other", (string?)Assert.Single(JsonNode.Parse(json.Output)!.AsArray())!["name"]);
    }

    [Fact]
    public async Task A_server_that_gives_no_list_is_told_with_the_setting_to_mend()
    {
        _server.On("GET /v1/models", "canary", 401);

        var refused = await _product.RunAsync("", [("Model__Provider", "huggingface"), ("Model__Endpoint", _server.Root), ("Model__ApiKey", "canary")], "models");
        var away = await _product.RunAsync("", [("Model__Provider", "ollama"), ("OLLAMA_HOST", "127.0.0.1:1")], "models");

        Assert.Equal(
            new CommandResult(1, "", $"error: huggingface at {_server.Authority} does not take the key (HTTP 401); mend Model__ApiKey (or HUGGINGFACEHUB_API_TOKEN or HF_TOKEN).\n"),
            refused);
        Assert.Equal(
            new CommandResult(1, "", "error: ollama at 127.0.0.1:1 cannot be reached; start it with `ollama serve`, or check Model__Endpoint (or OLLAMA_HOST).\n"), away);
    }

    [Fact]
    public async Task Without_a_model_the_embedded_one_is_shown()
    {
        var result = await _product.RunAsync("", [("OPENAI_API_KEY", "canary")], "models");

        Assert.Equal((0, ""), (result.ExitCode, result.Error));
        Assert.Matches(@"^baseline\n(.*\n)+│ → baseline-\w+ +│ +\d+\.\d [kM]B", result.Output);
    }

    /// <summary>Linux, where a process can be told to trust a certificate. The rest of it is the real thing: the identity of an App Service or Function app.</summary>
    [Fact]
    public async Task Azure_without_a_key_is_shown_the_managed_identity()
    {
        if (!OperatingSystem.IsLinux())
        {
            return;
        }

        var trusted = Path.Combine(_product.Folder, "trusted.pem");
        using var certificate = await TestCertificate.CreateAsync(trusted);
        await using var azure = await ModelServer.StartAsync(certificate);
        azure.On("GET /openai/v1/models", """{"data":[{"id":"gpt-4.1-mini"}]}""");
        azure.On("POST /openai/v1/chat/completions", ModelServer.Completion);
        _server.On("GET /identity", (context, _) =>
            context.Response.WriteAsync($$"""{"access_token":"token-of-the-identity","expires_on":"{{DateTimeOffset.UtcNow.AddHours(1).ToUnixTimeSeconds()}}","token_type":"Bearer"}"""));
        (string, string)[] settings =
        [
            ("Model__Provider", "azure-openai"), ("AZURE_OPENAI_ENDPOINT", azure.Root), ("OPENAI_API_KEY", "canary"), ("SSL_CERT_FILE", trusted),
            ("IDENTITY_ENDPOINT", $"{_server.Root}/identity"), ("IDENTITY_HEADER", "secret"),
        ];

        var models = await _product.RunAsync("", settings, "models", "--json");
        Assert.Equal((0, ""), (models.ExitCode, models.Error));
        Assert.Equal(0, (await _product.RunAsync("", settings, "classify", "hola")).ExitCode);

        Assert.Equal(["GET /openai/v1/models", "POST /openai/v1/chat/completions"], azure.Requests.Select(call => call.Line));
        Assert.All(azure.Requests, call => Assert.Equal(("Bearer token-of-the-identity", ""), (call.Headers.Authorization.ToString(), call.Headers["api-key"].ToString())));

        // Once for each process: the token is kept.
        Assert.Equal(2, _server.Requests.Count);
        Assert.All(_server.Requests, call => Assert.Equal("secret", call.Headers["X-IDENTITY-HEADER"]));

        _server.On("GET /identity", "{}", 400);
        var refused = await _product.RunAsync("", settings, "models");
        Assert.Equal(
            new CommandResult(1, "", $"error: azure-openai at {azure.Authority} cannot be asked: Azure gave no token; check the managed identity, or set Model__ApiKey (or AZURE_OPENAI_API_KEY).\n"),
            refused);
    }
}
