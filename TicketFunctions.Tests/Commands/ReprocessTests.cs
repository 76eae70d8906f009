using System.Text.Json.Nodes;
using Dapper;
using Microsoft.Extensions.DependencyInjection;
using Npgsql;
using TicketFunctions.Classification;
using TicketFunctions.Storage;
using TicketFunctions.Tests.Support;
using TicketFunctions.Tickets;

namespace TicketFunctions.Tests.Commands;

/// <summary><c>reprocess</c>: which decisions are done again, what a dry run leaves alone, and what nobody may touch.</summary>
public sealed class ReprocessTests : IAsyncLifetime, IDisposable
{
    private TicketApp _app = null!;
    private Product _product = null!;

    public async Task InitializeAsync()
    {
        _app = await TicketApp.StartAsync();
        _product = new Product(
            ("ConnectionStrings__Tickets", _app.ConnectionString),
            ("Model__Endpoint", _app.Model.Endpoint),
            ("Model__Name", "new-model"),
            ("Model__MaxRetries", "0"),
            ("Model__Output", "Schema"),
            ("Model__InputPricePerMillion", "1"),
            ("Model__OutputPricePerMillion", "1"));
    }

    public Task DisposeAsync() => _app.DisposeAsync();

    public void Dispose() => _product.Dispose();

    [Fact]
    public async Task A_dry_run_shows_old_against_new_and_changes_nothing_but_what_was_spent()
    {
        await DecideAsync("Se cae la app.", "La factura está mal.", "Gracias por todo.", "Gracias por todo.");
        _app.Model.On("La factura está mal.", ModelStub.Labels("Facturacion", "Negativo"));
        _app.Model.On("Gracias por todo.", ModelStub.Labels("Otro", "Positivo"));
        var before = await ReadTicketsAndDecisionsAsync();

        var dry = await _product.RunAsync("reprocess", "--model", "stub-model", "--dry-run");

        Assert.Equal((0, ""), (dry.ExitCode, dry.Error));
        Assert.Contains("4 found, 4 decided again, 3 would change, 0 failed", dry.Output, StringComparison.Ordinal);
        Assert.Contains("The dry run took 3 calls, 963 tokens in, 51 out, cost 0.001014.", dry.Output, StringComparison.Ordinal);
        Assert.Equal(["Facturacion", "Otro", "Tecnico"], Cells(dry, "category"));
        Assert.Equal(["1", "2", "1"], Cells(dry, "Tecnico"));
        Assert.Equal(["Negativo", "Positivo"], Cells(dry, "sentiment"));
        Assert.Equal(before, await ReadTicketsAndDecisionsAsync());
        Assert.Equal(0, await _app.QuerySingleAsync<int>("select count(*) from ticket_work"));
        Assert.Equal((3, 0.001014m), await _app.QuerySingleAsync<(int, decimal)>("select count(*)::int, sum(cost) from ticket_failures where kind = 'dry_run'"));

        // For real: the same labels, and one call for both tickets of one text.
        var calls = _app.Model.Calls.Count;
        var real = await _product.RunAsync("reprocess", "--model", "stub-model");
        Assert.Equal(0, real.ExitCode);
        Assert.Contains("4 found, 4 decided again, 3 changed, 0 failed", real.Output, StringComparison.Ordinal);
        Assert.Equal(calls + 3, _app.Model.Calls.Count);
        Assert.Equal(
            ["Facturacion Negativo", "Otro Positivo", "Otro Positivo", "Tecnico Negativo"],
            await _app.QueryAsync<string>("select category || ' ' || sentiment from tickets where processed order by 1"));
        Assert.Equal(8, await _app.QuerySingleAsync<int>("select count(*) from ticket_decisions"));

        // Nothing is left that the old model decided.
        Assert.Contains("0 found, 0 decided again", (await _product.RunAsync("reprocess", "--model", "stub-model")).Output, StringComparison.Ordinal);
        Assert.Equal(calls + 3, _app.Model.Calls.Count);
    }

