using System.Globalization;
using System.Net;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;
using TicketFunctions.Tests.Support;
using Script = System.Func<TicketFunctions.Tests.Support.ModelCall, Microsoft.AspNetCore.Http.HttpContext, System.Threading.Tasks.Task>;

namespace TicketFunctions.Tests.Classification;

/// <summary>I24: whatever a model answers, the table holds a label of the taxonomy or the ticket stays unprocessed, and nothing is lost.</summary>
public sealed class ModelFaultTests(TicketApp app) : IClassFixture<TicketApp>
{
    /// <summary>Part of every faulty answer: no text of a model may be told, logged or stored.</summary>
    private const string Canary = "CANARY-77aa";

    private const string GoodLabels = """{"category":"Tecnico","sentiment":"Negativo"}""";

    private sealed record Fault(Script Script, int Status, string Type, int Calls = 1);

    private static readonly Dictionary<string, Fault> Faults = new()
    {
        ["400"] = Unavailable(Error(400)),
        ["401"] = Unavailable(Error(401)),
        ["403"] = Unavailable(Error(403)),
        ["404"] = Unavailable(Error(404)),
        ["404 in HTML"] = Unavailable(ModelStub.Raw(404, "text/html", $"<h1>{Canary}</h1>")),
        ["422"] = Unavailable(Error(422)),
        ["429"] = Unavailable(Error(429)),
        ["429 without quota"] = Unavailable(Error(429, "insufficient_quota")),
        ["500"] = Unavailable(Error(500)),
        ["500 without a body"] = Unavailable(ModelStub.Raw(500, "text/plain", "")),
        ["502"] = Unavailable(Error(502)),
        ["503"] = Unavailable(Error(503)),
        ["529"] = Unavailable(Error(529)),
        ["204"] = Invalid(Status(204)),
        ["302"] = Unavailable(ModelStub.Raw(302, "text/html", "", ("Location", "/v1/elsewhere"))),
        ["402"] = Unavailable(Error(402)),
        ["400 by the content filter"] = Invalid(Error(400, "content_filter")),
        ["abort"] = Unavailable(ModelStub.Abort),
        ["abort within an answer of a known length"] = Unavailable((call, context) => WriteHalfAsync(context, length: 1000)),
        ["abort within a chunked answer"] = Unavailable((call, context) => WriteHalfAsync(context, length: null)),
        ["408"] = new Fault(Error(408), 504, "upstream-timeout"),
        ["504"] = new Fault(Error(504), 504, "upstream-timeout"),

        ["200 without a body"] = Invalid(ModelStub.Raw(200, "application/json", "")),
        ["HTML 200"] = Invalid(ModelStub.Raw(200, "text/html", $"<!doctype html><title>{Canary}</title>")),
        ["plain text"] = Invalid(ModelStub.Raw(200, "text/plain", Canary)),
        ["a stream of events"] = Invalid(ModelStub.Raw(200, "text/event-stream", $"data: {GoodLabels}\n\n")),
        ["the labels without their envelope"] = Invalid(ModelStub.Raw(200, "application/json", GoodLabels)),
        ["half a document"] = Invalid(ModelStub.Raw(200, "application/json", """{"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"{\"cat""")),
        ["null"] = Invalid(ModelStub.Raw(200, "application/json", "null")),
        ["an array"] = Invalid(ModelStub.Raw(200, "application/json", "[]")),
        ["an empty object"] = Invalid(ModelStub.Raw(200, "application/json", "{}")),
        ["an error with 200"] = Invalid(Error(200)),
        ["no choices"] = Invalid(Edited(answer => answer.Remove("choices"))),
        ["null choices"] = Invalid(Edited(answer => answer["choices"] = null)),
        ["empty choices"] = Invalid(Edited(answer => answer["choices"] = new JsonArray())),
        ["no message"] = Invalid(Edited(answer => Choice(answer).Remove("message"))),
        ["an unknown reason to finish"] = Invalid(Edited(answer => Choice(answer)["finish_reason"] = Canary)),
        ["cut at the limit, and complete to look at"] = Invalid(ModelStub.Content(GoodLabels, finishReason: "length")),
        ["cut within"] = Invalid(ModelStub.Content("""{"category":"Tecnico","sentim""", finishReason: "length")),
        ["content filter"] = Invalid(ModelStub.Content(GoodLabels, finishReason: "content_filter")),
        ["content filter without content"] = Invalid(ModelStub.Content(null, finishReason: "content_filter")),
        ["refusal"] = Invalid(ModelStub.Content(null, refusal: $"No puedo ayudar con eso. {Canary}")),
        ["refusal beside labels"] = Invalid(ModelStub.Content(GoodLabels, refusal: Canary)),

        // What is a chat completion, and no two labels, is asked for again once.
        ["null content"] = AskedTwice(ModelStub.Content(null)),
        ["no content"] = AskedTwice(Edited(answer => Choice(answer)["message"]!.AsObject().Remove("content"))),
        ["empty content"] = AskedTwice(ModelStub.Content("")),
        ["blank content"] = AskedTwice(ModelStub.Content(" \n\t ")),
        ["prose"] = AskedTwice(ModelStub.Content($"Es un ticket Tecnico y Negativo. {Canary}")),
        ["prose before"] = AskedTwice(ModelStub.Content($"Claro, aquí tienes: {GoodLabels}")),
        ["prose after"] = AskedTwice(ModelStub.Content($"{GoodLabels}\nEspero que sirva. {Canary}")),
        ["prose around a fence"] = AskedTwice(ModelStub.Content($"Claro:\n```json\n{GoodLabels}\n```\n{Canary}")),
        ["two fences"] = AskedTwice(ModelStub.Content($"``````json\n{GoodLabels}\n``````")),
        ["a fence in a fence"] = AskedTwice(ModelStub.Content($"```\n```json\n{GoodLabels}\n```\n```")),
        ["a fence that stays open"] = AskedTwice(ModelStub.Content($"```json\n{GoodLabels}")),
        ["only a fence"] = AskedTwice(ModelStub.Content("``````")),
        ["truncated JSON that claims to be complete"] = AskedTwice(ModelStub.Content("""{"category":"Tecnico","sentiment":"Negativo" """)),
        ["two objects"] = AskedTwice(ModelStub.Content(GoodLabels + GoodLabels)),
        ["trailing comma"] = AskedTwice(ModelStub.Content("""{"category":"Tecnico","sentiment":"Negativo",}""")),
        ["single quotes"] = AskedTwice(ModelStub.Content("{'category':'Tecnico','sentiment':'Negativo'}")),
        ["a comment"] = AskedTwice(ModelStub.Content($$"""{"category":"Tecnico","sentiment":"Negativo"/*{{Canary}}*/}""")),
        ["JSON null"] = AskedTwice(ModelStub.Content("null")),
        ["JSON string"] = AskedTwice(ModelStub.Content("\"Tecnico\"")),
        ["array instead of object"] = AskedTwice(ModelStub.Content($"[{GoodLabels}]")),
        ["array of labels"] = AskedTwice(ModelStub.Content("""["Tecnico","Negativo"]""")),
        ["empty object"] = AskedTwice(ModelStub.Content("{}")),
        ["missing sentiment"] = AskedTwice(ModelStub.Content("""{"category":"Tecnico"}""")),
        ["missing category"] = AskedTwice(ModelStub.Content("""{"sentiment":"Negativo"}""")),
        ["other names"] = AskedTwice(ModelStub.Content("""{"categoria":"Tecnico","sentimiento":"Negativo"}""")),
        ["names in capitals"] = AskedTwice(ModelStub.Content("""{"Category":"Tecnico","Sentiment":"Negativo"}""")),
        ["null labels"] = AskedTwice(ModelStub.Content("""{"category":null,"sentiment":null}""")),
        ["a list of labels"] = AskedTwice(ModelStub.Content("""{"category":["Tecnico"],"sentiment":"Negativo"}""")),
        ["numbers"] = AskedTwice(ModelStub.Content("""{"category":1,"sentiment":-1}""")),
        ["duplicate keys"] = AskedTwice(ModelStub.Content("""{"category":"Tecnico","sentiment":"Negativo","category":"Otro"}""")),
        ["duplicate keys by escapes"] = AskedTwice(ModelStub.Content("""{"category":"Tecnico","sentiment":"Negativo","\u0063ategory":"Otro"}""")),
        ["empty labels"] = AskedTwice(ModelStub.Content("""{"category":"","sentiment":""}""")),
        ["a label outside the list"] = AskedTwice(ModelStub.Content($$"""{"category":"{{Canary}}","sentiment":"Negativo"}""")),
        ["a sentiment outside the list"] = AskedTwice(ModelStub.Content("""{"category":"Tecnico","sentiment":"Furioso"}""")),
        ["labels in each other's place"] = AskedTwice(ModelStub.Content("""{"category":"Negativo","sentiment":"Tecnico"}""")),
        ["two labels in one"] = AskedTwice(ModelStub.Content("""{"category":"Tecnico, Facturacion","sentiment":"Negativo"}""")),
        ["a label with SQL"] = AskedTwice(ModelStub.Content("""{"category":"Tecnico'; drop table tickets; --","sentiment":"Negativo"}""")),
        ["a label with NUL"] = AskedTwice(ModelStub.Content("""{"category":"Tecnico\u0000","sentiment":"Negativo"}""")),
        ["half a surrogate pair"] = AskedTwice(ModelStub.Content("""{"category":"\ud800","sentiment":"Negativo"}""")),
        ["half a surrogate pair in a name"] = AskedTwice(ModelStub.Content("""{"category":"Tecnico","sentiment":"Negativo","\udc00":1}""")),
        ["a noncharacter"] = AskedTwice(ModelStub.Content("""{"category":"Tecnico\ufffe","sentiment":"Negativo"}""")),
        ["nesting"] = AskedTwice(ModelStub.Content(new string('[', 5000) + new string(']', 5000))),
        ["10 MB of content"] = Invalid(ModelStub.Content(string.Concat(Enumerable.Repeat(Canary, 1_000_000)))),
        ["10 MB of blanks"] = Invalid(ModelStub.Content(new string(' ', 10_000_000))),
        ["half a megabyte of content"] = AskedTwice(ModelStub.Content(string.Concat(Enumerable.Repeat(Canary, 50_000)))),
    };

