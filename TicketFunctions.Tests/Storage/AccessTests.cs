using System.Globalization;
using Dapper;
using Microsoft.Extensions.Logging.Abstractions;
using Npgsql;
using TicketFunctions.Hosting.AspNetCore;
using TicketFunctions.Storage;

namespace TicketFunctions.Tests.Storage;

/// <summary>
/// A server with the roles of a Supabase project, of which every new table is everybody's until it is revoked. Roles belong to a whole
/// server, so it is one of its own: all other tests meet a server without them.
/// </summary>
public sealed class SupabaseServer : IAsyncLifetime
{
    private readonly string _folder = Path.Combine(Path.GetTempPath(), $"ticketfunctions-supabase-{Guid.NewGuid():N}");
    private EmbeddedPostgres? _server;

    /// <summary>Logged in as the owner of the project, who is not a superuser.</summary>
    public NpgsqlDataSource Project { get; private set; } = null!;

    /// <summary>As superuser.</summary>
    public NpgsqlConnectionStringBuilder ConnectionFor(string database) => new(_server!.ConnectionStringFor(database)) { Pooling = false };

    /// <summary>As the owner of a project.</summary>
    public NpgsqlConnectionStringBuilder OwnersConnectionFor(string project) =>
        new(_server!.ConnectionStringFor(project)) { Username = "project", Password = "project" };

    /// <summary>A new database with what a project has and nothing of ours.</summary>
    /// <param name="name">Its name.</param>
    /// <param name="template">A project to copy instead.</param>
    public async Task CreateProjectAsync(string name, string? template = null)
    {
        await using var server = NpgsqlDataSource.Create(ConnectionFor("postgres"));
        await ExecuteAsync(server, $"create database {name} owner project template {template ?? "template0"}");
        if (template is null)
        {
            await using var project = NpgsqlDataSource.Create(new NpgsqlConnectionStringBuilder(OwnersConnectionFor(name).ConnectionString) { Pooling = false });
            await ExecuteAsync(
                project,
                """
                grant usage on schema public to anon, authenticated, service_role;
                alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
                alter default privileges in schema public grant all on sequences to anon, authenticated, service_role;
                alter default privileges in schema public grant all on functions to anon, authenticated, service_role;
                create table profiles (id int);
                create publication supabase_realtime for table profiles;
                """);
        }
    }

    public async Task InitializeAsync()
    {
        _server = await EmbeddedPostgres.StartAsync(
            new EmbeddedPostgresOptions { Folder = _folder, FastAndUnsafe = true }, NullLogger.Instance);
        await using (var server = NpgsqlDataSource.Create(_server.ConnectionString))
        {
            await ExecuteAsync(server, "create role project login createrole bypassrls password 'project'");
            await ExecuteAsync(server, "create role anon nologin; create role authenticated nologin; create role service_role nologin bypassrls");
            await ExecuteAsync(server, "grant anon, authenticated, service_role to project with admin option");
        }

        await CreateProjectAsync("project");
        Project = NpgsqlDataSource.Create(OwnersConnectionFor("project"));
        await new Migrations(Project).ApplyAsync(default);
        await ExecuteAsync(Project, "grant ticket_functions to project");
        await ExecuteAsync(
            Project,
            """
            insert into tickets (id, description) values ('00000000-0000-0000-0000-000000000001', 'Hola');
            insert into ticket_work (ticket_id, attempts, due_at) values ('00000000-0000-0000-0000-000000000001', 1, now());
            insert into ticket_decisions (
              ticket_id, category, sentiment, source, provider, model, prompt_version, taxonomy_version, parameters, text_sha256, model_calls, latency_ms, attempts
            )
            values ('00000000-0000-0000-0000-000000000001', 'Otro', 'Neutral', 'model', 'p', 'm', '1', '1', '{}', sha256('x'), 1, 1, 1);
            insert into ticket_failures (ticket_id, attempt, kind, reason, text_sha256, answered, calls)
            values ('00000000-0000-0000-0000-000000000001', 1, 'k', 'r', sha256('x'), true, '[]');
            insert into ticket_text_locks (text_sha256, lease_token, held_until) values (sha256('x'), gen_random_uuid(), now());
            """);
    }

