using System.Diagnostics;
using System.Net;
using Dapper;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Npgsql;
using TicketFunctions.Storage;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Faults;

/// <summary>
/// The product behind PgBouncer in transaction mode: two processes share four sessions, and what one leaves in a session the other finds.
/// With TEST_PGBOUNCER=1 every test of an app runs so.
/// </summary>
public sealed class PoolerTests : IAsyncLifetime
{
    private PgBouncer? _pooler;
    private TicketApp _app = null!;
    private TicketApp _other = null!;

    public async Task InitializeAsync()
    {
        if (PgBouncer.Program is null && Environment.GetEnvironmentVariable("CI") != "true")
        {
            // The tests are skipped.
            return;
        }

        _pooler = await PgBouncer.StartAsync(await TestPostgres.FindServerAsync());
        (string, string?)[] settings = [("ConnectionStrings__Tickets", _pooler.Settings), ("Triage__MaxAttempts", "2")];
        _app = await TicketApp.StartAsync(settings);
        _other = await TicketApp.StartAsync(_app.ConnectionString, null, settings);
    }

    public async Task DisposeAsync()
    {
        if (_pooler is not null)
        {
            await ((IAsyncLifetime)_other).DisposeAsync();
            await ((IAsyncLifetime)_app).DisposeAsync();
            await _pooler.DisposeAsync();
        }
    }

    [PgBouncerFact]
    public async Task The_whole_product_works_and_keeps_nothing_in_a_session()
    {
        await TicketAudit.InstallAsync(_app);

        await _app.AssertRequestsAsync();

        // Fifty requests for one ticket at two processes, and two for each of others.
        var hold = _app.Model.Hold("uno para cincuenta");
        _other.Model.On("uno para cincuenta", ModelStub.Held(hold, ModelStub.Labels("Otro", "Neutral")));
        var one = await _app.AddTicketAsync("uno para cincuenta");
        var requests = Enumerable.Range(0, 50).Select(n => (n % 2 == 0 ? _app : _other).ProcessAsync(one)).ToList();
        await hold.Arrived;
        await Eventually.TrueAsync(() => Task.FromResult(requests.Count(request => request.IsCompleted) == 49), "all but the winner have their answers");
        hold.Release();
        Assert.Equal(1, (await Task.WhenAll(requests)).Count(answer => answer.StatusCode == HttpStatusCode.OK));
        var many = await _app.QueryAsync<Guid>("insert into tickets (description) select 'por petición ' || n from generate_series(1, 40) as n returning id");
        var answers = await Task.WhenAll(many.SelectMany(ticket => new[] { _app.ProcessAsync(ticket), _other.ProcessAsync(ticket) }));
        Assert.Empty(answers.Select(answer => answer.StatusCode).Except([HttpStatusCode.OK, HttpStatusCode.Conflict]));

        // Three sweeps at once, with texts that occur twice.
        await _app.ExecuteAsync("insert into tickets (description) select 'por barrido ' || n % 150 from generate_series(1, 300) as n");
        var sweeps = await Task.WhenAll(_app.SweepAsync(), _app.SweepAsync(), _other.SweepAsync());
        Assert.Equal(300, sweeps.Sum(sweep => sweep.Labelled + sweep.Waiting));
        await _app.LetTimePassAsync();
        await _app.SweepAsync();

        // Edited while the model thinks; a lease that ends meanwhile; a failure, parked at its second attempt.
        var edited = await _app.AddTicketAsync("se edita");
        var editing = _app.Model.Hold("se edita");
        var request = _app.ProcessAsync(edited);
        await editing.Arrived;
        await _app.ExecuteAsync("update tickets set description = 'editado' where id = @edited", new { edited });
        editing.Release();
        Assert.Equal("model", (string?)(await (await request).ReadJsonAsync())["source"]);
        _app.Model.On("falla siempre", ModelStub.Content("nada"));
        var failing = await _app.AddTicketAsync("falla siempre");
        await (await _app.ProcessAsync(failing)).AssertProblemAsync(502, "upstream-invalid");
        await _app.LetTimePassAsync();
        Assert.Equal(1, (await _app.SweepAsync()).Parked);

        Assert.Equal(HttpStatusCode.OK, (await _app.Http.GetAsync("/health/ready")).StatusCode);
        Assert.Equal(1, (int?)(await (await _app.Http.GetAsync("/backlog")).ReadJsonAsync())["parked"]);
        Assert.NotEmpty(await _app.Services.GetRequiredService<TicketStore>().SumCostsAsync(new DateOnly(2026, 1, 1), default));
        Assert.Equal("falla siempre", await _app.QuerySingleAsync<string>("select string_agg(description, ', ') from tickets where not processed"));
        var labelled = (await TicketAudit.ReadAsync(_app)).Where(change => change is { WasProcessed: false, Processed: true });
        Assert.DoesNotContain(labelled.CountBy(change => (change.TicketId, change.Text)), text => text.Value > 1);
        Assert.All(
            _app.Log.Concat(_other.Log).Where(entry => entry.Level >= LogLevel.Warning),
            entry => Assert.Contains("UpstreamInvalid", entry.Message, StringComparison.Ordinal));
        Assert.InRange(
            await _app.QuerySingleAsync<int>("select count(*) from pg_stat_activity where datname = current_database() and application_name = 'ticket-functions'"),
            1,
            PgBouncer.PoolSize);
    }

