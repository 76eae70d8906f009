using System.Collections.Concurrent;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Threading.Channels;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;

namespace TicketFunctions.Tests.Support;

/// <summary>One call as it came over the wire. <paramref name="Ticket"/> is the text between the prompt's marks.</summary>
public sealed record ModelCall(string Ticket, JsonNode Body, IHeaderDictionary Headers);

/// <summary>A model server that speaks the OpenAI wire protocol at its address and at Azure's, answers by script and keeps a ledger of every call.</summary>
public sealed class ModelStub : IAsyncDisposable
{
    private readonly WebApplication _app;
    private readonly ConcurrentQueue<ModelCall> _calls = new();
    private readonly ConcurrentDictionary<string, Func<ModelCall, HttpContext, Task>> _scripts = new();

    private ModelStub(WebApplication app) => _app = app;

    /// <summary>The address for Model__Endpoint.</summary>
    public string Endpoint => Address + "/v1";

    /// <summary>The address without a path, as it is configured for Azure and Ollama.</summary>
    public string Address { get; private set; } = "";

    /// <summary>Every call, in the order of arrival.</summary>
    public IReadOnlyCollection<ModelCall> Calls => _calls;

    /// <summary>What is answered to a ticket without a script.</summary>
    public Func<ModelCall, HttpContext, Task> Default { get; set; } = Labels("Tecnico", "Negativo");

    public static async Task<ModelStub> StartAsync()
    {
        var builder = WebApplication.CreateSlimBuilder(["--hostBuilder:reloadConfigOnChange=false"]);
        builder.Logging.ClearProviders();
        builder.WebHost.UseUrls("http://127.0.0.1:0");
        var stub = new ModelStub(builder.Build());
        stub._app.MapPost("/v1/chat/completions", stub.AnswerAsync);
        stub._app.MapPost("/openai/v1/chat/completions", stub.AnswerAsync);
        stub._app.MapGet("/v1/models", () => Results.Text("""{"object":"list","data":[{"id":"stub-model","object":"model"}]}""", "application/json"));
        await stub._app.StartAsync();
        stub.Address = stub._app.Urls.Single();
        return stub;
    }

    /// <summary>The calls made for one ticket's text.</summary>
    public IReadOnlyList<ModelCall> CallsFor(string ticket) => [.. _calls.Where(call => call.Ticket == ticket)];

    /// <summary>Answers calls for this ticket's text by a script.</summary>
    public void On(string ticket, Func<ModelCall, HttpContext, Task> script) => _scripts[ticket] = script;

    /// <summary>Holds calls for this ticket's text until they are released, then answers by <paramref name="script"/>.</summary>
    public ModelHold Hold(string ticket, Func<ModelCall, HttpContext, Task>? script = null)
    {
        var hold = new ModelHold();
        On(ticket, Held(hold, script ?? Default));
        return hold;
    }

    /// <summary>Holds every call for a ticket without a script until they are released, then answers by <paramref name="script"/>.</summary>
    public ModelHold HoldAll(Func<ModelCall, HttpContext, Task>? script = null)
    {
        var hold = new ModelHold();
        Default = Held(hold, script ?? Default);
        return hold;
    }

    /// <summary>Holds a call until it is released, then answers by <paramref name="script"/>.</summary>
    public static Func<ModelCall, HttpContext, Task> Held(ModelHold hold, Func<ModelCall, HttpContext, Task> script) => async (call, context) =>
    {
        hold.Arrive();
        await hold.Released.WaitAsync(context.RequestAborted);
        await script(call, context);
    };

    /// <summary>An answer with two labels, as a well-behaved model gives it.</summary>
    public static Func<ModelCall, HttpContext, Task> Labels(string category, string sentiment) =>
        Content(new JsonObject { ["category"] = category, ["sentiment"] = sentiment }.ToJsonString());

