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
        foreach (string[] command in new string[][] { ["migrate"], ["sweep"], ["add", "hola"] })
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

    internal static string ToUri(NpgsqlConnectionStringBuilder settings) =>
        $"postgresql://{Uri.EscapeDataString(settings.Username!)}:{Uri.EscapeDataString(settings.Password ?? "")}@{settings.Host}:{settings.Port}/{settings.Database}";
}
