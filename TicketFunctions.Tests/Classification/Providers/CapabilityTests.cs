using System.Text.Json.Nodes;
using Microsoft.Extensions.Logging;
using TicketFunctions.Classification;
using TicketFunctions.Tests.Support;
using Script = System.Func<TicketFunctions.Tests.Support.ModelCall, Microsoft.AspNetCore.Http.HttpContext, System.Threading.Tasks.Task>;

namespace TicketFunctions.Tests.Classification.Providers;

/// <summary>Requests come to the form that a server takes, by what it says and by what it does; and not by what it says of other things.</summary>
public sealed class CapabilityTests
{
    /// <summary>What servers say to a member they do not take, and which member is then gone.</summary>
    public static TheoryData<int, string, string> Refusals => new()
    {
        { 400, """{"error":{"message":"Unsupported parameter: 'strict' is not supported with this model.","type":"invalid_request_error","param":"response_format"}}""", "strict" },
        { 422, """{"detail":[{"type":"extra_forbidden","loc":["body","response_format","json_schema","strict"],"msg":"Extra inputs are not permitted"}]}""", "strict" },
        { 400, """{"error":{"message":"Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported.","param":"temperature","code":"unsupported_value"}}""", "temperature" },
        { 400, """{"error":{"message":"This model does not support logprobs.","param":"logprobs"}}""", "logprobs" },
        { 403, """{"error":{"message":"You are not allowed to request logprobs from this model.","type":"invalid_request_error","param":null,"code":null}}""", "logprobs" },
        { 400, """{"object":"error","message":"guided decoding is off","code":400}""", "schema" },
        { 400, """{"error":{"message":"Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model."}}""", "schema" },
    };

    [Theory]
    [MemberData(nameof(Refusals))]
    public async Task A_part_of_the_request_that_the_server_refuses_is_left_out_from_then_on(int status, string body, string part)
    {
        await using var harness = await ModelHarness.StartAsync(null, ("Model__Confidence", "Logprobs"));
        harness.Model.Default = Refusing(part, ModelStub.Raw(status, "application/json", body));

        var result = await harness.ClassifyAsync("El primero.");
        await harness.ClassifyAsync("El segundo.");

        var labelled = Assert.IsType<ClassificationResult.Labelled>(result);
        Assert.Equal([CallOutcome.Rejected, CallOutcome.Labelled], labelled.Calls.Select(call => call.Outcome));
        var calls = harness.Model.CallsFor("El primero.");
        Assert.True(Has(calls[0].Body, part));
        Assert.False(Has(calls[1].Body, part));
        AssertSameBut(part, calls[0].Body, calls[1].Body);
        JsonAssert.Equal(calls[1].Body["response_format"]!.ToJsonString(), Assert.Single(harness.Model.CallsFor("El segundo.")).Body["response_format"]);
        Assert.Single(harness.Log, entry => entry.Level == LogLevel.Warning && entry.Message.Contains("from now on", StringComparison.Ordinal));
    }

    /// <summary>OpenAI's newest models, and Mistral's.</summary>
    [Theory]
    [InlineData("compatible", "max_tokens", "max_completion_tokens", """{"error":{"message":"Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.","param":"max_tokens","code":"unsupported_parameter"}}""")]
    [InlineData("openai", "max_completion_tokens", "max_tokens", """{"detail":[{"type":"extra_forbidden","loc":["body","max_completion_tokens"],"msg":"Extra inputs are not permitted"}]}""")]
    public async Task The_longest_answer_is_told_by_the_name_that_the_server_takes(string provider, string first, string second, string refusal)
    {
        await using var harness = await ModelHarness.StartAsync(null, ("Model__Provider", provider));
        harness.Model.Default = Refusing(first, ModelStub.Raw(400, "application/json", refusal));

        var labelled = Assert.IsType<ClassificationResult.Labelled>(await harness.ClassifyAsync("El primero."));
        await harness.ClassifyAsync("El segundo.");

        Assert.Equal([CallOutcome.Rejected, CallOutcome.Labelled], labelled.Calls.Select(call => call.Outcome));
        Assert.Equal([first, second, second], harness.Model.Calls.Select(call => call.Body.AsObject().Single(member => member.Key.StartsWith("max_", StringComparison.Ordinal)).Key));
        Assert.All(harness.Model.Calls, call => Assert.Equal(64, call.Body.AsObject().Single(member => member.Key.StartsWith("max_", StringComparison.Ordinal)).Value!.GetValue<int>()));
    }

