using System.Text.Json.Nodes;
using Npgsql;
using TicketFunctions.Storage;
using TicketFunctions.Tests.Storage;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Commands;

/// <summary>The commands that work on a database and end.</summary>
public sealed class DatabaseCommandTests : IAsyncLifetime
{
    private TicketApp _app = null!;

    public async Task InitializeAsync() => _app = await TicketApp.StartAsync();

    public Task DisposeAsync() => ((IAsyncLifetime)_app).DisposeAsync();

    [Fact]
    public async Task Migrate_applies_what_is_missing_and_then_nothing()
    {
        using var product = CreateProduct();
        await using var database = await ScratchDatabase.CreateAsync();
        var settings = new NpgsqlConnectionStringBuilder(database.ConnectionString);

        var first = await product.RunAsync("", [("ConnectionStrings__Tickets", database.ConnectionString)], "migrate");
        var second = await product.RunAsync("", [("ConnectionStrings__Tickets", ""), ("SUPABASE_DB_URL", ToUri(settings))], "migrate");

        Assert.Equal((0, ""), (first.ExitCode, first.Error));
        Assert.Equal(
            [
                $"Database: {settings.Database} on {settings.Host}:{settings.Port}",
                .. Migrations.All.Select(migration => $"Applied {migration.Version}_{migration.Name}"),
                $"{Migrations.All.Count} applied.",
            ],
            first.Lines);
        Assert.Equal((0, ""), (second.ExitCode, second.Error));
        Assert.Equal([first.Lines[0], "Up to date."], second.Lines);
        Assert.Empty(await new Migrations(database.DataSource).FindMissingAsync(default));
    }

    [Fact]
    public async Task Add_inserts_a_ticket_and_sweep_labels_all_there_are()
    {
        using var product = CreateProduct();
        var added = await product.RunAsync("add", "¿Cuánto cuesta? 🙂 'comillas'; drop table tickets; --");
        Assert.Equal((0, ""), (added.ExitCode, added.Error));
        var id = Guid.Parse(Assert.Single(added.Lines));
        Assert.Equal(
            new TicketRow(id, "¿Cuánto cuesta? 🙂 'comillas'; drop table tickets; --", null, null, false), await _app.ReadTicketAsync(id));
        await _app.ExecuteAsync("insert into tickets (description, created_at) select 'viejo ' || n, null from generate_series(1, 40) as n");

        var sweep = await product.RunAsync("sweep");
        var again = await product.RunAsync("sweep");

        Assert.Equal(0, sweep.ExitCode);
        Assert.Matches(@"^41 labelled, 0 to retry, 0 parked, in \d+\.\d s \(nothing due\)\.$", Assert.Single(sweep.Lines));
        Assert.Equal(0, again.ExitCode);
        Assert.StartsWith("0 labelled, 0 to retry, 0 parked", again.Output, StringComparison.Ordinal);
        Assert.Equal(41, await _app.QuerySingleAsync<int>("select count(*) from tickets where processed and category = 'Tecnico' and sentiment = 'Negativo'"));
        Assert.Equal(41, _app.Model.Calls.Count);
    }

    /// <summary>Hebrew writes -1 with a mark before the sign, and the Thai year is another one.</summary>
    [UnixTheory]
    [InlineData("he_IL.UTF-8")]
    [InlineData("th_TH.UTF-8")]
    public async Task The_language_of_the_machine_changes_nothing(string locale)
    {
        using var product = CreateProduct();

        var costs = await product.RunAsync("", [("LC_ALL", locale)], "costs", "--since", "2027-01-01");

        Assert.Equal((0, ""), (costs.ExitCode, costs.Error));
        Assert.Equal("No decisions since 2027-01-01.", costs.Lines[0]);
    }

    [Fact]
    public async Task Sweep_ends_with_1_when_tickets_are_left_without_labels()
    {
        using var product = CreateProduct();
        _app.Model.On("no me entiende", ModelStub.Content("no sé"));
        await _app.AddTicketAsync("no me entiende");
        await _app.AddTicketAsync("sí me entiende");
        var some = await product.RunAsync("sweep");
        Assert.Equal(1, some.ExitCode);
        Assert.StartsWith("1 labelled, 1 to retry, 0 parked", some.Output, StringComparison.Ordinal);

        await _app.AddTicketAsync("\u200b");
        var parked = await product.RunAsync("sweep");
        Assert.Equal(1, parked.ExitCode);
        Assert.StartsWith("0 labelled, 0 to retry, 1 parked", parked.Output, StringComparison.Ordinal);

        _app.Model.Default = ModelStub.Raw(503, "text/plain", "");
        await _app.ExecuteAsync("insert into tickets (description) select 'sin modelo ' || n from generate_series(1, 30) as n");
        var away = await product.RunAsync("", [("Sweep__Concurrency", "1")], "sweep");
        Assert.Equal(1, away.ExitCode);
        Assert.Contains("(model unavailable)", away.Output, StringComparison.Ordinal);

        // Most were left alone: to try them all would only have used up their attempts.
        Assert.InRange(
            await _app.QuerySingleAsync<int>("select count(*) from ticket_work join tickets on id = ticket_id where description like 'sin modelo%'"), 1, 10);
    }