    /// <summary>What happens when a role runs a statement: the rows it touches or sees, or the error's code. Nothing of it stays.</summary>
    public async Task<string> TryAsync(string role, string sql)
    {
        await using var connection = await Project.OpenConnectionAsync();
        await using var transaction = await connection.BeginTransactionAsync();
        await connection.ExecuteAsync($"set local role {role}", transaction: transaction);
        try
        {
            return sql.StartsWith("select", StringComparison.Ordinal)
                ? (await connection.QueryAsync(sql, transaction: transaction)).Count().ToString(CultureInfo.InvariantCulture)
                : (await connection.ExecuteAsync(sql, transaction: transaction)).ToString(CultureInfo.InvariantCulture);
        }
        catch (PostgresException e)
        {
            return e.SqlState;
        }
    }

    public async Task<string[]> ReadLinesAsync(string sql)
    {
        await using var connection = await Project.OpenConnectionAsync();
        return [.. await connection.QueryAsync<string>(sql)];
    }

    public async Task DisposeAsync()
    {
        await Project.DisposeAsync();
        await _server!.DisposeAsync();
        Directory.Delete(_folder, recursive: true);
    }

    private static async Task ExecuteAsync(NpgsqlDataSource dataSource, string sql)
    {
        await using var command = dataSource.CreateCommand(sql);
        await command.ExecuteNonQueryAsync();
    }
}

/// <summary>What each role of a Supabase project may do (I36), and by that what it may not.</summary>
public sealed class AccessTests(SupabaseServer server) : IClassFixture<SupabaseServer>
{
    private const string No = PostgresErrorCodes.InsufficientPrivilege;

    [Fact]
    public async Task Each_role_holds_exactly_these_privileges() => Assert.Equal(
        [
            "authenticated tickets: INSERT(description) SELECT",
            "service_role ticket_decisions: SELECT",
            "service_role ticket_failures: SELECT",
            "service_role ticket_text_locks: SELECT",
            "service_role ticket_work: SELECT",
            "service_role tickets: DELETE INSERT SELECT UPDATE",
            "ticket_functions ticket_decisions: INSERT SELECT",
            "ticket_functions ticket_failures: INSERT SELECT",
            "ticket_functions ticket_heartbeat: SELECT UPDATE(seen_at)",
            "ticket_functions ticket_text_locks: DELETE INSERT SELECT UPDATE",
            "ticket_functions ticket_work: DELETE INSERT SELECT UPDATE",
            "ticket_functions tickets: SELECT UPDATE(category) UPDATE(processed) UPDATE(sentiment)",
        ],
        await server.ReadLinesAsync(
            """
            with granted as (
              select relname, acl.grantee, acl.privilege_type as privilege
              from pg_class, aclexplode(relacl) as acl
              where relnamespace = 'public'::regnamespace
                and relname like 'ticket%'
              union all
              select relname, acl.grantee, format('%s(%s)', acl.privilege_type, attname)
              from pg_class
              join pg_attribute on attrelid = pg_class.oid, aclexplode(attacl) as acl
              where relnamespace = 'public'::regnamespace
                and relname like 'ticket%'
              union all
              select proname, acl.grantee, acl.privilege_type
              from pg_proc, aclexplode(coalesce(proacl, acldefault('f', proowner))) as acl
              where pronamespace = 'public'::regnamespace
                and proname like 'ticket%'
            )
            select format('%s %s: %s', coalesce(rolname, 'public'), relname, string_agg(privilege, ' ' order by privilege))
            from granted
            left join pg_roles on pg_roles.oid = grantee
            where rolname is distinct from 'project'
            group by rolname, relname
            order by 1
            """));

