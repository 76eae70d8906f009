using System.Net;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Triggers;

public sealed class CheckHealthTests(TicketApp app) : IClassFixture<TicketApp>
{
    [Fact]
    public async Task A_database_that_only_reads_is_not_ready_and_loses_no_ticket()
    {
        const string Text = "El horno no calienta.";
        var id = await app.AddTicketAsync(Text);
        await AssertAnswerAsync("/health/live", 200, """{"status":"ok"}""");
        await AssertAnswerAsync("/health/ready", 200, """{"status":"ok"}""");

        await SetReadOnlyAsync("on");
        await AssertAnswerAsync("/health/live", 200, """{"status":"ok"}""");
        var notReady = await app.Http.GetAsync("/health/ready");
        var refused = await app.ProcessAsync(id);
        var backlog = await app.Http.GetAsync("/backlog");

        await SetReadOnlyAsync("off");
        await AssertAnswerAsync("/health/ready", 200, """{"status":"ok"}""");
        var answer = await app.ProcessAsync(id);

        Assert.Equal(503, (int)notReady.StatusCode);
        var reason = await notReady.ReadJsonAsync();
        Assert.Equal(["status", "reason"], reason.AsObject().Select(member => member.Key));
        Assert.Equal("unavailable", (string?)reason["status"]);
        var problem = await refused.AssertProblemAsync(503, "storage-unavailable");
        Assert.True(refused.Headers.RetryAfter?.Delta >= TimeSpan.FromSeconds(1));
        Assert.Equal(HttpStatusCode.OK, backlog.StatusCode);
        foreach (var told in new[] { reason.ToJsonString(), problem.ToJsonString() })
        {
            Assert.DoesNotContain(new NpgsqlConnectionStringBuilder(app.ConnectionString).Database!, told, StringComparison.Ordinal);
            Assert.DoesNotContain("25006", told, StringComparison.Ordinal);
            Assert.DoesNotContain("ticket_heartbeat", told, StringComparison.Ordinal);
        }

        Assert.Equal(HttpStatusCode.OK, answer.StatusCode);
        Assert.Single(app.Model.CallsFor(Text));
        Assert.Equal(1, (int?)Assert.Single(await app.ReadDecisionsAsync(id))!["attempts"]);
    }

    private async Task AssertAnswerAsync(string path, int status, string body)
    {
        var response = await app.Http.GetAsync(path);
        Assert.Equal(status, (int)response.StatusCode);
        JsonAssert.Equal(body, await response.ReadJsonAsync());

        using var head = await app.Http.SendAsync(new HttpRequestMessage(HttpMethod.Head, path));
        Assert.Equal(status, (int)head.StatusCode);
        Assert.Empty(await head.Content.ReadAsByteArrayAsync());
    }

    /// <summary>As after a fail-over: new sessions of the database take no writes.</summary>
    private async Task SetReadOnlyAsync(string value)
    {
        var database = new NpgsqlConnectionStringBuilder(app.ConnectionString).Database;
        await app.ExecuteAsync(
            $"begin; set transaction read write; alter database {database} set default_transaction_read_only = {value}; commit");
        app.Services.GetRequiredService<NpgsqlDataSource>().Clear();
        await Eventually.TrueAsync(
            async () => await app.QuerySingleAsync<int>(
                """
                select count(pg_terminate_backend(pid))
                from pg_stat_activity
                where datname = current_database() and application_name = 'ticket-functions'
                """) == 0,
            "the old sessions have ended, a pooler's too");
    }
}
