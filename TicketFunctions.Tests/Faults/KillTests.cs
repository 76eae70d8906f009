using System.Collections.Concurrent;
using System.Diagnostics;
using System.Net;
using Dapper;
using Npgsql;
using TicketFunctions.Tests.Support;
using Xunit.Abstractions;

namespace TicketFunctions.Tests.Faults;

/// <summary>Real processes, killed. The database and the model stub live on in the test.</summary>
public sealed class KillTests(ITestOutputHelper output)
{
    [Fact]
    public async Task A_worker_killed_during_the_call_or_while_it_writes_leaves_each_ticket_to_be_finished_once()
    {
        await using var app = await TicketApp.StartAsync();
        await TicketAudit.InstallAsync(app);
        await using var worker = await WorkerProcess.StartAsync(app, "worker", ("SweepSchedule", "0 0 0 1 1 *"), ("Model__AttemptTimeout", "00:01:00"), ("Model__TotalTimeout", "00:01:00"));
        const string Calling = "su proceso muere durante la llamada";
        const string Writing = "su proceso muere mientras escribe";
        var calling = await app.AddTicketAsync(Calling);
        var writing = await app.AddTicketAsync(Writing);
        var callingHold = app.Model.Hold(Calling);
        var writingHold = app.Model.Hold(Writing);
        var requests = new[] { worker.PostAsync(calling), worker.PostAsync(writing) };
        await callingHold.Arrived;
        await writingHold.Arrived;

        // The write is under way in the database, and waits for somebody's lock.
        await using var other = new NpgsqlConnection(app.ConnectionString);
        await other.OpenAsync();
        await using var transaction = await other.BeginTransactionAsync();
        await other.ExecuteAsync("select from tickets where id = @writing for update", new { writing });
        writingHold.Release();
        await Eventually.TrueAsync(
            async () => await app.QuerySingleAsync<int>(
                "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'worker' and wait_event_type = 'Lock'") == 1,
            "the worker's write waits for the lock");

        await worker.KillAsync();
        await transaction.RollbackAsync();
        Assert.Equal([null, null], await Task.WhenAll(requests));

        // Postgres finishes a statement whose client is dead: the one ticket is done, and the other is somebody's until its lease ends.
        await Eventually.TrueAsync(async () => (await app.ReadTicketAsync(writing)).Processed, "the write was carried out without its client");
        Assert.Equal(0, (await app.SweepAsync()).Claimed);
        await app.LetTimePassAsync();
        callingHold.Release();
        var summary = await app.SweepAsync();

        Assert.Equal((1, 1), (summary.Claimed, summary.Labelled));
        Assert.Equal(
            [(Calling, 2), (Writing, 1)],
            (await app.QueryAsync<(string, int)>("select description, attempts from tickets join ticket_decisions on ticket_id = tickets.id where processed")).Order());
        Assert.Equal((2, 1), (app.Model.CallsFor(Calling).Count, app.Model.CallsFor(Writing).Count));
        await AssertProcessedOnceAsync(app, [calling, writing]);
    }

    [Fact]
    public async Task A_worker_killed_between_claim_and_call_costs_its_ticket_an_attempt_and_no_call()
    {
        await using var app = await TicketApp.StartAsync();
        await TicketAudit.InstallAsync(app);
        const string Text = "su proceso muere entre el reparto y la llamada";
        await using var other = new NpgsqlConnection(app.ConnectionString);
        await other.OpenAsync();
        await using var transaction = await other.BeginTransactionAsync();

        // Before it calls, a worker looks for an earlier decision on the same text: there it waits.
        await other.ExecuteAsync("lock table ticket_decisions in access exclusive mode");
        var id = await app.AddTicketAsync(Text);
        await using var worker = await WorkerProcess.StartAsync(app, "worker");
        await Eventually.TrueAsync(
            async () => await app.QuerySingleAsync<int>("select count(*) from ticket_work where lease_token is not null") == 1, "the worker's sweep has claimed the ticket");

        await worker.KillAsync();
        await transaction.RollbackAsync();
        Assert.Empty(app.Model.CallsFor(Text));

        // What it had sent may be carried out without it, and the lock on the text is then its own until the lease ends.
        await Eventually.TrueAsync(
            async () => await app.QuerySingleAsync<int>("select count(*) from pg_stat_activity where datname = current_database() and application_name = 'worker'") == 0,
            "the dead worker's sessions have ended");
        await app.LetTimePassAsync();
        Assert.Equal(1, (await app.SweepAsync()).Labelled);

        Assert.Single(app.Model.CallsFor(Text));
        Assert.Equal(2, await app.QuerySingleAsync<int>("select attempts from ticket_decisions where ticket_id = @id", new { id }));
        await AssertProcessedOnceAsync(app, [id]);
    }