    public static TheoryData<string> FaultNames => new(Faults.Keys);

    [Theory]
    [MemberData(nameof(FaultNames))]
    public async Task A_fault_of_the_model_leaves_the_ticket_unprocessed_and_a_sweep_labels_it_when_it_is_over(string name)
    {
        var fault = Faults[name];
        var text = $"Un ticket y un modelo con un fallo: {name}.";
        var id = await app.AddTicketAsync(text);
        app.Model.On(text, fault.Script);
        var logged = app.Log.Count;

        var response = await app.ProcessAsync(id, text);

        var problem = await response.AssertProblemAsync(fault.Status, fault.Type);
        Assert.DoesNotContain(Canary, problem.ToJsonString(), StringComparison.Ordinal);
        Assert.Equal(fault.Status == 503 ? TimeSpan.FromSeconds(30) : null, response.Headers.RetryAfter?.Delta);
        Assert.Equal(fault.Calls, app.Model.CallsFor(text).Count);
        Assert.Equal(new TicketRow(id, text, null, null, false), await app.ReadTicketAsync(id));
        Assert.Empty(await app.ReadDecisionsAsync(id));

        // A model that answered nobody meanwhile burned no attempt.
        var attempts = fault.Status == 503 ? 0 : 1;
        await AssertWaitsAsync(id, 30, attempts);
        Assert.Equal(0, (await app.SweepAsync()).Claimed);

        app.Model.On(text, ModelStub.Labels("Comercial", "Positivo"));
        await app.ExecuteAsync("update ticket_work set due_at = now() where ticket_id = @id", new { id });
        var summary = await app.SweepAsync();

        Assert.Equal((1, 1), (summary.Claimed, summary.Labelled));
        Assert.Equal(new TicketRow(id, text, "Comercial", "Positivo", true), await app.ReadTicketAsync(id));
        Assert.Equal(attempts + 1, (int?)Assert.Single(await app.ReadDecisionsAsync(id))!["attempts"]);
        await AssertOnlyLabelsAsync();
        Assert.All(app.Log.Skip(logged), entry =>
        {
            Assert.DoesNotContain(Canary, entry.Message, StringComparison.Ordinal);
            Assert.True(entry.Level < LogLevel.Error, entry.Message);
        });
    }

