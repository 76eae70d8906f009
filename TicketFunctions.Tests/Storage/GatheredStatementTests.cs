using System.Diagnostics.Metrics;
using System.Net;
using System.Security.Cryptography;
using System.Text;
using Dapper;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Options;
using Npgsql;
using TicketFunctions.Classification;
using TicketFunctions.Storage;
using TicketFunctions.Tests.Support;
using TicketFunctions.Tickets;

namespace TicketFunctions.Tests.Storage;

/// <summary>What one statement for many tickets must not change for each of them.</summary>
public sealed class GatheredStatementTests(TicketApp app) : IClassFixture<TicketApp>, IAsyncLifetime
{
    private const int Many = 40;

    public async Task InitializeAsync()
    {
        await app.ExecuteAsync("delete from tickets; delete from ticket_text_locks");
        app.Model.Default = ModelStub.Labels("Tecnico", "Negativo");
    }

    public Task DisposeAsync() => Task.CompletedTask;

    [Fact]
    public async Task Requests_at_once_share_their_commits_and_each_gets_its_own_answer()
    {
        var ids = await AddManyAsync("juntos");
        var answers = await ProcessAllAsync(ids, id => $"juntos {id}");

        Assert.All(answers, answer => Assert.Equal(HttpStatusCode.OK, answer.StatusCode));
        Assert.Equal(Many, await app.QuerySingleAsync<int>(
            """
            select count(*)
            from tickets
            join ticket_decisions on ticket_id = tickets.id and ticket_decisions.category = tickets.category and ticket_decisions.sentiment = tickets.sentiment
            where text_sha256 = sha256(convert_to(description, 'UTF8'))
              and attempts = 1
            """));
        Assert.Equal((0, 0), await app.QuerySingleAsync<(int, int)>("select (select count(*) from ticket_work), (select count(*) from ticket_text_locks)"));
        Assert.InRange(await app.QuerySingleAsync<int>("select count(distinct xmin::text) from ticket_decisions where ticket_id = any(@ids)", new { ids }), 1, Many / 2);
    }

