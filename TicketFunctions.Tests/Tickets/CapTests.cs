using System.Text.Json.Nodes;
using Dapper;
using Npgsql;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Tickets;

/// <summary>What bounds the paid calls for a ticket, and what asks for one.</summary>
public sealed class CapTests : IAsyncLifetime
{
    private TicketApp _app = null!;

    public async Task InitializeAsync() => _app = await TicketApp.StartAsync(("Triage__MaxAttempts", "2"));

    public Task DisposeAsync() => _app.DisposeAsync();

    [Fact]
    public async Task Paid_wrong_answers_count_even_if_the_second_call_finds_no_model()
    {
        const string Text = "Mal, y luego nada.";
        _app.Model.Default = ModelStub.Json(503, new JsonObject());
        var id = await _app.AddTicketAsync(Text);
        for (var request = 1; request <= 6; request++)
        {
            _app.Model.On(Text, ModelStub.Sequence(ModelStub.Content("hola"), ModelStub.Json(503, new JsonObject())));
            await _app.ProcessAsync(id);
            await _app.LetTimePassAsync();
        }

        Assert.Equal(4, _app.Model.CallsFor(Text).Count);
    }

    [Fact]
    public async Task A_ticket_whose_last_worker_died_is_not_called_for_by_request_nor_by_the_sweep()
    {
        var id = await _app.AddTicketAsync("Agotado.");
        await _app.ExecuteAsync("insert into ticket_work (ticket_id, attempts, lease_token, due_at) values (@id, 2, gen_random_uuid(), now() - interval '1 second')", new { id });

        await (await _app.ProcessAsync(id)).AssertProblemAsync(503, "upstream-unavailable");
        Assert.Equal(1, (await _app.SweepAsync()).Parked);

        Assert.Empty(_app.Model.Calls);
    }

    [Fact]
    public async Task Force_asks_the_model_also_for_an_unprocessed_ticket_whose_text_was_decided_before()
    {
        const string Text = "Ya decidido antes.";
        await _app.ProcessAsync(await _app.AddTicketAsync(Text));
        var reused = await _app.ProcessAsync(await _app.AddTicketAsync(Text));
        var forced = await _app.ProcessAsync(await _app.AddTicketAsync(Text), query: "?force=true");

        Assert.Equal("reused", (string?)(await reused.ReadJsonAsync())["source"]);
        Assert.Equal("model", (string?)(await forced.ReadJsonAsync())["source"]);
        Assert.Equal(2, _app.Model.CallsFor(Text).Count);
    }

    [Fact]
    public async Task An_edit_during_a_call_does_not_end_the_lease_and_an_edit_of_a_waiting_ticket_ends_its_wait()
    {
        var hold = _app.Model.Hold("Antes.");
        var id = await _app.AddTicketAsync("Antes.");
        var first = _app.ProcessAsync(id);
        await hold.Arrived;
        await _app.ExecuteAsync("update tickets set description = 'Después.' where id = @id", new { id });
        await (await _app.ProcessAsync(id)).AssertProblemAsync(409, "ticket-in-progress");
        Assert.Empty(_app.Model.CallsFor("Después."));
        hold.Release();
        Assert.True((await first).IsSuccessStatusCode);

        _app.Model.On("Falla.", ModelStub.Json(500, new JsonObject()));
        var waiting = await _app.AddTicketAsync("Falla.");
        await _app.ProcessAsync(waiting);
        Assert.Equal(0, (await _app.SweepAsync()).Claimed);
        await _app.ExecuteAsync("update tickets set description = 'Va.' where id = @waiting", new { waiting });
        Assert.Equal(1, (await _app.SweepAsync()).Labelled);
    }

    [Fact]
    public async Task The_oldest_tickets_are_swept_first()
    {
        await _app.ExecuteAsync("insert into tickets (description, created_at) select 'orden ' || i, now() - i * interval '1 minute' from generate_series(1, 30) as i");
        var hold = _app.Model.HoldAll();
        var sweep = _app.SweepAsync();
        await hold.WaitForAsync(8);
        var first = _app.Model.Calls.Select(call => call.Ticket).Order(StringComparer.Ordinal).ToList();
        hold.Release();
        await sweep;

        Assert.Equal(Enumerable.Range(23, 8).Select(age => $"orden {age}"), first);
    }

    [Fact]
    public async Task A_ticket_that_is_edited_at_every_call_is_left_to_the_sweep_after_three()
    {
        var id = await _app.AddTicketAsync("Cambia");
        _app.Model.Default = async (call, context) =>
        {
            await _app.ExecuteAsync("update tickets set description = description || '.' where id = @id", new { id });
            await ModelStub.Labels("Otro", "Neutral")(call, context);
        };

        await (await _app.ProcessAsync(id)).AssertProblemAsync(409, "ticket-in-progress");

        Assert.Equal(["Cambia", "Cambia.", "Cambia.."], _app.Model.Calls.Select(call => call.Ticket));
        _app.Model.Default = ModelStub.Labels("Tecnico", "Negativo");
        Assert.Equal(1, (await _app.SweepAsync()).Labelled);
        Assert.Equal(new TicketRow(id, "Cambia...", "Tecnico", "Negativo", true), await _app.ReadTicketAsync(id));
    }

    [Fact]
    public async Task A_paid_answer_is_written_even_if_the_connection_is_cut_under_the_write()
    {
        const string Text = "Se corta al escribir.";
        var id = await _app.AddTicketAsync(Text);
        var hold = _app.Model.Hold(Text);
        var answer = _app.ProcessAsync(id);
        await hold.Arrived;
        await using var locker = new NpgsqlConnection(_app.ConnectionString);
        await locker.OpenAsync();
        await using var transaction = await locker.BeginTransactionAsync();
        await locker.ExecuteAsync("select from tickets where id = @id for update", new { id }, transaction);

        hold.Release();
        await Eventually.TrueAsync(async () => await _app.QuerySingleAsync<int>(
            """
            select count(pg_terminate_backend(pid))
            from pg_stat_activity
            where datname = current_database() and application_name = 'ticket-functions' and wait_event_type = 'Lock'
            """) == 1, "the write never waited for the lock");
        await transaction.RollbackAsync();

        Assert.Equal("model", (string?)(await (await answer).ReadJsonAsync())["source"]);
        Assert.Single(_app.Model.CallsFor(Text));
        Assert.Single(await _app.ReadDecisionsAsync(id));
    }

    [Fact]
    public async Task A_forced_decision_that_fails_after_its_lease_leaves_the_next_ones_work_alone()
    {
        const string Text = "Forzado dos veces.";
        var id = await _app.AddTicketAsync(Text);
        await _app.ProcessAsync(id);
        ModelHold first = new(), second = new();
        _app.Model.On(Text, ModelStub.Sequence(
            ModelStub.Held(first, ModelStub.Json(500, new JsonObject())), ModelStub.Held(second, ModelStub.Labels("Otro", "Positivo"))));
        var late = _app.ProcessAsync(id, query: "?force=true");
        await first.Arrived;
        await _app.LetTimePassAsync();
        var next = _app.ProcessAsync(id, query: "?force=true");
        await second.Arrived;
        var work = await ReadWorkAsync();

        first.Release();
        Assert.Equal("stored", (string?)(await (await late).ReadJsonAsync())["source"]);
        Assert.Equal(work, await ReadWorkAsync());
        second.Release();

        Assert.Equal("Otro", (string?)(await (await next).ReadJsonAsync())["category"]);

        Task<string> ReadWorkAsync() => _app.QuerySingleAsync<string>("select ticket_work::text from ticket_work where ticket_id = @id", new { id });
    }
}
