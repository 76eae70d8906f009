using System.Net;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using Npgsql;
using TicketFunctions.Storage;
using TicketFunctions.Tests.Support;
using TicketFunctions.Tickets;

namespace TicketFunctions.Tests.Tickets;

public sealed class SweepTests(TicketApp app) : IClassFixture<TicketApp>, IAsyncLifetime
{
    /// <summary>Not a label, and not one when asked again.</summary>
    private static readonly Func<ModelCall, HttpContext, Task> NoLabel = ModelStub.Content("No lo sé.");

    private static readonly Func<ModelCall, HttpContext, Task> Down = ModelStub.Json(500, new JsonObject());

    private int _logged;

    public async Task InitializeAsync()
    {
        await app.ExecuteAsync("delete from tickets");
        app.Model.Default = ModelStub.Labels("Tecnico", "Negativo");
        _logged = app.Log.Count;
    }

    public Task DisposeAsync() => Task.CompletedTask;

    [Fact]
    public async Task A_call_that_hangs_does_not_keep_a_sweep_from_what_becomes_due_meanwhile()
    {
        await using var app = await TicketApp.StartAsync();
        var hold = app.Model.Hold("Cuelga.");
        await app.AddTicketAsync("Cuelga.");
        var sweep = app.SweepAsync();
        await hold.Arrived;

        var late = await app.AddTicketAsync("Llega mientras tanto.");
        await Eventually.TrueAsync(async () => (await app.ReadTicketAsync(late)).Processed, "the sweep never looked again");

        hold.Release();
        Assert.Equal(2, (await sweep).Labelled);
    }

    [Fact]
    public async Task A_sweep_drains_what_is_due_with_no_more_calls_at_once_than_its_concurrency()
    {
        var concurrency = app.Services.GetRequiredService<IOptions<SweepOptions>>().Value.Concurrency;
        var texts = await AddTicketsAsync("a la vez", 3 * concurrency);
        int atOnce = 0, most = 0, calls = 0;
        var first = new ModelHold();
        var others = new ModelHold();
        app.Model.Default = async (call, context) =>
        {
            lock (texts)
            {
                calls++;
                most = Math.Max(most, ++atOnce);
            }

            await ModelStub.Held(call.Ticket == texts[0] ? first : others, ModelStub.Labels("Comercial", "Neutral"))(call, context);
            lock (texts)
            {
                atOnce--;
            }
        };

        var sweep = app.SweepAsync();
        await first.Arrived;
        await others.WaitForAsync(concurrency - 1);

        // No more are claimed than can be asked about: a claimed ticket that waits in a queue would use up its lease.
        Assert.Equal((concurrency, 3 * concurrency), await ReadBacklogAsync());
        first.Release();
        await others.WaitForAsync(1);
        await Eventually.TrueAsync(async () => await ReadBacklogAsync() == (concurrency, (3 * concurrency) - 1), "the first is written, and its place taken");
        others.Release();
        var summary = await sweep;

        Assert.Equal((3 * concurrency, 3 * concurrency, 0, 0, "nothing due"), Counts(summary));
        Assert.Equal(3 * concurrency, await CountAsync("tickets where processed and category = 'Comercial' and sentiment = 'Neutral'"));
        Assert.Equal(0, await CountAsync("ticket_work"));
        Assert.Equal(3 * concurrency, calls);
        Assert.Equal(concurrency, most);
        var line = Assert.Single(LogSince(), entry => entry.Message.StartsWith("Sweep:", StringComparison.Ordinal));
        Assert.Matches($"^Sweep: {3 * concurrency} claimed, {3 * concurrency} labelled, 0 to retry, 0 parked in [0-9]+ ms \\(nothing due\\)$", line.Message);
        Assert.DoesNotContain(LogSince(), entry => entry.Level >= LogLevel.Warning);
    }

