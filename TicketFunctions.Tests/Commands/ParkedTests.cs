using System.Text.Json.Nodes;
using Dapper;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;
using TicketFunctions.Storage;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Commands;

/// <summary><c>parked</c> and <c>revive</c>: tickets that nobody tries any more can be seen, and get another chance.</summary>
public sealed class ParkedTests : IAsyncLifetime, IDisposable
{
    private TicketApp _app = null!;
    private Product _product = null!;

    public async Task InitializeAsync()
    {
        _app = await TicketApp.StartAsync(("Triage__MaxAttempts", "2"));
        _product = new Product(
            ("ConnectionStrings__Tickets", _app.ConnectionString),
            ("Model__Endpoint", _app.Model.Endpoint),
            ("Model__Name", "stub-model"),
            ("Triage__MaxAttempts", "2"));
    }

    public Task DisposeAsync() => ((IAsyncLifetime)_app).DisposeAsync();

    public void Dispose() => _product.Dispose();

    [Fact]
    public async Task Parked_tickets_are_listed_with_their_errors_and_without_their_texts()
    {
        var none = await _product.RunAsync("parked");
        Assert.Equal((0, "", "0 parked.\n"), (none.ExitCode, none.Error, none.Output));
        Assert.Equal("[]\n", (await _product.RunAsync("parked", "--json")).Output);

        var invalid = await ParkAsync("Texto canario [red]uno[/].");
        var blank = await _app.AddTicketAsync("\u200b");
        await _app.AddTicketAsync("Este sí.");
        Assert.Equal(1, (await _app.SweepAsync()).Parked);
        await _app.ExecuteAsync(
            """
            update ticket_work set parked_at = '2026-11-20 08:30:00+00' where ticket_id = @invalid;
            update tickets set created_at = now() - interval '36 hours' where id = @invalid;
            update tickets set created_at = null where id = @blank;
            insert into tickets (id, description, category, sentiment, processed) values ('00000000-0000-4000-8000-000000000001', 'A mano', 'Otro', 'Neutral', true);
            insert into ticket_work (ticket_id, attempts, due_at, parked_at) values ('00000000-0000-4000-8000-000000000001', 2, now(), now());
            """,
            new { invalid, blank });
        var before = await _app.ReadEverythingAsync();

        var json = await _product.RunAsync("parked", "--json");
        var table = await _product.RunAsync("parked");

        Assert.Equal((0, ""), (json.ExitCode, json.Error));
        var rows = JsonNode.Parse(json.Output)!.AsArray();
        Assert.Equal(2, rows.Count);
        Assert.Equal(["id", "parkedAt", "attempts", "lastError", "ageSeconds"], rows[0]!.AsObject().Select(member => member.Key));
        Assert.Equal((invalid.ToString(), "2026-11-20T08:30:00Z", 2), ((string?)rows[0]!["id"], (string?)rows[0]!["parkedAt"], (int?)rows[0]!["attempts"]));
        Assert.StartsWith("UpstreamInvalid: ", (string?)rows[0]!["lastError"], StringComparison.Ordinal);
        Assert.InRange((double)rows[0]!["ageSeconds"]!, 36 * 3600, (36 * 3600) + 600);
        Assert.Equal((blank.ToString(), "blank: the text has nothing in it to classify"), ((string?)rows[1]!["id"], (string?)rows[1]!["lastError"]));
        Assert.Null(rows[1]!["ageSeconds"]);

        Assert.Equal((0, ""), (table.ExitCode, table.Error));
        Assert.Contains(table.Lines, line => Cells(line) is [var id, "2026-11-20 08:30:00", "1.5 d", "2", var error] && id == invalid.ToString() && error.StartsWith("UpstreamInvalid", StringComparison.Ordinal));
        Assert.Equal("2 parked.", table.Lines[^1]);
        Assert.DoesNotContain("canario", json.Output + table.Output, StringComparison.Ordinal);
        Assert.Equal(before, await _app.ReadEverythingAsync());
    }

