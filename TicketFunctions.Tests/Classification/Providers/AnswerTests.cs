using System.ClientModel;
using System.Text;
using System.Text.Json.Nodes;
using Microsoft.Extensions.AI;
using Microsoft.Extensions.Logging;
using OpenAI.Chat;
using TicketFunctions.Classification;
using TicketFunctions.Tests.Support;
using ChatFinishReason = Microsoft.Extensions.AI.ChatFinishReason;
using ChatMessage = Microsoft.Extensions.AI.ChatMessage;

namespace TicketFunctions.Tests.Classification.Providers;

/// <summary>What each host makes of an answer: the same.</summary>
public sealed class AnswerTests(ModelHarness harness) : IClassFixture<ModelHarness>
{
    [Fact]
    public async Task An_answer_comes_back_whole()
    {
        harness.Model.On("Con probabilidades.", ModelStub.Json(200, JsonNode.Parse(
            """
            {
              "id": "chatcmpl-1", "object": "chat.completion", "created": 1760000000, "model": "stub-model-2026",
              "choices": [{
                "index": 0,
                "finish_reason": "length",
                "message": {"role": "assistant", "content": " {\"a\": 1}\r\n", "refusal": "No."},
                "logprobs": {"content": [{"token": "Tec", "logprob": -0.25, "bytes": null, "top_logprobs": []}], "refusal": null}
              }],
              "usage": {"prompt_tokens": 321, "completion_tokens": 17, "total_tokens": 338}
            }
            """)!));

        var response = await AskAsync("Con probabilidades.");

        Assert.Equal(" {\"a\": 1}\r\n", response.Text);
        Assert.Equal("No.", Assert.Single(response.Messages.SelectMany(message => message.Contents).OfType<ErrorContent>()).Message);
        Assert.Equal(ChatFinishReason.Length, response.FinishReason);
        Assert.Equal("stub-model-2026", response.ModelId);
        Assert.Equal((321, 17), (response.Usage?.InputTokenCount, response.Usage?.OutputTokenCount));
        Assert.Equal(-0.25f, Assert.Single(Assert.IsType<ChatCompletion>(response.RawRepresentation).ContentTokenLogProbabilities).LogProbability);
    }

    /// <summary>Whole answers with one text, <c>{"a": "ñ"}</c>, in forms that nobody writes and any server may.</summary>
    public static TheoryData<string> Forms =>
    [
        """{"choices":[{"message":{"role":"assistant","content":"{\"a\": \"ñ\"}"},"finish_reason":"stop"}],"created":1760000000,"model":"m","usage":{"prompt_tokens":1,"completion_tokens":2}}""",
        """{"usage":{"completion_tokens":2,"prompt_tokens":1,"prompt_tokens_details":{"cached_tokens":0}},"model":"m","choices":[{"finish_reason":"stop","index":0,"message":{"content":"{\"a\": \"\u00f1\"}","role":"assistant","annotations":[],"audio":null}}]}""",
        """{"choices":[],"choices":[{"logprobs":null,"finish_reason":"stop","message":{"refusal":null,"content":"x","content":"{\"a\": \"ñ\"}"}}],"model":"x","model":"m","usage":{"prompt_tokens":1,"completion_tokens":2}}""",
        """{"choices":[{"finish_reason":"stop","message":{"content":"x"}}],"choices":[{"finish_reason":"stop","message":{"content":"{\"a\": \"ñ\"}"}}],"model":"m","usage":{"prompt_tokens":1,"completion_tokens":2}}""",
        """{"choices":[{"finish_reason":"stop","message":{"content":"{\"a\": \"ñ\"}"}},{"finish_reason":"stop","message":{"content":"x","refusal":"y"}}],"model":"m","usage":{"prompt_tokens":1,"completion_tokens":2}}""",
        """{"x":{"choices":[{"message":{"content":"x"}}],"model":"x"},"choices":[{"y":{"finish_reason":"length","content":"x"},"finish_reason":"STOP","message":{"content":"{\"a\": \"ñ\"}","z":{"content":"x"}}}],"model":"m","usage":{"prompt_tokens":1,"completion_tokens":2}}""",
        """{"choices":[{"finish_reason":"stop","message":{"content":[{"type":"text","text":"{\"a\": "},{"type":"text","text":"\"ñ\"}"}]}}],"model":"m","usage":{"prompt_tokens":1,"completion_tokens":2}}""",
        """{"\u0063hoices":[{"finish\u005freason":"\u0073top","message":{"cont\u0065nt":"{\"a\": \"ñ\"}"}}],"mode\u006c":"m","usage":{"prompt_tokens":1,"completion_tokens":2}}""",
        """{"choices":[{"finish_reason"   :   "eos","message":{"content":"{\"a\": \"ñ\"}"}}],"model":"m","usage":{"prompt_tokens":1,"completion_tokens":2}}""",
        """{"x":{"finish_reason":"stop"},"choices":[{"finish_reason":null,"message":{"content":"{\"a\": \"ñ\"}"}}],"model":"m","usage":{"prompt_tokens":1,"completion_tokens":2}}""",
    ];

