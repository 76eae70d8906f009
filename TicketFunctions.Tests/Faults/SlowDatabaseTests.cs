using System.Diagnostics;
using System.Net;
using Dapper;
using Npgsql;
using TicketFunctions.Tests.Support;
using Xunit.Abstractions;

namespace TicketFunctions.Tests.Faults;

/// <summary>Statements that the database does not end.</summary>
public sealed class SlowDatabaseTests(ITestOutputHelper output)
{
    [Fact]
    public async Task Locked_and_slow_rows_hold_nobody_for_long_and_the_others_go_on()
    {
        using var measurements = new Measurements(Telemetry.Name);
        await using var app = await TicketApp.StartAsync();
        const string Written = "se bloquea antes de escribir";
        var locked = await app.AddTicketAsync("bloqueado desde el principio");
        var written = await app.AddTicketAsync(Written);
        var slow = await app.AddTicketAsync("lento");
        await app.ExecuteAsync(
            """
            create sequence tries;

            create function be_slow() returns trigger language plpgsql as $$
            begin
              if nextval('tries') = 1 then
                perform pg_sleep(30);
              end if;
              return new;
            end;
            $$;

            create trigger be_slow before update of processed on tickets
              for each row when (new.description = 'lento') execute function be_slow();
            """);
        var hold = app.Model.Hold(Written);
        var writing = app.ProcessAsync(written);
        await hold.Arrived;
        await using var other = new NpgsqlConnection(app.ConnectionString);
        await other.OpenAsync();
        await using var transaction = await other.BeginTransactionAsync();
        await other.ExecuteAsync("select from tickets where id in (@locked, @written) for update", new { locked, written });

        // Else the sweep might be the first at it.
        var slowHold = app.Model.Hold("lento");
        var sleeping = app.ProcessAsync(slow);
        await slowHold.Arrived;

        var waiting = Stopwatch.StartNew();
        hold.Release();
        slowHold.Release();
        var claiming = app.ProcessAsync(locked);
        await app.AddTicketAsync("nadie lo toca");
        var sweep = await app.SweepAsync();
        var swept = waiting.Elapsed;
        var refused = await claiming;
        output.WriteLine($"The others were done in {swept.TotalSeconds:0.0} s; the locked row was given up after {waiting.Elapsed.TotalSeconds:0.0} s.");

        Assert.Equal((1, 1), (sweep.Claimed, sweep.Labelled));
        await refused.AssertProblemAsync(503, "storage-unavailable");
        Assert.NotNull(refused.Headers.RetryAfter);
        // The lock is there for as long as this test wants: it is the statement that gave up.
        Assert.InRange(waiting.Elapsed, TimeSpan.FromSeconds(2), TimeSpan.FromSeconds(20));

        // A paid answer waits longer than that: 55P03 is the lock's end, 57014 the slow statement's, both by the server's own clock.
        // The slow one may have come with the other, and is then sent alone without a word.
        await Eventually.TrueAsync(() => Task.FromResult(app.Log.Any(entry => entry.Message.Contains("(try 1, 55P03)", StringComparison.Ordinal))), "the write has given up once");
        await transaction.RollbackAsync();
        Assert.Equal("model", (string?)(await (await writing).ReadJsonAsync())["source"]);
        Assert.Equal("model", (string?)(await (await sleeping).ReadJsonAsync())["source"]);
        Assert.Contains(measurements.All, measurement => measurement.Name == "tickets.storage.faults" && measurement.Tags["error.type"] == "57014");
        Assert.Equal(HttpStatusCode.OK, (await app.ProcessAsync(locked)).StatusCode);

        Assert.Equal(4, app.Model.Calls.Count);
        Assert.Equal([1, 1, 1, 1], await app.QueryAsync<int>("select attempts from ticket_decisions"));
        Assert.Equal(0, await app.QuerySingleAsync<int>(
            "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'ticket-functions' and state <> 'idle'"));
    }
}