    [Fact]
    public async Task A_revived_ticket_has_all_its_attempts_again_and_the_others_stay_parked()
    {
        var first = await ParkAsync("Primero.");
        var second = await ParkAsync("Segundo.");
        var waiting = await _app.AddTicketAsync("Espera.");
        await _app.ExecuteAsync("insert into ticket_work (ticket_id, attempts, due_at, last_error) values (@waiting, 1, now() + interval '1 hour', 'x')", new { waiting });
        var others = await ReadWorkAsync(second, waiting);

        var revived = await _product.RunAsync("revive", first.ToString(), first.ToString().ToUpperInvariant());

        Assert.Equal((0, "", "1 of 1 revived.\n"), (revived.ExitCode, revived.Error, revived.Output));
        Assert.Equal("0 false true true -", await StateAsync(first));
        Assert.Equal(others, await ReadWorkAsync(second, waiting));

        // It fails again, twice, until it is parked again.
        var calls = _app.Model.CallsFor("Primero.").Count;
        Assert.Equal((1, 0), await SweepAsync());
        Assert.Equal((0, 1), await SweepAsync());
        Assert.Equal(2 * calls, _app.Model.CallsFor("Primero.").Count);

        // The others are told of, and what can be revived is.
        var unknown = Guid.NewGuid();
        var some = await _product.RunAsync("revive", waiting.ToString(), first.ToString(), unknown.ToString());
        Assert.Equal((1, "1 of 3 revived.\n"), (some.ExitCode, some.Output));
        Assert.Equal($"error: {waiting} is not parked.\nerror: {unknown} is not parked.\n", some.Error);
        Assert.Equal("0 false true true -", await StateAsync(first));
        Assert.Equal(others, await ReadWorkAsync(second, waiting));
    }

    [Fact]
    public async Task All_are_revived_at_once_and_labelled_when_the_cause_is_mended()
    {
        for (var i = 1; i <= 3; i++)
        {
            await ParkAsync($"Ticket {i}.");
            _app.Model.On($"Ticket {i}.", ModelStub.Labels("Otro", "Neutral"));
        }

        Assert.Equal(0, (await _app.SweepAsync()).Claimed);
        var all = await _product.RunAsync("revive", "--all");
        var again = await _product.RunAsync("revive", "--all");

        Assert.Equal((0, "", "3 revived.\n"), (all.ExitCode, all.Error, all.Output));
        Assert.Equal((0, "", "0 revived.\n"), (again.ExitCode, again.Error, again.Output));
        Assert.Equal(3, (await _app.SweepAsync()).Labelled);
        Assert.Equal(3, await _app.QuerySingleAsync<int>("select count(*) from ticket_decisions where attempts = 1"));
    }

    [Fact]
    public async Task Many_that_revive_at_once_revive_each_ticket_once_and_leave_alone_what_somebody_holds()
    {
        await _app.ExecuteAsync(
            """
            insert into tickets (description) select 'Ticket ' || n from generate_series(1, 200) as n;
            insert into ticket_work (ticket_id, attempts, due_at, parked_at) select id, 2, now(), now() from tickets;
            """);
        await using var other = new NpgsqlConnection(_app.ConnectionString);
        await other.OpenAsync();
        await using var transaction = await other.BeginTransactionAsync();
        var held = await other.QuerySingleAsync<Guid>("select ticket_id from ticket_work order by random() limit 1 for update", transaction: transaction);
        var store = _app.Services.GetRequiredService<TicketStore>();

        var revived = await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => store.ReviveAsync(null, default)));

        Assert.Equal(199, revived.Sum(ids => ids.Count));
        Assert.Equal(199, revived.SelectMany(ids => ids).Distinct().Count());
        Assert.DoesNotContain(held, revived.SelectMany(ids => ids));
        await transaction.RollbackAsync();
        Assert.Equal([held], await store.ReviveAsync([held, Guid.NewGuid()], default));
    }

    /// <summary>A ticket that used up its attempts on answers that are no labels.</summary>
    private async Task<Guid> ParkAsync(string text)
    {
        _app.Model.On(text, ModelStub.Content("no sé"));
        var id = await _app.AddTicketAsync(text);
        await _app.ProcessAsync(id);
        await _app.ProcessAsync(id);
        Assert.Equal("2 true", await _app.QuerySingleAsync<string>("select concat_ws(' ', attempts, (parked_at is not null)::text) from ticket_work where ticket_id = @id", new { id }));
        return id;
    }

    private async Task<(int Waiting, int Parked)> SweepAsync()
    {
        await _app.ExecuteAsync("update ticket_work set due_at = now() - interval '1 second' where parked_at is null and last_error is distinct from 'x'");
        var summary = await _app.SweepAsync();
        return (summary.Waiting, summary.Parked);
    }

    private Task<string> StateAsync(Guid id) => _app.QuerySingleAsync<string>(
        """
        select concat_ws(' ', attempts, (parked_at is not null)::text, (due_at <= now())::text, (first_attempt_at > now() - interval '5 minutes')::text, coalesce(last_error, '-'))
        from ticket_work
        where ticket_id = @id
        """,
        new { id });

    private Task<string> ReadWorkAsync(params Guid[] ids) => _app.QuerySingleAsync<string>(
        "select json_agg(ticket_work order by ticket_id)::text from ticket_work where ticket_id = any(@ids)", new { ids });

    private static string[] Cells(string line) => [.. line.Trim('│').Split('│', StringSplitOptions.TrimEntries)];
}