    [Theory]
    [MemberData(nameof(Forms))]
    public async Task An_answer_is_read_alike_in_whatever_form_and_pieces_it_comes(string answer)
    {
        var text = $"Por trozos {answer.GetHashCode(StringComparison.Ordinal)}.";
        var bytes = Encoding.UTF8.GetBytes(answer);
        harness.Model.On(text, async (_, context) =>
        {
            // Also between the two bytes of one letter.
            for (var at = 0; at < bytes.Length; at += 3)
            {
                await context.Response.Body.WriteAsync(bytes.AsMemory(at, Math.Min(3, bytes.Length - at)));
                await context.Response.Body.FlushAsync();
            }
        });

        var response = await AskAsync(text);

        Assert.Equal("""{"a": "ñ"}""", response.Text);
        Assert.Equal((ChatFinishReason.Stop, "m"), (response.FinishReason, response.ModelId));
        Assert.Equal((1, 2), (response.Usage?.InputTokenCount, response.Usage?.OutputTokenCount));
        Assert.All(response.Messages.SelectMany(message => message.Contents), content => Assert.IsType<TextContent>(content));
    }

    [Fact]
    public async Task An_empty_refusal_is_none()
    {
        harness.Model.On("Sin negarse.", ModelStub.Content("{}", refusal: ""));

        var response = await AskAsync("Sin negarse.");

        Assert.Equal("{}", response.Text);
        Assert.IsType<TextContent>(Assert.Single(response.Messages.SelectMany(message => message.Contents)));
    }

    [Fact]
    public async Task A_tool_call_that_nobody_offered_is_an_answer_like_any_other()
    {
        harness.Model.On("Llama a una herramienta.", ModelStub.Json(200, JsonNode.Parse(
            """
            {
              "id": "chatcmpl-1", "object": "chat.completion", "created": 1760000000, "model": "stub-model-2026",
              "choices": [{
                "index": 0,
                "finish_reason": "tool_calls",
                "message": {"role": "assistant", "content": null, "tool_calls": [
                  {"id": "call_1", "type": "function", "function": {"name": "classify", "arguments": "{}"}}
                ]}
              }],
              "usage": {"prompt_tokens": 321, "completion_tokens": 17, "total_tokens": 338}
            }
            """)!));

        var response = await AskAsync("Llama a una herramienta.");

        Assert.Equal(("", ChatFinishReason.ToolCalls), (response.Text, response.FinishReason));
        Assert.Equal((321, 17), (response.Usage?.InputTokenCount, response.Usage?.OutputTokenCount));
        Assert.Single(harness.Model.CallsFor("Llama a una herramienta."));
    }

    [Fact]
    public async Task An_error_of_the_server_is_thrown_as_the_client_library_throws_it()
    {
        harness.Model.On("Demasiadas.", ModelStub.Json(429, new JsonObject(), ("Retry-After", "7")));

        var thrown = await Assert.ThrowsAsync<ClientResultException>(() => AskAsync("Demasiadas."));

        Assert.Equal(429, thrown.Status);
        Assert.True(thrown.GetRawResponse()!.Headers.TryGetValue("Retry-After", out var seconds));
        Assert.Equal("7", seconds);
        Assert.Single(harness.Model.CallsFor("Demasiadas."));
    }

    [Fact]
    public async Task Cancellation_is_thrown_as_cancellation_and_ends_the_call()
    {
        using var caller = new CancellationTokenSource();
        var hold = harness.Model.Hold("Espera.");
        var asked = AskAsync("Espera.", caller.Token);
        await hold.Arrived;

        await caller.CancelAsync();

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => asked);
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => AskAsync("Ni empieza.", caller.Token));
        Assert.Empty(harness.Model.CallsFor("Ni empieza."));
    }

    [Fact]
    public async Task Nothing_that_is_said_stands_in_the_log_above_its_most_detailed_level()
    {
        const string Canary = "canary-5512";
        await using var quiet = await ModelHarness.StartAsync(null, ("Model__Output", "Schema"));
        var text = $"Un secreto: {Canary}.";
        quiet.Model.On(text, ModelStub.Sequence(
            ModelStub.Content(Canary),
            ModelStub.Labels("Otro", "Neutral"),
            ModelStub.Json(401, new JsonObject { ["error"] = new JsonObject { ["message"] = $"Incorrect API key provided: {Canary}" } })));

        Assert.IsType<ClassificationResult.Labelled>(await quiet.ClassifyAsync(text));
        Assert.IsType<ClassificationResult.Failed>(await quiet.ClassifyAsync(text));

        Assert.All(quiet.Log.Where(entry => entry.Level > LogLevel.Trace), entry =>
        {
            Assert.DoesNotContain(Canary, entry.Message, StringComparison.Ordinal);
            Assert.True(entry.Level < LogLevel.Warning, entry.Message);
        });
        Assert.DoesNotContain(quiet.Log, entry => entry.Message.Contains("Incorrect API key", StringComparison.Ordinal));
    }

    private async Task<ChatResponse> AskAsync(string text, CancellationToken cancellationToken = default)
    {
        using var chat = harness.CreateChatClient();
        return await chat.GetResponseAsync(
            [new ChatMessage(ChatRole.System, "s"), new ChatMessage(ChatRole.User, $"<\n{text}\n>")], new ChatOptions(), cancellationToken);
    }
}