    [Theory]
    [InlineData("""{"category":"Tecnico","sentiment":"Negativo"}""")]
    [InlineData("""{"category":"TECNICO","sentiment":"negativo"}""")]
    [InlineData("""{"category":"Técnico","sentiment":"Negativo"}""")]
    [InlineData("""{"category":"te\u0301cnico","sentiment":"NEGATIVA"}""")]
    [InlineData("""{"category":" Tecnico\n","sentiment":"\tNegativo "}""")]
    [InlineData("""{"category":"Technical support","sentiment":"Negative"}""")]
    [InlineData("""{"category":"Suporte técnico","sentiment":"negativo"}""")]
    [InlineData("""{"sentiment":"Negativo","category":"Tecnico"}""")]
    [InlineData("""{"category":"Tecnico","sentiment":"Negativo","confidence":0.99,"reasoning":{"category":"Otro"},"processed":true}""")]
    [InlineData("""{"\u0063ategory":"Tecnic\u006f","sentiment":"Negativo"}""")]
    [InlineData("\n\n  {\"category\":\"Tecnico\",\r\n\"sentiment\":\"Negativo\"}\n")]
    [InlineData("```json\n{\"category\":\"Tecnico\",\"sentiment\":\"Negativo\"}\n```")]
    [InlineData("```\n{\"category\":\"Tecnico\",\"sentiment\":\"Negativo\"}```\n")]
    public async Task Two_labels_are_taken_in_any_case_accent_language_and_at_most_one_fence(string content)
    {
        var text = $"Se responde así: {content}.";
        var id = await app.AddTicketAsync(text);
        app.Model.On(text, ModelStub.Content(content));

        var response = await app.ProcessAsync(id);

        Assert.Equal(HttpStatusCode.OK, response.StatusCode);
        Assert.Equal(new TicketRow(id, text, "Tecnico", "Negativo", true), await app.ReadTicketAsync(id));
        Assert.Single(app.Model.CallsFor(text));
        await AssertOnlyLabelsAsync();
    }

