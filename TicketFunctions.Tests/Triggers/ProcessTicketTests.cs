using System.Net;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json.Nodes;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using TicketFunctions.Classification;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Triggers;

public sealed class ProcessTicketTests(TicketApp app) : IClassFixture<TicketApp>
{
    [Fact]
    public async Task A_ticket_gets_the_models_labels_and_the_row_carries_them()
    {
        const string Text = "No puedo iniciar sesión desde ayer, me da error 500.";
        var id = await app.AddTicketAsync(Text);

        var response = await app.ProcessAsync(id, Text);

        Assert.Equal(HttpStatusCode.OK, response.StatusCode);
        Assert.Equal("application/json", response.Content.Headers.ContentType?.MediaType);
        Assert.Equal("utf-8", response.Content.Headers.ContentType?.CharSet);
        var answer = await response.ReadJsonAsync();
        Assert.Equal(
            $$"""{"id":"{{id}}","category":"Tecnico","sentiment":"Negativo","processed":true,"source":"model","model":"stub-model","confidence":null}""",
            answer.ToJsonString());
        Assert.Equal(new TicketRow(id, Text, "Tecnico", "Negativo", true), await app.ReadTicketAsync(id));
        Assert.Single(app.Model.CallsFor(Text));
        Assert.Equal(0, await app.QuerySingleAsync<int>("select count(*) from ticket_work where ticket_id = @id", new { id }));
        Assert.DoesNotContain(app.Log, entry => entry.Level >= LogLevel.Warning);
    }

    [Fact]
    public async Task The_id_alone_is_enough_and_may_be_written_in_capitals()
    {
        const string Text = "La app se cierra sola al abrir el mapa.";
        var id = await app.AddTicketAsync(Text);

        var response = await app.PostAsync($$"""{"id":"{{id.ToString().ToUpperInvariant()}}"}""");

        Assert.Equal(HttpStatusCode.OK, response.StatusCode);
        Assert.Equal(id.ToString(), (string?)(await response.ReadJsonAsync())["id"]);
        Assert.Equal(new TicketRow(id, Text, "Tecnico", "Negativo", true), await app.ReadTicketAsync(id));
    }

    [Theory]
    [InlineData("INSERT", "null")]
    [InlineData("UPDATE", """{"id":"@id","description":"El texto de antes.","processed":false}""")]
    public async Task A_database_webhook_is_classified_like_a_direct_call(string type, string oldRecord)
    {
        var text = $"El router pierde la conexión cada hora ({type}).";
        var id = await app.AddTicketAsync(text);

        var response = await app.PostAsync($$"""
            {
              "type": "{{type}}", "schema": "public", "table": "tickets", "id": "evt_1", "delivery": {"at": [1, null, "\u00e9"]},
              "record": {
                "id": "{{id}}", "created_at": "2026-01-02T03:04:05.678+00:00", "description": "{{text}}", "category": null,
                "sentiment": null, "processed": false, "channel": "web", "tags": ["a", {"b": 1.5e3}], "owner": null
              },
              "old_record": {{oldRecord.Replace("@id", id.ToString(), StringComparison.Ordinal)}}
            }
            """);

        Assert.Equal(HttpStatusCode.OK, response.StatusCode);
        JsonAssert.Equal(
            $$"""{"id":"{{id}}","category":"Tecnico","sentiment":"Negativo","processed":true,"source":"model","model":"stub-model","confidence":null}""",
            await response.ReadJsonAsync());
        Assert.Equal(new TicketRow(id, text, "Tecnico", "Negativo", true), await app.ReadTicketAsync(id));
    }

    [Fact]
    public async Task A_webhook_that_comes_late_brings_an_old_text_and_the_row_decides()
    {
        const string Text = "Ahora sí: la impresora imprime en blanco.";
        var id = await app.AddTicketAsync(Text);

        var response = await app.PostAsync(Webhook("INSERT", $$"""{"id":"{{id}}","description":"La impresora"}"""));

        Assert.Equal("model", (string?)(await response.ReadJsonAsync())["source"]);
        Assert.Single(app.Model.CallsFor(Text));
        Assert.Empty(app.Model.CallsFor("La impresora"));
    }