    [Fact]
    public async Task What_the_model_of_now_decided_is_asked_anew_and_what_it_decided_before_is_not_its_answer()
    {
        await DecideAsync("Duda.");
        await _product.RunAsync("reprocess", "--model", "stub-model");
        _app.Model.On("Duda.", ModelStub.Labels("Comercial", "Neutral"));

        var again = await _product.RunAsync("reprocess", "--model", "new-model");

        Assert.Contains("1 found, 1 decided again, 1 changed", again.Output, StringComparison.Ordinal);
        Assert.Equal(["stub-model", "new-model", "new-model"], _app.Model.Calls.Select(call => (string)call.Body["model"]!));

        // What another model decided since about the same text is replaced by what this one said already.
        await DecideAsync("Duda.");
        Assert.Contains("1 found, 1 decided again, 1 changed", (await _product.RunAsync("reprocess", "--model", "stub-model")).Output, StringComparison.Ordinal);
        Assert.Equal(3, _app.Model.Calls.Count);
    }

    [Fact]
    public async Task The_daily_budget_ends_a_run_whether_dry_or_not()
    {
        await DecideAsync("Uno.", "Dos.", "Tres.");

        // A call takes 338 tokens: the three above took 1014.
        var dry = await _product.RunAsync("", [("Sweep__Concurrency", "1"), ("Model__TokensPerDay", "1200")], "reprocess", "--model", "stub-model", "--dry-run");
        Assert.Equal(1, dry.ExitCode);
        Assert.Contains("3 found, 1 decided again, 0 would change, 0 failed and keep their labels, 0 were changed meanwhile and left alone. Ended early: the daily budget is spent.", dry.Output, StringComparison.Ordinal);
        Assert.Equal(4, _app.Model.Calls.Count);

        var real = await _product.RunAsync("", [("Sweep__Concurrency", "1"), ("Model__TokensPerDay", "1500")], "reprocess", "--model", "stub-model");
        Assert.Equal(1, real.ExitCode);
        Assert.Contains("3 found, 1 decided again, 0 changed, 1 failed and keep their labels, 0 were changed meanwhile and left alone. Ended early: the daily budget is spent.", real.Output, StringComparison.Ordinal);
        Assert.Equal(5, _app.Model.Calls.Count);
        Assert.Equal((3, 0), await _app.QuerySingleAsync<(int, int)>("select (select count(*) from tickets where processed), (select count(*) from ticket_work)"));
    }

    [UnixFact]
    public async Task Ctrl_C_gives_back_what_takes_long_and_every_ticket_keeps_its_labels()
    {
        await DecideAsync("Lento.", "Espera su turno.");
        var before = await ReadTicketsAndDecisionsAsync();
        var hold = _app.Model.Hold("Lento.", ModelStub.Labels("Otro", "Neutral"));
        await using var process = _product.Start(
            ["reprocess", "--model", "stub-model"], ("Sweep__Concurrency", "1"), ("Model__AttemptTimeout", "00:00:20"), ("Model__TotalTimeout", "00:00:30"));
        await hold.Arrived;

        await process.SignalAsync("INT");

        Assert.Equal(130, await process.WaitForExitAsync());
        Assert.Contains("2 found, 0 decided again, 0 changed, 0 failed", process.Output, StringComparison.Ordinal);
        Assert.Contains("Ended early: stopped.", process.Output, StringComparison.Ordinal);
        Assert.Equal(before, await ReadTicketsAndDecisionsAsync());
        Assert.Equal(
            (0, 0, 0),
            await _app.QuerySingleAsync<(int, int, int)>("select (select count(*) from ticket_work), (select count(*) from ticket_text_locks), (select count(*) from ticket_failures)"));
        Assert.Equal(3, _app.Model.Calls.Count);
        hold.Release();
    }

    [Fact]
    public async Task Conditions_add_up()
    {
        var ids = await DecideAsync("Uno.", "Dos.", "Tres.");
        _app.Model.On("Cuatro.", ModelStub.Labels("Otro", "Neutral"));
        await DecideAsync("Cuatro.");
        var version = await _app.QuerySingleAsync<string>("select prompt_version from ticket_decisions where ticket_id = @id", new { id = ids[0] });
        var time = await _app.QuerySingleAsync<string>("select to_char(decided_at at time zone 'utc', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') from ticket_decisions where ticket_id = @id", new { id = ids[2] });

        Assert.Equal("4 found", await FindAsync("--prompt-version", version));
        Assert.Equal("0 found", await FindAsync("--prompt-version", "000000000000"));
        Assert.Equal("1 found", await FindAsync("--label", "Otro"));
        Assert.Equal("3 found", await FindAsync("--label", "Negativo"));
        Assert.Equal("2 found", await FindAsync("--since", time));
        Assert.Equal("1 found", await FindAsync("--since", time, "--label", "Tecnico"));
        Assert.Equal("2 found", await FindAsync("--model", "stub-model", "--limit", "2"));
        Assert.Equal("0 found", await FindAsync("--model", "baseline"));
        Assert.Equal("0 found", await FindAsync("--model", "model"));
        Assert.Equal("0 found", await FindAsync("--since", "2099-01-01"));
        Assert.Equal("0 found", await FindAsync("--since", "2099-01-01T08:30:00+02:00"));

        async Task<string> FindAsync(params string[] conditions) =>
            (await _product.RunAsync(["reprocess", "--dry-run", .. conditions])).Lines.Single(line => line.Contains(" found, ", StringComparison.Ordinal)).Split(',')[0];
    }

