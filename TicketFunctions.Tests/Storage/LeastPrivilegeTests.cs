using System.Net;
using Dapper;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Npgsql;
using TicketFunctions.Storage;
using TicketFunctions.Tests.Commands;
using TicketFunctions.Tests.Faults;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Storage;

/// <summary>The product with the rights of <c>ticket_functions</c> and of nobody else.</summary>
public sealed class LeastPrivilegeTests : IAsyncLifetime
{
    private readonly string _login = $"app_{Guid.NewGuid():N}";
    private TicketApp _app = null!;

    public Task InitializeAsync() => ExecuteOnServerAsync($"create role {_login} login password 'least'");

    public async Task DisposeAsync()
    {
        await ((IAsyncLifetime)_app).DisposeAsync();
        await ExecuteOnServerAsync($"drop role {_login}");
    }

    /// <summary>As a login that has them, and as one that has none of its own: each statement must take the role first.</summary>
    [Theory]
    [InlineData("inherit", null)]
    [InlineData("noinherit", "ticket_functions")]
    public async Task The_whole_product_runs_on_the_least_of_rights(string inheritance, string? role)
    {
        await ExecuteOnServerAsync($"alter role {_login} {inheritance}; grant ticket_functions to {_login}");
        _app = await TicketApp.StartAsync(
            ("ConnectionStrings__Tickets", $"Username={_login};Password=least"), ("Storage__Role", role), ("Triage__MaxAttempts", "2"));

        await _app.AssertRequestsAsync();

        // Failures: waiting, parked, blank.
        _app.Model.On("Falla siempre", ModelStub.Json(500, new System.Text.Json.Nodes.JsonObject()));
        await _app.AddTicketAsync("Falla siempre");
        await _app.AddTicketAsync("\u200b");
        Assert.Equal((0, 1, 1), await SweepAsync());
        await _app.LetTimePassAsync();
        await _app.FindSourceAsync(await _app.AddTicketAsync("El modelo responde a otros"));
        Assert.Equal((0, 1, 0), await SweepAsync());
        await _app.LetTimePassAsync();
        await _app.FindSourceAsync(await _app.AddTicketAsync("Y a otros más"));
        Assert.Equal((0, 0, 1), await SweepAsync());

        // What somebody labelled by hand, and what a dead process left behind.
        var byHand = await _app.AddTicketAsync("A mano");
        var orphan = await _app.AddTicketAsync("Huérfano");
        await _app.ExecuteAsync(
            """
            insert into ticket_work (ticket_id, attempts, due_at) values (@byHand, 1, now()), (@orphan, 2, now() - interval '1 second');
            update tickets set category = 'Otro', sentiment = 'Neutral', processed = true where id = @byHand;
            """,
            new { byHand, orphan });
        Assert.Equal((0, 0, 1), await SweepAsync());
        Assert.Equal(
            "Falla siempre|Huérfano|\u200b",
            await _app.QuerySingleAsync<string>(
                "select string_agg(description, '|' order by description collate \"C\") from ticket_work join tickets on id = ticket_id where parked_at is not null"));
        Assert.Equal(0, await _app.QuerySingleAsync<int>("select count(*) from ticket_work where parked_at is null"));

        Assert.Equal(HttpStatusCode.OK, (await _app.Http.GetAsync("/health/ready")).StatusCode);
        Assert.StartsWith("""{"unprocessed":3,"inFlight":0,"parked":3,"spentToday":{""", await ReadBacklogAsync(), StringComparison.Ordinal);
        var store = _app.Services.GetRequiredService<TicketStore>();
        Assert.NotEmpty(await store.SumCostsAsync(new DateOnly(2026, 1, 1), default));
        Assert.NotEmpty(await store.FindDecidedAsync(new DecisionFilter(null, null, null, null), 10, default));
        Assert.NotEqual(0, await store.FindNewestDecisionAsync(default));
        Assert.Equal(3, (await store.FindParkedAsync(default)).Count);
        Assert.Equal(3, (await store.ReviveAsync(null, default)).Count);
        Assert.DoesNotContain(_app.Log, entry => entry.Level > LogLevel.Warning);

        // Opening tickets is for others.
        Assert.Equal(
            PostgresErrorCodes.InsufficientPrivilege,
            (await Assert.ThrowsAsync<PostgresException>(() => store.InsertAsync(Guid.NewGuid(), "No es cosa suya", default))).SqlState);

        if (!TicketApp.IsThroughPooler)
        {
            // It was this login all the time. A pooler has sessions of its own.
            Assert.Equal(
                _login,
                await _app.QuerySingleAsync<string>(
                    "select string_agg(distinct usename::text, ',') from pg_stat_activity where datname = current_database() and application_name = 'ticket-functions'"));
        }
    }