    [Fact]
    public async Task A_processed_ticket_is_answered_from_its_row_without_a_call()
    {
        const string Text = "Quiero cambiar a un plan con más datos.";
        app.Model.On(Text, ModelStub.Labels("Comercial", "Neutral"));
        var id = await app.AddTicketAsync(Text);
        await app.ProcessAsync(id);
        var before = await app.ReadEverythingAsync();

        for (var i = 0; i < 10; i++)
        {
            var response = await app.ProcessAsync(id, Text);

            Assert.Equal(HttpStatusCode.OK, response.StatusCode);
            JsonAssert.Equal(
                $$"""{"id":"{{id}}","category":"Comercial","sentiment":"Neutral","processed":true,"source":"stored","model":"stub-model","confidence":null}""",
                await response.ReadJsonAsync());
        }

        Assert.Single(app.Model.CallsFor(Text));
        Assert.Equal(before, await app.ReadEverythingAsync());
    }

    [Fact]
    public async Task Labels_that_a_person_gave_are_stored_labels()
    {
        var id = await app.AddTicketAsync("Etiquetado a mano.");
        await app.ExecuteAsync("update tickets set category = 'Otro', sentiment = 'Positivo', processed = true where id = @id", new { id });

        JsonAssert.Equal(
            $$"""{"id":"{{id}}","category":"Otro","sentiment":"Positivo","processed":true,"source":"stored","model":null,"confidence":null}""",
            await (await app.ProcessAsync(id)).ReadJsonAsync());
        Assert.Empty(app.Model.CallsFor("Etiquetado a mano."));
    }

    [Fact]
    public async Task The_decision_holds_what_was_decided_by_what_on_which_text_and_at_what_cost()
    {
        // NFD and blanks in the row: the hash is of the text in NFC, trimmed.
        var id = await app.AddTicketAsync(" \tMe cobraron dos veces la cuota de marzo, qué decepcio\u0301n. \r\n");
        const string Normalized = "Me cobraron dos veces la cuota de marzo, qué decepción.";
        app.Model.On(Normalized, ModelStub.Labels("Facturacion", "Negativo"));
        await app.ProcessAsync(id);

        var decision = Assert.Single(await app.ReadDecisionsAsync(id))!.AsObject();

        Assert.InRange((int)decision["latency_ms"]!, 0, 60_000);
        Assert.True(await app.QuerySingleAsync<bool>(
            "select decided_at between now() - interval '1 minute' and now() from ticket_decisions where ticket_id = @id", new { id }));
        Assert.Matches("^[0-9a-f]{12}$", (string?)decision["prompt_version"]);
        Assert.Matches("^[0-9a-f]{12}$", (string?)decision["taxonomy_version"]);
        var identity = app.Services.GetRequiredService<ITicketClassifier>().Identities[0];
        decision.Remove("id");
        decision.Remove("decided_at");
        decision.Remove("latency_ms");
        Assert.True(Assert.Single(decision["calls"]!.AsArray())!.AsObject().Remove("latency_ms"));
        JsonAssert.Equal(
            $$"""
            {
              "ticket_id": "{{id}}",
              "category": "Facturacion",
              "sentiment": "Negativo",
              "confidence": null,
              "needs_review": false,
              "source": "model",
              "provider": "compatible",
              "model": "stub-model",
              "prompt_version": "{{identity.PromptVersion}}",
              "taxonomy_version": "{{identity.TaxonomyVersion}}",
              "parameters": {"temperature": 0, "max_output_tokens": 64, "output": "strict_schema", "confidence": "none", "masked": false},
              "text_sha256": "\{{Sha256(Normalized)}}",
              "tokens_in": 321,
              "tokens_out": 17,
              "model_calls": 1,
              "attempts": 1,
              "served_model": "stub-model-2026",
              "cost": null,
              "saved_tokens": null,
              "saved_cost": null,
              "calls": [
                {
                  "provider": "compatible", "model": "stub-model", "served_model": "stub-model-2026", "outcome": "labelled", "status": null,
                  "tokens_in": 321, "tokens_out": 17, "cost": null
                }
              ]
            }
            """,
            decision);
    }