    [Fact]
    public async Task When_the_time_budget_is_over_nothing_more_is_claimed_and_what_is_under_way_is_finished()
    {
        await AddTicketsAsync("budget", 6);
        var hold = app.Model.HoldAll();
        var time = new ShiftedTime();

        var sweep = CreateSweep(new SweepOptions { Concurrency = 2, TimeBudget = TimeSpan.FromMinutes(4) }, time).RunAsync(null, default);
        await hold.WaitForAsync(2);
        time.Advance(TimeSpan.FromMinutes(4));
        hold.Release();

        Assert.Equal((2, 2, 0, 0, "time budget"), Counts(await sweep));
        Assert.Equal(4, await CountAsync("tickets where not processed"));
        Assert.Equal(0, await CountAsync("ticket_work"));
    }

    [Fact]
    public async Task A_ticket_that_always_fails_waits_longer_each_time_and_is_parked_after_its_last_attempt()
    {
        const string Poison = "siempre sale mal";
        app.Model.On(Poison, NoLabel);
        var id = await app.AddTicketAsync(Poison);
        var neighbours = await AddTicketsAsync("vecino de un ticket que siempre sale mal", 3);
        const int MaxAttempts = 5;
        int[] seconds = [30, 120, 480, 1920];

        for (var attempt = 1; attempt < MaxAttempts; attempt++)
        {
            var summary = await app.SweepAsync();
            Assert.Equal(attempt == 1 ? (4, 3, 1, 0, "nothing due") : (1, 0, 1, 0, "nothing due"), Counts(summary));
            var work = await ReadWorkAsync(id);
            Assert.Equal((attempt, false, false), (work.Attempts, work.Held, work.Parked));
            Assert.InRange(work.DueIn, seconds[attempt - 1] / 2, seconds[attempt - 1]);

            // It is not due before.
            Assert.Equal((0, 0, 0, 0, "nothing due"), Counts(await app.SweepAsync()));
            await app.LetTimePassAsync();
        }

        Assert.Equal((1, 0, 0, 1, "nothing due"), Counts(await app.SweepAsync()));

        // Two calls an attempt: the second one says what was wrong with the first answer.
        Assert.Equal(2 * MaxAttempts, app.Model.CallsFor(Poison).Count);
        var parked = await ReadWorkAsync(id);
        Assert.Equal((MaxAttempts, false, true), (parked.Attempts, parked.Held, parked.Parked));
        Assert.StartsWith("UpstreamInvalid: ", parked.LastError);

        // From now on nobody pays for it: no sweep, however late, and no request.
        await app.ExecuteAsync("update ticket_work set due_at = now() - interval '1 day', parked_at = now() - interval '1 day'");
        Assert.Equal((0, 0, 0, 0, "nothing due"), Counts(await app.SweepAsync()));
        await (await app.ProcessAsync(id)).AssertProblemAsync(502, "upstream-invalid");
        Assert.Equal(2 * MaxAttempts, app.Model.CallsFor(Poison).Count);
        Assert.Equal(parked with { DueIn = 0 }, await ReadWorkAsync(id) with { DueIn = 0 });
        Assert.Equal(new TicketRow(id, Poison, null, null, false), await app.ReadTicketAsync(id));

        Assert.All(neighbours, text => Assert.Single(app.Model.CallsFor(text)));
        Assert.Equal(3, await CountAsync("tickets where processed"));
    }