    [Fact]
    public async Task Wherever_a_worker_is_killed_its_tickets_are_done_within_a_lease_and_a_sweep()
    {
        string[] texts = ["muere tras el reparto", "muere durante la llamada", "muere antes de escribir", "muere tras escribir, sin recibo"];
        await using var app = await TicketApp.StartAsync();
        await TicketAudit.InstallAsync(app);
        await using var proxy = await TcpProxy.ToTestPostgresAsync();
        (string, string)[] settings = [("Triage__Lease", "00:00:03"), ("Model__AttemptTimeout", "00:00:02"), ("Model__TotalTimeout", "00:00:02.5")];
        await using var survivor = await WorkerProcess.StartAsync(app, "survivor", settings);
        await using var victim = await WorkerProcess.StartAsync(
            app, "victim",
            [
                .. settings, ("SweepSchedule", "0 0 0 1 1 *"),
                ("ConnectionStrings__Tickets", $"{app.ConnectionString};Application Name=victim;Host=127.0.0.1;Port={proxy.Port}"),
            ]);

        // The survivor's sweeps leave a ticket alone that waits for its time; the victim is asked by request.
        var ids = (await app.QueryAsync<(Guid Id, string Text)>(
            """
            with ticket as (insert into tickets (description) select unnest(@texts) returning id, description),
            waiting as (insert into ticket_work (ticket_id, attempts, due_at) select id, 0, now() + interval '1 hour' from ticket)
            select id, description from ticket
            """,
            new { texts })).ToDictionary(ticket => ticket.Text, ticket => ticket.Id);

        // Only the statement that writes the labels repeats the text.
        var noRequest = proxy.WhenSeen(Way.ToServer, texts[2], link => link.BlackHole(Way.ToServer));
        var noReply = proxy.WhenSeen(Way.ToServer, texts[3], link => link.BlackHole(Way.ToClient));
        var lost = victim.PostAsync(ids[texts[2]]);
        await noRequest;
        var unconfirmed = victim.PostAsync(ids[texts[3]]);
        await noReply;
        await Eventually.TrueAsync(async () => (await app.ReadTicketAsync(ids[texts[3]])).Processed, "the labels are written");
        var hold = app.Model.Hold(texts[1]);
        var calling = victim.PostAsync(ids[texts[1]]);
        await hold.Arrived;

        // A claim takes the lock on the text, too: there it waits, and is committed when its worker is dead.
        await using var other = new NpgsqlConnection(app.ConnectionString);
        await other.OpenAsync();
        await using var transaction = await other.BeginTransactionAsync();
        await other.ExecuteAsync("insert into ticket_text_locks values (sha256(convert_to(@text, 'UTF8')), gen_random_uuid(), now())", new { text = texts[0] });
        var claimed = victim.PostAsync(ids[texts[0]]);
        await Eventually.TrueAsync(
            async () => await app.QuerySingleAsync<int>(
                "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'victim' and wait_event_type = 'Lock'") == 1,
            "the victim's claim waits");

        await victim.KillAsync();
        var killed = await app.QuerySingleAsync<DateTime>("select clock_timestamp()");
        await transaction.RollbackAsync();
        hold.Release();
        await Eventually.TrueAsync(async () => await app.QuerySingleAsync<bool>("select bool_and(processed) from tickets"), "every ticket is processed");
        Assert.Equal([null, null, null, null], await Task.WhenAll(lost, unconfirmed, calling, claimed));

        var changes = (await TicketAudit.ReadAsync(app)).Where(change => change is { WasProcessed: false, Processed: true }).ToDictionary(change => change.Text!);
        foreach (var text in texts)
        {
            var recovery = changes[text].At - killed;
            output.WriteLine($"{text}: {(recovery < TimeSpan.Zero ? "done before" : $"{recovery.TotalSeconds:0.0} s")}, {app.Model.CallsFor(text).Count} calls");

            // Lease and sweep, and a second for what the machine does besides.
            Assert.InRange(recovery, TimeSpan.FromMinutes(-1), TimeSpan.FromSeconds(3 + 1 + 1));
        }

        Assert.Equal([1, 2, 2, 1], texts.Select(text => app.Model.CallsFor(text).Count));
        Assert.Equal(["survivor", "survivor", "survivor", "victim"], texts.Select(text => changes[text].Application));
        await AssertProcessedOnceAsync(app, ids.Values);
    }

