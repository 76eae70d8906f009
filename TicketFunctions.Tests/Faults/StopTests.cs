using System.Net;
using System.Net.Http.Json;
using System.Text.Json.Nodes;
using Dapper;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Npgsql;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Faults;

/// <summary>Workers that are asked to stop.</summary>
public sealed class StopTests
{
    [Fact]
    public async Task A_worker_asked_to_stop_finishes_what_is_short_gives_back_what_is_long_and_claims_nothing_more()
    {
        if (OperatingSystem.IsWindows())
        {
            // There is no SIGTERM to send.
            return;
        }

        await using var app = await TicketApp.StartAsync();
        await using var worker = await WorkerProcess.StartAsync(app, "worker", ("Model__AttemptTimeout", "00:01:00"), ("Model__TotalTimeout", "00:01:00"));
        string[] texts = ["corta, por petición", "larga, por petición", "corta, por barrido", "larga, por barrido"];
        var holds = texts.Select(text => app.Model.Hold(text)).ToList();

        // The sweeps leave a ticket alone that waits for its time; a request does not.
        var ids = await app.QueryAsync<Guid>("insert into tickets (description) select unnest(@texts) returning id", new { texts = texts[..2] });
        await app.ExecuteAsync("insert into ticket_work (ticket_id, attempts, due_at) select id, 0, now() + interval '1 hour' from tickets");
        var requests = ids.Select(id => worker.Http.PostAsJsonAsync("/process-ticket", new JsonObject { ["id"] = id.ToString() })).ToList();
        await app.ExecuteAsync("insert into tickets (description) select unnest(@texts)", new { texts = texts[2..] });
        await Task.WhenAll(holds.Select(hold => hold.Arrived));

        await worker.TerminateAsync();
        var exited = worker.WaitForExitAsync(TimeSpan.FromSeconds(10));
        await Eventually.TrueAsync(async () => await worker.PostAsync(ids[0]) is null, "the worker takes no more requests");
        await app.AddTicketAsync("llega cuando el proceso ya se va");
        holds[0].Release();
        holds[2].Release();

        Assert.Equal("model", (string?)(await (await requests[0]).ReadJsonAsync())["source"]);
        var givenBack = await requests[1];
        await givenBack.AssertProblemAsync(503, "upstream-unavailable");
        Assert.NotNull(givenBack.Headers.RetryAfter);
        Assert.Equal(0, await exited);

        Assert.Equal(["corta, por barrido", "corta, por petición"], await app.QueryAsync<string>("select description from tickets where processed order by 1"));
        Assert.Equal(
            [("larga, por barrido", 0), ("larga, por petición", 0)],
            await app.QueryAsync<(string, int)>(
                """
                select description, attempts
                from ticket_work
                join tickets on tickets.id = ticket_id
                where lease_token is null and parked_at is null and due_at <= now()
                order by description
                """));
        Assert.Equal(texts.Order(), app.Model.Calls.Select(call => call.Ticket).Order());
        Assert.DoesNotContain(worker.Output.Split('\n'), line => line.Contains("fail:", StringComparison.Ordinal) || line.Contains("crit:", StringComparison.Ordinal));

        // Whoever comes next goes on where it left off.
        holds.ForEach(hold => hold.Release());
        Assert.Equal(3, (await app.SweepAsync()).Labelled);
        Assert.Equal([1, 1, 1, 1, 1], await app.QueryAsync<int>("select attempts from ticket_decisions"));
    }

    [Fact]
    public async Task A_worker_asked_to_stop_while_it_still_looks_around_answers_what_it_has_taken()
    {
        if (OperatingSystem.IsWindows())
        {
            // There is no SIGTERM to send.
            return;
        }

        await using var app = await TicketApp.StartAsync();
        await using var other = new NpgsqlConnection(app.ConnectionString);
        await other.OpenAsync();
        await using var transaction = await other.BeginTransactionAsync();
        await other.ExecuteAsync("lock table supabase_migrations.schema_migrations in access exclusive mode");
        await using var worker = await WorkerProcess.StartAsync(app, "worker", ("SweepSchedule", "0 0 0 1 1 *"));
        await Eventually.TrueAsync(
            async () => await app.QuerySingleAsync<int>(
                "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'worker' and wait_event_type = 'Lock'") == 1,
            "the worker looks for its migrations");
        const string Text = "llega antes de que termine de arrancar";
        var id = await app.AddTicketAsync(Text);
        var hold = app.Model.Hold(Text);
        var request = worker.PostAsync(id);
        await hold.Arrived;

        await worker.TerminateAsync();
        var exited = worker.WaitForExitAsync(TimeSpan.FromSeconds(10));
        await Eventually.TrueAsync(async () => await worker.PostAsync(id) is null, "the worker takes no more requests");
        hold.Release();

        Assert.Equal(HttpStatusCode.OK, await request);
        Assert.Equal(0, await exited);
        Assert.EndsWith("Stopped.", worker.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_sweep_that_was_started_by_hand_is_waited_for_as_well()
    {
        await using var app = await TicketApp.StartAsync(("Model__AttemptTimeout", "00:01:00"), ("Model__TotalTimeout", "00:01:00"));
        string[] texts = ["corta, a mano", "larga, a mano"];
        var holds = texts.Select(text => app.Model.Hold(text)).ToList();
        await app.ExecuteAsync("insert into tickets (description) select unnest(@texts)", new { texts });
        Assert.Equal(HttpStatusCode.Accepted, (await app.Http.PostAsync("/admin/functions/SweepTickets", null)).StatusCode);
        await Task.WhenAll(holds.Select(hold => hold.Arrived));

        var stopped = app.Services.GetRequiredService<IHost>().StopAsync();
        holds[0].Release();
        await stopped;

        Assert.Equal("corta, a mano", await app.QuerySingleAsync<string>("select description from tickets where processed"));
        Assert.Equal(0, await app.QuerySingleAsync<int>("select attempts from ticket_work where lease_token is null and due_at <= now()"));
    }
}