    [Fact]
    public async Task A_ticket_whose_worker_dies_at_every_attempt_is_parked_and_one_with_an_attempt_left_gets_it()
    {
        var max = app.Services.GetRequiredService<IOptions<TriageOptions>>().Value.MaxAttempts;
        var exhausted = await AddDeadWorkAsync("su proceso muere cada vez", max, "-1 second", null);
        var failedBefore = await AddDeadWorkAsync("falla y al final su proceso muere", max, "-1 second", "UpstreamTimeout: timeout");
        var attemptLeft = await AddDeadWorkAsync("le queda un intento", max - 1, "-1 second", null);
        var diesMeanwhile = await AddDeadWorkAsync("su proceso muere mientras otros barren", max, "1 hour", null);
        var stillHeld = await AddDeadWorkAsync("otro proceso lo tiene en su último intento", max, "1 hour", null);

        var hold = app.Model.Hold("le queda un intento");
        var sweep = app.SweepAsync();
        await hold.Arrived;

        // Its lease ends in the middle of the run: that is no attempt more either.
        await app.ExecuteAsync("update ticket_work set due_at = now() - interval '1 second' where ticket_id = @diesMeanwhile", new { diesMeanwhile });
        hold.Release();
        Assert.Equal((1, 1, 0, 2, "nothing due"), Counts(await sweep));

        Assert.Equal(new Work(max, false, true, "interrupted: the process ended during the last attempt", 0), await ReadWorkAsync(exhausted) with { DueIn = 0 });
        Assert.Equal(new Work(max, false, true, "UpstreamTimeout: timeout", 0), await ReadWorkAsync(failedBefore) with { DueIn = 0 });
        Assert.Equal(new Work(max, true, false, null, 0), await ReadWorkAsync(stillHeld) with { DueIn = 0 });
        Assert.True((await app.ReadTicketAsync(attemptLeft)).Processed);
        Assert.Equal(["le queda un intento"], (await app.QueryAsync<string>("select description from tickets")).Where(text => app.Model.CallsFor(text).Count > 0));
        Assert.Equal((0, 0, 0, 1, "nothing due"), Counts(await app.SweepAsync()));
        Assert.True((await ReadWorkAsync(diesMeanwhile)).Parked);
    }

    [Fact]
    public async Task As_many_calls_as_allowed_are_under_way_all_the_time_and_what_is_written_takes_no_place()
    {
        // Every call is answered when the next one is there: with one place less they would wait for ever.
        const int Concurrency = 4;
        await AddTicketsAsync("sin pausa", 200);
        var waiting = new Queue<TaskCompletionSource>();
        int most = 0, calls = 0;
        app.Model.Default = async (call, context) =>
        {
            var answer = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            lock (waiting)
            {
                waiting.Enqueue(answer);
                most = Math.Max(most, waiting.Count);
                var isLast = ++calls == 200;
                while (waiting.Count == Concurrency || (isLast && waiting.Count > 0))
                {
                    waiting.Dequeue().SetResult();
                }
            }

            await answer.Task;
            await ModelStub.Labels("Otro", "Neutral")(call, context);
        };

        Assert.Equal((200, 200, 0, 0, "nothing due"), Counts(await CreateSweep(new SweepOptions { BatchSize = 50, Concurrency = Concurrency }).RunAsync(null, default)));
        Assert.Equal(Concurrency, most);
    }

    [Fact]
    public async Task Of_one_text_in_one_claim_the_first_ticket_has_the_lock()
    {
        await app.ExecuteAsync("insert into tickets (created_at, description) select now() + n * interval '1 ms', case when n % 5 = 0 then 'distinto ' || n else 'el mismo en un reparto' end from generate_series(1, 64) as n");

        var claim = await app.Services.GetRequiredService<TicketStore>().ClaimDueAsync(64, null, withWaiting: true, app.Services.GetRequiredService<TicketTriage>().Terms);

        Assert.Equal(
            claim.Tickets.DistinctBy(ticket => ticket.Description).Select(ticket => ticket.Id),
            claim.Tickets.Where(ticket => ticket.Turn is { Locked: true }).Select(ticket => ticket.Id));
        await app.ExecuteAsync("delete from ticket_text_locks");
    }

    [Theory]
    [InlineData(500)]
    [InlineData(429)]
    [InlineData(504)]
    public async Task A_sweep_that_finds_no_model_ends_early_and_leaves_the_rest_as_they_were(int status)
    {
        await AddTicketsAsync($"sin modelo {status}", 60);
        app.Model.Default = ModelStub.Json(status, new JsonObject());
        var before = app.Model.Calls.Count;

        var summary = await app.SweepAsync();

        Assert.Equal(SweepEnd.ModelUnavailable, summary.End);
        Assert.InRange(summary.Waiting, 5, 16);
        Assert.Equal((summary.Waiting, 0, 0), (summary.Claimed, summary.Labelled, summary.Parked));
        Assert.Equal(summary.Waiting, app.Model.Calls.Count - before);
        Assert.Equal(summary.Waiting, await CountAsync("ticket_work"));
        Assert.Contains(LogSince(), entry => entry.Message.StartsWith("Sweep:", StringComparison.Ordinal) && entry.Message.EndsWith("(model unavailable)", StringComparison.Ordinal));

        // The model is back: everything is labelled, those that waited too.
        app.Model.Default = ModelStub.Labels("Otro", "Neutral");
        await app.LetTimePassAsync();
        Assert.Equal((60, 60, 0, 0, "nothing due"), Counts(await app.SweepAsync()));
    }