    [Fact]
    public async Task Labels_count_when_the_server_is_careless_about_the_rest()
    {
        var careless = new Dictionary<string, Script>
        {
            ["media type"] = (call, context) => ModelStub.Raw(200, "text/plain", Completion().ToJsonString())(call, context),
            ["no usage"] = Edited(answer => answer.Remove("usage")),
            ["tokens below zero"] = Edited(answer => answer["usage"] = new JsonObject { ["prompt_tokens"] = -5, ["completion_tokens"] = -7, ["total_tokens"] = -12 }),
            ["a model's name that no column takes"] = Edited(answer => answer["model"] = "stub\0" + new string('x', 100_000)),
            ["unknown members"] = Edited(answer => answer["x_groq"] = new JsonObject { ["id"] = 1 }),
            ["second choice"] = Edited(answer => answer["choices"]!.AsArray().Add(new JsonObject
            {
                ["index"] = 1,
                ["finish_reason"] = "stop",
                ["message"] = new JsonObject { ["role"] = "assistant", ["content"] = """{"category":"Otro","sentiment":"Neutral"}""" },
            })),
        };
        foreach (var (name, script) in careless)
        {
            var text = $"Un servidor descuidado: {name}.";
            var id = await app.AddTicketAsync(text);
            app.Model.On(text, script);

            Assert.Equal((name, HttpStatusCode.OK), (name, (await app.ProcessAsync(id)).StatusCode));

            Assert.Equal(new TicketRow(id, text, "Tecnico", "Negativo", true), await app.ReadTicketAsync(id));
            var decision = Assert.Single(await app.ReadDecisionsAsync(id))!;
            Assert.Equal(name is "no usage" or "tokens below zero" ? null : 321, (int?)decision["tokens_in"]);
            Assert.InRange(decision.ToJsonString().Length, 0, 2000);
        }
    }