    [Fact]
    public async Task Costs_shows_each_day_and_model_and_what_is_left()
    {
        using var product = CreateProduct();
        var none = await product.RunAsync("costs");
        Assert.Equal((0, ""), (none.ExitCode, none.Error));
        Assert.Matches("^No decisions since [0-9-]{10}\\.$", none.Lines[0]);
        Assert.Equal(["No daily budget is set (Model__TokensPerDay, Model__CostPerDay)."], none.Lines[1..]);

        const string Insert =
            """
            insert into ticket_decisions (
              ticket_id, decided_at, category, sentiment, source, provider, model, prompt_version, taxonomy_version, parameters, text_sha256,
              tokens_in, tokens_out, cost, saved_tokens, saved_cost, calls, model_calls, latency_ms, attempts
            )
            """;
        await _app.ExecuteAsync(
            $$"""
            {{Insert}}
            select gen_random_uuid(), at, 'Otro', 'Neutral', source, 'p', model, '1', '1', '{}', sha256('x'), tokens_in, tokens_out, cost, saved_tokens, saved_cost, calls::jsonb,
              jsonb_array_length(calls::jsonb), 1, 1
            from (
              values
                ('2026-11-01 23:59:59+00'::timestamptz, 'model', 'grande', 99, 9, 9.0, null, null, '[{"model":"grande","tokens_in":99,"tokens_out":9,"cost":9.0}]'),
                ('2026-11-02 00:00:00+00', 'model', 'grande', 300, 30, 0.75, null, null,
                  '[{"model":"grande","tokens_in":100,"tokens_out":10,"cost":0.25},{"model":"grande","tokens_in":200,"tokens_out":20,"cost":0.5}]'),
                ('2026-11-02 10:00:00+00', 'model', 'chico', 140, 14, 0.26, null, null,
                  '[{"model":"grande","tokens_in":100,"tokens_out":10,"cost":0.25},{"model":"chico","tokens_in":40,"tokens_out":4,"cost":0.01}]'),
                ('2026-11-02 11:00:00+00', 'reused', 'grande', null, null, null, 330, 0.75, '[]'),
                ('2026-11-03 00:00:00+00', 'baseline', 'base', null, null, null, null, null, '[]')
            ) as decision (at, source, model, tokens_in, tokens_out, cost, saved_tokens, saved_cost, calls);
            {{Insert}}
            values (gen_random_uuid(), '2026-11-03 01:00:00+00', 'Otro', 'Neutral', 'model', 'p', 'viejo', '1', '1', '{}', sha256('x'), 7, 3, null, null, null, '[]', 2, 1, 1);
            insert into ticket_failures (ticket_id, failed_at, attempt, kind, reason, text_sha256, answered, tokens_in, tokens_out, cost, calls)
            values (gen_random_uuid(), '2026-11-02 12:00:00+00', 1, 'k', 'r', sha256('x'), true, 100, 10, 0.25,
              '[{"model":"grande","tokens_in":100,"tokens_out":10,"cost":0.25},{"model":"chico","outcome":"unavailable"}]');
            """);

        var json = await product.RunAsync("", [("Model__TokensPerDay", "1000000")], "costs", "--since", "2026-11-02", "--json");
        Assert.Equal((0, ""), (json.ExitCode, json.Error));
        JsonAssert.Equal(
            """
            {
              "since": "2026-11-02",
              "days": [
                { "day": "2026-11-02", "model": "chico", "decisions": 1, "reused": 0, "failedAttempts": 1, "calls": 2, "tokensIn": 40, "tokensOut": 4, "cost": 0.01, "savedTokens": 0, "savedCost": null },
                { "day": "2026-11-02", "model": "grande", "decisions": 2, "reused": 1, "failedAttempts": 0, "calls": 4, "tokensIn": 500, "tokensOut": 50, "cost": 1.25, "savedTokens": 330, "savedCost": 0.75 },
                { "day": "2026-11-03", "model": "base", "decisions": 1, "reused": 0, "failedAttempts": 0, "calls": 0, "tokensIn": 0, "tokensOut": 0, "cost": null, "savedTokens": 0, "savedCost": null },
                { "day": "2026-11-03", "model": "viejo", "decisions": 1, "reused": 0, "failedAttempts": 0, "calls": 2, "tokensIn": 7, "tokensOut": 3, "cost": null, "savedTokens": 0, "savedCost": null }
              ],
              "total": { "decisions": 5, "reused": 1, "failedAttempts": 1, "calls": 8, "tokensIn": 547, "tokensOut": 57, "cost": 1.26, "savedTokens": 330, "savedCost": 0.75 },
              "today": {
                "spent": { "calls": 0, "tokens": 0, "cost": null },
                "saved": { "calls": 0, "tokens": 0, "cost": null },
                "left": { "tokens": 1000000, "cost": null }
              }
            }
            """,
            JsonNode.Parse(json.Output));

        var table = await product.RunAsync("", [("Model__TokensPerDay", "1000000")], "costs", "--since", "2026-11-02");
        Assert.Equal((0, ""), (table.ExitCode, table.Error));
        Assert.Contains(table.Lines, line => Cells(line) is ["2026-11-02", "grande", "2", "1", "0", "4", "500", "50", "1.25", "330", "0.75"]);
        Assert.Contains(table.Lines, line => Cells(line) is ["total", "", "5", "1", "1", "8", "547", "57", "1.26", "330", "0.75"]);
        Assert.Equal("Left today: 1000000 tokens.", table.Lines[^1]);
    }