    [Fact]
    public async Task The_same_text_under_another_id_is_not_paid_for_twice()
    {
        const string Text = "¿Cuándo llega mi pedido de café?";
        app.Model.On(Text, ModelStub.Labels("Otro", "Neutral"));
        var first = await app.AddTicketAsync(Text);
        var second = await app.AddTicketAsync("\n" + Text.Normalize(NormalizationForm.FormD) + "  ");
        var different = await app.AddTicketAsync(Text.ToUpperInvariant());

        Assert.Equal("model", await ReadSourceAsync(await app.ProcessAsync(first)));
        var response = await app.ProcessAsync(second, Text);
        Assert.Equal("model", await ReadSourceAsync(await app.ProcessAsync(different)));

        JsonAssert.Equal(
            $$"""{"id":"{{second}}","category":"Otro","sentiment":"Neutral","processed":true,"source":"reused","model":"stub-model","confidence":null}""",
            await response.ReadJsonAsync());
        Assert.Single(app.Model.CallsFor(Text));
        var row = await app.ReadTicketAsync(second);
        Assert.Equal(("Otro", "Neutral", true), (row.Category, row.Sentiment, row.Processed));
        var decision = Assert.Single(await app.ReadDecisionsAsync(second))!;
        Assert.Equal("reused", (string?)decision["source"]);
        Assert.Equal("stub-model", (string?)decision["model"]);
        Assert.Equal(Sha256(Text), (string?)decision["text_sha256"]);
        Assert.Equal(0, (int?)decision["model_calls"]);
        Assert.Null((int?)decision["tokens_in"]);
        Assert.Null((int?)decision["tokens_out"]);
    }

    [Theory]
    [InlineData("ticket_id", "gen_random_uuid()", "reused")]
    [InlineData("provider", "'another'", "model")]
    [InlineData("model", "'another-model'", "model")]
    [InlineData("prompt_version", "'0123456789ab'", "model")]
    [InlineData("taxonomy_version", "'0123456789ab'", "model")]
    [InlineData("text_sha256", "sha256('another text')", "model")]
    [InlineData("source", "'baseline'", "model")]
    public async Task A_decision_is_reused_only_when_text_prompt_model_and_taxonomy_are_the_same(string column, string value, string source)
    {
        var text = $"Olvidé la clave ({column}).";
        var earlier = await app.AddTicketAsync(text);
        await app.ProcessAsync(earlier);
        await app.ExecuteAsync($"""
            alter table ticket_decisions disable trigger all;
            update ticket_decisions set {column} = {value} where ticket_id = '{earlier}';
            alter table ticket_decisions enable trigger all;
            """);
        var id = await app.AddTicketAsync(text);

        var response = await app.ProcessAsync(id);

        Assert.Equal(source, await ReadSourceAsync(response));
        Assert.Equal(source == "reused" ? 1 : 2, app.Model.CallsFor(text).Count);
    }