    /// <summary>The way on a pooler that knows the owner's login only.</summary>
    [PgBouncerFact]
    public async Task Behind_a_pooler_the_owner_of_the_tables_migrates_and_the_service_works_as_the_role()
    {
        await ExecuteOnServerAsync($"grant ticket_functions to {_login}");
        var database = await TestPostgres.CreateEmptyDatabaseAsync();
        try
        {
            await ExecuteOnServerAsync($"alter database {new NpgsqlConnectionStringBuilder(database).Database} owner to {_login}");
            await using var pooler = await PgBouncer.StartAsync(await TestPostgres.FindServerAsync());
            var pooled = $"{database};Username={_login};Password=least;{pooler.Settings}";
            using var product = new Product(("ConnectionStrings__Tickets", pooled), ("Storage__Role", "ticket_functions"));

            var migrated = await product.RunAsync("migrate");
            Assert.True(migrated.ExitCode == 0, migrated.Error);
            _app = await TicketApp.StartAsync(
                database, null, ("ConnectionStrings__Tickets", $"Username={_login};Password=least;{pooler.Settings}"), ("Storage__Role", "ticket_functions"));
            Assert.Equal(_login, await _app.QuerySingleAsync<string>("select string_agg(distinct tableowner::text, ',') from pg_tables where schemaname = 'public'"));
            await _app.ExecuteAsync(
                """
                create table seen (changed text, who text);
                grant insert on seen to public;
                create function see() returns trigger language plpgsql as 'begin insert into public.seen values (tg_table_name, current_user); return null; end';
                create trigger see after insert or update or delete on tickets for each row execute function see();
                create trigger see after insert or update or delete on ticket_work for each row execute function see();
                create trigger see after insert on ticket_decisions for each row execute function see();
                create trigger see after insert on ticket_failures for each row execute function see();
                create trigger see after insert or update or delete on ticket_text_locks for each row execute function see();
                create trigger see after update on ticket_heartbeat for each row execute function see();
                """);

            _app.Model.On("nadie la entiende", ModelStub.Content("nada"));
            await _app.AddTicketAsync("nadie la entiende");
            await _app.ExecuteAsync("insert into tickets (description) select 'muchas a la vez ' || n from generate_series(1, 30) as n");
            await _app.ExecuteAsync("delete from seen");
            Assert.Equal((30, 1, 0), await SweepAsync());
            Assert.Equal(HttpStatusCode.OK, (await _app.Http.GetAsync("/health/ready")).StatusCode);

            Assert.Equal(
                ["ticket_decisions", "ticket_failures", "ticket_heartbeat", "ticket_text_locks", "ticket_work", "tickets"],
                await _app.QueryAsync<string>("select distinct changed from seen where who = 'ticket_functions' order by 1"));
            Assert.Equal(0, await _app.QuerySingleAsync<int>("select count(*) from seen where who <> 'ticket_functions'"));

            // It ends with each statement: no session of the pooler keeps it.
            Assert.All(
                await Task.WhenAll(Enumerable.Range(0, PgBouncer.PoolSize).Select(async _ =>
                {
                    await using var session = new NpgsqlConnection($"{pooled};Pooling=false");
                    return await session.QuerySingleAsync<string>("select current_user from pg_sleep(0.2)");
                })),
                user => Assert.Equal(_login, user));
        }
        finally
        {
            await TestPostgres.DropDatabaseAsync(database);
        }
    }

    [Theory]
    [InlineData("nobody_has_this_name", "42704")]
    [InlineData("pg_monitor", "42501")]
    public async Task A_role_that_is_not_there_or_not_granted_makes_it_unavailable_and_nothing_is_done_with_other_rights(string role, string sqlState)
    {
        await ExecuteOnServerAsync($"grant ticket_functions to {_login}");
        _app = await TicketApp.StartAsync(("ConnectionStrings__Tickets", $"Username={_login};Password=least"), ("Storage__Role", role));
        var id = await _app.AddTicketAsync("Espera a que alguien lo arregle");

        await (await _app.ProcessAsync(id)).AssertProblemAsync(503, "storage-unavailable");
        Assert.Equal(HttpStatusCode.ServiceUnavailable, (await _app.Http.GetAsync("/health/ready")).StatusCode);

        Assert.Contains(_app.Log, entry => entry.Message.Contains(sqlState, StringComparison.Ordinal));
        Assert.Empty(_app.Model.Calls);
    }

    /// <summary>Any database of the server will do for what concerns roles; the template's migrations made theirs.</summary>
    private static async Task ExecuteOnServerAsync(string sql)
    {
        var database = await TestPostgres.CreateDatabaseAsync();
        await using (var connection = new NpgsqlConnection(database))
        {
            await connection.ExecuteAsync(sql);
        }

        await TestPostgres.DropDatabaseAsync(database);
    }

    private async Task<(int Labelled, int Waiting, int Parked)> SweepAsync()
    {
        var summary = await _app.SweepAsync();
        return (summary.Labelled, summary.Waiting, summary.Parked);
    }

    private async Task<string> ReadBacklogAsync()
    {
        var backlog = (await (await _app.Http.GetAsync("/backlog")).ReadJsonAsync()).AsObject();
        Assert.True(backlog.Remove("oldestSeconds"));
        return backlog.ToJsonString();
    }
}