    [Fact]
    public async Task A_persons_correction_and_an_unprocessed_ticket_are_left_alone()
    {
        var ids = await DecideAsync("Corregido.", "Editado.", "De mejor humor.");
        await _app.ExecuteAsync("update tickets set category = 'Comercial' where id = @id", new { id = ids[0] });
        await _app.ExecuteAsync("update tickets set description = 'Otra cosa.' where id = @id", new { id = ids[1] });
        await _app.ExecuteAsync("update tickets set sentiment = 'Neutral' where id = @id", new { id = ids[2] });
        var before = await _app.ReadEverythingAsync();

        var result = await _product.RunAsync("reprocess", "--since", "2020-01-01");

        Assert.Contains("0 found", result.Output, StringComparison.Ordinal);
        Assert.Equal(before, await _app.ReadEverythingAsync());
    }

    [Fact]
    public async Task A_ticket_that_is_corrected_while_others_are_decided_keeps_its_correction()
    {
        var ids = await DecideAsync("Lento.", "Espera su turno.");
        var hold = _app.Model.Hold("Lento.", ModelStub.Labels("Otro", "Neutral"));
        await using var process = _product.Start(["reprocess", "--model", "stub-model"], ("Sweep__Concurrency", "1"));
        await hold.Arrived;
        await _app.ExecuteAsync("update tickets set category = 'Comercial' where id = @id", new { id = ids[1] });
        hold.Release();

        Assert.Equal(0, await process.WaitForExitAsync());
        Assert.Contains("2 found, 1 decided again, 1 changed, 0 failed and keep their labels, 1 were changed meanwhile", process.Output, StringComparison.Ordinal);
        Assert.Equal("Comercial", (await _app.ReadTicketAsync(ids[1])).Category);
    }

    [Theory]
    [InlineData("false")]
    [InlineData("true")]
    public async Task A_model_that_is_away_ends_the_run_and_every_ticket_keeps_its_labels_also_where_the_baseline_stands_in(string standsIn)
    {
        await DecideAsync([.. Enumerable.Range(1, 12).Select(i => $"Ticket {i}.")]);
        _app.Model.Default = ModelStub.Json(503, new JsonObject());
        var before = await ReadTicketsAndDecisionsAsync();

        foreach (string[] arguments in new string[][] { ["reprocess", "--model", "stub-model"], ["reprocess", "--model", "stub-model", "--dry-run"] })
        {
            var result = await _product.RunAsync("", [("Sweep__Concurrency", "1"), ("Model__BreakDuration", "00:00:00"), ("Model__BaselineStandsIn", standsIn)], arguments);
            Assert.Equal(1, result.ExitCode);
            Assert.Contains("5 failed and keep their labels", result.Output, StringComparison.Ordinal);
            Assert.Contains("Ended early: no model can be reached.", result.Output, StringComparison.Ordinal);
        }

        Assert.Equal(before, await ReadTicketsAndDecisionsAsync());
        Assert.Equal(0, await _app.QuerySingleAsync<int>("select count(*) from ticket_work"));
    }