    [PgBouncerFact]
    public async Task Limits_hold_for_one_statement_and_do_not_stay_in_the_session()
    {
        var locked = await _app.AddTicketAsync("bloqueado");
        await using var other = new NpgsqlConnection(_app.ConnectionString);
        await other.OpenAsync();
        await using var transaction = await other.BeginTransactionAsync();
        await other.ExecuteAsync("select from tickets where id = @locked for update", new { locked });

        var waiting = Stopwatch.StartNew();
        await (await _app.ProcessAsync(locked)).AssertProblemAsync(503, "storage-unavailable");
        Assert.InRange(waiting.Elapsed, TimeSpan.FromSeconds(1.9), TimeSpan.FromSeconds(10));
        await transaction.RollbackAsync();

        // All sessions of the pooler, by as many transactions at once.
        var sessions = await Task.WhenAll(Enumerable.Range(0, PgBouncer.PoolSize).Select(async _ =>
        {
            await using var session = new NpgsqlConnection($"{_app.ConnectionString};{_pooler!.Settings};Pooling=false");
            return await session.QuerySingleAsync<(string, string, int)>(
                """
                select current_setting('lock_timeout'), current_setting('statement_timeout'), (select count(*) from pg_prepared_statements)::int
                from pg_sleep(0.2)
                """);
        }));
        Assert.All(sessions, session => Assert.Equal(("0", "0", 0), session));
        Assert.Equal("model", await _app.FindSourceAsync(locked));
    }

    [PgBouncerFact]
    public async Task Migrations_run_once_though_two_run_them()
    {
        var database = await TestPostgres.CreateEmptyDatabaseAsync();
        try
        {
            await using var dataSource = NpgsqlDataSource.Create($"{database};{_pooler!.Settings};Pooling=false");
            var applied = await Task.WhenAll(Enumerable.Range(0, 2).Select(_ => new Migrations(dataSource).ApplyAsync(default)));

            Assert.Equal(Migrations.All.Count, applied.Sum(migrations => migrations.Count));
            Assert.Empty(await new Migrations(dataSource).FindMissingAsync(default));
        }
        finally
        {
            await TestPostgres.DropDatabaseAsync(database);
        }
    }

    [PgBouncerFact]
    public async Task When_a_session_is_killed_behind_the_pooler_a_paid_answer_is_stored_by_another()
    {
        const string Text = "muere su sesión";
        var id = await _app.AddTicketAsync(Text);
        var hold = _app.Model.Hold(Text);
        var request = _app.ProcessAsync(id);
        await hold.Arrived;
        await using var other = new NpgsqlConnection(_app.ConnectionString);
        await other.OpenAsync();
        await using var transaction = await other.BeginTransactionAsync();
        await other.ExecuteAsync("select from tickets where id = @id for update", new { id });
        hold.Release();
        await Eventually.TrueAsync(
            async () => await _app.QuerySingleAsync<int>(
                """
                select count(pg_terminate_backend(pid))
                from pg_stat_activity
                where datname = current_database() and application_name = 'ticket-functions' and wait_event_type = 'Lock'
                """) == 1,
            "the write waited for the lock");
        await transaction.RollbackAsync();

        Assert.Equal("model", (string?)(await (await request).ReadJsonAsync())["source"]);
        Assert.Single(_app.Model.Calls);
    }
}
