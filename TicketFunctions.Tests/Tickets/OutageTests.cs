using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using TicketFunctions.Classification;
using TicketFunctions.Tests.Support;
using TicketFunctions.Tickets;

namespace TicketFunctions.Tests.Tickets;

/// <summary>Faults that are not the ticket's: the model is away, the database refuses, the client is wrong.</summary>
public sealed class OutageTests : IAsyncLifetime
{
    private static readonly Func<ModelCall, HttpContext, Task> Down = ModelStub.Json(500, new JsonObject());

    private TicketApp _app = null!;

    public async Task InitializeAsync() => _app = await TicketApp.StartAsync(("Triage__MaxAttempts", "2"));

    public Task DisposeAsync() => _app.DisposeAsync();

    [Fact]
    public async Task While_no_model_answers_anybody_no_attempt_counts_and_the_wait_stays_short()
    {
        const string Text = "Solo falla porque el modelo no está.";
        var id = await _app.AddTicketAsync(Text);
        _app.Model.Default = Down;
        for (var attempt = 1; attempt <= 5; attempt++)
        {
            await _app.LetTimePassAsync();
            var response = await _app.ProcessAsync(id);
            await response.AssertProblemAsync(503, "upstream-unavailable");
            Assert.Equal(TimeSpan.FromSeconds(30), response.Headers.RetryAfter!.Delta);
            Assert.Equal((0, "waits"), (await CountAttemptsAsync(id), await StateAsync(id)));
            Assert.InRange(await _app.QuerySingleAsync<double>("select extract(epoch from due_at - now()) from ticket_work where ticket_id = @id", new { id }), 15, 30);
        }

        Assert.Equal(5, _app.Model.CallsFor(Text).Count);
        Assert.Equal(5, await _app.QuerySingleAsync<int>("select count(*) from ticket_failures where ticket_id = @id and not answered", new { id }));
        _app.Model.Default = ModelStub.Labels("Tecnico", "Negativo");
        await _app.LetTimePassAsync();
        Assert.Equal(1, (await _app.SweepAsync()).Labelled);
        Assert.Equal("Tecnico", (await _app.ReadTicketAsync(id)).Category);
        Assert.Equal(1, (int)(await _app.ReadDecisionsAsync(id))[0]!["attempts"]!);
    }

    [Theory]
    [InlineData("labels")]
    [InlineData("no labels")]
    public async Task A_ticket_that_finds_no_model_while_others_are_answered_is_parked_like_any_that_fails(string othersGet)
    {
        var poison = await _app.AddTicketAsync("Falla siempre.");
        _app.Model.On("Falla siempre.", Down);
        _app.Model.Default = othersGet == "labels" ? ModelStub.Labels("Otro", "Neutral") : ModelStub.Content("No lo sé.");
        for (var attempt = 1; attempt <= 2; attempt++)
        {
            await _app.ProcessAsync(poison);
            Assert.Equal((attempt - 1, "waits"), (await CountAttemptsAsync(poison), await StateAsync(poison)));
            await _app.ProcessAsync(await _app.AddTicketAsync($"A otro le responde, {attempt}."));
        }

        await _app.ProcessAsync(poison);
        Assert.Equal((2, "parked"), (await CountAttemptsAsync(poison), await StateAsync(poison)));
    }

    [Fact]
    public async Task A_ticket_that_failed_by_itself_loses_at_most_one_attempt_to_the_outage_that_follows()
    {
        await using var app = await TicketApp.StartAsync(("Triage__MaxAttempts", "3"));
        const string Text = "Primero lo suyo, después la avería.";
        app.Model.On(Text, ModelStub.Sequence(ModelStub.Content("nada"), ModelStub.Content("nada"), Down));
        var id = await app.AddTicketAsync(Text);
        await (await app.ProcessAsync(id)).AssertProblemAsync(502, "upstream-invalid");
        Assert.True((await app.ProcessAsync(await app.AddTicketAsync("La última respuesta antes de la avería."))).IsSuccessStatusCode);

        for (var attempt = 1; attempt <= 4; attempt++)
        {
            await (await app.ProcessAsync(id)).AssertProblemAsync(503, "upstream-unavailable");
            Assert.Equal("2 false", await app.QuerySingleAsync<string>("select concat_ws(' ', attempts, (parked_at is not null)::text) from ticket_work where ticket_id = @id", new { id }));
        }
    }

    [Fact]
    public async Task Without_a_call_an_attempt_never_counts_and_the_ticket_waits_as_long_as_the_breaker_says()
    {
        foreach (var (retryAfter, seconds) in new (TimeSpan?, int)[] { (TimeSpan.FromSeconds(7), 7), (TimeSpan.Zero, 1), (TimeSpan.FromDays(1), 3600), (null, 30) })
        {
            var id = await _app.AddTicketAsync($"Sin llamada, {seconds}.");
            var classifier = new ScriptedClassifier(ScriptedClassifier.Identity("m"))
            {
                Answer = _ => new ClassificationResult.Failed(FailureKind.UpstreamUnavailable, "unavailable: no model can be reached", retryAfter, []),
            };
            var triage = ActivatorUtilities.CreateInstance<TicketTriage>(_app.Services, classifier);
            for (var attempt = 1; attempt <= 4; attempt++)
            {
                // Others are answered all the while.
                await _app.ProcessAsync(await _app.AddTicketAsync($"Con llamada, {seconds}, {attempt}."));
                Assert.Equal(
                    new TriageResult.RetryLater(FailureKind.UpstreamUnavailable, TimeSpan.FromSeconds(seconds)), await triage.ProcessAsync(id, null, false, default, default));
                Assert.Equal((0, "waits"), (await CountAttemptsAsync(id), await StateAsync(id)));
            }

            Assert.InRange(await _app.QuerySingleAsync<double>("select extract(epoch from due_at - now()) from ticket_work where ticket_id = @id", new { id }), seconds - 15, seconds);
        }

        Assert.Equal(0, await _app.QuerySingleAsync<int>("select count(*) from ticket_failures"));
    }