    [Theory]
    [InlineData("select * from tickets")]
    [InlineData("select id from tickets")]
    [InlineData("select * from ticket_work")]
    [InlineData("select * from ticket_decisions")]
    [InlineData("select * from ticket_failures")]
    [InlineData("select * from ticket_text_locks")]
    [InlineData("delete from ticket_text_locks")]
    [InlineData("select * from ticket_heartbeat")]
    [InlineData("insert into tickets (description) values ('x')")]
    [InlineData("update tickets set description = 'x'")]
    [InlineData("update ticket_heartbeat set seen_at = now()")]
    [InlineData("delete from tickets")]
    [InlineData("truncate tickets cascade")]
    [InlineData("select setval('ticket_decisions_id_seq', 1)")]
    [InlineData("select setval('ticket_failures_id_seq', 1)")]
    [InlineData("select ticket_hmac_sha256('k', 'm')")]
    [InlineData("create trigger mine after insert on profiles for each row execute function ticket_webhook()")]
    public async Task Somebody_who_has_not_signed_in_may_do_nothing(string sql) => Assert.Equal(No, await server.TryAsync("anon", sql));

    [Theory]
    [InlineData("select * from tickets", "1")]
    [InlineData("insert into tickets (description) values ('x') returning id", "1")]
    [InlineData("insert into tickets (description, category, sentiment, processed) values ('x', 'Otro', 'Neutral', true)", No)]
    [InlineData("insert into tickets (description, processed) values ('x', false)", No)]
    [InlineData("insert into tickets (id, description) values (gen_random_uuid(), 'x')", No)]
    [InlineData("update tickets set description = 'x'", No)]
    [InlineData("update tickets set category = 'Otro', sentiment = 'Neutral', processed = true", No)]
    [InlineData("delete from tickets", No)]
    [InlineData("truncate tickets cascade", No)]
    [InlineData("select * from ticket_work", No)]
    [InlineData("select * from ticket_decisions", No)]
    [InlineData("select * from ticket_failures", No)]
    [InlineData("select * from ticket_text_locks", No)]
    [InlineData("delete from ticket_text_locks", No)]
    [InlineData("select * from ticket_heartbeat", No)]
    [InlineData("select setval('ticket_decisions_id_seq', 1)", No)]
    [InlineData("select setval('ticket_failures_id_seq', 1)", No)]
    [InlineData("select ticket_hmac_sha256('k', 'm')", No)]
    [InlineData("create trigger mine after insert on profiles for each row execute function ticket_webhook()", No)]
    public async Task Somebody_signed_in_may_read_tickets_and_open_new_ones(string sql, string outcome) =>
        Assert.Equal(outcome, await server.TryAsync("authenticated", sql));

    [Theory]
    [InlineData("select * from tickets", "1")]
    [InlineData("insert into tickets (description) values ('x')", "1")]
    [InlineData("update tickets set description = 'x'", "1")]
    [InlineData("update tickets set category = 'Otro', sentiment = 'Neutral', processed = true", "1")]
    [InlineData("delete from tickets", "1")]
    [InlineData("truncate tickets cascade", No)]
    [InlineData("select * from ticket_work", "1")]
    [InlineData("update ticket_work set parked_at = null", No)]
    [InlineData("delete from ticket_work", No)]
    [InlineData("select * from ticket_decisions", "1")]
    [InlineData("insert into ticket_decisions (ticket_id) values (gen_random_uuid())", No)]
    [InlineData("select * from ticket_failures", "1")]
    [InlineData("insert into ticket_failures (ticket_id) values (gen_random_uuid())", No)]
    [InlineData("select * from ticket_text_locks", "1")]
    [InlineData("delete from ticket_text_locks", No)]
    [InlineData("select * from ticket_heartbeat", No)]
    [InlineData("select ticket_hmac_sha256('k', 'm')", No)]
    public async Task The_service_role_manages_tickets_and_reads_the_evidence(string sql, string outcome) =>
        Assert.Equal(outcome, await server.TryAsync("service_role", sql));