    [Fact]
    public async Task Three_sweeps_at_once_share_a_thousand_tickets_without_meeting()
    {
        await TicketAudit.InstallAsync(app);
        var texts = await AddTicketsAsync("mil", 1000);
        var before = app.Model.Calls.Count;

        var summaries = await Task.WhenAll(app.SweepAsync(), app.SweepAsync(), app.SweepAsync());

        Assert.Equal(1000, summaries.Sum(summary => summary.Claimed));
        Assert.Equal(1000, summaries.Sum(summary => summary.Labelled));
        Assert.Equal(texts.Order(), app.Model.Calls.Skip(before).Select(call => call.Ticket).Order());
        Assert.Equal(1000, await CountAsync("ticket_decisions where ticket_id in (select id from tickets)"));
        Assert.Equal(0, await CountAsync("ticket_work"));
        var done = (await TicketAudit.ReadAsync(app)).Where(change => change is { WasProcessed: false, Processed: true }).ToList();
        Assert.Equal(1000, done.Select(change => change.TicketId).Distinct().Count());
        Assert.Equal(1000, done.Count);

        // A deadlock would have been retried and reported.
        Assert.DoesNotContain(LogSince(), entry => entry.Level >= LogLevel.Warning);
        Assert.Equal(0, await app.QuerySingleAsync<long>("select deadlocks from pg_stat_database where datname = current_database()"));
    }

    [Theory]
    [InlineData("inválido")]
    [InlineData("caído")]
    public async Task Old_tickets_that_always_fail_do_not_keep_new_ones_from_their_turn(string fault)
    {
        var poison = await AddTicketsAsync($"viejo y {fault}", 100);
        await app.ExecuteAsync("update tickets set created_at = now() - interval '1 day'");
        await AddTicketsAsync($"nuevo junto a {fault}", 10);
        foreach (var text in poison)
        {
            app.Model.On(text, fault == "caído" ? Down : NoLabel);
        }

        var sweep = CreateSweep(new SweepOptions { BatchSize = 10 });
        for (var run = 1; run <= 3; run++)
        {
            await sweep.RunAsync(null, default);
            await app.LetTimePassAsync();
        }

        Assert.Equal(10, await CountAsync("tickets where processed"));
        Assert.Equal(0, await CountAsync("tickets where processed and description like 'viejo%'"));
    }

    [Fact]
    public async Task A_newest_ticket_that_somebody_else_has_locked_does_not_stand_in_for_the_next_one()
    {
        const string Next = "nuevo y libre";
        const string Locked = "el más nuevo, bloqueado por alguien";
        foreach (var text in await AddTicketsAsync("viejo y caído, con uno bloqueado", 20))
        {
            app.Model.On(text, Down);
        }

        await app.ExecuteAsync("update tickets set created_at = now() - interval '1 day'");
        await app.AddTicketAsync(Next);
        await app.AddTicketAsync(Locked);
        await using var connection = new NpgsqlConnection(app.ConnectionString);
        await connection.OpenAsync();
        await using var transaction = await connection.BeginTransactionAsync();
        await using var command = new NpgsqlCommand("select from tickets where description = @Locked for update", connection) { Parameters = { new("Locked", Locked) } };
        await command.ExecuteNonQueryAsync();

        // In doubt about the oldest the newest is tried: of those that are free.
        Assert.Equal("model unavailable", (await CreateSweep(new SweepOptions { Concurrency = 1 }).RunAsync(null, default)).Why);

        Assert.Single(app.Model.CallsFor(Next));
        Assert.Equal(1, await CountAsync("tickets where processed"));
        Assert.Empty(app.Model.CallsFor(Locked));
    }