    [Fact]
    public async Task Force_decides_again_and_the_old_decision_stays()
    {
        const string Text = "Gracias, aunque la factura venía mal.";
        app.Model.On(Text, ModelStub.Sequence(ModelStub.Labels("Otro", "Positivo"), ModelStub.Labels("Facturacion", "Negativo")));
        var id = await app.AddTicketAsync(Text);
        await app.ProcessAsync(id);
        Assert.Equal("stored", await ReadSourceAsync(await app.ProcessAsync(id, query: "?force=false")));
        var old = (await app.ReadDecisionsAsync(id)).Single()!.ToJsonString();

        var response = await app.ProcessAsync(id, Text, "?force=true");

        JsonAssert.Equal(
            $$"""{"id":"{{id}}","category":"Facturacion","sentiment":"Negativo","processed":true,"source":"model","model":"stub-model","confidence":null}""",
            await response.ReadJsonAsync());
        Assert.Equal(new TicketRow(id, Text, "Facturacion", "Negativo", true), await app.ReadTicketAsync(id));
        Assert.Equal(2, app.Model.CallsFor(Text).Count);
        var decisions = await app.ReadDecisionsAsync(id);
        Assert.Equal(2, decisions.Count);
        Assert.Equal(old, decisions[0]!.ToJsonString());
        Assert.Equal(
            ("Facturacion", "Negativo", "model", 1),
            ((string?)decisions[1]!["category"], (string?)decisions[1]!["sentiment"], (string?)decisions[1]!["source"], (int?)decisions[1]!["attempts"]));
        Assert.Equal(0, await app.QuerySingleAsync<int>("select count(*) from ticket_work where ticket_id = @id", new { id }));
        Assert.Equal("stored", await ReadSourceAsync(await app.ProcessAsync(id)));
    }

    [Fact]
    public async Task Force_on_a_new_ticket_is_its_first_decision()
    {
        const string Text = "El lector de tarjetas no lee.";
        var id = await app.AddTicketAsync(Text);

        Assert.Equal("model", await ReadSourceAsync(await app.ProcessAsync(id, query: "?force=TRUE")));

        Assert.Single(app.Model.CallsFor(Text));
        Assert.Single(await app.ReadDecisionsAsync(id));
    }

    [Theory]
    [InlineData("""{"type":"DELETE","schema":"public","table":"tickets","record":null,"old_record":{"id":"@id"}}""")]
    [InlineData("""{"type":"DELETE","schema":"public","table":"tickets","record":{"id":"@id"},"old_record":null}""")]
    [InlineData("""{"type":"INSERT","schema":"public","table":"tickets","record":null,"old_record":null}""")]
    [InlineData("""{"type":"INSERT","schema":"public","table":"orders","record":{"id":"@id"},"old_record":null}""")]
    [InlineData("""{"type":"INSERT","schema":"public","table":"orders","record":{"id":7,"description":[],"processed":"no"},"old_record":null}""")]
    [InlineData("""{"type":"INSERT","schema":"archive","table":"tickets","record":{"id":"@id"},"old_record":null}""")]
    [InlineData("""{"type":"UPDATE","schema":"public","table":"tickets","record":{"id":"@id","processed":true},"old_record":{"id":"@id","processed":false}}""")]
    public async Task A_webhook_that_asks_for_nothing_is_answered_200_and_nothing_is_done(string body)
    {
        var id = await app.AddTicketAsync($"Nadie pregunta por este ticket: {body}");
        var before = await app.ReadEverythingAsync();
        var calls = app.Model.Calls.Count;

        var response = await app.PostAsync(body.Replace("@id", id.ToString(), StringComparison.Ordinal));

        Assert.Equal(HttpStatusCode.OK, response.StatusCode);
        var answer = await response.ReadJsonAsync();
        Assert.Equal(["ignored"], answer.AsObject().Select(member => member.Key));
        Assert.NotEmpty((string?)answer["ignored"] ?? "");
        Assert.Equal(calls, app.Model.Calls.Count);
        Assert.Equal(before, await app.ReadEverythingAsync());
    }

    [Fact]
    public async Task The_echo_of_our_own_update_starts_no_loop()
    {
        const string Text = "El enlace del boletín está roto.";
        var id = await app.AddTicketAsync(Text);
        await app.ProcessAsync(id);
        var before = await app.ReadEverythingAsync();
        var row = await app.QuerySingleAsync<string>("select to_jsonb(tickets) from tickets where id = @id", new { id });

        var echo = await app.PostAsync(Webhook("UPDATE", row));
        var late = await app.PostAsync(Webhook("INSERT", $$"""{"id":"{{id}}","description":"{{Text}}","processed":false}"""));

        JsonAssert.Equal("""{"ignored":"already processed"}""", await echo.ReadJsonAsync());
        Assert.Equal(HttpStatusCode.OK, late.StatusCode);
        Assert.Single(app.Model.CallsFor(Text));
        Assert.Equal(before, await app.ReadEverythingAsync());
    }

