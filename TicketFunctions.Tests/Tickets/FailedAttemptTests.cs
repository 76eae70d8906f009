using System.Text.Json.Nodes;
using Microsoft.Extensions.DependencyInjection;
using TicketFunctions.Storage;
using TicketFunctions.Tests.Support;
using TicketFunctions.Tickets;

namespace TicketFunctions.Tests.Tickets;

/// <summary>The record of what was paid and left no labels.</summary>
public sealed class FailedAttemptTests(TicketApp app) : IClassFixture<TicketApp>
{
    [Fact]
    public async Task Each_attempt_that_called_the_model_in_vain_is_recorded_call_by_call_and_says_nothing_of_the_text()
    {
        const string Text = "CANARIO que nadie entiende";
        var id = await app.AddTicketAsync(Text);
        app.Model.On(Text, ModelStub.Sequence(
            ModelStub.Content("CANARIO"), ModelStub.Content("nada"),
            ModelStub.Json(503, new JsonObject { ["error"] = "CANARIO" }),
            ModelStub.Content("nada"), ModelStub.Labels("Otro", "Neutral")));

        await (await app.ProcessAsync(id)).AssertProblemAsync(502, "upstream-invalid");
        await (await app.ProcessAsync(id)).AssertProblemAsync(503, "upstream-unavailable");
        Assert.True((await app.ProcessAsync(id)).IsSuccessStatusCode);

        Assert.Equal(
            [
                "1 upstream_invalid t 642 34 ok 2 unparseable unparseable stub-model-2026",
                "2 upstream_unavailable f   ok 1 unavailable  ",
            ],
            await app.QueryAsync<string>(
                """
                select format(
                  '%s %s %s %s %s %s %s %s %s %s', attempt, kind, answered, tokens_in, tokens_out,
                  case when text_sha256 = sha256(convert_to(@Text, 'UTF8')) then 'ok' end,
                  jsonb_array_length(calls), calls -> 0 ->> 'outcome', calls -> 1 ->> 'outcome', calls -> 1 ->> 'served_model')
                from ticket_failures
                where ticket_id = @id
                order by ticket_failures.id
                """,
                new { id, Text }));

        // The attempt that found nobody did not count.
        var decision = (await app.ReadDecisionsAsync(id))[0]!;
        Assert.Equal((2, 2, 642), ((int)decision["attempts"]!, (int)decision["model_calls"]!, (int)decision["tokens_in"]!));
        Assert.DoesNotContain("CANARIO", await app.QuerySingleAsync<string>("select json_agg(ticket_failures)::text from ticket_failures"), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Labels_that_came_too_late_or_were_refused_are_recorded_as_paid()
    {
        const string Edited = "editado mientras se piensa";
        var edited = await app.AddTicketAsync(Edited);
        var hold = app.Model.Hold(Edited);
        var request = app.ProcessAsync(edited);
        await hold.Arrived;
        await app.ExecuteAsync("update tickets set description = 'ya editado' where id = @edited", new { edited });
        hold.Release();
        Assert.True((await request).IsSuccessStatusCode);
        Assert.Equal("1 stale 338", await ReadAsync(edited));

        const string Late = "llega cuando otro lo tiene";
        var late = await app.AddTicketAsync(Late);
        var first = new ModelHold();
        app.Model.On(Late, ModelStub.Sequence(ModelStub.Held(first, ModelStub.Labels("Otro", "Neutral")), ModelStub.Labels("Tecnico", "Neutral")));
        var slow = app.ProcessAsync(late);
        await first.Arrived;
        await app.LetTimePassAsync();
        Assert.True((await app.ProcessAsync(late)).IsSuccessStatusCode);
        first.Release();
        Assert.True((await slow).IsSuccessStatusCode);
        Assert.Equal("1 lease_lost 338", await ReadAsync(late));

        await app.ExecuteAsync(
            """
            create function refuse() returns trigger language plpgsql as $$ begin raise exception 'no' using errcode = '23514'; end; $$;
            create trigger refuse before update of category on tickets for each row when (new.description like 'rechazado%') execute function refuse();
            """);
        var refused = await app.AddTicketAsync("rechazado");
        await (await app.ProcessAsync(refused)).AssertProblemAsync(503, "storage-unavailable");
        Assert.Equal("1 storage_refused 338", await ReadAsync(refused));

        const string Forced = "forzado en vano";
        var forced = await app.AddTicketAsync(Forced);
        await app.ProcessAsync(forced);
        app.Model.On(Forced, ModelStub.Content("nada"));
        await (await app.ProcessAsync(forced, query: "?force=true")).AssertProblemAsync(502, "upstream-invalid");
        Assert.Equal("1 upstream_invalid 676", await ReadAsync(forced));
        Assert.Equal(0, await app.QuerySingleAsync<int>("select count(*) from ticket_text_locks"));
    }

    [Fact]
    public async Task A_write_whose_answer_was_lost_is_not_counted_twice()
    {
        var store = app.Services.GetRequiredService<TicketStore>();
        var id = await app.AddTicketAsync("escrito y sin respuesta");
        var ticket = ((Claim.Held)(await store.ClaimAsync([new ClaimRequest(id, Guid.NewGuid())], new ClaimTerms(TimeSpan.FromSeconds(90), 5, []), wait: true))[0]).Ticket;
        var decision = new Decision(
            new Labels("Otro", "Neutral"), ScriptedClassifier.Identity("modelo"), new byte[32], null, false, [ScriptedClassifier.Call("modelo", cost: 0.10m)], TimeSpan.Zero);

        Assert.Equal([WriteStatus.Written], await store.CompleteAsync([(ticket, decision)], wait: true));
        Assert.Equal([WriteStatus.LeaseLost], await store.CompleteAsync([(ticket, decision)], wait: true));
        await store.RecordFailureAsync(ticket, new FailedAttempt("lease_lost", "", decision.TextSha256, decision.Calls), default);
        Assert.Equal("", await ReadAsync(id));

        // Other calls were paid as well.
        await store.RecordFailureAsync(ticket, new FailedAttempt("lease_lost", "", decision.TextSha256, [ScriptedClassifier.Call("modelo", tokensIn: 101)]), default);
        Assert.Equal("1 lease_lost 111", await ReadAsync(id));

        // An attempt that kept its lease is another one, though its calls look like those of the decision.
        await store.RecordFailureAsync(ticket with { LeaseToken = Guid.NewGuid() }, new FailedAttempt("storage_refused", "", decision.TextSha256, decision.Calls), default);
        Assert.Equal(2, await app.QuerySingleAsync<int>("select count(*) from ticket_failures where ticket_id = @id", new { id }));
    }

    private Task<string> ReadAsync(Guid id) => app.QuerySingleAsync<string>(
        "select coalesce(string_agg(concat_ws(' ', attempt, kind, tokens_in + tokens_out), ', ' order by id), '') from ticket_failures where ticket_id = @id", new { id });
}