    [Fact]
    public async Task A_sweep_that_is_stopped_gives_back_what_is_under_way_and_the_attempt_does_not_count()
    {
        await AddTicketsAsync("parada", 12);
        var hold = app.Model.HoldAll();
        using var stopping = new CancellationTokenSource();

        var sweep = app.SweepAsync(stopping.Token);
        await hold.WaitForAsync(8);
        await stopping.CancelAsync();

        Assert.Equal((8, 0, 0, 0, "stopped"), Counts(await sweep));
        Assert.Equal(12, await CountAsync("tickets where not processed"));
        Assert.Equal(8, await CountAsync("ticket_work where attempts = 0 and lease_token is null and due_at <= now() and parked_at is null and last_error is null"));
        Assert.DoesNotContain(LogSince(), entry => entry.Level >= LogLevel.Warning);

        // A later answer for what was given back changes nothing, and the next sweep starts at once with attempt 1.
        hold.Release();
        app.Model.Default = ModelStub.Labels("Facturacion", "Positivo");
        Assert.Equal((12, 12, 0, 0, "nothing due"), Counts(await app.SweepAsync()));
        Assert.Equal(12, await CountAsync("tickets join ticket_decisions on ticket_id = tickets.id where attempts = 1 and tickets.category = 'Facturacion'"));
        Assert.Equal(12, await CountAsync("ticket_decisions where ticket_id in (select id from tickets)"));
    }

    [Fact]
    public async Task A_parked_ticket_stays_parked_also_where_more_attempts_are_allowed_by_now()
    {
        const string Text = "aparcado antes de subir el límite";
        var id = await app.AddTicketAsync(Text);
        await app.ExecuteAsync(
            "insert into ticket_work (ticket_id, attempts, due_at, parked_at, last_error) values (@id, 1, now() - interval '1 day', now(), 'UpstreamInvalid: nada')", new { id });

        await (await app.ProcessAsync(id)).AssertProblemAsync(502, "upstream-invalid");
        Assert.Equal(0, (await app.SweepAsync()).Claimed);

        Assert.Empty(app.Model.CallsFor(Text));
        Assert.True((await ReadWorkAsync(id)) is { Attempts: 1, Held: false, Parked: true });
    }

    [Fact]
    public async Task Blank_texts_are_parked_without_a_call_until_somebody_writes_something()
    {
        var blank = await app.AddTicketAsync("   ");
        var empty = await app.AddTicketAsync("");
        var invisible = await app.AddTicketAsync("\u200b\u2060\ufe0f \u3164\r\n");
        var before = app.Model.Calls.Count;

        Assert.Equal((3, 0, 0, 3, "nothing due"), Counts(await app.SweepAsync()));
        await app.LetTimePassAsync();
        Assert.Equal((0, 0, 0, 0, "nothing due"), Counts(await app.SweepAsync()));

        Assert.Equal(before, app.Model.Calls.Count);
        foreach (var id in new[] { blank, empty, invisible })
        {
            var work = await ReadWorkAsync(id);
            Assert.True(work.Parked);
            Assert.StartsWith("blank: ", work.LastError);
        }

        await app.ExecuteAsync("update tickets set description = 'Ahora sí: me han cobrado dos veces.' where id = @blank", new { blank });
        Assert.Equal((1, 1, 0, 0, "nothing due"), Counts(await app.SweepAsync()));
        Assert.True((await app.ReadTicketAsync(blank)).Processed);
    }

    [Fact]
    public async Task Whatever_characters_a_text_is_made_of_it_is_labelled_and_stands_in_nobodys_way()
    {
        // Anything that Postgres stores: noncharacters, half an emoji's joiner, private use, marks without a letter, right to left.
        string[] texts = ["la app\ufffe falla", "la app\uffff falla", "\ufdd0 falla", "👩\u200d falla", "\ue000 falla", "\u0301\u0301 falla", "\u202e allaf", new string('a', 100_000)];
        await app.ExecuteAsync("insert into tickets (description) select unnest(@texts)", new { texts });

        Assert.Equal((texts.Length, texts.Length, 0, 0, "nothing due"), Counts(await app.SweepAsync()));

        Assert.Equal(texts.Length, await CountAsync("tickets where processed"));
        var id = await app.QuerySingleAsync<Guid>("select id from tickets where description = @text", new { text = texts[0] });
        Assert.Equal(HttpStatusCode.OK, (await app.ProcessAsync(id, texts[0])).StatusCode);
        await (await app.ProcessAsync(id, "la app\ufffe")).AssertProblemAsync(409, "description-mismatch");
        Assert.DoesNotContain(LogSince(), entry => entry.Level >= LogLevel.Warning);
    }