    [Theory]
    [InlineData("select * from tickets", "1")]
    [InlineData("select * from tickets for no key update", "1")]
    [InlineData("update tickets set category = 'Otro', sentiment = 'Neutral', processed = true", "1")]
    [InlineData("update tickets set processed = true", PostgresErrorCodes.CheckViolation)]
    [InlineData("update tickets set category = null, processed = true", PostgresErrorCodes.CheckViolation)]
    [InlineData("update tickets set description = 'x'", No)]
    [InlineData("update tickets set id = gen_random_uuid()", No)]
    [InlineData("update tickets set created_at = null", No)]
    [InlineData("insert into tickets (description) values ('x')", No)]
    [InlineData("delete from tickets", No)]
    [InlineData("update ticket_work set attempts = 2", "1")]
    [InlineData("delete from ticket_work", "1")]
    [InlineData("truncate ticket_work", No)]
    [InlineData("select * from ticket_decisions", "1")]
    [InlineData("update ticket_decisions set category = 'Otro'", No)]
    [InlineData("delete from ticket_decisions", No)]
    [InlineData("truncate ticket_decisions", No)]
    [InlineData("select * from ticket_failures", "1")]
    [InlineData("update ticket_failures set cost = 0", No)]
    [InlineData("delete from ticket_failures", No)]
    [InlineData("truncate ticket_failures", No)]
    [InlineData("update ticket_text_locks set held_until = now()", "1")]
    [InlineData("delete from ticket_text_locks", "1")]
    [InlineData("truncate ticket_text_locks", No)]
    [InlineData("update ticket_heartbeat set seen_at = now()", "1")]
    [InlineData("insert into ticket_heartbeat default values", No)]
    [InlineData("delete from ticket_heartbeat", No)]
    [InlineData("select * from profiles", No)]
    [InlineData("select ticket_hmac_sha256('k', 'm')", No)]
    public async Task The_app_may_label_and_no_more(string sql, string outcome) =>
        Assert.Equal(outcome, await server.TryAsync("ticket_functions", sql));

    [Fact]
    public async Task Editing_a_ticket_starts_the_work_afresh_though_the_editor_may_not_touch_it()
    {
        await using var connection = await server.Project.OpenConnectionAsync();
        await using var transaction = await connection.BeginTransactionAsync();
        await connection.ExecuteAsync("update ticket_work set attempts = 5, parked_at = now(); set local role service_role", transaction: transaction);

        await connection.ExecuteAsync("update tickets set category = 'Otro', sentiment = 'Neutral', processed = true", transaction: transaction);
        await connection.ExecuteAsync("update tickets set description = 'Adiós'", transaction: transaction);

        Assert.Equal(
            "false, no labels, attempts 0, parked false",
            await connection.QuerySingleAsync<string>(
                """
                select format('%s, %s, attempts %s, parked %s', processed::text, coalesce(category, sentiment, 'no labels'), attempts, (parked_at is not null)::text)
                from tickets
                join ticket_work on ticket_id = id
                """,
                transaction: transaction));
    }

    [Fact]
    public async Task A_ticket_of_somebody_who_may_read_no_secret_is_told_of_by_a_signed_request_all_the_same()
    {
        await using var connection = await server.Project.OpenConnectionAsync();
        await using var transaction = await connection.BeginTransactionAsync();
        await connection.ExecuteAsync(SignedWebhookTests.Vault + SignedWebhookTests.Net, transaction: transaction);
        await connection.ExecuteAsync(
            """
            insert into vault.secrets values ('ticket_functions_url', 'http://localhost'), ('ticket_functions_webhook_secret', 'whsec_bmV3IG5ldyBuZXcgbmV3IG5ldyBuZXcgbmV3');
            set local role authenticated;
            insert into tickets (description) values ('Hola');
            reset role;
            """,
            transaction: transaction);

        Assert.Equal(
            "http://localhost v1,",
            await connection.QuerySingleAsync<string>(
                "select concat_ws(' ', url, left(headers ->> 'webhook-signature', 3)) from net.http_request_queue", transaction: transaction));
    }

    [Fact]
    public async Task Dashboards_hear_of_tickets_and_of_nothing_else_of_ours() => Assert.Equal(
        ["public.profiles", "public.tickets"],
        await server.ReadLinesAsync(
            "select concat(schemaname, '.', tablename) from pg_publication_tables where pubname = 'supabase_realtime' order by 1"));

    [Fact]
    public async Task A_second_run_changes_nothing_for_an_owner_who_is_no_superuser()
    {
        Assert.Empty(await new Migrations(server.Project).ApplyAsync(default));
        Assert.Equal(["false"], await server.ReadLinesAsync("select rolsuper::text from pg_roles where rolname = current_user"));
    }
}