    [Theory]
    [InlineData("Está roto el botón número uno.", "Está roto el botón número uno.")]
    [InlineData("Está roto el botón número dos.", "  Está roto el botón número dos.\r\n\t\u00a0")]
    [InlineData("\n Está roto el botón número tres. ", "Está roto el botón número tres.")]
    [InlineData("Está roto el botón número cuatro.", "Esta\u0301 roto el boto\u0301n nu\u0301mero cuatro.")]
    [InlineData("Esta\u0301 roto el boto\u0301n nu\u0301mero cinco.", "Está roto el botón número cinco.")]
    public async Task A_description_equal_after_normalisation_and_trimming_is_the_tickets(string stored, string sent)
    {
        var id = await app.AddTicketAsync(stored);

        var response = await app.ProcessAsync(id, sent);

        Assert.Equal("model", await ReadSourceAsync(response));
        Assert.Equal(new TicketRow(id, stored, "Tecnico", "Negativo", true), await app.ReadTicketAsync(id));
        Assert.Equal("stored", await ReadSourceAsync(await app.ProcessAsync(id, sent)));
    }

    [Theory]
    [InlineData("No me llega el código uno", "no me llega el código uno")]
    [InlineData("No me llega el código dos", "No me llega el codigo dos")]
    [InlineData("No me llega el código tres", "No me llega  el código tres")]
    [InlineData("No me llega el código cuatro", "No me llega el código cuatro.")]
    [InlineData("No me llega el código ① cinco", "No me llega el código 1 cinco")]
    public async Task Another_description_is_refused_and_costs_the_ticket_nothing(string stored, string sent)
    {
        var id = await app.AddTicketAsync(stored);

        await (await app.ProcessAsync(id, sent)).AssertProblemAsync(409, "description-mismatch");
        await (await app.ProcessAsync(id, sent, "?force=true")).AssertProblemAsync(409, "description-mismatch");

        Assert.Equal(new TicketRow(id, stored, null, null, false), await app.ReadTicketAsync(id));
        Assert.Empty(app.Model.CallsFor(stored));
        Assert.Empty(app.Model.CallsFor(sent));
        Assert.Equal("model", await ReadSourceAsync(await app.ProcessAsync(id, stored)));
        Assert.Equal(1, (int?)Assert.Single(await app.ReadDecisionsAsync(id))!["attempts"]);

        var processed = await app.ReadEverythingAsync();
        await (await app.ProcessAsync(id, sent)).AssertProblemAsync(409, "description-mismatch");
        await (await app.ProcessAsync(id, sent, "?force=true")).AssertProblemAsync(409, "description-mismatch");
        Assert.Equal(processed, await app.ReadEverythingAsync());
    }

    [Fact]
    public async Task An_unknown_id_is_404_whatever_else_is_asked_and_no_model_is()
    {
        var calls = app.Model.Calls.Count;
        var before = await app.ReadEverythingAsync();
        var id = Guid.NewGuid();

        await (await app.ProcessAsync(id)).AssertProblemAsync(404, "ticket-not-found");
        await (await app.ProcessAsync(id, "¿Hay alguien?")).AssertProblemAsync(404, "ticket-not-found");
        await (await app.ProcessAsync(id, query: "?force=true")).AssertProblemAsync(404, "ticket-not-found");
        await (await app.PostAsync(Webhook("INSERT", $$"""{"id":"{{id}}"}"""))).AssertProblemAsync(404, "ticket-not-found");

        Assert.Equal(calls, app.Model.Calls.Count);
        Assert.Equal(before, await app.ReadEverythingAsync());
    }