    [Fact]
    public async Task Under_duplicates_sweeps_and_random_kills_each_ticket_is_classified_exactly_once_and_none_is_lost()
    {
        const int Tickets = 100;
        const int Kills = 5;
        var seed = Environment.TickCount;
        output.WriteLine($"Seed: {seed}");
        var random = new Random(seed);
        await using var app = await TicketApp.StartAsync();
        await TicketAudit.InstallAsync(app);
        var ids = await app.QueryAsync<Guid>(
            "insert into tickets (description) select format('entre muertes, número %s', n) from generate_series(1, @Tickets) as n returning id", new { Tickets });

        // Kills come at random moments of the work, counted in model calls: before that call is answered.
        var kills = new Queue<(int Call, int Worker)>(Enumerable.Range(0, Kills).Select(n => ((n * 16) + random.Next(16), random.Next(2))));
        var started = new ConcurrentBag<WorkerProcess>();
        var workers = new WorkerProcess[2];
        var isUp = new[] { true, true };
        var restarts = new List<Task>();
        var answer = app.Model.Default;
        app.Model.Default = async (call, context) =>
        {
            if (TakeVictim() is { } victim)
            {
                await workers[victim].KillAsync();
                lock (kills)
                {
                    restarts.Add(RestartAsync(victim));
                }
            }

            await answer(call, context);
        };

        // Three requests and two webhooks for each ticket, in any order, to either worker; a sender whose worker is gone gives up.
        var requests = ids.SelectMany(id => Enumerable.Range(0, 5).Select(n => (Id: id, IsWebhook: n > 2, Worker: random.Next(2)))).ToArray();
        random.Shuffle(requests);
        var statuses = new List<HttpStatusCode?>();
        try
        {
            await Task.WhenAll(StartAsync(0), StartAsync(1));
            await Parallel.ForEachAsync(requests, new ParallelOptions { MaxDegreeOfParallelism = 8 }, async (request, _) =>
            {
                var status = await workers[request.Worker].PostAsync(request.Id, request.IsWebhook);
                lock (statuses)
                {
                    statuses.Add(status);
                }
            });

            // From here on nothing fails any more.
            var quiet = Stopwatch.StartNew();
            await Eventually.TrueAsync(
                async () => await app.QuerySingleAsync<int>(
                    "select count(*) from tickets where not processed and id not in (select ticket_id from ticket_work where parked_at is not null)") == 0,
                "every ticket is processed or parked");
            output.WriteLine($"Recovered {quiet.Elapsed.TotalSeconds:0.0} s after the last request; calls: {app.Model.Calls.Count}.");
            await Task.WhenAll(restarts);
        }
        finally
        {
            lock (kills)
            {
                kills.Clear();
            }

            await Task.WhenAll(restarts).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing | ConfigureAwaitOptions.ContinueOnCapturedContext);
            foreach (var worker in started)
            {
                await worker.DisposeAsync();
            }
        }

        Assert.Equal(Kills, restarts.Count);
        Assert.Empty(statuses.Except([HttpStatusCode.OK, HttpStatusCode.Conflict, HttpStatusCode.ServiceUnavailable, HttpStatusCode.GatewayTimeout, null]));
        var processed = await app.QueryAsync<Guid>("select id from tickets where processed");
        await AssertProcessedOnceAsync(app, processed);

        // Nobody paid for more than the attempts say: a call each, and one that was killed may have had none.
        var attempts = await app.QueryAsync<(string Text, int Attempts)>(
            """
            select description, coalesce(decision.attempts, work.attempts)
            from tickets
            left join ticket_decisions as decision on decision.ticket_id = tickets.id
            left join ticket_work as work on work.ticket_id = tickets.id
            """);
        Assert.Equal(Tickets, attempts.Count);
        Assert.All(attempts, ticket => Assert.InRange(app.Model.CallsFor(ticket.Text).Count, 0, ticket.Attempts));
        Assert.All(attempts, ticket => Assert.InRange(ticket.Attempts, 1, 5));
        output.WriteLine($"Tickets with more than one attempt: {attempts.Count(ticket => ticket.Attempts > 1)}; parked: {Tickets - processed.Count}.");

        async Task StartAsync(int n)
        {
            workers[n] = await WorkerProcess.StartAsync(app, $"worker-{n}", ("Triage__Lease", "00:00:03"));
            started.Add(workers[n]);
        }

        int? TakeVictim()
        {
            lock (kills)
            {
                if (!kills.TryPeek(out var next) || app.Model.Calls.Count <= next.Call)
                {
                    return null;
                }

                var victim = isUp[next.Worker] ? next.Worker : 1 - next.Worker;
                if (!isUp[victim])
                {
                    return null;
                }

                kills.Dequeue();
                isUp[victim] = false;
                return victim;
            }
        }

        async Task RestartAsync(int n)
        {
            await StartAsync(n);
            lock (kills)
            {
                isUp[n] = true;
            }
        }
    }

    private static async Task AssertProcessedOnceAsync(TicketApp app, IEnumerable<Guid> ids)
    {
        var changes = await TicketAudit.ReadAsync(app);
        Assert.Equal(ids.Order(), changes.Where(change => change is { WasProcessed: false, Processed: true }).Select(change => change.TicketId).Order());
        Assert.DoesNotContain(changes, change => change is { WasProcessed: true });
        Assert.Equal(ids.Order(), (await app.QueryAsync<Guid>("select ticket_id from ticket_decisions")).Order());
        Assert.Equal(0, await app.QuerySingleAsync<int>("select count(*) from ticket_work where parked_at is null"));
    }
}