    /// <summary>A chat completion with this content.</summary>
    public static Func<ModelCall, HttpContext, Task> Content(string? content, string finishReason = "stop", string? refusal = null) =>
        Json(200, new JsonObject
        {
            ["id"] = "chatcmpl-1",
            ["object"] = "chat.completion",
            ["created"] = 1760000000,
            ["model"] = "stub-model-2026",
            ["choices"] = new JsonArray(new JsonObject
            {
                ["index"] = 0,
                ["finish_reason"] = finishReason,
                ["message"] = new JsonObject { ["role"] = "assistant", ["content"] = content, ["refusal"] = refusal },
            }),
            ["usage"] = new JsonObject { ["prompt_tokens"] = 321, ["completion_tokens"] = 17, ["total_tokens"] = 338 },
        });

    /// <summary>Any status with any JSON.</summary>
    public static Func<ModelCall, HttpContext, Task> Json(int status, JsonNode body, params (string Name, string Value)[] headers) =>
        Raw(status, "application/json", body.ToJsonString(), headers);

    /// <summary>Any status with any body.</summary>
    public static Func<ModelCall, HttpContext, Task> Raw(
        int status, string contentType, string body, params (string Name, string Value)[] headers) => async (_, context) =>
    {
        context.Response.StatusCode = status;
        context.Response.ContentType = contentType;
        foreach (var (name, value) in headers)
        {
            context.Response.Headers[name] = value;
        }

        await context.Response.WriteAsync(body);
    };

    /// <summary>Breaks the connection off without an answer.</summary>
    public static Task Abort(ModelCall call, HttpContext context)
    {
        context.Abort();
        return Task.CompletedTask;
    }

    /// <summary>Never answers, until the caller gives up.</summary>
    public static Task Hang(ModelCall call, HttpContext context) =>
        new TaskCompletionSource().Task.WaitAsync(context.RequestAborted);

    /// <summary>Answers by one script after the other, the last one from then on.</summary>
    public static Func<ModelCall, HttpContext, Task> Sequence(params Func<ModelCall, HttpContext, Task>[] scripts)
    {
        var next = -1;
        return (call, context) => scripts[Math.Min(Interlocked.Increment(ref next), scripts.Length - 1)](call, context);
    }

    /// <summary>The ticket in a request: the second message is &lt;&lt;&lt;mark, the ticket, mark&gt;&gt;&gt; on lines of their own.</summary>
    public static string ReadTicket(JsonNode body)
    {
        var lines = body["messages"]![1]!["content"]!.ToString();
        return lines[(lines.IndexOf('\n') + 1)..lines.LastIndexOf('\n')];
    }

    public async ValueTask DisposeAsync() => await _app.DisposeAsync();

    private async Task AnswerAsync(HttpContext context)
    {
        var body = (await JsonSerializer.DeserializeAsync<JsonNode>(context.Request.Body))!;

        // A copy: the server uses the collection again for the connection's next request.
        var call = new ModelCall(ReadTicket(body), body, new HeaderDictionary(context.Request.Headers.ToDictionary()));
        _calls.Enqueue(call);
        try
        {
            await (_scripts.TryGetValue(call.Ticket, out var script) ? script : Default)(call, context);
        }
        catch (OperationCanceledException) when (context.RequestAborted.IsCancellationRequested)
        {
            // The caller gave up on us.
        }
    }
}

/// <summary>A barrier in the model: a test knows when the call has arrived, and says when it is answered.</summary>
public sealed class ModelHold
{
    private readonly TaskCompletionSource _arrived = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource _released = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Channel<bool> _arrivals = Channel.CreateUnbounded<bool>();

    /// <summary>Completes when the first call is here; fails when none came in 30 s.</summary>
    public Task Arrived => _arrived.Task.WaitAsync(TimeSpan.FromSeconds(30));

    internal Task Released => _released.Task;

    /// <summary>Completes when so many more calls are here; fails when one of them did not come in 30 s.</summary>
    public async Task WaitForAsync(int calls)
    {
        for (var call = 1; call <= calls; call++)
        {
            await _arrivals.Reader.ReadAsync().AsTask().WaitAsync(TimeSpan.FromSeconds(30));
        }
    }

    public void Release() => _released.TrySetResult();

    internal void Arrive()
    {
        _arrived.TrySetResult();
        _arrivals.Writer.TryWrite(true);
    }
}