    [Fact]
    public async Task A_ticket_in_other_hands_is_409_with_a_time_to_come_back()
    {
        const string Text = "La báscula de la tienda marca de más.";
        var id = await app.AddTicketAsync(Text);
        var hold = app.Model.Hold(Text);
        var first = app.ProcessAsync(id);
        await hold.Arrived;

        HttpResponseMessage[] others =
        [
            await app.ProcessAsync(id),
            await app.ProcessAsync(id, Text),
            await app.ProcessAsync(id, query: "?force=true"),
            await app.PostAsync(Webhook("INSERT", $$"""{"id":"{{id}}"}""")),
        ];
        var another = await app.ProcessAsync(id, "Otro texto.");
        hold.Release();

        foreach (var other in others)
        {
            await other.AssertProblemAsync(409, "ticket-in-progress");
            Assert.InRange(other.Headers.RetryAfter?.Delta?.TotalSeconds ?? 0, 1, 90);
        }

        await another.AssertProblemAsync(409, "description-mismatch");
        Assert.Equal("model", await ReadSourceAsync(await first));
        Assert.Single(app.Model.CallsFor(Text));
        Assert.Equal(1, (int?)Assert.Single(await app.ReadDecisionsAsync(id))!["attempts"]);
    }

    [Fact]
    public async Task A_request_beyond_the_limit_is_429_and_costs_its_ticket_nothing()
    {
        await using var small = await TicketApp.StartAsync(("Triage__MaxConcurrentRequests", "1"));
        var first = await small.AddTicketAsync("El único sitio.");
        var second = await small.AddTicketAsync("Sin sitio.");
        var hold = small.Model.Hold("El único sitio.");
        var processing = small.ProcessAsync(first);
        await hold.Arrived;
        var before = await small.ReadEverythingAsync();

        var refused = await small.ProcessAsync(second);
        var ignored = await small.PostAsync(Webhook("INSERT", "null"));
        var unknown = await small.PostAsync("{");

        await refused.AssertProblemAsync(429, "rate-limited");
        Assert.True(refused.Headers.RetryAfter?.Delta >= TimeSpan.FromSeconds(1));
        Assert.Equal(HttpStatusCode.OK, ignored.StatusCode);
        await unknown.AssertProblemAsync(400, "malformed-json");
        Assert.Equal(before, await small.ReadEverythingAsync());
        Assert.Empty(small.Model.CallsFor("Sin sitio."));
        hold.Release();
        Assert.Equal("model", await ReadSourceAsync(await processing));
        Assert.Equal("model", await ReadSourceAsync(await small.ProcessAsync(second)));
    }

    [Fact]
    public async Task With_keys_a_caller_without_one_is_401_and_learns_nothing()
    {
        await using var locked = await TicketApp.StartAsync(("Keys__Function", "function-key"), ("Keys__Admin", "admin-key"));
        var id = await locked.AddTicketAsync("Con llave.");
        var body = $$"""{"id":"{{id}}"}""";

        foreach (var (path, header) in new (string, string?)[] { ("", null), ("", "wrong"), ("", ""), ("", "FUNCTION-KEY"), ("?code=wrong", null), ("?code=function-key", "wrong") })
        {
            using var request = new HttpRequestMessage(HttpMethod.Post, "/process-ticket" + path) { Content = new StringContent(body, Encoding.UTF8, "application/json") };
            if (header is not null)
            {
                request.Headers.Add("x-functions-key", header);
            }

            await (await locked.Http.SendAsync(request)).AssertProblemAsync(401, "unauthorized");
        }

        await (await locked.PostAsync("{")).AssertProblemAsync(401, "unauthorized");
        Assert.Empty(locked.Model.Calls);
        Assert.Equal("model", await ReadSourceAsync(await locked.PostAsync(body, "/process-ticket?code=function-key")));
        locked.Http.DefaultRequestHeaders.Add("x-functions-key", "admin-key");
        Assert.Equal("stored", await ReadSourceAsync(await locked.PostAsync(body)));
    }

    private static string Webhook(string type, string record) =>
        $$"""{"type":"{{type}}","schema":"public","table":"tickets","record":{{record}},"old_record":null}""";

    private static async Task<string?> ReadSourceAsync(HttpResponseMessage response) =>
        (string?)(await response.ReadJsonAsync())["source"];

    private static string Sha256(string text) =>
        @"\x" + Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes(text)));
}