    [UnixFact]
    public async Task Ctrl_C_ends_a_sweep_and_gives_back_what_it_held()
    {
        using var product = CreateProduct();
        var hold = _app.Model.Hold("lento");
        await _app.AddTicketAsync("lento");
        await using var sweep = product.Start(["sweep"]);
        await hold.Arrived;

        await sweep.SignalAsync("INT");

        Assert.Equal(130, await sweep.WaitForExitAsync());
        Assert.StartsWith("0 labelled, 0 to retry, 0 parked", sweep.Output, StringComparison.Ordinal);
        Assert.Contains("(stopped)", sweep.Output, StringComparison.Ordinal);
        Assert.DoesNotContain("   at ", sweep.Error, StringComparison.Ordinal);
        Assert.Equal(0, await _app.QuerySingleAsync<int>("select attempts from ticket_work where lease_token is null and due_at <= now()"));
    }

    [Fact]
    public async Task A_database_that_cannot_be_used_is_told_in_a_sentence()
    {
        using var product = CreateProduct();
        var server = new NpgsqlConnectionStringBuilder(_app.ConnectionString);
        foreach (string[] command in new string[][] { ["migrate"], ["sweep"], ["add", "hola"], ["costs"], ["parked"], ["revive", "--all"] })
        {
            var away = await RunOnAsync("postgresql://u:canary@127.0.0.1:1/d", command);
            Assert.Equal((1, "error: The database cannot be used: Failed to connect to 127.0.0.1:1\n"), (away.ExitCode, away.Error));
        }

        var none = await RunOnAsync(ToUri(new(server.ConnectionString) { Database = "nowhere" }), "sweep");
        Assert.Equal((1, "error: The database cannot be used: database \"nowhere\" does not exist (3D000)\n"), (none.ExitCode, none.Error));

        var refused = await RunOnAsync(ToUri(new(server.ConnectionString) { Username = "nobody", Password = "canary" }), "sweep");
        Assert.Equal(1, refused.ExitCode);
        Assert.Matches("^error: The database cannot be used: .+ \\(28.+\\)\n$", refused.Error);

        var wrong = await RunOnAsync("canary", "sweep");
        Assert.Equal(2, wrong.ExitCode);
        Assert.StartsWith("error: The connection string cannot be read. Set ConnectionStrings__Tickets (or SUPABASE_DB_URL) to", wrong.Error, StringComparison.Ordinal);

        await using var empty = await ScratchDatabase.CreateAsync();
        var unmigrated = await RunOnAsync(empty.ConnectionString, "sweep");
        Assert.Equal(1, unmigrated.ExitCode);
        Assert.Contains("run the command `migrate`", unmigrated.Error, StringComparison.Ordinal);

        async Task<CommandResult> RunOnAsync(string connectionString, params string[] command)
        {
            var result = await product.RunAsync("", [("ConnectionStrings__Tickets", connectionString)], command);
            Assert.Single(result.Error.Split('\n', StringSplitOptions.RemoveEmptyEntries));
            Assert.DoesNotContain("canary", result.Output + result.Error, StringComparison.Ordinal);
            return result;
        }
    }

    private Product CreateProduct() => new(
        ("ConnectionStrings__Tickets", _app.ConnectionString),
        ("Model__Endpoint", _app.Model.Endpoint),
        ("Model__Name", "stub-model"),
        ("Model__AttemptTimeout", "00:01:00"),
        ("Model__TotalTimeout", "00:01:00"));

    private static string[] Cells(string line) => [.. line.Trim('│').Split('│', StringSplitOptions.TrimEntries)];

    internal static string ToUri(NpgsqlConnectionStringBuilder settings) =>
        $"postgresql://{Uri.EscapeDataString(settings.Username!)}:{Uri.EscapeDataString(settings.Password ?? "")}@{settings.Host}:{settings.Port}/{settings.Database}";
}
