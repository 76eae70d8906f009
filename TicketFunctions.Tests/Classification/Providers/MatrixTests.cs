using System.IO.Compression;
using System.Text;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using TicketFunctions.Classification;
using TicketFunctions.Tests.Support;
using TicketFunctions.Tickets;
using Script = System.Func<TicketFunctions.Tests.Support.ModelCall, Microsoft.AspNetCore.Http.HttpContext, System.Threading.Tasks.Task>;

namespace TicketFunctions.Tests.Classification.Providers;

/// <summary>I24, and what each provider's servers do: every fault in every dialect ends in its place, after so many calls and no more.</summary>
public sealed class MatrixTests(MatrixTests.Servers servers) : IClassFixture<MatrixTests.Servers>
{
    private const string Good = """{"category":"Facturacion","sentiment":"Neutral"}""";

    private const string TicketCanary = "ticket-canary-93";

    private static readonly string[] Canaries = [Dialect.Canary, Dialect.Key, TicketCanary];

    /// <summary>What one server does, and how each call of it is to be recorded.</summary>
    internal sealed record Fault(Func<Dialect, Script>? Web, Func<Dialect, Func<RawCall, Task>>? Raw, CallOutcome[] Outcomes, bool IsSilent = false);

    /// <summary>The same in every dialect.</summary>
    private static readonly Dictionary<string, Fault> Common = new()
    {
        ["labels"] = Labels(Edited(_ => { })),
        ["labels in other case"] = Labels(Saying("""{"category":"FACTURACION","sentiment":"neutral"}""")),
        ["labels in English"] = Labels(Saying("""{"category":"Billing","sentiment":"Neutral"}""")),
        ["labels with accents"] = Labels(Saying("""{"category":"Facturación","sentiment":"Neutral"}""")),
        ["labels in a fence"] = Labels(Saying($"```json\n{Good}\n```")),
        ["labels as plain text"] = Labels(dialect => Bytes("text/plain", Encoding.UTF8.GetBytes(Body(dialect)))),
        ["labels as HTML"] = Labels(dialect => Bytes("text/html; charset=iso-8859-1", Encoding.UTF8.GetBytes(Body(dialect)))),
        ["labels without a content type"] = Labels(dialect => Bytes(null, Encoding.UTF8.GetBytes(Body(dialect)))),
        ["usage missing"] = Labels(Edited(answer => answer.Remove("usage"))),
        ["usage null"] = Labels(Edited(answer => answer["usage"] = null)),
        ["usage empty"] = Labels(Edited(answer => answer["usage"] = new JsonObject())),
        ["usage negative"] = Labels(Edited(answer => answer["usage"] = Usage(-1_000_000))),
        ["usage at its most"] = Labels(Edited(answer => answer["usage"] = Usage(int.MaxValue))),
        ["usage beyond 32 bits"] = Ends(CallOutcome.Malformed, Edited(answer => answer["usage"] = Usage(3_000_000_000))),
        ["several choices"] = Labels(Edited(answer =>
        {
            var other = answer["choices"]![0]!.DeepClone();
            other["index"] = 1;
            other["message"]!["content"] = """{"category":"Tecnico","sentiment":"Negativo"}""";
            answer["choices"]!.AsArray().Add(other);
        })),
        ["unknown members"] = Labels(Edited(answer => answer[Dialect.Canary] = new JsonArray(Dialect.Canary))),
        ["tool calls beside labels"] = Labels(Edited(answer => Finish(answer, "tool_calls", message => message["tool_calls"] = ToolCalls()))),
        ["content in parts"] = Labels(Edited(answer => Message(answer)["content"] = Parts(Good))),
        ["no reason to finish"] = Labels(Edited(answer => answer["choices"]![0]!.AsObject().Remove("finish_reason"))),
        ["null as the reason to finish"] = Labels(Edited(answer => answer["choices"]![0]!["finish_reason"] = null)),

        ["refusal"] = Ends(CallOutcome.Refused, Edited(answer => Finish(answer, "stop", message => (message["content"], message["refusal"]) = (null, $"No puedo. {Dialect.Canary}")))),
        ["refusal beside labels"] = Ends(CallOutcome.Refused, Edited(answer => Message(answer)["refusal"] = Dialect.Canary)),
        ["answer filtered"] = Ends(CallOutcome.Filtered, Edited(answer => answer["choices"]![0]!["finish_reason"] = "content_filter")),
        ["answer filtered away"] = Ends(CallOutcome.Filtered, Edited(answer => Finish(answer, "content_filter", message => message.Remove("content")))),
        ["cut within"] = Ends(CallOutcome.Truncated, dialect => Json(dialect.Complete("""{"category":"Factur""", "length"))),
        ["cut, and complete to look at"] = Ends(CallOutcome.Truncated, dialect => Json(dialect.Complete(Good, "length"))),
        ["cut before the first word"] = Ends(CallOutcome.Truncated, dialect => Json(dialect.Complete(null, "length"))),
        ["unknown reason to finish"] = Ends(CallOutcome.Malformed, Edited(answer => answer["choices"]![0]!["finish_reason"] = Dialect.Canary)),

        ["null content"] = AskedTwice(CallOutcome.Empty, Saying(null)),
        ["no content"] = AskedTwice(CallOutcome.Empty, Edited(answer => Message(answer).Remove("content"))),
        ["empty content"] = AskedTwice(CallOutcome.Empty, Saying("")),
        ["a tool call"] = AskedTwice(CallOutcome.Empty, Edited(answer => Finish(answer, "tool_calls", message => (message["content"], message["tool_calls"]) = (null, ToolCalls())))),
        ["a function call"] = AskedTwice(CallOutcome.Empty, Edited(answer => Finish(answer, "function_call", message =>
            (message["content"], message["function_call"]) = (null, new JsonObject { ["name"] = "classify", ["arguments"] = Good })))),
        ["prose"] = AskedTwice(CallOutcome.Unparseable, Saying($"Facturacion, Neutral. {Dialect.Canary}")),
        ["prose around"] = AskedTwice(CallOutcome.Unparseable, Saying($"Aquí tienes:\n{Good}\n{Dialect.Canary}")),
        ["prose around a fence"] = AskedTwice(CallOutcome.Unparseable, Saying($"Aquí tienes:\n```json\n{Good}\n```")),
        ["thoughts before"] = AskedTwice(CallOutcome.Unparseable, Saying($"<think>\n{Dialect.Canary}\n</think>\n\n{Good}")),
        ["invalid JSON"] = AskedTwice(CallOutcome.Unparseable, Saying("{'category': 'Facturacion', 'sentiment': 'Neutral'}")),
        ["cut JSON that claims to be whole"] = AskedTwice(CallOutcome.Unparseable, Saying("""{"category":"Facturacion","sentiment":"Neutral" """)),
        ["two objects"] = AskedTwice(CallOutcome.Unparseable, Saying(Good + Good)),
        ["duplicate keys"] = AskedTwice(CallOutcome.Unparseable, Saying("""{"category":"Tecnico","category":"Facturacion","sentiment":"Neutral"}""")),
        ["missing keys"] = AskedTwice(CallOutcome.Unparseable, Saying("""{"sentiment":"Neutral"}""")),
        ["deep nesting"] = AskedTwice(CallOutcome.Unparseable, Saying(new string('[', 20_000) + new string(']', 20_000))),
        ["a label outside the list"] = AskedTwice(CallOutcome.OffTaxonomy, Saying($$"""{"category":"{{Dialect.Canary}}","sentiment":"Neutral"}""")),
        ["a label with NUL"] = AskedTwice(CallOutcome.OffTaxonomy, Saying("""{"category":"Facturacion\u0000","sentiment":"Neutral"}""")),
        ["a label of half a megabyte"] = AskedTwice(CallOutcome.OffTaxonomy, Saying($$"""{"category":"{{new string('F', 500_000)}}","sentiment":"Neutral"}""")),

        ["no choices"] = Ends(CallOutcome.Malformed, Edited(answer => answer.Remove("choices"))),
        ["empty choices"] = Ends(CallOutcome.Malformed, Edited(answer => answer["choices"] = new JsonArray())),
        ["null message"] = Ends(CallOutcome.Malformed, Edited(answer => answer["choices"]![0]!["message"] = null)),
        ["an error with 200"] = Ends(CallOutcome.Malformed, dialect => Dialect.Report(dialect.Errors["failing"] with { Status = 200 })),
        ["HTML with 200"] = Ends(CallOutcome.Malformed, _ => ModelStub.Raw(200, "text/html", $"<!doctype html><title>{Dialect.Canary}</title>")),
        ["events with 200"] = Ends(CallOutcome.Malformed, dialect => ModelStub.Raw(200, "text/event-stream", $"data: {Body(dialect)}\n\ndata: [DONE]\n\n")),
        ["nothing with 200"] = Ends(CallOutcome.Malformed, _ => ModelStub.Raw(200, "application/json", "")),
        ["nothing with 204"] = Ends(CallOutcome.Malformed, _ => (_, context) =>
        {
            context.Response.StatusCode = 204;
            return Task.CompletedTask;
        }),
        ["labels with 202"] = Ends(CallOutcome.Malformed, dialect => ModelStub.Raw(202, "application/json", Body(dialect))),
        ["half a document"] = Ends(CallOutcome.Malformed, dialect => ModelStub.Raw(200, "application/json", Body(dialect)[..^40])),
        ["two documents"] = Ends(CallOutcome.Malformed, dialect => ModelStub.Raw(200, "application/json", Body(dialect) + Body(dialect))),
        ["a document of a thousand levels"] = Ends(CallOutcome.Malformed, _ => ModelStub.Raw(200, "application/json", new string('[', 1000) + new string(']', 1000))),
        ["a byte order mark"] = Ends(CallOutcome.Malformed, dialect => Bytes("application/json", [.. Encoding.UTF8.Preamble, .. Encoding.UTF8.GetBytes(Body(dialect))])),
        ["UTF-16"] = Ends(CallOutcome.Malformed, dialect => Bytes("application/json; charset=utf-16", [.. Encoding.Unicode.Preamble, .. Encoding.Unicode.GetBytes(Body(dialect))])),
        ["bytes that are no UTF-8"] = Ends(CallOutcome.Malformed, dialect => Bytes("application/json", Encoding.Latin1.GetBytes(Body(dialect).Replace("Facturacion", "Facturaci\u00f3n", StringComparison.Ordinal)))),
        ["compressed without saying so"] = Ends(CallOutcome.Malformed, dialect => Bytes("application/json", Compress(Body(dialect)))),
        ["compressed though nobody asked for it"] = Ends(CallOutcome.Malformed, dialect => async (call, context) =>
        {
            context.Response.Headers.ContentEncoding = "gzip";
            await Bytes("application/json", Compress(Body(dialect)))(call, context);
        }),
        ["10 MB of content"] = Ends(CallOutcome.Malformed, dialect => Json(dialect.Complete(new string('x', 10_000_000)))),
        ["10 MB of error"] = Ends(CallOutcome.Malformed, _ => ModelStub.Raw(400, "application/json", new string(' ', 10_000_000))),

        ["abort"] = Ends(CallOutcome.Unavailable, _ => ModelStub.Abort),
        ["abort within"] = Ends(CallOutcome.Unavailable, dialect => async (_, context) =>
        {
            await context.Response.WriteAsync(Body(dialect)[..100]);
            await context.Response.Body.FlushAsync();
            context.Abort();
        }),

        ["reset before a byte"] = Broken((_, call) =>
        {
            call.Reset();
            return Task.CompletedTask;
        }),
        ["reset within the headers"] = Broken(async (dialect, call) =>
        {
            await call.SendAsync(dialect.Write(Body(dialect))[..60]);
            call.Reset();
        }),
        ["reset after the headers"] = Broken(async (dialect, call) =>
        {
            await call.SendAsync(Head(dialect));
            call.Reset();
        }),
        ["end before a byte"] = Broken((_, _) => Task.CompletedTask),
        ["end within the headers"] = Broken((dialect, call) => call.SendAsync(dialect.Write(Body(dialect))[..60])),
        ["end within an answer of a known length"] = Broken((dialect, call) => call.SendAsync(dialect.Write(Body(dialect))[..^40])),
        ["half-closed within, and still listening"] = Broken(async (dialect, call) =>
        {
            await call.SendAsync(dialect.Write(Body(dialect))[..^40]);
            call.HalfClose();
            await call.HangAsync();
        }),
        ["end within a chunk"] = Broken((_, call) => call.SendAsync("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n40\r\n{\"choices\":")),
        ["end without a last chunk"] = Broken((dialect, call) => call.SendAsync($"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{Body(dialect).Length:x}\r\n{Body(dialect)}\r\n")),
        ["chunks that are none"] = Broken((dialect, call) => call.SendAsync($"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{Body(dialect)}")),
        ["a chunk longer than any"] = Broken((dialect, call) => call.SendAsync($"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n{Body(dialect)}")),
        ["another protocol"] = Broken((_, call) => call.SendAsync("SSH-2.0-OpenSSH_9.7\r\n")),
        ["a TLS alert"] = Broken((_, call) => call.SendAsync("\u0015\u0003\u0001\0\u0002\u0002\u0046")),
        ["zeros"] = Broken((_, call) => call.SendAsync(new byte[4096])),
        ["a status of no number"] = Broken((dialect, call) => call.SendAsync(dialect.Write(Body(dialect)).Replace("200 OK", "OK 200", StringComparison.Ordinal))),

        ["a length too small"] = Writes(CallOutcome.Malformed, dialect => dialect.Write(Body(dialect)).Replace(
            $"Content-Length: {Body(dialect).Length}", $"Content-Length: {Body(dialect).Length - 40}", StringComparison.Ordinal)),
        ["a length too large"] = Writes(CallOutcome.Unavailable, dialect => dialect.Write(Body(dialect)).Replace(
            $"Content-Length: {Body(dialect).Length}", $"Content-Length: {Body(dialect).Length + 40}", StringComparison.Ordinal)),
        ["a negative length"] = Writes(CallOutcome.Labelled, dialect => $"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n{Body(dialect)}"),
        ["a length that is no number"] = Writes(CallOutcome.Labelled, dialect => $"HTTP/1.1 200 OK\r\nContent-Length: {Dialect.Canary}\r\n\r\n{Body(dialect)}"),
        ["two lengths, the first of which counts"] = Writes(CallOutcome.Labelled, dialect => $"HTTP/1.1 200 OK\r\nContent-Length: {Body(dialect).Length}\r\nContent-Length: 7\r\n\r\n{Body(dialect)}"),
        ["a length beside chunks"] = Writes(CallOutcome.Labelled, dialect =>
            $"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n{Body(dialect).Length:x}\r\n{Body(dialect)}\r\n0\r\n\r\n"),
        ["another protocol from here on"] = Writes(CallOutcome.Rejected, dialect => $"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n{Body(dialect)}"),
        ["HTTP/2 that nobody asked for"] = Broken((_, call) => call.SendAsync(new byte[] { 0, 0, 0, 4, 0, 0, 0, 0, 0 })),
        ["members twice"] = Writes(CallOutcome.Labelled, dialect => dialect.Write(Body(dialect).Replace(
            "\"choices\"", $"\"model\":\"{Dialect.Canary}\",\"choices\":[],\"choices\"", StringComparison.Ordinal))),
        ["10 MB of headers"] = Writes(CallOutcome.Malformed, dialect => dialect.Write(
            Body(dialect), "application/json", [.. Enumerable.Range(0, 1000).Select(i => ($"x-{i}", new string('h', 10_000)))])),
        ["a header of 10 MB"] = Writes(CallOutcome.Malformed, dialect => dialect.Write(Body(dialect), "application/json", ("x-long", new string('h', 10_000_000)))),
        ["interim answers before the final one"] = Writes(CallOutcome.Labelled, dialect =>
            $"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n{dialect.Write(Body(dialect))}"),
        ["an answer that ends with the connection"] = Writes(CallOutcome.Labelled, dialect => $"HTTP/1.0 200 OK\r\n\r\n{Body(dialect)}"),
        ["chunks with extensions and trailers"] = Writes(CallOutcome.Labelled, dialect =>
            $"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{Body(dialect).Length:x};a=b\r\n{Body(dialect)}\r\n0\r\nx-trailer: 1\r\n\r\n"),
        ["a second answer on the same connection"] = new(null, dialect => async call =>
        {
            await call.SendAsync(dialect.Write(Body(dialect)) + dialect.Write(dialect.Complete("""{"category":"Tecnico","sentiment":"Negativo"}""").ToJsonString()));
            await call.HangAsync();
        }, [CallOutcome.Labelled]),

        ["silence"] = Silence((_, _) => Task.CompletedTask),
        ["silence within the headers"] = Silence((dialect, call) => call.SendAsync(dialect.Write(Body(dialect))[..60])),
        ["silence after the headers"] = Silence((dialect, call) => call.SendAsync(Head(dialect))),
        ["silence within the answer"] = Silence((dialect, call) => call.SendAsync(dialect.Write(Body(dialect))[..^1])),
        ["silence after an interim answer"] = Silence((_, call) => call.SendAsync("HTTP/1.1 102 Processing\r\n\r\n")),
        ["silence before the last chunk"] = Silence((dialect, call) => call.SendAsync($"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{Body(dialect).Length:x}\r\n{Body(dialect)}\r\n")),
        ["an answer byte by byte"] = Silence((dialect, call) => call.DripAsync(Encoding.UTF8.GetBytes(dialect.Write(Body(dialect).PadLeft(50_000))), TimeSpan.FromMilliseconds(4))),
        ["headers byte by byte"] = Silence((dialect, call) => call.DripAsync(Encoding.UTF8.GetBytes($"HTTP/1.1 200 OK\r\nx: {new string('h', 50_000)}"), TimeSpan.FromMilliseconds(4))),
        ["interim answers without end"] = Silence((_, call) => call.DripAsync(
            Encoding.UTF8.GetBytes(string.Concat(Enumerable.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 2000))), TimeSpan.FromMilliseconds(4))),
    };

    /// <summary>Of one provider alone.</summary>
    private static readonly Dictionary<string, Dictionary<string, Fault>> Own = new()
    {
        ["openai"] = [],
        ["azure-openai"] = new()
        {
            ["filter out of order"] = Labels(Edited(answer => answer["choices"]![0]!["content_filter_results"] = new JsonObject
            {
                ["error"] = new JsonObject { ["code"] = "content_filter_error", ["message"] = $"The contents are not filtered {Dialect.Canary}" },
            })),
            ["answer filtered, with what was found"] = Ends(CallOutcome.Filtered, Edited(answer =>
            {
                Finish(answer, "content_filter", message => message.Remove("content"));
                answer["choices"]![0]!["content_filter_results"]!["violence"] = new JsonObject { ["filtered"] = true, ["severity"] = "high" };
            })),
        },
        ["huggingface"] = new()
        {
            ["reason to finish as Together has it"] = Labels(dialect => Json(dialect.Complete(Good, "eos"))),
            ["reason to finish as Text Generation Inference has it"] = Labels(dialect => Json(dialect.Complete(Good, "eos_token"))),
            ["reason to finish at a stop word"] = Labels(dialect => Json(dialect.Complete(Good, "stop_sequence"))),
        },
        ["ollama"] = new()
        {
            ["thoughts apart"] = Labels(Edited(answer => Message(answer)["reasoning"] = Dialect.Canary)),
            ["thoughts up to the limit"] = Ends(CallOutcome.Truncated, Edited(answer => Finish(answer, "length", message => (message["content"], message["reasoning"]) = ("", Dialect.Canary)))),
            ["only loaded"] = AskedTwice(CallOutcome.Empty, dialect => Json(dialect.Complete("", null))),
            ["format ignored"] = AskedTwice(CallOutcome.Unparseable, Saying($"**Categoría**: Facturación\n**Sentimiento**: neutral {Dialect.Canary}")),
        },
    };

    public static TheoryData<string, string> Cells => Dialect.Cross(provider => FaultsOf(provider).Keys);

    public static TheoryData<string, int, bool> Redirects
    {
        get
        {
            var cells = new TheoryData<string, int, bool>();
            foreach (var provider in Dialect.All.Keys)
            {
                foreach (var status in new[] { 300, 301, 302, 303, 307, 308 })
                {
                    cells.Add(provider, status, true);
                    cells.Add(provider, status, false);
                }
            }

            return cells;
        }
    }

    [Theory]
    [MemberData(nameof(Cells))]
    public async Task A_fault_ends_in_its_place_and_the_next_ticket_is_labelled(string provider, string name)
    {
        var dialect = Dialect.All[provider];
        var fault = FaultsOf(provider)[name];
        var server = await servers.StartAsync(dialect, isRaw: fault.Raw is not null, fault.IsSilent);
        var text = $"Un ticket para {provider}: {name}. {TicketCanary}";
        server.On(text, fault);
        var logged = server.Harness.Log.Count;

        var classifying = server.Harness.ClassifyAsync(text);
        if (fault.IsSilent)
        {
            await Eventually.TrueAsync(() => Task.FromResult(server.CountCalls(text) == 1), "no call came");
            await server.Raw!.CallsFor(text)[0].Slow;
            server.Alarm!.Ring();
        }

        var result = await classifying;

        Assert.Equal(fault.Outcomes, result.Calls.Select(call => call.Outcome));
        Assert.Equal(fault.Outcomes.Length, server.CountCalls(text));
        Assert.All(result.Calls, call =>
        {
            Assert.Equal((provider, "stub-model"), (call.Provider, call.Model));
            Assert.True(call.TokensIn is null or >= 0 && call.TokensOut is null or >= 0);
        });
        AssertIs(fault.Outcomes[^1], result);
        await AssertLabelsNextAsync(server, text);
        AssertTellsNothing(server.Harness, logged);
    }

    [Theory]
    [MemberData(nameof(Redirects))]
    public async Task Nobody_follows_a_redirect_nor_takes_the_key_there(string provider, int status, bool isElsewhere)
    {
        var dialect = Dialect.All[provider];
        var server = await servers.StartAsync(dialect, isRaw: false, isSilent: false);
        var text = $"Un ticket para {provider}, y otro sitio: {status} {isElsewhere}. {TicketCanary}";
        var location = isElsewhere ? servers.Elsewhere.Endpoint + "/chat/completions" : Dialect.All.Values.First(other => other.Path != dialect.Path).Path;
        server.On(text, new Fault(_ => ModelStub.Raw(status, "text/html", Dialect.Canary, ("Location", location)), null, [CallOutcome.Rejected]));
        var logged = server.Harness.Log.Count;

        var result = await server.Harness.ClassifyAsync(text);

        Assert.Equal((CallOutcome.Rejected, status), (Assert.Single(result.Calls).Outcome, result.Calls[0].Status));
        Assert.Equal(1, server.CountCalls(text));
        Assert.Empty(servers.Elsewhere.Calls);
        AssertIs(CallOutcome.Rejected, result);
        await AssertLabelsNextAsync(server, text);
        AssertTellsNothing(server.Harness, logged);
    }

    [Theory]
    [InlineData("openai", 0.15)]
    [InlineData("azure-openai", 0.15)]
    [InlineData("huggingface", 1)]
    [InlineData("ollama", 1)]
    public async Task Each_provider_is_understood_when_it_says_how_long_to_wait(string provider, double seconds)
    {
        var dialect = Dialect.All[provider];
        var server = await servers.StartAsync(dialect, isRaw: false, isSilent: false);
        var text = $"Un ticket para {provider}, con espera.";
        server.On(text, new Fault(_ => Dialect.Report(dialect.Errors["too many requests, wait"]), null, [CallOutcome.RateLimited]));

        var failed = Assert.IsType<ClassificationResult.Failed>(await server.Harness.ClassifyAsync(text));

        Assert.Equal(TimeSpan.FromSeconds(seconds), failed.RetryAfter);
    }

    private static Dictionary<string, Fault> FaultsOf(string provider) => Common
        .Concat(Own[provider])
        .Concat(Dialect.All[provider].Errors.Select(error => KeyValuePair.Create(error.Key, Ends(error.Value.Means, _ => Dialect.Report(error.Value)))))
        .ToDictionary();

    private static void AssertIs(CallOutcome last, ClassificationResult result)
    {
        if (last == CallOutcome.Labelled)
        {
            Assert.Equal(new Labels("Facturacion", "Neutral"), Assert.IsType<ClassificationResult.Labelled>(result).Labels);
            return;
        }

        var failed = Assert.IsType<ClassificationResult.Failed>(result);
        Assert.Equal(
            last switch
            {
                CallOutcome.TimedOut => FailureKind.UpstreamTimeout,
                CallOutcome.Rejected or CallOutcome.RateLimited or CallOutcome.QuotaSpent or CallOutcome.Unavailable => FailureKind.UpstreamUnavailable,
                _ => FailureKind.UpstreamInvalid,
            },
            failed.Kind);
        Assert.All(Canaries, canary => Assert.DoesNotContain(canary, failed.Reason, StringComparison.Ordinal));
    }

    private static async Task AssertLabelsNextAsync(Server server, string text) => Assert.Equal(
        new Labels("Comercial", "Positivo"),
        Assert.IsType<ClassificationResult.Labelled>(await server.Harness.ClassifyAsync($"Después: {text}")).Labels);

    private static void AssertTellsNothing(ModelHarness harness, int logged) =>
        Assert.All(harness.Log.Skip(logged).Where(entry => entry.Level > LogLevel.Trace), entry =>
        {
            Assert.All(Canaries, canary => Assert.DoesNotContain(canary, entry.Message, StringComparison.Ordinal));
            Assert.True(entry.Level < LogLevel.Warning, entry.Message);
        });

    private static Fault Ends(CallOutcome outcome, Func<Dialect, Script> script) => new(script, null, [outcome]);

    private static Fault Labels(Func<Dialect, Script> script) => Ends(CallOutcome.Labelled, script);

    private static Fault AskedTwice(CallOutcome outcome, Func<Dialect, Script> script) => new(script, null, [outcome, outcome]);

    private static Fault Broken(Func<Dialect, RawCall, Task> script) => new(null, dialect => call => script(dialect, call), [CallOutcome.Unavailable]);

    private static Fault Writes(CallOutcome outcome, Func<Dialect, string> response) =>
        new(null, dialect => call => call.SendAsync(response(dialect)), [outcome]);

    private static Fault Silence(Func<Dialect, RawCall, Task> script) => new(
        null,
        dialect => async call =>
        {
            await script(dialect, call);
            await call.HangAsync();
        },
        [CallOutcome.TimedOut],
        IsSilent: true);

    private static string Body(Dialect dialect) => dialect.Complete(Good).ToJsonString();

    private static string Head(Dialect dialect)
    {
        var response = dialect.Write(Body(dialect));
        return response[..(response.IndexOf("\r\n\r\n", StringComparison.Ordinal) + 4)];
    }

    private static Script Json(JsonNode answer) => ModelStub.Json(200, answer);

    private static Func<Dialect, Script> Saying(string? content) => dialect => Json(dialect.Complete(content));

    private static Func<Dialect, Script> Edited(Action<JsonObject> edit) => dialect =>
    {
        var answer = dialect.Complete(Good);
        edit(answer);
        return Json(answer);
    };

    private static JsonObject Message(JsonObject answer) => answer["choices"]![0]!["message"]!.AsObject();

    private static void Finish(JsonObject answer, string reason, Action<JsonObject> edit)
    {
        answer["choices"]![0]!["finish_reason"] = reason;
        edit(Message(answer));
    }

    private static JsonObject Usage(long count) => new() { ["prompt_tokens"] = count, ["completion_tokens"] = count, ["total_tokens"] = count };

    private static JsonArray ToolCalls() => new(JsonNode.Parse(
        $$$"""{"id": "call_1", "type": "function", "function": {"name": "{{{Dialect.Canary}}}", "arguments": "{\"category\":\"Facturacion\",\"sentiment\":\"Neutral\"}"}}"""));

    private static JsonArray Parts(string text) => new(new JsonObject { ["type"] = "text", ["text"] = text });

    private static Script Bytes(string? contentType, byte[] bytes) => async (_, context) =>
    {
        context.Response.ContentType = contentType;
        context.Response.ContentLength = bytes.Length;
        await context.Response.Body.WriteAsync(bytes);
    };

    private static byte[] Compress(string text)
    {
        using var compressed = new MemoryStream();
        using (var gzip = new GZipStream(compressed, CompressionLevel.Fastest))
        {
            gzip.Write(Encoding.UTF8.GetBytes(text));
        }

        return compressed.ToArray();
    }

    /// <summary>A classifier and the server behind it.</summary>
    internal sealed record Server(Dialect Dialect, ModelHarness Harness, ModelStub Web, RawModelServer? Raw, Alarm? Alarm)
    {
        public void On(string ticket, Fault fault)
        {
            if (fault.Raw is not null)
            {
                Raw!.On(ticket, fault.Raw(Dialect));
            }
            else
            {
                Web.On(ticket, Dialect.Serve(fault.Web!(Dialect)));
            }
        }

        /// <summary>Those at the provider's address; the web server answers others by an error of its own.</summary>
        public int CountCalls(string ticket) =>
            Raw?.CallsFor(ticket).Count(call => call.Head.StartsWith($"POST {Dialect.Path} HTTP/1.1\r\n", StringComparison.Ordinal)) ?? Web.CallsFor(ticket).Count;
    }

    /// <summary>For each provider one that serves HTTP, one that sends bytes, and another of these before a classifier with an alarm. Retries and the breaker are off, so that no cell knows of another.</summary>
    public sealed class Servers : IAsyncLifetime
    {
        private static readonly TimeSpan AttemptTimeout = TimeSpan.FromSeconds(20);

        private readonly Dictionary<(Dialect Dialect, bool IsRaw, bool IsSilent), Server> _servers = [];

        /// <summary>Where nobody is sent.</summary>
        internal ModelStub Elsewhere { get; private set; } = null!;

        public async Task InitializeAsync() => Elsewhere = await ModelStub.StartAsync();

        public async Task DisposeAsync()
        {
            foreach (var server in _servers.Values)
            {
                await server.Harness.DisposeAsync();
                await server.Web.DisposeAsync();
                if (server.Raw is not null)
                {
                    await server.Raw.DisposeAsync();
                }
            }

            await Elsewhere.DisposeAsync();
        }

        internal async Task<Server> StartAsync(Dialect dialect, bool isRaw, bool isSilent)
        {
            if (_servers.TryGetValue((dialect, isRaw, isSilent), out var server))
            {
                return server;
            }

            var answer = dialect.Complete("""{"category":"Comercial","sentiment":"Positivo"}""");
            var raw = isRaw ? new RawModelServer(call => call.SendAsync(dialect.Write(answer.ToJsonString()))) : null;
            var web = await ModelStub.StartAsync();
            web.Default = dialect.Serve(ModelStub.Json(200, answer));
            var alarm = isSilent ? new Alarm(AttemptTimeout) : null;
            var harness = await ModelHarness.StartAsync(
                services => services.AddSingleton<TimeProvider>(alarm ?? TimeProvider.System),
                ("Model__Provider", dialect.Provider),
                ("Model__Endpoint", raw?.Address ?? web.Address),
                ("Model__ApiKey", Dialect.Key),
                ("Model__Output", "Schema"),
                ("Model__MaxRetries", "0"),
                ("Model__BreakDuration", "00:00:00"),
                ("Model__AttemptTimeout", $"{AttemptTimeout}"));
            return _servers[(dialect, isRaw, isSilent)] = new Server(dialect, harness, web, raw, alarm);
        }
    }
}