    [Fact]
    public async Task One_call_that_fails_in_a_dry_run_is_one_failure_however_many_tickets_have_its_text()
    {
        await DecideAsync([.. Enumerable.Repeat("Igual.", 6), "Otro."]);
        _app.Model.On("Igual.", ModelStub.Json(503, new JsonObject()));

        var dry = await _product.RunAsync("", [("Sweep__Concurrency", "1")], "reprocess", "--model", "stub-model", "--dry-run");

        Assert.Contains("7 found, 1 decided again, 0 would change, 6 failed and keep their labels, 0 were changed meanwhile and left alone.\n", dry.Output, StringComparison.Ordinal);
        Assert.Contains("The dry run took 2 calls", dry.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_a_dry_run_paid_is_recorded_also_when_the_database_fails_for_a_moment()
    {
        await DecideAsync("Uno.");
        await _app.ExecuteAsync(
            """
            create sequence tries;
            grant usage on sequence tries to public;
            create function fail() returns trigger language plpgsql as $$
            begin
              if nextval('tries') <= 3 then
                raise 'too many clients' using errcode = '53300';
              end if;
              return new;
            end;
            $$;
            create trigger fail before insert on ticket_failures for each row execute function fail();
            """);

        var dry = await _product.RunAsync("reprocess", "--model", "stub-model", "--dry-run");

        Assert.Contains("1 found, 1 decided again, 0 would change, 0 failed", dry.Output, StringComparison.Ordinal);
        Assert.Equal(1, await _app.QuerySingleAsync<int>("select count(*) from ticket_failures where kind = 'dry_run'"));
    }

    [Fact]
    public async Task A_dry_run_asks_about_several_texts_at_once()
    {
        await DecideAsync("Uno.", "Dos.");
        using var both = new Barrier(2);
        var identity = ScriptedClassifier.Identity("m");
        var classifier = new ScriptedClassifier(identity)
        {
            // Before its task is there, as the baseline and the masking do.
            Answer = _ => both.SignalAndWait(TimeSpan.FromSeconds(20))
                ? new ClassificationResult.Labelled(new Labels("Otro", "Neutral"), identity, null, false, [])
                : new ClassificationResult.Failed(FailureKind.UpstreamInvalid, "alone", null, []),
        };
        await using var app = await TicketApp.StartAsync(
            _app.ConnectionString, services => services.AddSingleton<ITicketClassifier>(classifier), ("Sweep__Concurrency", "2"));
        var tickets = await app.Services.GetRequiredService<TicketStore>().FindDecidedAsync(new DecisionFilter(null, null, null, null), null, default);

        var summary = await app.Services.GetRequiredService<TicketReprocess>().RunAsync(tickets, dryRun: true, null, default);

        Assert.Equal((2, 0), (summary.Decided.Count, summary.Failed));
    }

    [Fact]
    public async Task A_row_that_somebody_keeps_locked_does_not_stop_the_others()
    {
        var ids = await DecideAsync("Bloqueado.", "Libre.");
        await using var connection = new NpgsqlConnection(_app.ConnectionString);
        await connection.OpenAsync();
        await using var transaction = await connection.BeginTransactionAsync();
        await connection.ExecuteAsync("select from tickets where id = @id for update", new { id = ids[0] });

        var result = await _product.RunAsync(
            "", [("Sweep__Concurrency", "1"), ("ConnectionStrings__Tickets", $"{_app.ConnectionString};Command Timeout=1")], "reprocess", "--model", "stub-model");

        Assert.Equal(1, result.ExitCode);
        Assert.Contains("2 found, 1 decided again, 0 changed, 1 failed and keep their labels", result.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Without_a_condition_or_with_a_wrong_one_nothing_is_tried()
    {
        var none = await _product.RunAsync("reprocess");
        var since = await _product.RunAsync("reprocess", "--since", "ayer");

        Assert.Equal((2, 2), (none.ExitCode, since.ExitCode));
        Assert.Contains("Say which decisions", none.Error, StringComparison.Ordinal);
        Assert.Contains("--since is not a time", since.Error, StringComparison.Ordinal);
    }

    /// <summary>Tickets decided by the service's own model, one after the other.</summary>
    private async Task<List<Guid>> DecideAsync(params string[] texts)
    {
        var ids = new List<Guid>();
        foreach (var text in texts)
        {
            ids.Add(await _app.AddTicketAsync(text));
            Assert.True((await _app.ProcessAsync(ids[^1])).IsSuccessStatusCode);
        }

        return ids;
    }

    private Task<string> ReadTicketsAndDecisionsAsync() => _app.QuerySingleAsync<string>(
        "select concat((select json_agg(tickets order by id) from tickets), (select json_agg(ticket_decisions order by id) from ticket_decisions))");

    /// <summary>The cells after the first one, of the first line whose first cell begins so.</summary>
    private static string[] Cells(CommandResult result, string first) => result.Lines
        .Select(line => line.Split('│', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries))
        .First(cells => cells.Length > 1 && cells[0].StartsWith(first, StringComparison.Ordinal))[1..];
}