    [Fact]
    public async Task A_wrong_answer_is_corrected_by_asking_once_more_and_both_calls_are_accounted_for()
    {
        const string Text = "La segunda respuesta ya vale.";
        var id = await app.AddTicketAsync(Text);
        app.Model.On(Text, ModelStub.Sequence(
            ModelStub.Content("""{"category":"Averia","sentiment":"Negativo"}"""), ModelStub.Labels("Tecnico", "Negativo")));

        var response = await app.ProcessAsync(id);

        Assert.Equal(HttpStatusCode.OK, response.StatusCode);
        Assert.Equal(2, app.Model.CallsFor(Text).Count);
        var decision = Assert.Single(await app.ReadDecisionsAsync(id))!;
        Assert.Equal(
            (2, 642, 34, 1),
            ((int?)decision["model_calls"], (int?)decision["tokens_in"], (int?)decision["tokens_out"], (int?)decision["attempts"]));
    }

    [Fact]
    public async Task A_fault_after_a_wrong_answer_is_the_fault_that_counts()
    {
        const string Text = "Primero mal, luego nada.";
        var id = await app.AddTicketAsync(Text);
        app.Model.On(Text, ModelStub.Sequence(ModelStub.Content("hola"), Error(503)));

        await (await app.ProcessAsync(id)).AssertProblemAsync(503, "upstream-unavailable");

        Assert.Equal(2, app.Model.CallsFor(Text).Count);
        await AssertWaitsAsync(id, 30);
    }

    [Fact]
    public async Task A_huge_answer_is_not_sent_back_when_asking_again()
    {
        const string Text = "Un modelo que habla demasiado.";
        var id = await app.AddTicketAsync(Text);
        app.Model.On(Text, ModelStub.Content(new string('x', 500_000)));

        await (await app.ProcessAsync(id)).AssertProblemAsync(502, "upstream-invalid");

        Assert.InRange(app.Model.CallsFor(Text)[1].Body.ToJsonString().Length, 0, 40_000);
    }

    [Fact]
    public async Task A_forced_decision_that_fails_leaves_the_labels_and_the_decision_as_they_were()
    {
        const string Text = "Ya tenía sus etiquetas.";
        var id = await app.AddTicketAsync(Text);
        await app.ProcessAsync(id);
        var before = await ReadAsync();
        app.Model.On(Text, Error(500));

        var problem = await (await app.ProcessAsync(id, query: "?force=true")).AssertProblemAsync(503, "upstream-unavailable");
        Assert.Equal("The ticket keeps the labels it had.", (string?)problem["detail"]);
        app.Model.On(Text, ModelStub.Content("hola"));
        await (await app.ProcessAsync(id, query: "?force=true")).AssertProblemAsync(502, "upstream-invalid");

        Assert.Equal(before, await ReadAsync());
        Assert.Equal("stored", (string?)(await (await app.ProcessAsync(id)).ReadJsonAsync())["source"]);

        // But what it took is on record.
        Assert.Equal(
            ["upstream_unavailable 1", "upstream_invalid 2"],
            await app.QueryAsync<string>("select kind || ' ' || jsonb_array_length(calls) from ticket_failures where ticket_id = @id order by id", new { id }));

        Task<string> ReadAsync() => app.QuerySingleAsync<string>(
            """
            select concat_ws(
              ' ',
              (select json_agg(tickets) from tickets where id = @id),
              (select json_agg(ticket_work) from ticket_work where ticket_id = @id),
              (select json_agg(ticket_decisions) from ticket_decisions where ticket_id = @id)
            )
            """,
            new { id });
    }