    [Fact]
    public async Task A_ticket_that_a_person_labels_while_it_waits_or_is_parked_loses_its_work_row_and_keeps_the_persons_labels()
    {
        const string Waits = "espera y alguien lo etiqueta";
        const string IsParked = "aparcado y alguien lo etiqueta";
        app.Model.On(Waits, NoLabel);
        var waits = await app.AddTicketAsync(Waits);
        await app.SweepAsync();
        var parked = await AddDeadWorkAsync(IsParked, 5, "-1 second", null);
        await app.SweepAsync();
        Assert.Equal(2, await CountAsync("ticket_work"));
        const string IsDead = "su proceso murió y alguien lo etiqueta";
        var dead = await AddDeadWorkAsync(IsDead, 5, "-1 second", null);

        await app.ExecuteAsync("update tickets set category = 'Comercial', sentiment = 'Positivo', processed = true");
        Assert.Equal((0, 0, 0, 0, "nothing due"), Counts(await app.SweepAsync()));

        Assert.Equal(0, await CountAsync("ticket_work"));
        Assert.Equal(new TicketRow(waits, Waits, "Comercial", "Positivo", true), await app.ReadTicketAsync(waits));
        Assert.Equal(new TicketRow(parked, IsParked, "Comercial", "Positivo", true), await app.ReadTicketAsync(parked));
        Assert.Equal(new TicketRow(dead, IsDead, "Comercial", "Positivo", true), await app.ReadTicketAsync(dead));
        Assert.Empty(app.Model.CallsFor(IsParked));
    }

    [Fact]
    public async Task A_ticket_that_a_person_labels_while_a_sweep_is_under_way_is_not_claimed_by_it()
    {
        const string First = "el primero ocupa el único puesto";
        const string Waits = "espera su turno y alguien lo etiqueta";
        var hold = app.Model.Hold(First);
        await app.AddTicketAsync(First);
        await app.ExecuteAsync("update tickets set created_at = now() - interval '1 day'");
        var waits = await AddDeadWorkAsync(Waits, 1, "-1 second", null);

        // The sweep has cleared away the work on processed tickets, and will look for more as soon as the first is done.
        // One that claims it again and again comes to no end by itself.
        using var tooLong = new CancellationTokenSource(TimeSpan.FromSeconds(20));
        var sweep = CreateSweep(new SweepOptions { Concurrency = 1 }).RunAsync(null, tooLong.Token);
        await hold.Arrived;
        await app.ExecuteAsync("update tickets set category = 'Comercial', sentiment = 'Positivo', processed = true where id = @waits", new { waits });
        hold.Release();

        Assert.Equal((1, 1, 0, 0, "nothing due"), Counts(await sweep));
        Assert.Empty(app.Model.CallsFor(Waits));
        Assert.Equal(new TicketRow(waits, Waits, "Comercial", "Positivo", true), await app.ReadTicketAsync(waits));
        await app.SweepAsync();
        Assert.Equal(0, await CountAsync("ticket_work"));
    }

    [Fact]
    public async Task A_forced_decision_that_fails_keeps_the_old_labels_and_leaves_no_work_behind()
    {
        const string Text = "forzado y falla";
        var id = await app.AddTicketAsync(Text);
        await app.SweepAsync();
        var row = await ReadWholeRowAsync(id);

        app.Model.On(Text, Down);
        await (await app.ProcessAsync(id, query: "?force=true")).AssertProblemAsync(503, "upstream-unavailable");
        app.Model.On(Text, NoLabel);
        await (await app.ProcessAsync(id, query: "?force=true")).AssertProblemAsync(502, "upstream-invalid");

        Assert.Equal(row, await ReadWholeRowAsync(id));
        Assert.Equal(0, await CountAsync("ticket_work"));
        Assert.Equal(1, await CountAsync($"ticket_decisions where ticket_id = '{id}'"));
        Assert.Equal((0, 0, 0, 0, "nothing due"), Counts(await app.SweepAsync()));
    }

