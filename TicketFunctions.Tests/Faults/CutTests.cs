using System.Diagnostics;
using System.Net;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Options;
using Npgsql;
using TicketFunctions.Tests.Support;
using TicketFunctions.Tickets;
using Xunit.Abstractions;

namespace TicketFunctions.Tests.Faults;

/// <summary>The product reaches its database through a proxy that breaks connections.</summary>
public sealed class CutTests(ITestOutputHelper output) : IAsyncLifetime
{
    private TcpProxy _proxy = null!;
    private TicketApp _app = null!;

    public async Task InitializeAsync()
    {
        _proxy = await TcpProxy.ToTestPostgresAsync();
        _app = await TicketApp.StartAsync(("ConnectionStrings__Tickets", $"Host=127.0.0.1;Port={_proxy.Port}"));
        await TicketAudit.InstallAsync(_app);
    }

    public async Task DisposeAsync()
    {
        await ((IAsyncLifetime)_app).DisposeAsync();
        await _proxy.DisposeAsync();
    }

    [Fact]
    public async Task Labels_that_are_lost_on_their_way_are_sent_again_and_those_that_arrived_are_found()
    {
        // Only the statement that writes the labels repeats the text.
        const string Lost = "la escritura no llega";
        const string Unconfirmed = "llega y su recibo no";
        var lost = await _app.AddTicketAsync(Lost);
        var unconfirmed = await _app.AddTicketAsync(Unconfirmed);
        var noRequest = _proxy.WhenSeen(Way.ToServer, Lost, link => link.Reset());
        var noReply = _proxy.WhenSeen(Way.ToServer, Unconfirmed, link => link.BlackHole(Way.ToClient));

        var first = await _app.ProcessAsync(lost);
        await noRequest;
        var second = _app.ProcessAsync(unconfirmed);
        var link = await noReply;
        await Eventually.TrueAsync(async () => (await _app.ReadTicketAsync(unconfirmed)).Processed, "the labels are written");
        link.Reset();

        Assert.Equal("model", (string?)(await first.ReadJsonAsync())["source"]);
        Assert.Equal("stored", (string?)(await (await second).ReadJsonAsync())["source"]);
        Assert.Equal((1, 1), (_app.Model.CallsFor(Lost).Count, _app.Model.CallsFor(Unconfirmed).Count));
        await AssertProcessedOnceAsync(2);
        Assert.Equal(0, await _app.QuerySingleAsync<int>("select count(*) from ticket_failures"));
    }

    [Theory]
    [InlineData("as asked (id, lease_token, expected", "select exists (select from ticket_work)", 502)]
    [InlineData("as owned,", "select exists (select from ticket_text_locks)", 502)]
    [InlineData("insert into public.ticket_failures", "select exists (select from ticket_failures)", 502)]
    [InlineData("last_failed_at = now()", "select exists (select from ticket_work where lease_token is null)", 409)]
    public async Task A_statement_whose_receipt_is_lost_is_sent_again_and_counts_once(string statement, string committed, int status)
    {
        const string Text = "escrito y nadie se entera";
        var id = await _app.AddTicketAsync(Text);
        _app.Model.On(Text, ModelStub.Labels("Nada", "Nada"));
        if (statement == "as owned,")
        {
            // The claim does not get the lock on the text, so it is asked for by itself.
            await _app.ExecuteAsync(
                """
                create sequence locks;
                create function miss_first() returns trigger language plpgsql as $$
                begin
                  return case when nextval('locks') > 1 then new end;
                end;
                $$;
                create trigger miss_first before insert on ticket_text_locks for each row execute function miss_first();
                """);
        }

        var noReceipt = _proxy.WhenSeen(Way.ToServer, statement, link => link.BlackHole(Way.ToClient));

        var request = _app.ProcessAsync(id);
        var link = await noReceipt;
        await Eventually.TrueAsync(() => _app.QuerySingleAsync<bool>(committed), "the statement is committed");
        link.Reset();

        Assert.Equal(status, (int)(await request).StatusCode);
        Assert.Equal(2, _app.Model.CallsFor(Text).Count);
        Assert.Equal(1, await _app.QuerySingleAsync<int>("select attempts from ticket_work where lease_token is null and parked_at is null"));
        Assert.Equal([1], await _app.QueryAsync<int>("select attempt from ticket_failures"));
        Assert.Equal(0, await _app.QuerySingleAsync<int>("select count(*) from ticket_text_locks"));
    }