    [Theory]
    [InlineData(FailureKind.UpstreamUnavailable, CallOutcome.Unparseable)]
    [InlineData(FailureKind.UpstreamUnavailable, CallOutcome.TimedOut)]
    [InlineData(FailureKind.UpstreamTimeout, CallOutcome.TimedOut)]
    [InlineData(FailureKind.UpstreamInvalid, CallOutcome.Refused)]
    public async Task What_may_have_been_paid_counts_also_in_an_outage(FailureKind kind, CallOutcome outcome)
    {
        var id = await _app.AddTicketAsync("Quizá pagado.");
        var classifier = new ScriptedClassifier(ScriptedClassifier.Identity("m"))
        {
            Answer = _ => new ClassificationResult.Failed(kind, "failed", null, [ScriptedClassifier.Call("m", outcome), ScriptedClassifier.Call("m", CallOutcome.Unavailable)]),
        };
        var triage = ActivatorUtilities.CreateInstance<TicketTriage>(_app.Services, classifier);

        Assert.Equal(new TriageResult.RetryLater(kind, TimeSpan.FromSeconds(30)), await triage.ProcessAsync(id, null, false, default, default));
        Assert.Equal(new TriageResult.Parked(kind), await triage.ProcessAsync(id, null, false, default, default));
        Assert.Equal(2, classifier.Texts.Count);
    }

    [Fact]
    public async Task A_database_that_fails_before_the_model_is_asked_burns_no_attempt_and_keeps_no_text_locked()
    {
        await using var app = await TicketApp.StartAsync(("Model__TokensPerDay", "1000000"), ("Triage__MaxAttempts", "1"));
        var id = await app.AddTicketAsync("Nadie pregunta.");
        await app.ExecuteAsync("alter table ticket_failures rename to away");

        await (await app.ProcessAsync(id)).AssertProblemAsync(503, "storage-unavailable");

        Assert.Equal(
            "0 true 0",
            await app.QuerySingleAsync<string>(
                "select concat_ws(' ', attempts, (lease_token is null and parked_at is null and due_at > now())::text, (select count(*) from ticket_text_locks)) from ticket_work"));
        await app.ExecuteAsync("alter table away rename to ticket_failures");
        Assert.True((await app.ProcessAsync(id)).IsSuccessStatusCode);
        Assert.Single(app.Model.Calls);
    }

    [Fact]
    public async Task A_stand_in_that_labels_proves_no_model_to_be_there()
    {
        var standIn = new ClassifierIdentity("baseline", "embedded", "baseline-1", "none", "taxonomy-1", "{}");
        var classifier = new ScriptedClassifier(ScriptedClassifier.Identity("m"))
        {
            Answer = text => text == "Al suplente."
                ? new ClassificationResult.Labelled(new Labels("Otro", "Neutral"), standIn, 0.5f, false, [ScriptedClassifier.Call("m", CallOutcome.Unavailable, null, null)])
                : new ClassificationResult.Failed(
                    FailureKind.UpstreamUnavailable, "unavailable", null, [ScriptedClassifier.Call("m", CallOutcome.Unavailable, null, null)]),
        };
        var triage = ActivatorUtilities.CreateInstance<TicketTriage>(_app.Services, classifier);
        var id = await _app.AddTicketAsync("Sin nadie.");
        for (var attempt = 1; attempt <= 3; attempt++)
        {
            await triage.ProcessAsync(id, null, false, default, default);
            Assert.True(await triage.ProcessAsync(await _app.AddTicketAsync("Al suplente."), null, false, default, default) is TriageResult.Labelled { Source: "baseline" });
        }

        Assert.Equal((0, "waits"), (await CountAttemptsAsync(id), await StateAsync(id)));
    }

    [Theory]
    [InlineData("raise exception 'no se admite: %', new.description using errcode = '23514'", "SQLSTATE 23514")]
    [InlineData("return null", "a trigger drops the update")]
    [InlineData("new.processed := false; return new", "a trigger leaves the ticket unprocessed")]
    public async Task Labels_that_the_database_refuses_cost_only_their_own_ticket(string refusal, string why)
    {
        const string Canary = "VENENO-7f3a";
        await _app.ExecuteAsync(
            $"""
            create function refuse() returns trigger language plpgsql as $$
            begin
              {refusal};
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
        Assert.Equal(12, await _app.QuerySingleAsync<int>("select count(*) from ticket_work where parked_at is not null and last_error = 'StorageRefused: refused: the database does not take these labels for this row (' || @why || ')'", new { why }));
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

    private Task<int> CountAttemptsAsync(Guid id) => _app.QuerySingleAsync<int>("select attempts from ticket_work where ticket_id = @id", new { id });

    private Task<string> StateAsync(Guid id) => _app.QuerySingleAsync<string>(
        """
        select coalesce((
          select case when parked_at is not null then 'parked' when lease_token is not null then 'held' else 'waits' end
          from ticket_work where ticket_id = @id), 'none')
        """,
        new { id });
}