    [Fact]
    public async Task After_the_last_attempt_a_ticket_is_answered_by_its_error_without_a_call_until_it_is_forced()
    {
        await using var strict = await TicketApp.StartAsync(("Triage__MaxAttempts", "2"));
        foreach (var (script, status, type, calls) in new[] { Unavailable(Error(500)), Unavailable(Error(401)), new Fault(Error(504), 504, "upstream-timeout"), AskedTwice(ModelStub.Content(Canary)) })
        {
            var text = $"No hay manera: {status} {Guid.NewGuid()}.";
            var id = await strict.AddTicketAsync(text);
            strict.Model.On(text, script);

            for (var request = 1; request <= 4; request++)
            {
                var response = await strict.ProcessAsync(id);

                // The model answers others meanwhile: it is this ticket that fails.
                await strict.ProcessAsync(await strict.AddTicketAsync($"Vecino {Guid.NewGuid()}"));
                await response.AssertProblemAsync(status, type);
                Assert.Equal(status == 503, response.Headers.RetryAfter is not null);

                // Of a fault that may be an outage the first attempt does not count: nobody had been answered before it.
                Assert.Equal(calls * Math.Min(request, status == 503 ? 3 : 2), strict.Model.CallsFor(text).Count);
            }

            await strict.LetTimePassAsync();
            Assert.Equal(0, (await strict.SweepAsync()).Claimed);
            Assert.Equal(1, await strict.QuerySingleAsync<int>("select count(*) from ticket_work where ticket_id = @id and parked_at is not null and lease_token is null", new { id }));
            Assert.Equal(new TicketRow(id, text, null, null, false), await strict.ReadTicketAsync(id));

            strict.Model.On(text, ModelStub.Labels("Otro", "Neutral"));
            Assert.Equal(HttpStatusCode.OK, (await strict.ProcessAsync(id, query: "?force=true")).StatusCode);
            Assert.Equal(new TicketRow(id, text, "Otro", "Neutral", true), await strict.ReadTicketAsync(id));
        }
    }

    [Fact]
    public async Task A_ticket_for_which_no_place_becomes_free_in_time_loses_no_attempt()
    {
        await using var narrow = await TicketApp.StartAsync(
            ("Model__MaxConcurrency", "1"), ("Model__AttemptTimeout", "00:00:03"), ("Model__TotalTimeout", "00:00:03"), ("Triage__MaxAttempts", "1"));
        var hold = narrow.Model.Hold("Va delante.");
        var ahead = narrow.ProcessAsync(await narrow.AddTicketAsync("Va delante."));
        await hold.Arrived;
        var id = await narrow.AddTicketAsync("Va detrás.");

        var behind = await narrow.ProcessAsync(id);

        await behind.AssertProblemAsync(503, "upstream-unavailable");
        Assert.Equal(TimeSpan.FromSeconds(5), behind.Headers.RetryAfter!.Delta);
        Assert.Empty(narrow.Model.CallsFor("Va detrás."));
        Assert.Equal(
            (0, true, true),
            await narrow.QuerySingleAsync<(int, bool, bool)>(
                "select attempts, parked_at is null and lease_token is null, last_error like 'UpstreamBusy: busy: %' from ticket_work where ticket_id = @id", new { id }));
        await (await ahead).AssertProblemAsync(504, "upstream-timeout");
    }

    [Fact]
    public async Task A_model_that_does_not_answer_in_time_is_504_whenever_it_falls_silent()
    {
        await using var hasty = await TicketApp.StartAsync(("Model__AttemptTimeout", "00:00:01"), ("Model__TotalTimeout", "00:00:01.5"));
        var silences = new Dictionary<string, Script>
        {
            ["at once"] = ModelStub.Hang,
            ["after its headers"] = async (call, context) =>
            {
                await context.Response.StartAsync();
                await ModelStub.Hang(call, context);
            },
            ["within its answer"] = async (call, context) =>
            {
                await context.Response.WriteAsync("""{"choices":[{"index":0,""");
                await ModelStub.Hang(call, context);
            },
            ["after a wrong answer"] = ModelStub.Sequence(ModelStub.Content("hola"), ModelStub.Hang),
        };

        await Task.WhenAll(silences.Select(async silence =>
        {
            var text = $"Calla {silence.Key}.";
            hasty.Model.On(text, silence.Value);
            var id = await hasty.AddTicketAsync(text);

            await (await hasty.ProcessAsync(id)).AssertProblemAsync(504, "upstream-timeout");

            Assert.Equal(new TicketRow(id, text, null, null, false), await hasty.ReadTicketAsync(id));
            Assert.StartsWith("UpstreamTimeout: ", await hasty.QuerySingleAsync<string>("select last_error from ticket_work where ticket_id = @id", new { id }), StringComparison.Ordinal);
            hasty.Model.On(text, ModelStub.Labels("Tecnico", "Negativo"));
        }));
        await hasty.LetTimePassAsync();

        Assert.Equal(silences.Count, (await hasty.SweepAsync()).Labelled);
    }

