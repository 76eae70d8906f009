using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Faults;

/// <summary>What is done about each fault that the database may raise while labels are written.</summary>
public sealed class SqlStateTests : IAsyncLifetime
{
    private TicketApp _app = null!;

    public async Task InitializeAsync()
    {
        // With one connection, a change of it shows.
        _app = await TicketApp.StartAsync(("ConnectionStrings__Tickets", "Maximum Pool Size=1"));
        await _app.ExecuteAsync(
            """
            create sequence tries;

            create function fail() returns trigger language plpgsql as $$
            begin
              -- A sequence keeps its value when the transaction is rolled back.
              if nextval('tries') <= split_part(new.description, ' ', 2)::int then
                raise exception 'SECRETO: %', new.description using errcode = split_part(new.description, ' ', 1);
              end if;
              return new;
            end;
            $$;

            create trigger fail before update of processed on tickets for each row execute function fail();
            """);
    }

    public Task DisposeAsync() => ((IAsyncLifetime)_app).DisposeAsync();

    [Theory]
    [InlineData("40001", false)] // serialization_failure
    [InlineData("40P01", false)] // deadlock_detected
    [InlineData("55P03", false)] // lock_not_available
    [InlineData("57014", false)] // query_canceled
    [InlineData("53300", true)] // too_many_connections; Npgsql itself gives this one session up
    [InlineData("53100", true)] // disk_full; this too
    [InlineData("25006", true)] // read_only_sql_transaction
    [InlineData("57P01", true)] // admin_shutdown
    [InlineData("57P02", true)] // crash_shutdown
    [InlineData("57P03", true)] // cannot_connect_now
    [InlineData("08006", true)] // connection_failure
    [InlineData("08P01", true)] // protocol_violation
    [InlineData("XX000", true)] // internal_error; Supabase's pooler says no more when it loses a session or has none
    public async Task What_may_pass_is_tried_again_where_it_helps_on_a_new_connection(string sqlState, bool reconnects)
    {
        var text = $"{sqlState} 2";
        var id = await _app.AddTicketAsync(text);
        await _app.Http.GetAsync("/health/ready");
        var session = await ReadSessionAsync();

        Assert.Equal("model", (string?)(await (await _app.ProcessAsync(id)).ReadJsonAsync())["source"]);

        Assert.Equal(3, await _app.QuerySingleAsync<int>("select last_value from tries"));
        if (!TicketApp.IsThroughPooler)
        {
            // A pooler has its own ideas of when to give a session up.
            Assert.Equal(reconnects, session != await ReadSessionAsync());
        }

        Assert.Single(_app.Model.CallsFor(text));
        Assert.Equal(1, await _app.QuerySingleAsync<int>("select attempts from ticket_decisions where ticket_id = @id", new { id }));
    }

    [Theory]
    [InlineData("22021")] // character_not_in_repertoire
    [InlineData("23514")] // check_violation
    [InlineData("42501")] // insufficient_privilege
    [InlineData("42P01")] // undefined_table
    [InlineData("P0001")] // raise_exception
    public async Task What_does_not_pass_by_itself_is_tried_once_and_told_by_its_code_alone(string sqlState)
    {
        var text = $"{sqlState} 1000";
        var id = await _app.AddTicketAsync(text);
        await _app.Http.GetAsync("/health/ready");
        var session = await ReadSessionAsync();

        var refused = await _app.ProcessAsync(id);
        await refused.AssertProblemAsync(503, "storage-unavailable");

        Assert.NotNull(refused.Headers.RetryAfter);
        Assert.Equal(1, await _app.QuerySingleAsync<int>("select last_value from tries"));
        Assert.Equal(session, await ReadSessionAsync());
        Assert.Single(_app.Model.CallsFor(text));
        Assert.Contains(sqlState, await _app.QuerySingleAsync<string>("select last_error from ticket_work where ticket_id = @id and lease_token is null and attempts = 1", new { id }), StringComparison.Ordinal);
        Assert.DoesNotContain(_app.Log, entry => entry.Message.Contains("SECRETO", StringComparison.Ordinal));
    }

    private Task<int> ReadSessionAsync() =>
        _app.QuerySingleAsync<int>("select pid from pg_stat_activity where datname = current_database() and application_name = 'ticket-functions'");
}