    [Fact]
    public async Task Tickets_that_somebody_else_has_locked_do_not_stop_the_others()
    {
        var locked = await AddTicketsAsync("bloqueado por alguien", 20);
        await app.ExecuteAsync("update tickets set created_at = now() - interval '1 day'");
        var free = await AddTicketsAsync("libre", 5);
        await using var connection = new NpgsqlConnection(app.ConnectionString);
        await connection.OpenAsync();
        await using (var transaction = await connection.BeginTransactionAsync())
        {
            await using var command = new NpgsqlCommand("update tickets set created_at = created_at where description like 'bloqueado%'", connection);
            Assert.Equal(20, await command.ExecuteNonQueryAsync());

            Assert.Equal((5, 5, 0, 0, "nothing due"), Counts(await app.SweepAsync()));
            await transaction.RollbackAsync();
        }

        Assert.All(free, text => Assert.Single(app.Model.CallsFor(text)));
        Assert.All(locked, text => Assert.Empty(app.Model.CallsFor(text)));
        Assert.Equal((20, 20, 0, 0, "nothing due"), Counts(await app.SweepAsync()));
    }

    private static (int Claimed, int Labelled, int Waiting, int Parked, string End) Counts(SweepSummary summary) =>
        (summary.Claimed, summary.Labelled, summary.Waiting, summary.Parked, summary.Why);

    private TicketSweep CreateSweep(SweepOptions options, TimeProvider? time = null) =>
        ActivatorUtilities.CreateInstance<TicketSweep>(app.Services, Options.Create(options), time ?? TimeProvider.System);

    private IEnumerable<(LogLevel Level, string Message)> LogSince() => app.Log.Skip(_logged);

    private Task<int> CountAsync(string what) => app.QuerySingleAsync<int>($"select count(*) from {what}");

    /// <summary>Adds tickets, each with a text of its own, the first one oldest.</summary>
    private async Task<IReadOnlyList<string>> AddTicketsAsync(string text, int count) =>
        await app.QueryAsync<string>(
            """
            insert into tickets (description, created_at)
            select format('%s, número %s', @text, n), now() + n * interval '1 microsecond'
            from generate_series(1, @count) as n
            returning description
            """,
            new { text, count });

    /// <summary>Adds a ticket as a process leaves it that was killed during an attempt.</summary>
    private async Task<Guid> AddDeadWorkAsync(string text, int attempts, string leaseEnds, string? lastError)
    {
        var id = await app.AddTicketAsync(text);
        await app.ExecuteAsync(
            """
            insert into ticket_work (ticket_id, attempts, lease_token, due_at, last_error)
            values (@id, @attempts, gen_random_uuid(), now() + @leaseEnds::interval, @lastError)
            """,
            new { id, attempts, leaseEnds, lastError });
        return id;
    }

    private async Task<(int? InFlight, int? Unprocessed)> ReadBacklogAsync()
    {
        var backlog = await (await app.Http.GetAsync("/backlog")).ReadJsonAsync();
        return ((int?)backlog["inFlight"], (int?)backlog["unprocessed"]);
    }

    private Task<Work> ReadWorkAsync(Guid id) => app.QuerySingleAsync<Work>(
        """
        select attempts, lease_token is not null as held, parked_at is not null as parked, last_error, extract(epoch from due_at - now())::float8 as due_in
        from ticket_work
        where ticket_id = @id
        """,
        new { id });

    private Task<string> ReadWholeRowAsync(Guid id) =>
        app.QuerySingleAsync<string>("select concat(xmin, ' ', tickets) from tickets where id = @id", new { id });

    private sealed record Work(int Attempts, bool Held, bool Parked, string? LastError, double DueIn);
}
