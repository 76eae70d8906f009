using Dapper;
using Npgsql;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Faults;

/// <summary>A sweep and a worker that meet inside their statements: one is held there until the other has come.</summary>
public sealed class OverlapTests : IAsyncLifetime
{
    private const string Text = "dos procesos se encuentran";
    private TicketApp _worker = null!;
    private TicketApp _sweeper = null!;
    private NpgsqlConnection _gate = null!;

    public async Task InitializeAsync()
    {
        _worker = await TicketApp.StartAsync();
        _sweeper = await TicketApp.StartAsync(_worker.ConnectionString, null, ("ConnectionStrings__Tickets", "Application Name=sweeper"));
        await TicketAudit.InstallAsync(_worker);
        await _worker.ExecuteAsync(
            """
            create function wait_at_gate() returns trigger language plpgsql as $$
            begin
              if current_setting('application_name') = tg_argv[0] then
                perform pg_advisory_xact_lock_shared(1);
              end if;
              return new;
            end;
            $$;

            create trigger gate after update of processed on tickets for each row execute function wait_at_gate('ticket-functions');
            create trigger gate before insert on ticket_work for each row execute function wait_at_gate('sweeper');
            """);
        _gate = await OpenAsync(_worker.ConnectionString);
    }

    public async Task DisposeAsync()
    {
        await _gate.DisposeAsync();
        await ((IAsyncLifetime)_sweeper).DisposeAsync();
        await ((IAsyncLifetime)_worker).DisposeAsync();
    }

    [Fact]
    public async Task A_sweep_passes_over_a_ticket_that_is_being_finished_and_never_touches_it_again()
    {
        var (id, request, hold) = await OutliveLeaseAsync();
        hold.Release();

        // The labels are written and not committed; the lease is over: everything invites the sweep to take the ticket.
        await WaitAtGateAsync("ticket-functions");
        Assert.Equal(0, (await _sweeper.SweepAsync()).Claimed);
        await OpenGateAsync();
        Assert.Equal("model", (string?)(await (await request).ReadJsonAsync())["source"]);
        var row = await ReadRowAsync(id);

        Assert.Equal(0, (await _sweeper.SweepAsync()).Claimed);
        Assert.Equal(row, await ReadRowAsync(id));
        await AssertOnceAsync(id);
    }

    [Fact]
    public async Task A_worker_that_finishes_while_a_sweep_has_selected_its_ticket_waits_and_finds_it_taken()
    {
        var (id, request, hold) = await OutliveLeaseAsync();
        var sweep = _sweeper.SweepAsync();
        await WaitAtGateAsync("sweeper");

        hold.Release();
        await Eventually.TrueAsync(
            async () => await _worker.QuerySingleAsync<int>(
                "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'ticket-functions' and wait_event_type = 'Lock'") == 1,
            "the worker's write waits for the sweep's claim");
        await OpenGateAsync();
        Assert.Equal(1, (await sweep).Labelled);

        // Its own labels came too late; it answers with those that stand, or that somebody is at it.
        Assert.NotEqual("model", (string?)(await (await request).ReadJsonAsync())["source"]);
        var row = await ReadRowAsync(id);
        Assert.Equal(0, (await _sweeper.SweepAsync()).Claimed);
        Assert.Equal(row, await ReadRowAsync(id));
        Assert.Single(_sweeper.Model.Calls);
        await AssertOnceAsync(id);
    }

    /// <summary>A worker whose model still thinks when its lease is over, before a gate that is shut.</summary>
    private async Task<(Guid Id, Task<HttpResponseMessage> Request, ModelHold Hold)> OutliveLeaseAsync()
    {
        await ShutGateAsync();
        var hold = _worker.Model.Hold(Text);
        var id = await _worker.AddTicketAsync(Text);
        var request = _worker.ProcessAsync(id);
        await hold.Arrived;
        await _worker.LetTimePassAsync();
        return (id, request, hold);
    }

    private static async Task<NpgsqlConnection> OpenAsync(string connectionString)
    {
        var connection = new NpgsqlConnection(connectionString);
        await connection.OpenAsync();
        return connection;
    }

    private async Task ShutGateAsync() => await _gate.ExecuteAsync("select pg_advisory_lock(1)");

    private async Task OpenGateAsync() => Assert.True(await _gate.QuerySingleAsync<bool>("select pg_advisory_unlock(1)"));

    private Task WaitAtGateAsync(string application) => Eventually.TrueAsync(
        async () => await _worker.QuerySingleAsync<int>(
            "select count(*) from pg_stat_activity where datname = current_database() and application_name = @application and wait_event = 'advisory'",
            new { application }) == 1,
        $"{application} waits at the gate");

    private Task<string> ReadRowAsync(Guid id) =>
        _worker.QuerySingleAsync<string>("select concat(xmin, ' ', tickets) from tickets where id = @id", new { id });

    private async Task AssertOnceAsync(Guid id)
    {
        Assert.Single((await TicketAudit.ReadAsync(_worker)).Where(change => change.TicketId == id), change => change is { WasProcessed: false, Processed: true });
        Assert.Equal(1, await _worker.QuerySingleAsync<int>("select count(*) from ticket_decisions"));
        Assert.Single(_worker.Model.Calls);
        Assert.Equal(0, await _worker.QuerySingleAsync<int>("select count(*) from ticket_work"));
    }
}
