using System.Text.RegularExpressions;
using Dapper;
using Npgsql;
using TicketFunctions.Storage;
using TicketFunctions.Tests.Commands;
using TicketFunctions.Tests.Support;
using TicketFunctions.Tests.Triggers;

namespace TicketFunctions.Tests.Storage;

/// <summary>Every block of SQL in <c>docs/supabase.md</c>, run in its order on a project.</summary>
public sealed partial class SupabaseGuideTests(SupabaseServer server) : IClassFixture<SupabaseServer>
{
    private const string Extension = "create extension if not exists pg_net;";

    /// <summary>What Vault and Auth have besides, as Supabase's documentation shows them.</summary>
    private const string More =
        """
        create function vault.create_secret(new_secret text, new_name text) returns void language sql as 'insert into vault.secrets values (new_name, new_secret)';
        create schema auth;
        create function auth.jwt() returns jsonb language sql stable as 'select current_setting(''request.jwt.claims'', true)::jsonb';
        grant usage on schema auth to authenticated;
        """;

    private const string Agent = """{"app_metadata": {"role": "agent"}}""";
    private const string Impostor = """{"user_metadata": {"role": "agent"}}""";

    private static readonly Dictionary<string, string> Values = new()
    {
        ["app"] = "tickets.example.com",
        ["function key"] = SignedApp.Key,
        ["signing secret"] = SignedApp.Secret,
        ["password of tickets_app"] = "least",
    };

    [Fact]
    public async Task Its_SQL_runs_and_leaves_a_project_that_doctor_finds_well_and_whose_dashboard_is_for_agents()
    {
        await server.CreateProjectAsync("guide");
        var login = server.OwnersConnectionFor("guide").ConnectionString;
        await using var owner = NpgsqlDataSource.Create(login);
        await new Migrations(owner).ApplyAsync(default);
        await using var connection = await owner.OpenConnectionAsync();
        await connection.ExecuteAsync(SignedWebhookTests.Vault + FinishedProject.DashboardWebhooks + More);

        // What a project has of pg_net before and after is the stand-in.
        var blocks = await ReadBlocksAsync();
        Assert.Single(blocks, block => block.Contains(Extension, StringComparison.Ordinal));
        foreach (var block in blocks)
        {
            await connection.ExecuteAsync(block.Replace(Extension, SignedWebhookTests.Net, StringComparison.Ordinal));
        }

        using var product = new Product(
            ("Storage__Role", "ticket_functions"), ("Keys__Function", SignedApp.Key), ("Webhooks__Secret", SignedApp.Secret));
        var doctor = await product.RunAsync("", [("ConnectionStrings__Tickets", login)], "doctor");
        Assert.Equal(0, doctor.ExitCode);
        Assert.StartsWith("warn  model", Assert.Single(doctor.Lines, line => !line.StartsWith("ok ", StringComparison.Ordinal)), StringComparison.Ordinal);
        var least = await product.RunAsync(
            "", [("ConnectionStrings__Tickets", $"{login};Username=tickets_app;Password=least"), ("Storage__Role", "")], "sweep");
        Assert.True(least.ExitCode == 0, least.Error);

        await connection.ExecuteAsync(
            """
            insert into tickets (id, description) values ('00000000-0000-0000-0000-000000000001', 'Hola');
            update tickets set category = 'Otro', sentiment = 'Neutral', processed = true;
            insert into tickets (description) values ('Nuevo');
            insert into ticket_decisions (
              ticket_id, category, sentiment, needs_review, source, provider, model, prompt_version, taxonomy_version, parameters, text_sha256, model_calls, latency_ms, attempts
            )
            values ('00000000-0000-0000-0000-000000000001', 'Otro', 'Neutral', true, 'model', 'p', 'm', '1', '1', '{}', sha256('x'), 1, 1, 1);
            """);
        Assert.Equal(2, await connection.QuerySingleAsync<int>("select count(*) from net.http_request_queue"));
        foreach (var (sql, agents, impostors) in new[]
        {
            ("select from tickets", "2", "0"),
            ("select from ticket_decisions", "1", "0"),
            ("select from tickets_to_review", "1", "0"),
            ("insert into tickets (description) values ('Otro más')", "1", "1"),
            ("update tickets set category = 'Comercial'", "1", "0"),
            ("update tickets set description = 'x'", "42501", "42501"),
            ("update tickets set processed = false", "42501", "42501"),
            ("delete from tickets", "42501", "42501"),
        })
        {
            Assert.Equal((sql, agents, impostors), (sql, await TryAsync(connection, Agent, sql), await TryAsync(connection, Impostor, sql)));
        }

        Assert.Equal("42501", await TryAsync(connection, "{}", "select from tickets", "anon"));
        Assert.Equal("42501", await TryAsync(connection, "{}", "select from tickets_to_review", "anon"));
    }

    /// <summary>What happens when somebody who shows these claims runs a statement: the rows, or the error's code. Nothing of it stays.</summary>
    private static async Task<string> TryAsync(NpgsqlConnection connection, string claims, string sql, string role = "authenticated")
    {
        await using var transaction = await connection.BeginTransactionAsync();
        await connection.ExecuteAsync($"select set_config('request.jwt.claims', @claims, true); set local role {role}", new { claims }, transaction);
        try
        {
            await using var command = new NpgsqlCommand(sql, connection, transaction);
            await using var reader = await command.ExecuteReaderAsync();
            var rows = 0;
            while (await reader.ReadAsync())
            {
                rows++;
            }

            await reader.CloseAsync();
            return $"{Math.Max(rows, reader.RecordsAffected)}";
        }
        catch (PostgresException e)
        {
            return e.SqlState;
        }
    }

    private static async Task<List<string>> ReadBlocksAsync()
    {
        var guide = await File.ReadAllTextAsync(Path.Combine(TestPostgres.SolutionFolder, "docs", "supabase.md"));
        return [.. Block().Matches(guide).Select(block => Placeholder().Replace(block.Groups["sql"].Value, name => Values[name.Groups["name"].Value]))];
    }

    [GeneratedRegex("^```sql\r?\n(?<sql>.*?)^```", RegexOptions.Multiline | RegexOptions.Singleline)]
    private static partial Regex Block();

    [GeneratedRegex("<(?<name>[a-z_ ]+)>")]
    private static partial Regex Placeholder();
}
