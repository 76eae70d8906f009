using System.Net;
using System.Text.Json.Nodes;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Triggers;

public sealed class ShowBacklogTests(TicketApp app) : IClassFixture<TicketApp>
{
    [Fact]
    public async Task The_backlog_counts_what_is_left_to_do_and_how_old_it_is()
    {
        var empty = await app.Http.GetAsync("/backlog");
        Assert.Equal(HttpStatusCode.OK, empty.StatusCode);
        JsonAssert.Equal(
            """
            {
              "unprocessed": 0, "inFlight": 0, "parked": 0, "oldestSeconds": 0,
              "spentToday": { "calls": 0, "tokens": 0, "cost": null },
              "savedToday": { "calls": 0, "tokens": 0, "cost": null },
              "leftToday": { "tokens": null, "cost": null }
            }
            """,
            await empty.ReadJsonAsync());

        var done = await app.AddTicketAsync("Hecho hace tiempo.");
        await app.ProcessAsync(done);
        await app.ExecuteAsync("update tickets set created_at = now() - interval '1 day' where id = @done", new { done });
        await app.AddTicketAsync("Nuevo.");
        var blank = await app.AddTicketAsync("\u200b");
        await app.ProcessAsync(blank);
        var failing = await app.AddTicketAsync("Espera su segundo intento.");
        app.Model.On("Espera su segundo intento.", ModelStub.Raw(500, "text/plain", "no"));
        await app.ProcessAsync(failing);
        await app.ExecuteAsync("update tickets set created_at = now() - interval '1 hour' where id = @failing", new { failing });
        var dead = await app.AddTicketAsync("Su proceso ha muerto.");
        await app.ExecuteAsync("insert into ticket_work (ticket_id, attempts, lease_token, due_at) values (@dead, 1, gen_random_uuid(), now() - interval '1 second')", new { dead });
        var held = await app.AddTicketAsync("En curso.");
        var hold = app.Model.Hold("En curso.");
        var processing = app.ProcessAsync(held);
        await hold.Arrived;

        var backlog = (await (await app.Http.GetAsync("/backlog")).ReadJsonAsync()).AsObject();
        hold.Release();
        await processing;

        Assert.InRange((double)backlog["oldestSeconds"]!, 3600, 3660);
        backlog.Remove("oldestSeconds");
        JsonAssert.Equal("""{"unprocessed":5,"inFlight":1,"parked":1}""", new JsonObject(backlog.Take(3).Select(member => KeyValuePair.Create(member.Key, member.Value?.DeepClone()))));
    }

    [Fact]
    public async Task The_backlog_tells_what_today_cost_what_reuse_saved_and_what_is_left()
    {
        await using var priced = await TicketApp.StartAsync(
            ("Model__InputPricePerMillion", "1.5"), ("Model__OutputPricePerMillion", "6"), ("Model__TokensPerDay", "1500"), ("Model__CostPerDay", "0.01"));
        priced.Model.On("En vano.", ModelStub.Content("nada"));
        await priced.ProcessAsync(await priced.AddTicketAsync("Pagado."));
        await priced.ProcessAsync(await priced.AddTicketAsync("Pagado."));
        await priced.ProcessAsync(await priced.AddTicketAsync("Pagado."));
        await priced.ProcessAsync(await priced.AddTicketAsync("En vano."));
        await priced.ExecuteAsync(
            """
            insert into ticket_decisions (
              ticket_id, decided_at, category, sentiment, source, provider, model, prompt_version, taxonomy_version, parameters, text_sha256,
              tokens_in, cost, model_calls, latency_ms, attempts
            )
            values (gen_random_uuid(), date_trunc('day', now(), 'UTC') - interval '1 second', 'Otro', 'Neutral', 'model', 'p', 'm', '1', '1', '{}', sha256('ayer'), 999, 9, 1, 1, 1)
            """);

        // A call reads 321 tokens and writes 17: 0.0005835.
        var backlog = await (await priced.Http.GetAsync("/backlog")).ReadJsonAsync();
        JsonAssert.Equal("""{ "calls": 3, "tokens": 1014, "cost": 0.0017505 }""", backlog["spentToday"]);
        JsonAssert.Equal("""{ "calls": 2, "tokens": 676, "cost": 0.001167 }""", backlog["savedToday"]);
        JsonAssert.Equal("""{ "tokens": 486, "cost": 0.0082495 }""", backlog["leftToday"]);
    }
}