    [Fact]
    public async Task Decisions_of_several_models_in_one_statement_are_recorded_each_with_its_own_evidence_also_past_one_that_is_stale()
    {
        var ids = await AddManyAsync("de varios modelos");
        var store = app.Services.GetRequiredService<TicketStore>();
        var requests = ids.Select(id => new ClaimRequest(id, Guid.NewGuid())).ToList();
        var claims = await store.ClaimAsync(requests, app.Services.GetRequiredService<TicketTriage>().Terms, wait: true);
        var answers = claims.Select((claim, i) => (Assert.IsType<Claim.Held>(claim).Ticket, Decide(((Claim.Held)claim).Ticket, i))).ToList();
        await app.ExecuteAsync("update tickets set description = 'cambiado entretanto' where id = @id", new { id = ids[4] });

        var statuses = await store.CompleteAsync(answers, wait: false);

        Assert.Equal(ids.Select((_, i) => i == 4 ? WriteStatus.Stale : WriteStatus.Written), statuses);
        Assert.Empty(await app.ReadDecisionsAsync(ids[4]));
        foreach (var (ticket, decision) in answers.Where((_, i) => i != 4))
        {
            var row = Assert.Single(await app.ReadDecisionsAsync(ticket.Id))!;
            Assert.Equal(
                (decision.Labels, decision.Identity.Provider, decision.Identity.PromptVersion, decision.Identity.TaxonomyVersion, Convert.ToHexStringLower(decision.TextSha256), decision.Usage.TokensOut, 1),
                (new Labels((string)row["category"]!, (string)row["sentiment"]!), (string?)row["provider"], (string?)row["prompt_version"], (string?)row["taxonomy_version"], ((string)row["text_sha256"]!)[2..], (int?)row["tokens_out"], (int)row["attempts"]!));
            Assert.Equal(
                (decision.Source, decision.Identity.Model, decision.Identity.Parameters, decision.ServedModel, decision.Usage.TokensIn, decision.Usage.Cost, decision.Confidence, decision.NeedsReview),
                ((string?)row["source"], (string?)row["model"], row["parameters"]!.ToJsonString(), (string?)row["served_model"], (int?)row["tokens_in"], (decimal?)row["cost"], (float?)row["confidence"], (bool)row["needs_review"]!));
            Assert.Equal(
                (decision.Calls.Count, (int)decision.Latency.TotalMilliseconds, decision.Reused?.SavedTokens, decision.Reused?.SavedCost),
                ((int)row["model_calls"]!, (int)row["latency_ms"]!, (int?)row["saved_tokens"], (decimal?)row["saved_cost"]));
            Assert.Equal(decision.Calls.Select(call => call.TokensIn), row["calls"]!.AsArray().Select(call => (int?)call!["tokens_in"]));
        }

        static Decision Decide(ClaimedTicket ticket, int i)
        {
            var identity = new ClassifierIdentity("model", $"proveedor-{i % 2}", $"modelo-{i % 3}", $"prompt-{i % 2}", $"taxonomy-{i % 3}", $$"""{"seed":{{i % 4}}}""");
            var labels = new Labels(i % 2 == 0 ? "Tecnico" : "Otro", i % 3 == 0 ? "Negativo" : "Neutral");
            return i % 5 == 1
                ? new Decision(labels, identity, ticket.TextSha256, null, i % 2 == 0, [], TimeSpan.FromMilliseconds(i), new EarlierDecision
                {
                    Category = labels.Category,
                    Sentiment = labels.Sentiment,
                    Provider = identity.Provider,
                    Model = identity.Model,
                    PromptVersion = identity.PromptVersion,
                    TaxonomyVersion = identity.TaxonomyVersion,
                    ServedModel = i % 2 == 0 ? null : "servido",
                    SavedTokens = i,
                    SavedCost = i / 4m,
                })
                : new Decision(
                    labels, identity, ticket.TextSha256, i % 7 == 0 ? null : i / 64f, i % 2 == 0,
                    [ScriptedClassifier.Call(identity.Model, tokensIn: i, cost: i % 3 == 0 ? null : i / 8m), .. i % 6 == 0 ? [ScriptedClassifier.Call(identity.Model, CallOutcome.Unparseable, tokensIn: null)] : Array.Empty<CallRecord>()],
                    TimeSpan.FromMilliseconds(i));
        }
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Of_two_answers_for_one_ticket_in_one_statement_the_one_whose_lease_it_is_counts(bool isFirst)
    {
        var store = app.Services.GetRequiredService<TicketStore>();
        var ids = await AddManyAsync("con dos respuestas");
        var first = await ClaimAsync(ids);
        await app.ExecuteAsync("update ticket_work set due_at = now() - interval '1 second' where ticket_id = @id", new { id = ids[3] });
        var second = await ClaimAsync(ids[3]);
        var labels = new Labels("Comercial", "Positivo");
        (ClaimedTicket Ticket, Decision Decision)[] late = [.. first.Select(ticket => (ticket, Decide(ticket, new Labels("Tecnico", "Negativo"))))];
        (ClaimedTicket Ticket, Decision Decision)[] good = [(second[0], Decide(second[0], labels))];

        var statuses = await store.CompleteAsync(isFirst ? [.. good, .. late] : [.. late, .. good], wait: false);

        Assert.Equal(
            late.Select(answer => answer.Ticket.Id == ids[3] ? WriteStatus.LeaseLost : WriteStatus.Written),
            isFirst ? statuses[1..] : statuses[..^1]);
        Assert.Equal(WriteStatus.Written, isFirst ? statuses[0] : statuses[^1]);
        Assert.Equal((labels.Category, labels.Sentiment), await app.QuerySingleAsync<(string, string)>("select category, sentiment from tickets where id = @id", new { id = ids[3] }));
        var decision = Assert.Single(await app.ReadDecisionsAsync(ids[3]))!;
        Assert.Equal(("Comercial", 2), ((string?)decision["category"], (int)decision["attempts"]!));
        Assert.Equal((0, 0), await app.QuerySingleAsync<(int, int)>("select (select count(*) from ticket_work), (select count(*) from ticket_text_locks)"));
    }

    [Theory]
    [InlineData("update tickets set description = 'otro' where id = @id", WriteStatus.Stale)]
    [InlineData("update tickets set description = 'otro' where id = @id; update tickets set description = @text where id = @id", WriteStatus.Written)]
    [InlineData("update tickets set created_at = now() where id = @id", WriteStatus.Written)]
    [InlineData("update tickets set category = 'Comercial', sentiment = 'Positivo', processed = true where id = @id", WriteStatus.Stale)]
    [InlineData("delete from tickets where id = @id", WriteStatus.LeaseLost)]
    [InlineData("select from tickets where id = @id for no key update; update ticket_work set lease_token = gen_random_uuid() where ticket_id = @id", WriteStatus.LeaseLost)]
    [InlineData("update tickets set category = 'Comercial', sentiment = 'Positivo', processed = true where id = @id; delete from ticket_work where ticket_id = @id", WriteStatus.LeaseLost)]
    public async Task What_somebody_commits_while_an_answer_waits_for_him_counts(string change, WriteStatus expected)
    {
        var store = app.Services.GetRequiredService<TicketStore>();
        var id = await app.AddTicketAsync("se espera");
        var ticket = Assert.Single(await ClaimAsync(id));
        await using var other = new NpgsqlConnection(app.ConnectionString);
        await other.OpenAsync();
        await using var transaction = await other.BeginTransactionAsync();
        await other.ExecuteAsync(change, new { id, text = ticket.Description }, transaction);
        var before = await other.QuerySingleOrDefaultAsync<(string?, string?)>("select category, sentiment from tickets where id = @id", new { id }, transaction);

        var writing = store.CompleteAsync([(ticket, Decide(ticket, new Labels("Tecnico", "Negativo")))], wait: true);
        await Eventually.TrueAsync(
            async () => await app.QuerySingleAsync<int>("select count(*) from pg_stat_activity where datname = current_database() and application_name = 'ticket-functions' and wait_event_type = 'Lock'") == 1,
            "the answer waits");
        await transaction.CommitAsync();

        Assert.Equal([expected], await writing);
        var isWritten = expected == WriteStatus.Written;
        Assert.Equal(isWritten ? ("Tecnico", "Negativo") : before, await other.QuerySingleOrDefaultAsync<(string?, string?)>("select category, sentiment from tickets where id = @id", new { id }));
        Assert.Equal(isWritten ? 1 : 0, (await app.ReadDecisionsAsync(id)).Count);
        Assert.Equal(
            expected == WriteStatus.Stale ? [ticket.LeaseToken] : [],
            await other.QueryAsync<Guid>("select lease_token from ticket_work where ticket_id = @id and lease_token = @LeaseToken", new { id, ticket.LeaseToken }));
    }

    [Theory]
    [InlineData("a", "new.description := upper(new.description); return new;")]
    [InlineData("z", "new.description := upper(new.description); return new;")]
    [InlineData("a", "return null;")]
    public async Task A_trigger_of_the_team_s_that_changes_the_text_or_refuses_silently_leaves_no_labels_that_nobody_decided(string name, string body)
    {
        var ids = await AddManyAsync("con un disparador");
        await UnderTriggerAsync(name, body, [ids[3]], async () =>
        {
            var answers = await ProcessAllAsync(ids);

            Assert.Equal(Many - 1, answers.Count(answer => answer.StatusCode == HttpStatusCode.OK));
            Assert.NotEqual(HttpStatusCode.OK, answers[3].StatusCode);
            Assert.Equal(Many - 1, await app.QuerySingleAsync<int>("select count(*) from tickets join ticket_decisions on ticket_id = tickets.id where processed and text_sha256 = sha256(convert_to(description, 'UTF8'))"));
            Assert.Equal(1, await app.QuerySingleAsync<int>("select count(*) from tickets where not processed and category is null"));
            Assert.Equal(["StorageRefused"], await app.QueryAsync<string>("select split_part(last_error, ':', 1) from ticket_work"));
        });
    }

    [Fact]
    public async Task A_trigger_that_drops_the_update_refuses_what_is_still_as_it_was_decided_and_a_forced_ticket_keeps_its_labels()
    {
        var ids = await AddManyAsync("sin una palabra");
        var tickets = await ClaimAsync(ids);
        var forced = await app.AddTicketAsync("forzado, sin una palabra");
        await app.ProcessAsync(forced);
        var stored = await app.ReadTicketAsync(forced);
        app.Model.On("forzado, sin una palabra", ModelStub.Labels("Otro", "Negativo"));
        await app.ExecuteAsync("update tickets set description = 'cambiado' where id = @id", new { id = ids[1] });
        await UnderTriggerAsync("a", "return null;", [ids[0], ids[1], forced], async () =>
        {
            var answers = tickets.Select(ticket => (ticket, Decide(ticket, new Labels("Tecnico", "Negativo")))).ToList();
            Assert.Equal(
                tickets.Select(ticket => ticket.Id == ids[0] ? WriteStatus.Refused : ticket.Id == ids[1] ? WriteStatus.Stale : WriteStatus.Written),
                await app.Services.GetRequiredService<TicketStore>().CompleteAsync(answers, wait: false));

            await AssertForcedIsRefusedAsync(forced, stored);
        });
    }

    [Fact]
    public async Task One_whose_labels_the_database_refuses_does_not_keep_the_others_from_theirs()
    {
        var ids = await AddManyAsync("con uno malo");
        await app.ExecuteAsync(
            """
            update tickets set description = 'rechazado' where id = @id;
            alter table tickets add constraint rejects check (description <> 'rechazado' or not processed);
            """,
            new { id = ids[7] });
        try
        {
            var answers = await ProcessAllAsync(ids);

            await answers[7].AssertProblemAsync(503, "storage-unavailable");
            Assert.Equal(Many - 1, answers.Count(answer => answer.StatusCode == HttpStatusCode.OK));
            Assert.Equal(Many - 1, await app.QuerySingleAsync<int>("select count(*) from tickets where processed"));
            Assert.Equal([ids[7]], await app.QueryAsync<Guid>("select ticket_id from ticket_work where last_error like 'StorageRefused:%' and attempts = 1"));
            Assert.Equal(Many, await app.QuerySingleAsync<int>("select count(*) from (select ticket_id from ticket_decisions union all select ticket_id from ticket_failures) as t where ticket_id = any(@ids)", new { ids }));
        }
        finally
        {
            await app.ExecuteAsync("alter table tickets drop constraint rejects");
        }
    }

    [Fact]
    public async Task One_that_somebody_has_locked_is_waited_for_alone()
    {
        var ids = await AddManyAsync("con uno bloqueado");
        await using var other = new NpgsqlConnection(app.ConnectionString);
        await other.OpenAsync();
        await using var transaction = await other.BeginTransactionAsync();
        await other.ExecuteAsync("select from tickets where id = @id for update", new { id = ids[3] }, transaction);

        var requests = ids.Select(id => app.ProcessAsync(id)).ToList();
        await Task.WhenAll(requests.Where((_, i) => i != 3));
        Assert.False(requests[3].IsCompleted);
        await transaction.RollbackAsync();

        Assert.All(await Task.WhenAll(requests), answer => Assert.Equal(HttpStatusCode.OK, answer.StatusCode));
        Assert.Equal([1], await app.QueryAsync<int>("select attempts from ticket_decisions where ticket_id = @id", new { id = ids[3] }));
    }

    [Fact]
    public async Task A_client_with_the_wrong_text_leaves_no_trace_among_others_with_the_right_one()
    {
        var ids = await AddManyAsync("con uno equivocado");

        var answers = await ProcessAllAsync(ids, id => id == ids[5] ? "otro texto" : $"  con uno equivocado {id} ", asked: Many - 1);

        await answers[5].AssertProblemAsync(409, "description-mismatch");
        Assert.Equal(Many - 1, answers.Count(answer => answer.StatusCode == HttpStatusCode.OK));
        Assert.False((await app.ReadTicketAsync(ids[5])).Processed);
        Assert.Equal(0, await app.QuerySingleAsync<int>("select count(*) from ticket_work"));
        Assert.Empty(app.Model.CallsFor("otro texto"));
    }

    [Fact]
    public async Task Claims_of_one_ticket_at_once_by_texts_that_differ_to_the_letter_get_the_row_s_text_and_a_hash_of_it()
    {
        const string Text = "el mismo, con otras letras";
        var hash = SHA256.HashData(Encoding.UTF8.GetBytes(Text));
        var store = app.Services.GetRequiredService<TicketStore>();
        var terms = app.Services.GetRequiredService<TicketTriage>().Terms;
        var ids = new[] { await app.AddTicketAsync(Text), await app.AddTicketAsync($" {Text}") };
        var requests = ids.SelectMany(id => new[]
        {
            new ClaimRequest(id, Guid.NewGuid(), hash, Text),
            new ClaimRequest(id, Guid.NewGuid(), hash, $"{Text} "),
            new ClaimRequest(id, Guid.NewGuid(), SHA256.HashData("otro"u8), "otro"),
        }).ToList();

        var claims = await store.ClaimAsync(requests, terms, wait: true);

        Assert.Equal([Text, $" {Text}"], new[] { claims[0], claims[3] }.Select(claim => Assert.IsType<Claim.Held>(claim).Ticket.Description));
        Assert.All([claims[0], claims[3]], claim => Assert.Equal(hash, ((Claim.Held)claim).Ticket.TextSha256));
        Assert.Equal([Text, $" {Text}"], new[] { claims[1], claims[4] }.Select(claim => Assert.IsType<Claim.InProgress>(claim).Description));
        Assert.All([claims[2], claims[5]], claim => Assert.IsType<Claim.PassedOver>(claim));
    }

    [Fact]
    public async Task A_forced_claim_by_the_text_that_the_row_has_to_the_letter_gets_its_text_and_its_labels()
    {
        const string Text = "forzado, a la letra";
        var id = await app.AddTicketAsync(Text);
        await app.ExecuteAsync("update tickets set category = 'Comercial', sentiment = 'Positivo', processed = true where id = @id", new { id });
        var request = new ClaimRequest(id, Guid.NewGuid(), SHA256.HashData(Encoding.UTF8.GetBytes(Text)), Text, Force: true);

        var claim = (await app.Services.GetRequiredService<TicketStore>().ClaimAsync([request], app.Services.GetRequiredService<TicketTriage>().Terms, wait: true))[0];

        var ticket = Assert.IsType<Claim.Held>(claim).Ticket;
        Assert.Equal((Text, new Labels("Comercial", "Positivo")), (ticket.Description, ticket.Previous));
    }

    /// <summary>The server hashes them as they are; what counts is the hash of the normal form.</summary>
    [Theory]
    [InlineData("a\U0001E4EC\U0001E4EE nuevo")]
    [InlineData("a\u0301 compuesto")]
    [InlineData("\u3000\u0085 blancos de todas clases\u2009\u00A0")]
    [InlineData("\uFFFE no es un carácter \uFFFE")]
    public async Task Texts_are_one_and_the_same_in_every_normal_form(string text)
    {
        var id = await app.AddTicketAsync(text);
        app.Model.On(TicketText.Normalize(text), ModelStub.Labels("Otro", "Neutral"));

        Assert.Equal(HttpStatusCode.OK, (await app.ProcessAsync(id, text)).StatusCode);
        Assert.Equal(SHA256.HashData(Encoding.UTF8.GetBytes(TicketText.Normalize(text))), await app.QuerySingleAsync<byte[]>("select text_sha256 from ticket_decisions where ticket_id = @id", new { id }));
        Assert.Equal("reused", await app.FindSourceAsync(await app.AddTicketAsync($" {text}")));

        // Not the row's to the letter: here the server's hash is compared.
        Assert.Equal(HttpStatusCode.OK, (await app.ProcessAsync(await app.AddTicketAsync($"  {text}"), text)).StatusCode);
        Assert.Single(app.Model.CallsFor(TicketText.Normalize(text)));
    }

    [Fact]
    public async Task A_sweep_goes_on_where_its_last_claim_ended_also_among_tickets_of_one_moment()
    {
        await app.ExecuteAsync("insert into tickets (created_at, description) select case when n % 5 = 0 then null else now() end, 'a la vez ' || n from generate_series(1, 100) as n");
        var sweep = ActivateSweep(new SweepOptions { BatchSize = 7, Concurrency = 3 });

        var summary = await sweep.RunAsync(null, default);

        Assert.Equal((100, 100, SweepEnd.NothingDue), (summary.Claimed, summary.Labelled, summary.End));
        Assert.Equal(100, await app.QuerySingleAsync<int>("select count(distinct ticket_id) from ticket_decisions join tickets on tickets.id = ticket_id where attempts = 1"));
    }

    [Fact]
    public async Task Statements_read_little_for_each_ticket_also_when_their_tables_were_empty_when_they_were_analysed()
    {
        const int Tickets = 2_000;
        await AddManyAsync("de ayer");
        await app.Services.GetRequiredService<TicketSweep>().RunAsync(null, CancellationToken.None);
        await app.ExecuteAsync("vacuum analyze");
        await app.ExecuteAsync(
            """
            insert into tickets (description, created_at) select 'De noche ' || n, now() - interval '1 hour' from generate_series(1, @Tickets) n;
            select pg_stat_reset();
            """,
            new { Tickets });
        var terms = app.Services.GetRequiredService<TicketTriage>().Terms;
        await using (var dataSource = NpgsqlDataSource.Create($"{app.ConnectionString};Application Name=reads"))
        {
            var store = new TicketStore(dataSource);
            FreshTicket? last = null;
            for (var i = 0; i < Tickets / 100; i++)
            {
                last = (await store.ClaimDueAsync(100, last, withWaiting: true, terms)).Last;
            }

            // Those that others hold, and the newest that nobody has.
            var held = await app.QueryAsync<Guid>("select ticket_id from ticket_work limit 100");
            Assert.All(await store.ClaimAsync([.. held.Select(id => new ClaimRequest(id, Guid.NewGuid()))], terms, wait: false), claim => Assert.IsType<Claim.InProgress>(claim));
            Assert.Null(await store.FindNewestAsync(CancellationToken.None));

            // Now half of them are due once more, and half are parked.
            await app.ExecuteAsync(
                """
                update ticket_work set lease_token = null, due_at = now() - interval '1 s', parked_at = case when hashtext(ticket_id::text) % 2 = 0 then now() end
                """);
            var due = (await store.ClaimDueAsync(100, null, withWaiting: true, terms)).Tickets;
            Assert.Equal(100, due.Count);
            var backlog = await store.CountBacklogAsync(CancellationToken.None);
            Assert.Equal((Tickets, 100), (backlog.Unprocessed, backlog.InFlight));
            Assert.InRange(backlog.Parked, 1, Tickets - 101);
            Assert.Equal(0, await store.ForgetProcessedAsync(CancellationToken.None));
            Assert.Equal(0, await store.ForgetLocksAsync(CancellationToken.None));
            Assert.Equal(Tickets - 100 - backlog.Parked, await store.ParkExhaustedAsync(1, CancellationToken.None));
            backlog = await store.CountBacklogAsync(CancellationToken.None);
            Assert.Equal(backlog.Parked, (await store.FindParkedAsync(CancellationToken.None)).Count);
            Assert.Equal(backlog.Parked, (await store.ReviveAsync(null, CancellationToken.None)).Count);
            var answers = due.Select(ticket => (ticket, Decide(ticket, new Labels("Tecnico", "Negativo")))).ToList();
            Assert.All(await store.CompleteAsync(answers, wait: false), status => Assert.Equal(WriteStatus.Written, status));
        }

        // A session's reads are counted at its end.
        await Eventually.TrueAsync(
            async () => await app.QuerySingleAsync<int>("select count(*) from pg_stat_activity where application_name = 'reads'") == 0,
            "the sessions have ended");
        var read = await app.QuerySingleAsync<long>(
            """
            select sum(idx_tup_read) + (select sum(seq_tup_read) from pg_stat_user_tables)
            from pg_stat_user_indexes
            """);
        Assert.InRange(read, Tickets, 100 * Tickets);
    }

    [Fact]
    public async Task A_text_that_takes_minutes_to_normalise_keeps_neither_a_statement_nor_a_thread()
    {
        var good = await AddManyAsync("junto a las marcas");
        await app.ExecuteAsync("insert into tickets (description, created_at) select 'a' || repeat(U&'\\0301', 300000) || repeat(U&'\\0323', 300000) || n, now() - interval '1 hour' from generate_series(1, 2) n");

        var endless = await app.QuerySingleAsync<Guid>("select id from tickets where not processed and length(description) > 1000 limit 1");
        Assert.All(await ProcessAllAsync([endless, .. good[..3]], asked: 4), answer => Assert.Equal(HttpStatusCode.OK, answer.StatusCode));
        var summary = await app.Services.GetRequiredService<TicketSweep>().RunAsync(null, CancellationToken.None).WaitAsync(TimeSpan.FromMinutes(1));

        Assert.Equal((Many - 3 + 1, 0, SweepEnd.NothingDue), (summary.Labelled, summary.Waiting, summary.End));
    }

    [Theory]
    [InlineData("infinity")]
    [InlineData("-infinity")]
    [InlineData("20261-12-01")]
    [InlineData("0044-03-15 BC")]
    public async Task A_ticket_created_at_no_time_that_could_be_counted_is_labelled_like_the_others(string createdAt)
    {
        using var listener = new MeterListener
        {
            InstrumentPublished = (instrument, me) =>
            {
                if (instrument.Name == "tickets.time_to_label")
                {
                    me.EnableMeasurementEvents(instrument);
                }
            },
        };
        var recorded = 0;
        listener.SetMeasurementEventCallback<double>((_, _, _, _) => Interlocked.Increment(ref recorded));
        listener.Start();
        Assert.True(Telemetry.RecordsTimeToLabel);
        await app.ExecuteAsync($"insert into tickets (description, created_at) values ('de otro tiempo', '{createdAt}')");
        Assert.InRange((double)(await (await app.Http.GetAsync("/backlog")).ReadJsonAsync())["oldestSeconds"]!, 0, 1e12);
        await AddManyAsync("de este tiempo");
        var summary = await app.Services.GetRequiredService<TicketSweep>().RunAsync(null, CancellationToken.None);

        Assert.Equal((Many + 1, 0, SweepEnd.NothingDue), (summary.Labelled, summary.Waiting, summary.End));

        // By other tests, too.
        Assert.True(recorded >= Many);
    }

    [Fact]
    public async Task A_forced_ticket_that_a_trigger_makes_unprocessed_keeps_its_labels()
    {
        var id = await app.AddTicketAsync("forzado y deshecho");
        await app.ProcessAsync(id);
        var stored = await app.ReadTicketAsync(id);
        app.Model.On("forzado y deshecho", ModelStub.Labels("Otro", "Negativo"));
        await UnderTriggerAsync("a", "new.processed := false; return new;", [id], () => AssertForcedIsRefusedAsync(id, stored));
    }

    [Fact]
    public async Task Statements_that_were_prepared_survive_a_change_of_the_table()
    {
        await ProcessAllAsync(await AddManyAsync("antes"));
        for (var i = 0; i < 30; i++)
        {
            Assert.Equal("model", await app.FindSourceAsync(await app.AddTicketAsync($"uno por uno {i}")));
        }

        await app.ExecuteAsync("alter table tickets alter column category type varchar(40)");
        try
        {
            Assert.Equal("model", await app.FindSourceAsync(await app.AddTicketAsync("después")));
        }
        finally
        {
            await app.ExecuteAsync("alter table tickets alter column category type text");
        }
    }

    private static Decision Decide(ClaimedTicket ticket, Labels labels) => new(
        labels, new ClassifierIdentity("model", "proveedor", "modelo", "prompt", "taxonomy", "{}"), ticket.TextSha256, null, false,
        [ScriptedClassifier.Call("modelo", tokensIn: 1, cost: null)], TimeSpan.Zero);

    private async Task<List<ClaimedTicket>> ClaimAsync(params Guid[] ids)
    {
        var requests = ids.Select(id => new ClaimRequest(id, Guid.NewGuid())).ToList();
        var claims = await app.Services.GetRequiredService<TicketStore>().ClaimAsync(requests, app.Services.GetRequiredService<TicketTriage>().Terms, wait: true);
        return [.. claims.Select(claim => Assert.IsType<Claim.Held>(claim).Ticket)];
    }

    /// <summary>While the team has a trigger before each update of these tickets.</summary>
    private async Task UnderTriggerAsync(string name, string body, Guid[] ids, Func<Task> act)
    {
        await app.ExecuteAsync(
            $"""
            create function of_the_team() returns trigger language plpgsql as $$ begin {body} end $$;
            create trigger {name}_of_the_team before update on tickets for each row when (new.id in ('{string.Join("', '", ids)}')) execute function of_the_team();
            """);
        try
        {
            await act();
        }
        finally
        {
            await app.ExecuteAsync("drop function of_the_team() cascade");
        }
    }

    private async Task AssertForcedIsRefusedAsync(Guid id, TicketRow stored)
    {
        await (await app.ProcessAsync(id, query: "?force=true")).AssertProblemAsync(503, "storage-unavailable");
        Assert.Equal(stored, await app.ReadTicketAsync(id));
        Assert.Equal(["storage_refused"], await app.QueryAsync<string>("select kind from ticket_failures where ticket_id = @id", new { id }));
        Assert.Equal(0, await app.QuerySingleAsync<int>("select count(*) from ticket_work where ticket_id = @id", new { id }));
    }

    private async Task<Guid[]> AddManyAsync(string text)
    {
        var ids = await app.QueryAsync<Guid>("insert into tickets (id, description) select id, @text || ' ' || id from (select gen_random_uuid() as id from generate_series(1, @Many)) as t returning id", new { text, Many });
        return [.. ids];
    }

    /// <summary>Asks for all, and lets the model answer when all questions are there: then all labels are to be written at once.</summary>
    private async Task<HttpResponseMessage[]> ProcessAllAsync(Guid[] ids, Func<Guid, string>? findText = null, int asked = Many)
    {
        var hold = new ModelHold();
        var answer = app.Model.Default;
        app.Model.Default = ModelStub.Held(hold, answer);
        var requests = ids.Select(id => app.ProcessAsync(id, findText?.Invoke(id))).ToList();
        await hold.WaitForAsync(asked);
        hold.Release();
        return await Task.WhenAll(requests);
    }

    private TicketSweep ActivateSweep(SweepOptions options) =>
        Microsoft.Extensions.DependencyInjection.ActivatorUtilities.CreateInstance<TicketSweep>(app.Services, Options.Create(options));
}