    [Fact]
    public async Task A_claim_on_the_last_attempt_whose_receipt_is_lost_is_still_the_last_attempt()
    {
        const string Text = "el último intento";
        var id = await _app.AddTicketAsync(Text);
        await _app.ExecuteAsync("insert into ticket_work (ticket_id, attempts, due_at) select id, 4, now() from tickets");
        var noReceipt = _proxy.WhenSeen(Way.ToServer, "as asked (id, lease_token, expected", link => link.BlackHole(Way.ToClient));

        var request = _app.ProcessAsync(id);
        var link = await noReceipt;
        await Eventually.TrueAsync(() => _app.QuerySingleAsync<bool>("select exists (select from ticket_work where attempts = 5)"), "the ticket is claimed");
        link.Reset();

        Assert.Equal("model", (string?)(await (await request).ReadJsonAsync())["source"]);
        Assert.Equal(5, await _app.QuerySingleAsync<int>("select attempts from ticket_decisions"));
    }

    [Theory]
    [InlineData("with fresh as (")]
    [InlineData("as asked (id, lease_token, expected")]
    public async Task A_claim_that_is_on_its_way_when_the_sweep_is_stopped_or_the_client_leaves_is_not_forgotten(string claim)
    {
        // A session that is reset cannot be cancelled before that is confirmed; one behind a transaction pooler can.
        await using var app = await TicketApp.StartAsync(
            _app.ConnectionString, null, ("ConnectionStrings__Tickets", $"Host=127.0.0.1;Port={_proxy.Port};No Reset On Close=true"));
        var id = await app.AddTicketAsync("se reparte en el momento de parar");

        // It is carried out, and word of it comes late.
        var claiming = _proxy.WhenSeen(Way.ToServer, claim, _ => _proxy.Delay = TimeSpan.FromSeconds(1));
        using var left = new CancellationTokenSource();
        Task work = claim == "with fresh as ("
            ? app.SweepAsync(left.Token)
            : app.Services.GetRequiredService<TicketTriage>().ProcessAsync(id, null, false, left.Token, default);
        await claiming;
        await Eventually.TrueAsync(async () => await app.QuerySingleAsync<int>("select count(*) from ticket_work") == 1, "the ticket is claimed");
        _proxy.Delay = TimeSpan.Zero;
        await left.CancelAsync();

        await work;
        Assert.Equal(0, await app.QuerySingleAsync<int>("select count(*) from ticket_work"));

        // The request goes on. The sweep had not begun: the ticket is as it was, and the next one's.
        Assert.Equal(claim == "with fresh as (" ? 1 : 0, (await app.SweepAsync()).Claimed);
        Assert.Equal(1, await app.QuerySingleAsync<int>("select attempts from ticket_decisions where ticket_id = @id", new { id }));
    }

    [Fact]
    public async Task What_a_sweep_claims_is_its_own_though_the_receipt_is_lost_and_others_are_due()
    {
        await _app.ExecuteAsync("insert into tickets (description) select 'texto ' || n from generate_series(1, 20) as n");
        var sweeper = ActivatorUtilities.CreateInstance<TicketSweep>(_app.Services, Options.Create(new SweepOptions { BatchSize = 5, Concurrency = 5 }));

        var noReceipt = _proxy.WhenSeen(Way.ToServer, "with fresh as (", link => link.BlackHole(Way.ToClient));
        var sweep = sweeper.RunAsync(null, default);
        var link = await noReceipt;
        await Eventually.TrueAsync(() => _app.QuerySingleAsync<bool>("select count(*) = 5 from ticket_work"), "the tickets are claimed");
        link.Reset();

        var summary = await sweep;
        Assert.Equal((20, 20), (summary.Claimed, summary.Labelled));
        Assert.All(await _app.QueryAsync<int>("select attempts from ticket_decisions"), attempts => Assert.Equal(1, attempts));
        Assert.Equal(20, _app.Model.Calls.Count);
        Assert.Equal(0, await _app.QuerySingleAsync<int>("select count(*) from ticket_text_locks"));
        await AssertProcessedOnceAsync(20);
    }

