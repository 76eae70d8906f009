using System.Net;
using System.Security.Cryptography;
using System.Text;
using Dapper;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Npgsql;
using TicketFunctions.Classification;
using TicketFunctions.Storage;
using TicketFunctions.Tests.Faults;
using TicketFunctions.Tests.Support;
using TicketFunctions.Tickets;

namespace TicketFunctions.Tests.Tickets;

/// <summary>Nothing is bought twice: tickets with the same text, one after the other, at once, in one process and in two.</summary>
public sealed class SameTextTests(TicketApp app) : IClassFixture<TicketApp>, IAsyncLifetime
{
    private static readonly Func<ModelCall, HttpContext, Task> Good = ModelStub.Labels("Facturacion", "Neutral");
    private static readonly Func<ModelCall, HttpContext, Task> NoLabel = ModelStub.Content("No lo sé.");

    private int _logged;

    public async Task InitializeAsync()
    {
        await app.ExecuteAsync("delete from tickets; delete from ticket_text_locks");
        app.Model.Default = ModelStub.Labels("Tecnico", "Negativo");
        _logged = app.Log.Count;
    }

    public async Task DisposeAsync()
    {
        // Whatever a test did, it has left nobody waiting.
        Assert.Equal(0, await app.QuerySingleAsync<int>("select count(*) from ticket_text_locks where held_until > now()"));
        Assert.DoesNotContain(app.Log.Skip(_logged), entry => entry.Level >= LogLevel.Error);
    }

    [Fact]
    public async Task Fifty_tickets_of_one_text_cost_one_sweep_one_call()
    {
        const string Text = "¿Cuál es el horario de atención?";
        await AddAsync(Text, 50);

        var summary = await app.SweepAsync();

        Assert.Equal((50, 50, 0, 0, SweepEnd.NothingDue), (summary.Claimed, summary.Labelled, summary.Waiting, summary.Parked, summary.End));
        Assert.Single(app.Model.CallsFor(Text));
        Assert.Equal(50, await CountAsync("tickets where processed and category = 'Tecnico' and sentiment = 'Negativo'"));
        Assert.Equal(
            [
                ("model", 1, 321, 17, null, 1),
                ("reused", 0, null, null, 338, 49),
            ],
            await app.QueryAsync<(string, int, int?, int?, int?, int)>(
                """
                select source, model_calls, tokens_in, tokens_out, saved_tokens, count(*)
                from ticket_decisions
                join tickets on tickets.id = ticket_id
                where attempts = 1
                group by 1, 2, 3, 4, 5
                order by 1
                """));
        Assert.Equal(0, await CountAsync("ticket_work"));
        Assert.Equal(0, await CountAsync("ticket_failures join tickets on tickets.id = ticket_id"));

        // The same text later, in another form of Unicode and with blanks around it, costs nothing.
        var later = await app.AddTicketAsync($"  {Text.Normalize(System.Text.NormalizationForm.FormD)}\n");
        Assert.Equal("reused", (string?)(await (await app.ProcessAsync(later)).ReadJsonAsync())["source"]);
        Assert.Single(app.Model.CallsFor(Text));
        Assert.DoesNotContain(app.Log.Skip(_logged), entry => entry.Level >= LogLevel.Warning);
    }