    /// <summary>Not held, not parked, so many attempts made, due in so many seconds, with an error in our own words.</summary>
    private async Task AssertWaitsAsync(Guid id, double seconds, int attempts = 1)
    {
        var work = JsonNode.Parse(await app.QuerySingleAsync<string>(
            "select to_jsonb(ticket_work) || jsonb_build_object('due_in', extract(epoch from due_at - now())) from ticket_work where ticket_id = @id", new { id }))!;
        Assert.Equal((attempts, null, null), ((int?)work["attempts"], (string?)work["lease_token"], (string?)work["parked_at"]));
        Assert.InRange((double)work["due_in"]!, seconds - 10, seconds);
        Assert.Matches("^Upstream(Invalid|Unavailable|Timeout): [a-z]+: ", (string?)work["last_error"]);
        Assert.DoesNotContain(Canary, (string?)work["last_error"], StringComparison.Ordinal);
    }

    private async Task AssertOnlyLabelsAsync() => Assert.Equal(0, await app.QuerySingleAsync<int>(
        """
        select count(*)
        from tickets
        where category not in ('Tecnico', 'Facturacion', 'Comercial', 'Otro')
          or sentiment not in ('Positivo', 'Neutral', 'Negativo')
          or processed <> (category is not null and sentiment is not null)
          or (category is null) <> (sentiment is null)
        """));

    private static Fault Unavailable(Script script) => new(script, 503, "upstream-unavailable");

    private static Fault Invalid(Script script) => new(script, 502, "upstream-invalid");

    private static Fault AskedTwice(Script script) => new(script, 502, "upstream-invalid", Calls: 2);

    private static Script Error(int status, string code = "some_error") => ModelStub.Json(status, new JsonObject
    {
        ["error"] = new JsonObject { ["message"] = $"Incorrect API key provided: {Canary}", ["type"] = code, ["code"] = code },
    });

    private static Script Status(int status) => (_, context) =>
    {
        context.Response.StatusCode = status;
        return Task.CompletedTask;
    };

    private static JsonObject Completion() => new()
    {
        ["id"] = "chatcmpl-1",
        ["object"] = "chat.completion",
        ["created"] = 1760000000,
        ["model"] = "stub-model-2026",
        ["choices"] = new JsonArray(new JsonObject
        {
            ["index"] = 0,
            ["finish_reason"] = "stop",
            ["message"] = new JsonObject { ["role"] = "assistant", ["content"] = GoodLabels },
        }),
        ["usage"] = new JsonObject { ["prompt_tokens"] = 321, ["completion_tokens"] = 17, ["total_tokens"] = 338 },
    };

    private static JsonObject Choice(JsonObject answer) => answer["choices"]![0]!.AsObject();

    private static Script Edited(Action<JsonObject> edit)
    {
        var answer = Completion();
        edit(answer);
        return ModelStub.Json(200, answer);
    }

    private static async Task WriteHalfAsync(HttpContext context, int? length)
    {
        var answer = Completion().ToJsonString();
        context.Response.ContentType = "application/json";
        context.Response.ContentLength = length;
        await context.Response.WriteAsync(answer[..(answer.Length / 2)]);
        await context.Response.Body.FlushAsync();
        context.Abort();
    }
}