    [Fact]
    public async Task Wherever_a_connection_is_cut_nothing_is_lost_nothing_done_twice_and_no_answer_is_500()
    {
        var seed = Environment.TickCount;
        output.WriteLine($"Seed: {seed}");
        var random = new Random(seed);
        var statuses = new List<HttpStatusCode>();
        const int Tickets = 32;
        var cuts = 0;
        for (var n = 0; n < Tickets; n++)
        {
            // One ticket takes about 10 kB there and 1 kB back, on a new connection.
            var id = await _app.AddTicketAsync($"cortado en algún punto {n}");
            _app.Services.GetRequiredService<NpgsqlDataSource>().Clear();
            var way = (Way)(n % 2);
            var bytes = random.Next(way == Way.ToServer ? 10_000 : 1_300);
            Action<TcpLink> cut = (n % 4) switch
            {
                0 or 1 => link => link.Reset(),
                _ => link => link.HalfClose(way),
            };
            _ = _proxy.WhenPassed(way, bytes, link =>
            {
                Interlocked.Increment(ref cuts);
                cut(link);
            }).ContinueWith(_ => { }, TaskScheduler.Default);
            statuses.Add((await _app.ProcessAsync(id)).StatusCode);
        }

        output.WriteLine($"{cuts} cuts, answers: {string.Join(' ', statuses.CountBy(status => (int)status))}");
        Assert.InRange(cuts, Tickets / 4, Tickets);
        Assert.Empty(statuses.Except([HttpStatusCode.OK, HttpStatusCode.ServiceUnavailable]));

        // What is left of the cuts hits what comes next.
        await Eventually.TrueAsync(
            async () =>
            {
                await _app.LetTimePassAsync();
                try
                {
                    await _app.SweepAsync();
                }
                catch (NpgsqlException)
                {
                    return false;
                }

                return await _app.QuerySingleAsync<bool>("select bool_and(processed) from tickets");
            },
            "every ticket is processed");
        await AssertProcessedOnceAsync(Tickets);

        // An answer that a cut took away with its attempt was paid once more; no ticket was paid for more often than it was tried.
        Assert.All(
            await _app.QueryAsync<(string Text, int Attempts)>("select description, attempts from tickets join ticket_decisions on ticket_id = tickets.id"),
            ticket => Assert.InRange(_app.Model.CallsFor(ticket.Text).Count, 1, ticket.Attempts));
    }

    [Fact]
    public async Task Connections_that_died_without_a_word_are_noticed_by_the_command_timeout_and_cost_no_paid_answer()
    {
        const string Text = "pagado mientras muere la conexión";
        var id = await _app.AddTicketAsync(Text);
        var hold = _app.Model.Hold(Text);
        var request = _app.ProcessAsync(id);
        await hold.Arrived;

        // Several are idle in the pool.
        Assert.All(await Task.WhenAll(Enumerable.Range(0, 4).Select(_ => _app.Http.GetAsync("/health/ready"))), ready => Assert.Equal(HttpStatusCode.OK, ready.StatusCode));
        foreach (var link in _proxy.Links)
        {
            link.BlackHole(Way.ToServer, Way.ToClient);
        }

        var waiting = Stopwatch.StartNew();
        hold.Release();
        var notReady = await _app.Http.GetAsync("/health/ready");
        var noticed = waiting.Elapsed;
        var ready = await _app.Http.GetAsync("/health/ready");
        var answer = await request;

        output.WriteLine($"Noticed after {noticed.TotalSeconds:0.0} s; the paid answer was stored after {waiting.Elapsed.TotalSeconds:0.0} s.");
        Assert.Equal((HttpStatusCode.ServiceUnavailable, HttpStatusCode.OK), (notReady.StatusCode, ready.StatusCode));
        Assert.InRange(noticed, TimeSpan.FromSeconds(3), TimeSpan.FromSeconds(10));
        Assert.Equal("model", (string?)(await answer.ReadJsonAsync())["source"]);
        Assert.Single(_app.Model.Calls);
    }

    [Fact]
    public async Task A_slow_line_only_takes_longer()
    {
        _proxy.Delay = TimeSpan.FromMilliseconds(30);
        _proxy.BytesPerSecond = 100_000;
        await _app.ExecuteAsync("insert into tickets (description) select 'despacio ' || n from generate_series(1, 8) as n");

        Assert.Equal(8, (await _app.SweepAsync()).Labelled);
        Assert.DoesNotContain(_app.Log, entry => entry.Level >= Microsoft.Extensions.Logging.LogLevel.Warning);
    }

    private async Task AssertProcessedOnceAsync(int tickets)
    {
        var changes = await TicketAudit.ReadAsync(_app);
        Assert.Equal(tickets, changes.Where(change => change is { WasProcessed: false, Processed: true }).Select(change => change.TicketId).Distinct().Count());
        Assert.Equal(tickets, changes.Count(change => change is { WasProcessed: not null }));
        Assert.Equal(tickets, await _app.QuerySingleAsync<int>("select count(*) from ticket_decisions"));
    }
}