    [Fact]
    public async Task Fifty_requests_at_once_for_tickets_of_one_text_cost_one_call_and_none_is_sent_away()
    {
        const string Text = "cincuenta clientes, una avería";
        var ids = await AddAsync(Text, 50);
        var hold = app.Model.Hold(Text);

        var requests = ids.Select(id => app.ProcessAsync(id)).ToList();
        await hold.Arrived;
        await Eventually.TrueAsync(async () => await CountAsync("ticket_work where lease_token is not null") == 50, "all are claimed");

        // Another text is none of their business.
        Assert.Equal(HttpStatusCode.OK, (await app.ProcessAsync(await app.AddTicketAsync("otra avería"))).StatusCode);
        hold.Release();

        var sources = await Task.WhenAll(requests.Select(async request => (string?)(await (await request).ReadJsonAsync())["source"]));
        Assert.Equal(["model", .. Enumerable.Repeat("reused", 49)], sources.Order());
        Assert.Single(app.Model.CallsFor(Text));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Who_meets_a_text_under_way_waits_for_its_decision_in_the_same_process_as_in_another(bool sameProcess)
    {
        var text = $"dos a la vez, en el mismo proceso: {sameProcess}";
        var ids = await AddAsync(text, 2);
        var hold = app.Model.Hold(text, Good);
        var time = new WaitingTime();
        var second = CreateProcess(time);
        var leader = (sameProcess ? second : CreateProcess()).ProcessAsync(ids[0], null, false, default, default);
        await hold.Arrived;

        var follower = second.ProcessAsync(ids[1], null, false, default, default);
        await time.WaitForAsync(1);
        hold.Release();

        Assert.Equal(("model", "reused"), (Source(await leader), Source(await follower)));
        Assert.Single(app.Model.CallsFor(text));
        Assert.Equal("Facturacion", (await app.ReadTicketAsync(ids[1])).Category);
    }

    [Fact]
    public async Task Two_processes_that_sweep_the_same_duplicates_pay_once_for_each_text()
    {
        for (var n = 1; n <= 40; n++)
        {
            await AddAsync($"entre dos barridos {n % 4}", 1);
        }

        var sweeps = await Task.WhenAll(CreateSweep(CreateProcess()).RunAsync(null, default), CreateSweep(CreateProcess()).RunAsync(null, default));

        Assert.Equal(40, sweeps.Sum(sweep => sweep.Labelled));
        Assert.Equal(4, app.Model.Calls.Count(call => call.Ticket.StartsWith("entre dos barridos", StringComparison.Ordinal)));
        Assert.Equal(4, await CountAsync("ticket_decisions join tickets on tickets.id = ticket_id where source = 'model'"));
        Assert.Equal(36, await CountAsync("ticket_decisions join tickets on tickets.id = ticket_id where source = 'reused'"));
    }

    [Fact]
    public async Task When_the_holder_gets_no_labels_the_next_one_asks_and_each_counts_its_own_attempts()
    {
        const string Text = "la primera vez sale mal";
        var ids = await AddAsync(Text, 3);
        var hold = new ModelHold();
        app.Model.On(Text, ModelStub.Sequence(ModelStub.Held(hold, NoLabel), NoLabel, Good));
        var time = new WaitingTime();
        var process = CreateProcess(time);
        var holder = process.ProcessAsync(ids[0], null, false, default, default);
        await hold.Arrived;
        var followers = new[] { process.ProcessAsync(ids[1], null, false, default, default), process.ProcessAsync(ids[2], null, false, default, default) };
        await time.WaitForAsync(2);
        hold.Release();

        Assert.IsType<TriageResult.RetryLater>(await holder);
        Assert.Equal(["model", "reused"], (await Task.WhenAll(followers)).Select(Source).Order());
        Assert.Equal(3, app.Model.CallsFor(Text).Count);
        Assert.Equal((1, "upstream_invalid", true, 642, 34), await app.QuerySingleAsync<(int, string, bool, int, int)>(
            "select attempt, kind, answered, tokens_in, tokens_out from ticket_failures where ticket_id = @id", new { id = ids[0] }));
        Assert.Equal(1, await app.QuerySingleAsync<int>("select attempts from ticket_work"));
        Assert.Equal([1, 1], await app.QueryAsync<int>("select attempts from ticket_decisions where ticket_id = any(@ids)", new { ids = ids.ToArray() }));
    }

    [Fact]
    public async Task Duplicates_of_a_text_that_never_gets_labels_ask_one_after_the_other()
    {
        const string Text = "nadie entiende esto";
        await AddAsync(Text, 6);
        int atOnce = 0, most = 0;
        app.Model.On(Text, async (call, context) =>
        {
            most = Math.Max(most, Interlocked.Increment(ref atOnce));
            await NoLabel(call, context);
            Interlocked.Decrement(ref atOnce);
        });

        var summary = await app.SweepAsync();

        Assert.Equal((6, 0, 6), (summary.Claimed, summary.Labelled, summary.Waiting));
        Assert.Equal(12, app.Model.CallsFor(Text).Count);
        Assert.Equal(1, most);
        Assert.Equal(6, await CountAsync("ticket_work where attempts = 1 and lease_token is null"));
    }

    [Fact]
    public async Task A_text_in_the_hands_of_a_dead_process_is_free_when_its_lease_is_over_and_until_then_costs_no_attempt()
    {
        await using var patient = await TicketApp.StartAsync(("Triage__Lease", "00:00:02"), ("Model__AttemptTimeout", "00:00:01"), ("Model__TotalTimeout", "00:00:01.5"));
        const string Text = "su proceso ha muerto con él";
        var id = await patient.AddTicketAsync(Text);
        await patient.ExecuteAsync(
            "insert into ticket_text_locks (text_sha256, lease_token, held_until) values (sha256(convert_to(@Text, 'UTF8')), gen_random_uuid(), now() + interval '1 hour')",
            new { Text });

        var waited = await patient.ProcessAsync(id);
        await waited.AssertProblemAsync(409, "ticket-in-progress");
        Assert.NotNull(waited.Headers.RetryAfter);
        Assert.Equal((0, true), await patient.QuerySingleAsync<(int, bool)>("select attempts, lease_token is null and due_at > now() and parked_at is null from ticket_work"));
        await patient.ExecuteAsync("update ticket_work set due_at = now()");
        var sweep = await patient.SweepAsync();
        Assert.Equal((1, 0, 1, SweepEnd.NothingDue), (sweep.Claimed, sweep.Labelled, sweep.Waiting, sweep.End));
        Assert.Empty(patient.Model.Calls);

        await patient.LetTimePassAsync();
        Assert.Equal(1, (await patient.SweepAsync()).Labelled);
        Assert.Single(patient.Model.Calls);
        Assert.Equal("model 1", await patient.QuerySingleAsync<string>("select concat_ws(' ', source, attempts) from ticket_decisions"));
        Assert.Equal(0, await patient.QuerySingleAsync<int>("select count(*) from ticket_text_locks"));
    }

    [Fact]
    public async Task A_sweep_clears_away_the_locks_of_the_dead_and_leaves_those_of_the_living()
    {
        await app.ExecuteAsync(
            """
            insert into ticket_text_locks (text_sha256, lease_token, held_until)
            values (sha256('muerto'), gen_random_uuid(), now() - interval '1 second'), (sha256('vivo'), gen_random_uuid(), now() + interval '1 hour')
            """);

        await app.SweepAsync();

        Assert.True(await app.QuerySingleAsync<bool>("select text_sha256 = sha256('vivo') from ticket_text_locks"));
        await app.ExecuteAsync("delete from ticket_text_locks");
    }

    [Fact]
    public async Task A_killed_process_keeps_others_with_the_same_text_waiting_no_longer_than_its_lease()
    {
        const string Text = "su proceso muere y otro espera su decisión";
        var ids = await AddAsync(Text, 2);
        var hold = new ModelHold();
        app.Model.On(Text, ModelStub.Sequence(ModelStub.Held(hold, Good), Good));
        await using var worker = await WorkerProcess.StartAsync(app, "worker", ("SweepSchedule", "0 0 0 1 1 *"), ("Model__AttemptTimeout", "00:01:00"), ("Model__TotalTimeout", "00:01:00"));
        var request = worker.PostAsync(ids[0]);
        await hold.Arrived;
        var time = new WaitingTime();
        var follower = CreateProcess(time).ProcessAsync(ids[1], null, false, default, default);
        await time.WaitForAsync(1);

        await worker.KillAsync();
        Assert.Null(await request);
        await app.LetTimePassAsync();

        Assert.Equal("model", Source(await follower));
        Assert.Equal("reused", (string?)(await (await app.ProcessAsync(ids[0])).ReadJsonAsync())["source"]);
        Assert.Equal(2, app.Model.CallsFor(Text).Count);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Who_waits_for_another_ones_decision_is_given_back_at_once_when_the_process_stops(bool sameProcess)
    {
        var text = $"se para mientras espera, en el mismo proceso: {sameProcess}";
        var ids = await AddAsync(text, 2);
        var hold = app.Model.Hold(text);
        var time = new WaitingTime();
        var second = CreateProcess(time);
        var leader = (sameProcess ? second : CreateProcess()).ProcessAsync(ids[0], null, false, default, default);
        await hold.Arrived;
        using var stopping = new CancellationTokenSource();
        var follower = second.ProcessAsync(ids[1], null, false, default, stopping.Token);
        await time.WaitForAsync(1);

        await stopping.CancelAsync();

        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => follower);
        Assert.Equal(1, await CountAsync($"ticket_work where ticket_id = '{ids[1]}' and attempts = 0 and lease_token is null and due_at <= now() and last_error is null"));
        Assert.Equal(1, await CountAsync("ticket_text_locks"));
        hold.Release();
        Assert.Equal("model", Source(await leader));
        Assert.Single(app.Model.CallsFor(text));
    }

    [Fact]
    public async Task A_ticket_that_is_edited_or_deleted_while_it_waits_gets_nothing_of_the_old_text()
    {
        const string Text = "se cambia o se borra mientras espera";
        const string Edited = "cambiado mientras esperaba";
        var ids = await AddAsync(Text, 3);
        var hold = app.Model.Hold(Text, Good);
        var time = new WaitingTime();
        var process = CreateProcess(time);
        var leader = process.ProcessAsync(ids[0], null, false, default, default);
        await hold.Arrived;
        var edited = process.ProcessAsync(ids[1], null, false, default, default);
        var deleted = process.ProcessAsync(ids[2], null, false, default, default);
        await time.WaitForAsync(2);
        await app.ExecuteAsync("update tickets set description = @Edited where id = @id", new { Edited, id = ids[1] });
        await app.ExecuteAsync("delete from tickets where id = @id", new { id = ids[2] });
        hold.Release();

        Assert.Equal("model", Source(await leader));
        Assert.Equal(("model", "Tecnico"), (Source(await edited), ((TriageResult.Labelled)await edited).Labels.Category));
        Assert.IsType<TriageResult.NotFound>(await deleted);
        Assert.Equal(new TicketRow(ids[1], Edited, "Tecnico", "Negativo", true), await app.ReadTicketAsync(ids[1]));
        Assert.Single(await app.ReadDecisionsAsync(ids[1]));
        Assert.Empty(await app.ReadDecisionsAsync(ids[2]));
        Assert.Equal((1, 1), (app.Model.CallsFor(Text).Count, app.Model.CallsFor(Edited).Count));
    }

    [Fact]
    public async Task Who_gets_the_lock_that_goes_with_the_commit_of_a_decision_sees_that_decision()
    {
        const string Text = "se guarda justo ahora";
        var ids = await AddAsync(Text, 2);
        var hash = SHA256.HashData(Encoding.UTF8.GetBytes(Text));
        var terms = new ClaimTerms(TimeSpan.FromSeconds(90), 5, [ScriptedClassifier.Identity("modelo")]);
        var store = app.Services.GetRequiredService<TicketStore>();
        var first = await ClaimAsync(ids[0]);
        var second = await ClaimAsync(ids[1]);
        Assert.Equal((new TextLock(Owned: true, Locked: true, Earlier: null), null), (first.Turn, second.Turn));
        Assert.Equal(new TextLock(Owned: true, Locked: true, Earlier: null), await store.LockTextAsync(first, hash, 0, terms, default));
        Assert.Equal(new TextLock(Owned: true, Locked: false, Earlier: null), await store.LockTextAsync(second, hash, 0, terms, default));

        // A lock ends with the lease of its ticket.
        Assert.Equal(1, await CountAsync("ticket_text_locks join ticket_work using (lease_token) where held_until = due_at"));

        // What the completion does, stopped before its commit.
        await using var connection = new NpgsqlConnection(app.ConnectionString);
        await connection.OpenAsync();
        await using var transaction = await connection.BeginTransactionAsync();
        await connection.ExecuteAsync(
            """
            insert into ticket_decisions (
              ticket_id, category, sentiment, source, provider, model, prompt_version, taxonomy_version, parameters, text_sha256, model_calls, latency_ms, attempts
            )
            values (@id, 'Otro', 'Neutral', 'model', 'stub', 'modelo', 'prompt-1', 'taxonomy-1', '{}', @hash, 1, 1, 1);
            delete from ticket_text_locks;
            """,
            new { id = ids[0], hash });
        var asked = store.LockTextAsync(second, hash, 0, terms, default);
        await Eventually.TrueAsync(
            async () => await CountAsync("pg_stat_activity where datname = current_database() and application_name = 'ticket-functions' and wait_event_type = 'Lock'") == 1,
            "the second one waits for the lock");
        await transaction.CommitAsync();

        Assert.True(await asked is { Owned: true, Locked: true, Earlier.Category: "Otro" });
        await store.ReleaseAsync(first, TimeSpan.Zero, null, default);
        await store.ReleaseAsync(second, TimeSpan.Zero, null, default);
        Assert.Equal(new TextLock(Owned: false, Locked: false, Earlier: null), await store.LockTextAsync(second, SHA256.HashData([]), 0, terms, default));

        async Task<ClaimedTicket> ClaimAsync(Guid id) =>
            ((Claim.Held)(await store.ClaimAsync([new ClaimRequest(id, Guid.NewGuid())], terms, wait: true))[0]).Ticket;
    }

    [Fact]
    public async Task Force_waits_for_nobody_and_lets_others_wait_for_it()
    {
        const string Text = "forzado entre iguales";
        var ids = await AddAsync(Text, 3);
        ModelHold first = new(), forced = new(), again = new();
        app.Model.On(Text, ModelStub.Sequence(
            ModelStub.Held(first, Good), ModelStub.Held(forced, ModelStub.Labels("Comercial", "Positivo")), ModelStub.Held(again, ModelStub.Labels("Otro", "Neutral"))));

        // Somebody has the text under way: force does not wait for him, and takes nothing from him.
        var leader = app.ProcessAsync(ids[0]);
        await first.Arrived;
        var second = app.ProcessAsync(ids[1], query: "?force=true");
        await forced.Arrived;
        forced.Release();
        Assert.Equal("Comercial", (string?)(await (await second).ReadJsonAsync())["category"]);
        Assert.Equal(1, await CountAsync("ticket_text_locks"));
        first.Release();
        Assert.Equal("Facturacion", (string?)(await (await leader).ReadJsonAsync())["category"]);
        Assert.Equal(0, await CountAsync("ticket_text_locks"));

        // Nobody has: others wait for the forced one and get its decision if there is no older one.
        var third = app.ProcessAsync(ids[1], query: "?force=true");
        await again.Arrived;
        Assert.Equal(1, await CountAsync("ticket_text_locks"));
        Assert.Equal("reused", (string?)(await (await app.ProcessAsync(ids[2])).ReadJsonAsync())["source"]);
        again.Release();
        Assert.Equal("Otro", (string?)(await (await third).ReadJsonAsync())["category"]);
        Assert.Equal(3, app.Model.CallsFor(Text).Count);
    }

    [Fact]
    public async Task A_reused_decision_tells_whose_it_is_and_what_it_saved_also_when_it_was_reused_itself()
    {
        const string Text = "reutilizada de una reutilizada";
        var first = ScriptedClassifier.Identity("primero");
        var fallback = ScriptedClassifier.Identity("segundo");
        var classifier = new ScriptedClassifier(first, fallback)
        {
            Answer = _ => new ClassificationResult.Labelled(
                new Labels("Otro", "Neutral"),
                fallback,
                0.25f,
                NeedsReview: true,
                [
                    ScriptedClassifier.Call("primero", CallOutcome.Unparseable, 100, 10, 0.5m),
                    ScriptedClassifier.Call("segundo", CallOutcome.Labelled, 50, null, 0.0000025m),
                ]),
        };
        var process = CreateProcess(classifier);
        var ids = await AddAsync(Text, 3);
        foreach (var id in ids)
        {
            await process.ProcessAsync(id, null, false, default, default);
        }

        Assert.Single(classifier.Texts);
        var original = (await app.ReadDecisionsAsync(ids[0]))[0]!.AsObject();
        JsonAssert.Equal(
            """
            [
              {"provider":"stub","model":"primero","served_model":"primero-2026","outcome":"unparseable","status":null,"tokens_in":100,"tokens_out":10,"cost":0.5,"latency_ms":7},
              {"provider":"stub","model":"segundo","served_model":"segundo-2026","outcome":"labelled","status":null,"tokens_in":50,"tokens_out":null,"cost":0.0000025,"latency_ms":7}
            ]
            """,
            original["calls"]);
        Assert.Equal(
            ("model", "segundo", "segundo-2026", 150, 10, 0.5000025m, null),
            ((string?)original["source"], (string?)original["model"], (string?)original["served_model"], (int?)original["tokens_in"], (int?)original["tokens_out"],
                (decimal?)original["cost"], (int?)original["saved_tokens"]));
        foreach (var id in ids.Skip(1))
        {
            var reused = (await app.ReadDecisionsAsync(id))[0]!.AsObject();
            Assert.Equal(
                ("reused", "segundo", "segundo-2026", null, null, 160, 0.5000025m, true, 0.25f),
                ((string?)reused["source"], (string?)reused["model"], (string?)reused["served_model"], (int?)reused["tokens_in"], (decimal?)reused["cost"],
                    (int?)reused["saved_tokens"], (decimal?)reused["saved_cost"], (bool)reused["needs_review"]!, (float)reused["confidence"]!));
            Assert.Empty(reused["calls"]!.AsArray());
        }

        // Another prompt is another decision.
        var other = new ScriptedClassifier(first with { PromptVersion = "prompt-2" }, fallback with { PromptVersion = "prompt-2" }) { Answer = classifier.Answer };
        await CreateProcess(other).ProcessAsync(await app.AddTicketAsync(Text), null, false, default, default);
        Assert.Single(other.Texts);
    }

    [Fact]
    public async Task What_the_baseline_decided_as_a_stand_in_is_recorded_as_its_own_and_reused_by_nobody()
    {
        const string Text = "decidido por el suplente";
        var model = ScriptedClassifier.Identity("modelo");
        var standIn = new ClassifierIdentity("baseline", "embedded", "baseline-1", "none", "taxonomy-1", "{}");
        var classifier = new ScriptedClassifier(model, standIn)
        {
            Answer = _ => new ClassificationResult.Labelled(
                new Labels("Otro", "Neutral"), standIn, 0.6f, NeedsReview: false, [ScriptedClassifier.Call("modelo", CallOutcome.Unavailable, null, null)]),
        };
        var process = CreateProcess(classifier);
        var ids = await AddAsync(Text, 2);

        Assert.Equal("baseline", Source(await process.ProcessAsync(ids[0], null, false, default, default)));
        Assert.Equal("baseline", Source(await process.ProcessAsync(ids[1], null, false, default, default)));

        Assert.Equal(2, classifier.Texts.Count);
        var decision = (await app.ReadDecisionsAsync(ids[0]))[0]!;
        Assert.Equal(("baseline", "embedded", "baseline-1", 1), ((string?)decision["source"], (string?)decision["provider"], (string?)decision["model"], (int)decision["model_calls"]!));
        Assert.Null(decision["served_model"]);
        Assert.Equal("unavailable", (string?)decision["calls"]![0]!["outcome"]);
    }

    [Fact]
    public async Task The_embedded_baseline_alone_locks_nothing_and_reuses_nothing()
    {
        await using var free = await TicketApp.StartAsync(("Model__Endpoint", ""), ("Model__Name", ""), ("Model__ApiKey", ""));
        const string Text = "sin modelo";
        await free.ExecuteAsync(
            "insert into ticket_text_locks (text_sha256, lease_token, held_until) values (sha256(convert_to(@Text, 'UTF8')), gen_random_uuid(), now() + interval '1 hour')",
            new { Text });
        foreach (var id in new[] { await free.AddTicketAsync(Text), await free.AddTicketAsync(Text) })
        {
            Assert.Equal("baseline", (string?)(await (await free.ProcessAsync(id)).ReadJsonAsync())["source"]);
        }

        Assert.Equal(1, await free.QuerySingleAsync<int>("select count(*) from ticket_text_locks"));
    }

    private static string? Source(TriageResult result) => (result as TriageResult.Labelled)?.Source ?? result.ToString();

    /// <summary>A triage that knows nothing of the others', as in a process of its own.</summary>
    private TicketTriage CreateProcess(params object[] parts) => ActivatorUtilities.CreateInstance<TicketTriage>(app.Services, parts);

    private TicketSweep CreateSweep(TicketTriage triage) => ActivatorUtilities.CreateInstance<TicketSweep>(app.Services, triage);

    private Task<int> CountAsync(string what) => app.QuerySingleAsync<int>($"select count(*) from {what}");

    private Task<IReadOnlyList<Guid>> AddAsync(string text, int count) =>
        app.QueryAsync<Guid>("insert into tickets (description) select @text from generate_series(1, @count) returning id", new { text, count });
}