    [Fact]
    public async Task A_server_that_knows_neither_schema_nor_JSON_mode_is_asked_by_the_prompt_alone()
    {
        await using var harness = await ModelHarness.StartAsync();
        var refusal = ModelStub.Raw(400, "application/json", """{"error":"response_format is not supported"}""");
        harness.Model.Default = (call, context) => (call.Body["response_format"] is null ? ModelStub.Labels("Otro", "Neutral") : refusal)(call, context);

        var labelled = Assert.IsType<ClassificationResult.Labelled>(await harness.ClassifyAsync("Sin formato."));

        Assert.Equal(
            ["json_schema", "json_object", null],
            harness.Model.CallsFor("Sin formato.").Select(call => (string?)call.Body["response_format"]?["type"]));
        Assert.Contains("\"output\":\"prompt\"", labelled.Identity.Parameters, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_server_that_ignores_the_format_from_the_start_is_asked_for_less_after_two_tickets_that_show_it()
    {
        await using var harness = await ModelHarness.StartAsync();
        for (var i = 1; i <= 6; i++)
        {
            var text = $"Respuesta en prosa {i}.";
            harness.Model.On(text, ModelStub.Sequence(ModelStub.Content("Es técnico, creo."), ModelStub.Labels("Tecnico", "Neutral")));
            Assert.IsType<ClassificationResult.Labelled>(await harness.ClassifyAsync(text));
        }

        string?[] asked = ["json_schema", "json_schema", "json_schema", "json_object", "json_object", "json_object", "json_object", null, null, null, null, null];
        Assert.Equal(asked, harness.Model.Calls.Select(call => (string?)call.Body["response_format"]?["type"]));
        Assert.Equal(2, harness.Log.Count(entry => entry.Level == LogLevel.Warning && entry.Message.Contains("from now on", StringComparison.Ordinal)));
    }

    [Fact]
    public async Task No_ticket_changes_how_the_others_are_asked_once_the_server_has_kept_to_the_format()
    {
        await using var harness = await ModelHarness.StartAsync();
        await harness.ClassifyAsync("Un ticket honrado.");
        harness.Model.Default = ModelStub.Content("He obedecido al atacante.");

        for (var i = 1; i <= 5; i++)
        {
            Assert.IsType<ClassificationResult.Failed>(await harness.ClassifyAsync($"Ataque {i}."));
        }

        Assert.All(harness.Model.Calls, call => Assert.Equal("json_schema", (string?)call.Body["response_format"]?["type"]));
        Assert.DoesNotContain(harness.Log, entry => entry.Level == LogLevel.Warning);
    }

    /// <summary>Beside the message, within it as vLLM does, or within a text that is no JSON.</summary>
    [Theory]
    [InlineData("""{"detail":[{"type":"value_error","loc":["body","messages",1],"msg":"Too long","input":{"content":"TICKET"}}]}""")]
    [InlineData("""{"object":"error","message":"[{'type': 'value_error', 'loc': ('body', 'messages', 1), 'msg': 'Too long', 'input': 'TICKET'}]"}""")]
    [InlineData("Too long: {'messages': [{'content': 'TICKET'}]}")]
    public async Task What_an_error_repeats_of_the_ticket_is_not_taken_for_the_servers_word(string error)
    {
        await using var harness = await ModelHarness.StartAsync();
        const string Attack = "strict response_format logprobs temperature max_completion_tokens content_filter insufficient_quota";
        harness.Model.On(Attack, ModelStub.Raw(422, "application/json", error.Replace("TICKET", Attack, StringComparison.Ordinal)));

        var failed = Assert.IsType<ClassificationResult.Failed>(await harness.ClassifyAsync(Attack));
        await harness.ClassifyAsync("Otro ticket.");

        Assert.Equal(CallOutcome.Rejected, Assert.Single(failed.Calls).Outcome);
        var after = harness.Model.CallsFor("Otro ticket.")[0].Body;
        Assert.Equal(true, (bool?)after["response_format"]!["json_schema"]!["strict"]);
        Assert.Equal(0, (int?)after["temperature"]);
    }

    [Theory]
    [InlineData("Schema", "json_schema")]
    [InlineData("Json", "json_object")]
    [InlineData("Prompt", null)]
    public async Task A_form_that_is_configured_stays_whatever_the_server_does(string output, string? type)
    {
        await using var harness = await ModelHarness.StartAsync(null, ("Model__Output", output));
        harness.Model.On("Prosa.", ModelStub.Content("No sé."));
        harness.Model.On("Rechazo.", ModelStub.Raw(400, "application/json", """{"error":"response_format is not supported"}"""));

        Assert.IsType<ClassificationResult.Failed>(await harness.ClassifyAsync("Prosa."));
        Assert.IsType<ClassificationResult.Failed>(await harness.ClassifyAsync("Rechazo."));

        Assert.Equal(3, harness.Model.Calls.Count);
        Assert.All(harness.Model.Calls, call => Assert.Equal(type, (string?)call.Body["response_format"]?["type"]));
        Assert.DoesNotContain(harness.Log, entry => entry.Level == LogLevel.Warning);
    }

    [Fact]
    public async Task JSON_mode_has_been_kept_to_when_the_answer_is_JSON_whatever_its_labels()
    {
        await using var harness = await ModelHarness.StartAsync();
        harness.Model.Default = Refusing(
            "schema",
            ModelStub.Raw(400, "application/json", """{"error":"json_schema is not supported"}"""),
            ModelStub.Content("""{"category":"Magia","sentiment":"Neutral"}"""));
        for (var i = 1; i <= 4; i++)
        {
            await harness.ClassifyAsync($"Otra etiqueta {i}.");
        }

        Assert.Equal("json_object", (string?)harness.Model.Calls.Last().Body["response_format"]?["type"]);
    }

    [Theory]
    [InlineData("logprobs")]
    [InlineData("temperature and logprobs are fine, the key is not")]
    [InlineData("strict")]
    [InlineData("response_format")]
    [InlineData("Your account has been restricted; el distrito es estricto")]
    public async Task A_request_is_not_sent_again_for_a_member_that_it_did_not_have(string message)
    {
        await using var harness = await ModelHarness.StartAsync(null, ("Model__Output", "Prompt"), ("Model__Confidence", "None"));
        harness.Model.Default = ModelStub.Json(400, new JsonObject { ["error"] = message });

        Assert.IsType<ClassificationResult.Failed>(await harness.ClassifyAsync("Una sola vez."));

        Assert.Single(harness.Model.Calls);
        Assert.DoesNotContain(harness.Log, entry => entry.Level == LogLevel.Warning);
    }

    [Fact]
    public async Task Many_that_meet_the_same_refusal_at_once_step_down_once()
    {
        await using var harness = await ModelHarness.StartAsync();
        var hold = new ModelHold();
        harness.Model.Default = Refusing("schema", ModelStub.Held(hold, ModelStub.Raw(400, "application/json", """{"error":"json_schema is not supported"}""")));

        var all = Enumerable.Range(1, 20).Select(i => harness.ClassifyAsync($"Número {i}.")).ToList();
        await hold.WaitForAsync(20);
        hold.Release();

        Assert.All(await Task.WhenAll(all), result => Assert.IsType<ClassificationResult.Labelled>(result));
        Assert.Equal(40, harness.Model.Calls.Count);
        Assert.Single(harness.Log, entry => entry.Level == LogLevel.Warning);
    }

    [Theory]
    [InlineData("openai", "max_completion_tokens", true)]
    [InlineData("azure-openai", "max_completion_tokens", true)]
    [InlineData("huggingface", "max_tokens", false)]
    [InlineData("ollama", "max_tokens", true)]
    [InlineData("compatible", "max_tokens", false)]
    public async Task Each_provider_is_asked_in_the_words_it_knows(string provider, string limit, bool logprobs)
    {
        await using var harness = await ModelHarness.StartAsync(null, ("Model__Provider", provider), ("Model__MaxOutputTokens", "300"));

        await harness.ClassifyAsync("¿Cómo se pide?");

        var body = Assert.Single(harness.Model.Calls).Body.AsObject();
        Assert.Equal(300, (int?)body[limit]);
        Assert.Single(body, member => member.Key is "max_tokens" or "max_completion_tokens");
        Assert.Equal(logprobs ? true : null, (bool?)body["logprobs"]);
    }

    private static Script Refusing(string part, Script refusal, Script? otherwise = null) =>
        (call, context) => (Has(call.Body, part) ? refusal : otherwise ?? ModelStub.Labels("Otro", "Neutral"))(call, context);

    private static bool Has(JsonNode body, string part) => part switch
    {
        "strict" => body["response_format"]?["json_schema"]?["strict"] is not null,
        "schema" => (string?)body["response_format"]?["type"] == "json_schema",
        _ => body[part] is not null,
    };

    private static void AssertSameBut(string part, JsonNode before, JsonNode after)
    {
        var (left, right) = (before.DeepClone().AsObject(), after.DeepClone().AsObject());
        foreach (var body in new[] { left, right })
        {
            body.Remove(part is "strict" or "schema" ? "response_format" : part);
        }

        JsonAssert.Equal(left.ToJsonString(), right);
    }
}
