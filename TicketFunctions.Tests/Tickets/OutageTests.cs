using System.Net;
using System.Text.Json.Nodes;
using TicketFunctions.Tests.Support;
using TicketFunctions.Tickets;

namespace TicketFunctions.Tests.Tickets;

/// <summary>Faults that are not the ticket's: the model is away, the database refuses, the client is wrong.</summary>
public sealed class OutageTests : IAsyncLifetime
{
    private TicketApp _app = null!;

    public async Task InitializeAsync() => _app = await TicketApp.StartAsync(("Triage__MaxAttempts", "2"));

    public Task DisposeAsync() => _app.DisposeAsync();

    [Fact]
    public async Task An_outage_of_the_model_parks_nothing_but_a_ticket_that_fails_while_others_are_answered_is_parked()
    {
        var down = ModelStub.Json(500, new JsonObject());
        var id = await _app.AddTicketAsync("Solo falla porque el modelo no está.");
        _app.Model.Default = down;
        for (var attempt = 1; attempt <= 5; attempt++)
        {
            await _app.LetTimePassAsync();
            Assert.Equal(HttpStatusCode.ServiceUnavailable, (await _app.ProcessAsync(id)).StatusCode);
            Assert.Equal("waits", await StateAsync(id));
        }

        _app.Model.Default = ModelStub.Labels("Tecnico", "Negativo");
        await _app.LetTimePassAsync();
        Assert.Equal(1, (await _app.SweepAsync()).Labelled);
        Assert.Equal("Tecnico", (await _app.ReadTicketAsync(id)).Category);

        var poison = await _app.AddTicketAsync("Falla siempre.");
        _app.Model.On("Falla siempre.", down);
        await _app.ProcessAsync(poison);
        await _app.ProcessAsync(await _app.AddTicketAsync("A otro le responde."));
        await _app.ProcessAsync(poison);
        Assert.Equal("parked", await StateAsync(poison));
    }

    [Fact]
    public async Task Labels_that_the_database_refuses_cost_only_their_own_ticket()
    {
        const string Canary = "VENENO-7f3a";
        await _app.ExecuteAsync(
            """
            create function refuse() returns trigger language plpgsql as $$
            begin
              raise exception 'no se admite: %', new.description using errcode = '23514';
            end;
            $$;
            create trigger refuse before update of category on tickets
              for each row when (new.description like 'VENENO%') execute function refuse();
            insert into tickets (created_at, description)
            select now() - interval '1 day', 'VENENO-7f3a ' || i from generate_series(1, 12) as i;
            insert into tickets (description) select 'bueno ' || i from generate_series(1, 10) as i;
            """);

        var first = await _app.SweepAsync();
        Assert.Equal((10, 12, 0, SweepEnd.NothingDue), (first.Labelled, first.Waiting, first.Parked, first.End));
        await _app.LetTimePassAsync();
        Assert.Equal(12, (await _app.SweepAsync()).Parked);

        Assert.Equal(10, await _app.QuerySingleAsync<int>("select count(*) from tickets where processed and description like 'bueno%'"));
        Assert.Equal(12, await _app.QuerySingleAsync<int>("select count(*) from ticket_work where parked_at is not null and last_error like 'StorageRefused%23514%'"));
        Assert.Equal(0, await _app.QuerySingleAsync<int>("select count(*) from ticket_work where last_error like '%VENENO%'"));
        var id = await _app.QuerySingleAsync<Guid>("select id from tickets where description like 'VENENO%' limit 1");
        var response = await _app.ProcessAsync(id);
        await response.AssertProblemAsync(503, "storage-unavailable");
        Assert.NotNull(response.Headers.RetryAfter);
        Assert.DoesNotContain(_app.Log, entry => entry.Message.Contains(Canary, StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_defect_is_found_in_the_log_by_its_trace_id_and_quotes_no_ticket()
    {
        await _app.ExecuteAsync(
            """
            create function break_down() returns trigger language plpgsql as $$
            begin
              raise exception 'CANARIO-91c2';
            end;
            $$;
            create trigger break_down before insert on ticket_work for each row execute function break_down();
            """);
        var id = await _app.AddTicketAsync("Con un fallo nuestro.");

        var problem = await (await _app.ProcessAsync(id)).AssertProblemAsync(500, "internal-error");

        Assert.Contains(_app.Log, entry => entry.Message.Contains((string)problem["traceId"]!, StringComparison.Ordinal) && entry.Message.Contains("P0001", StringComparison.Ordinal));
        Assert.DoesNotContain(_app.Log, entry => entry.Message.Contains("CANARIO", StringComparison.Ordinal));
    }

    [Fact]
    public async Task A_wrong_text_leaves_no_trace_on_a_ticket_whether_new_waiting_or_parked()
    {
        _app.Model.Default = ModelStub.Content("nada");
        var fresh = await _app.AddTicketAsync("Nuevo.");
        var waiting = await _app.AddTicketAsync("Espera.");
        var parked = await _app.AddTicketAsync("Aparcado.");
        await _app.ProcessAsync(waiting);
        await _app.ProcessAsync(parked);
        await _app.ProcessAsync(parked);
        Assert.Equal(("none", "waits", "parked"), (await StateAsync(fresh), await StateAsync(waiting), await StateAsync(parked)));
        var before = await _app.ReadEverythingAsync();

        foreach (var id in new[] { fresh, waiting, parked })
        {
            await (await _app.ProcessAsync(id, "Otro texto.")).AssertProblemAsync(409, "description-mismatch");
            await (await _app.ProcessAsync(id, "Otro texto.", "?force=true")).AssertProblemAsync(409, "description-mismatch");
        }

        Assert.Equal(before, await _app.ReadEverythingAsync());
    }

    [Fact]
    public async Task An_edit_voids_the_labels_unless_it_brings_two_of_its_own_whoever_makes_it()
    {
        Assert.Equal("|Nuevo|f", await EditAsync("description = 'Nuevo'"));
        Assert.Equal("|Nuevo|f", await EditAsync("description = 'Nuevo', category = null, sentiment = null"));
        Assert.Equal("Otro Positivo|Nuevo|t", await EditAsync("description = 'Nuevo', category = 'Otro', sentiment = 'Positivo'"));
        Assert.Equal("Tecnico Negativo|Viejo|t", await EditAsync("description = description"));

        await _app.ExecuteAsync(
            """
            create function rewrite() returns trigger language plpgsql as $$
            begin
              new.description := 'Reescrito';
              return new;
            end;
            $$;
            create trigger a_rewrite before update of created_at on tickets for each row execute function rewrite();
            """);
        Assert.Equal("|Reescrito|f", await EditAsync("created_at = now()"));

        async Task<string> EditAsync(string assignments)
        {
            var id = await _app.QuerySingleAsync<Guid>(
                "insert into tickets (description, category, sentiment, processed) values ('Viejo', 'Tecnico', 'Negativo', true) returning id");
            await _app.ExecuteAsync($"update tickets set {assignments} where id = @id", new { id });
            return await _app.QuerySingleAsync<string>(
                "select concat(category || ' ' || sentiment, '|', description, '|', case when processed then 't' else 'f' end) from tickets where id = @id", new { id });
        }
    }

    private Task<string> StateAsync(Guid id) => _app.QuerySingleAsync<string>(
        """
        select coalesce((
          select case when parked_at is not null then 'parked' when lease_token is not null then 'held' else 'waits' end
          from ticket_work where ticket_id = @id), 'none')
        """,
        new { id });
}
