using System.Net;
using Dapper;
using Microsoft.Extensions.Logging;
using Npgsql;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Storage;

/// <summary>The product logged in as a member of <c>ticket_functions</c> and of nothing else.</summary>
public sealed class LeastPrivilegeTests : IAsyncLifetime
{
    private readonly string _login = $"app_{Guid.NewGuid():N}";
    private TicketApp _app = null!;

    public async Task InitializeAsync()
    {
        // Any database of the server will do to make a role; the template's migrations made its group.
        var database = await TestPostgres.CreateDatabaseAsync();
        await using (var connection = new NpgsqlConnection(database))
        {
            await connection.ExecuteAsync($"create role {_login} login password 'least' in role ticket_functions");
        }

        await TestPostgres.DropDatabaseAsync(database);
        _app = await TicketApp.StartAsync(
            ("ConnectionStrings__Tickets", $"Username={_login};Password=least"), ("Triage__MaxAttempts", "2"));
    }

    public async Task DisposeAsync()
    {
        await ((IAsyncLifetime)_app).DisposeAsync();
        var database = await TestPostgres.CreateEmptyDatabaseAsync();
        await using (var connection = new NpgsqlConnection(database))
        {
            await connection.ExecuteAsync($"drop role {_login}");
        }

        await TestPostgres.DropDatabaseAsync(database);
    }

    [Fact]
    public async Task The_whole_product_runs_on_the_least_of_rights()
    {
        // Requests: decided, stored, reused, forced, edited, refused.
        var id = await _app.AddTicketAsync("La factura está duplicada");
        Assert.Equal("model", await ProcessAsync(id));
        Assert.Equal("stored", await ProcessAsync(id));
        Assert.Equal("reused", await ProcessAsync(await _app.AddTicketAsync("La factura está duplicada")));
        Assert.Equal("model", await ProcessAsync(id, "?force=true"));
        await _app.ExecuteAsync("update tickets set description = 'Otra cosa' where id = @id", new { id });
        Assert.Equal("model", await ProcessAsync(id));
        Assert.Equal(HttpStatusCode.Conflict, (await _app.ProcessAsync(id, "no es el texto")).StatusCode);

        // Failures: waiting, parked, blank.
        _app.Model.On("Falla siempre", ModelStub.Json(500, new System.Text.Json.Nodes.JsonObject()));
        await _app.AddTicketAsync("Falla siempre");
        await _app.AddTicketAsync("\u200b");
        Assert.Equal((0, 1, 1), await SweepAsync());
        await _app.LetTimePassAsync();
        await ProcessAsync(await _app.AddTicketAsync("El modelo responde a otros"));
        Assert.Equal((0, 1, 0), await SweepAsync());
        await _app.LetTimePassAsync();
        await ProcessAsync(await _app.AddTicketAsync("Y a otros más"));
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
        Assert.DoesNotContain(_app.Log, entry => entry.Level > LogLevel.Warning);

        // It was this login all the time.
        Assert.Equal(
            _login,
            await _app.QuerySingleAsync<string>(
                "select string_agg(distinct usename::text, ',') from pg_stat_activity where datname = current_database() and application_name = 'ticket-functions'"));
    }

    private async Task<string?> ProcessAsync(Guid id, string query = "")
    {
        var response = await _app.ProcessAsync(id, query: query);
        Assert.True(response.IsSuccessStatusCode, await response.Content.ReadAsStringAsync());
        return (string?)(await response.ReadJsonAsync())["source"];
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
