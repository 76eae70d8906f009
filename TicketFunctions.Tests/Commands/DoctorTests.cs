using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Dapper;
using Microsoft.AspNetCore.Http;
using Npgsql;
using TicketFunctions.Storage;
using TicketFunctions.Tests.Faults;
using TicketFunctions.Tests.Storage;
using TicketFunctions.Tests.Support;
using TicketFunctions.Tests.Triggers;

namespace TicketFunctions.Tests.Commands;

/// <summary>A project as `docs/supabase.md` leaves it, and a model that answers.</summary>
public sealed class FinishedProject : IAsyncLifetime
{
    private const string Template = "finished";

    /// <summary>As https://github.com/supabase/postgres has it, but that it sends nothing.</summary>
    internal const string DashboardWebhooks =
        """
        create schema supabase_functions;
        create function supabase_functions.http_request() returns trigger language plpgsql as 'begin return new; end';
        """;

    private int _copies;

    public SupabaseServer Server { get; } = new();

    public ModelServer Model { get; private set; } = null!;

    public async Task InitializeAsync()
    {
        await ((IAsyncLifetime)Server).InitializeAsync();
        Model = await ModelServer.StartAsync();
        Model.On("GET /v1/models", """{"data":[{"id":"mine"}]}""");
        await Server.CreateProjectAsync(Template);
        await using var owner = NpgsqlDataSource.Create(new NpgsqlConnectionStringBuilder(Server.OwnersConnectionFor(Template).ConnectionString) { Pooling = false });
        await new Migrations(owner).ApplyAsync(default);
        await using var connection = await owner.OpenConnectionAsync();
        await connection.ExecuteAsync(SignedWebhookTests.Vault + SignedWebhookTests.Net + DashboardWebhooks);
        await connection.ExecuteAsync(
            "insert into vault.secrets values ('ticket_functions_url', 'https://tickets.example.com/process-ticket'), ('ticket_functions_key', @Key), ('ticket_functions_webhook_secret', @Secret)",
            new { SignedApp.Key, SignedApp.Secret });
    }

    public async Task DisposeAsync()
    {
        await Model.DisposeAsync();
        await ((IAsyncLifetime)Server).DisposeAsync();
    }

    /// <summary>A copy of it.</summary>
    public async Task<string> CopyAsync()
    {
        var name = $"copy{Interlocked.Increment(ref _copies)}";
        await Server.CreateProjectAsync(name, Template);
        return name;
    }

    /// <summary>The settings of a service that works well on it.</summary>
    public (string Name, string Value)[] SettingsFor(string connectionString) =>
    [
        ("ConnectionStrings__Tickets", connectionString), ("Storage__Role", "ticket_functions"),
        ("Keys__Function", SignedApp.Key), ("Keys__Admin", "admin-key"), ("Webhooks__Secret", SignedApp.Secret),
        ("Model__Endpoint", Model.Root), ("Model__Name", "mine"), ("Model__ApiKey", "model-key"),
    ];
}

/// <summary><c>doctor</c>: what is well it calls ok, and each thing that is not it finds.</summary>
public sealed class DoctorTests(FinishedProject project) : IClassFixture<FinishedProject>, IDisposable
{
    private static readonly string[] Inside =
        ["tls", "connection", "version", "role", "grants", "row security", "migrations", "writes", "realtime", "webhook", "pooler", "connections", "clock", "model", "keys"];

    private static readonly string[] Outside = ["https", "live", "clock", "ready", "no key", "key"];

    private readonly Product _product = new();

    public void Dispose() => _product.Dispose();

    [PgBouncerFact]
    public async Task A_project_behind_a_pooler_and_its_service_are_ok_in_every_line()
    {
        await using var pooler = await StartPoolerWithTlsAsync();
        await using var app = await TicketApp.StartAsync(("Keys__Function", SignedApp.Key), ("Keys__Admin", "admin-key"), ("Webhooks__Secret", SignedApp.Secret));
        var settings = project.SettingsFor(
            $"Host=127.0.0.1;Port={pooler.Port};Username=project;Password=project;Database={await project.CopyAsync()};SSL Mode=VerifyFull;Root Certificate={Certificate};No Reset On Close=true");

        var result = await _product.RunAsync("", settings, "doctor", "--url", app.Http.BaseAddress!.AbsoluteUri);

        Assert.Equal((0, ""), (result.ExitCode, result.Error));
        Assert.All(result.Lines, line => Assert.StartsWith("ok    ", line, StringComparison.Ordinal));
        Assert.Equal([.. Inside, .. Outside], result.Lines.Select(ReadWhat));
        Assert.Contains($"as project, by a direct address.", ReadLine(result, "connection"), StringComparison.Ordinal);
        Assert.Contains("name are checked", ReadLine(result, "tls"), StringComparison.Ordinal);
        Assert.Contains("works as ticket_functions, which the login takes for each statement", ReadLine(result, "role"), StringComparison.Ordinal);
        Assert.Contains("Sessions are shared (transaction mode)", ReadLine(result, "pooler"), StringComparison.Ordinal);
        Assert.Contains("ticket_webhook_of_insert and ticket_webhook_of_update", ReadLine(result, "webhook"), StringComparison.Ordinal);
        Assert.All(
            [SignedApp.Key, "admin-key", SignedApp.Secret["whsec_".Length..], "model-key", "Password", "=project"],
            secret => Assert.DoesNotContain(secret, result.Output, StringComparison.Ordinal));

        // It asked for no ticket there is, and left nothing.
        Assert.Empty(app.Model.Calls);
    }

    [PgBouncerFact]
    public async Task Settings_that_do_not_fit_the_pooler_and_a_certificate_that_is_not_checked_are_found()
    {
        await using var pooler = await StartPoolerWithTlsAsync();
        var database = $"Host=127.0.0.1;Port={pooler.Port};Username=project;Password=project;Database={await project.CopyAsync()}";

        await FindAsync($"{database};SSL Mode=Require;No Reset On Close=true", [], 0, "warn  tls|with SSL Mode=Require anybody in between");
        await FindAsync(
            $"{database};SSL Mode=VerifyFull;Root Certificate={Certificate};Max Auto Prepare=10;No Reset On Close=true", [], 1, "fail  pooler|Set Max Auto Prepare=0.");
        await FindAsync($"{database};SSL Mode=VerifyFull;Root Certificate={Certificate}", [], 0, "warn  pooler|Set No Reset On Close=true");
        await FindAsync($"{database};SSL Mode=VerifyFull", [], 1, ["fail  connection|is not trusted. Root Certificate must be", .. SkippedWithoutConnection]);
    }

    /// <summary>Several at once where they do not hide each other: all checks run, whatever the others find.</summary>
    [Theory]
    [InlineData(
        1,
        """
        revoke update (category), select on tickets from ticket_functions;
        revoke delete on ticket_work from ticket_functions;
        drop policy "The app records failures" on ticket_failures;
        drop policy "The app keeps its locks" on ticket_text_locks;
        create policy "Somebody else" on ticket_text_locks to anon using (true);
        create policy "Reads only" on ticket_text_locks for select to ticket_functions using (true);
        alter table tickets disable row level security;
        grant select (description) on tickets to anon;
        grant truncate on ticket_work to anon;
        delete from supabase_migrations.schema_migrations where version = '20261120170000';
        alter publication supabase_realtime drop table tickets;
        create function clock_timestamp() returns timestamptz language sql as 'select pg_catalog.clock_timestamp() + interval ''65 seconds''';
        """,
        "fail  grants|grant delete on public.ticket_work to ticket_functions; grant select, update (category) on public.tickets to ticket_functions;",
        "fail  grants|No policy lets the service do this: delete on ticket_text_locks, insert on ticket_failures, insert on ticket_text_locks, update on ticket_text_locks.",
        "fail  row security|alter table public.tickets enable row level security;",
        "warn  row security|revoke all on public.ticket_work, public.tickets from anon;",
        "fail  migrations|Missing: 20261120170000_signed_webhook. Run",
        "warn  realtime|alter publication supabase_realtime add table public.tickets;",
        "warn  clock|The database's clock is 6")]
    [InlineData(
        1,
        """
        revoke usage on schema public from public, ticket_functions;
        insert into supabase_migrations.schema_migrations (version, name) values ('29990101000000', 'later'), ('20200101000000', 'own');
        drop publication supabase_realtime;
        create function clock_timestamp() returns timestamptz language sql as 'select pg_catalog.clock_timestamp() - interval ''6 minutes''';
        """,
        "fail  grants|grant usage on schema public to ticket_functions;",
        "fail  writes|permission denied for schema public (42501)",
        "warn  migrations|does not know: 29990101000000_later.",
        "fail  clock|signatures are refused beyond five minutes")]
    [InlineData(
        1,
        """
        do 'begin execute format(''alter database %I set default_transaction_read_only = on'', current_database()); end';
        drop schema supabase_migrations cascade;
        drop publication supabase_realtime;
        create publication supabase_realtime for all tables;
        """,
        "fail  writes|only reads (25006)",
        "fail  migrations|Missing: 20261120090000_tickets, ")]
    [InlineData(
        1,
        "drop table ticket_heartbeat, ticket_work",
        "fail  grants|There is no public.ticket_heartbeat, public.ticket_work to have rights on.",
        "fail  writes|42P01). Run `migrate`.")]
    [InlineData(
        0,
        """
        drop policy "The app labels tickets" on tickets;
        create policy "Anybody's" on tickets for update using (description = 'canary');
        create policy "Few" on ticket_failures as restrictive for insert to ticket_functions with check (attempt < 3);
        create policy "All" on ticket_decisions as restrictive using (true);
        create policy "Not ours" on ticket_heartbeat as restrictive to anon using (false);
        create function current_setting(text) returns text language sql
          as 'select case $1 when ''server_version'' then ''14.9'' when ''server_version_num'' then ''140009'' else pg_catalog.current_setting($1) end';
        """,
        "warn  grants|some rows only, and it never hears of the others: insert on ticket_failures, update on tickets.",
        "warn  version|Postgres 14.9: not tested; upgrade to 15")]
    [InlineData(
        0,
        """
        delete from vault.secrets;
        create function own() returns trigger language plpgsql as 'begin perform net.http_post(''canary''); return null; end';
        create trigger mine after insert on tickets for each row execute function own();
        """,
        "warn  webhook|mine send requests elsewhere, or by functions of your own")]
    [InlineData(0, "delete from vault.secrets", "warn  webhook|No trigger sends tickets, though Webhooks__Secret is set")]
    [InlineData(0, "drop schema vault cascade", "warn  webhook|No trigger sends tickets")]
    [InlineData(0, "drop trigger ticket_webhook_of_insert on tickets; drop trigger ticket_webhook_of_update on tickets", "warn  webhook|No trigger sends tickets")]
    [InlineData(
        1,
        "drop schema net cascade; delete from vault.secrets where name = 'ticket_functions_url'; update vault.secrets set secret = 'canary' where name = 'ticket_functions_key'",
        "fail  webhook|create extension pg_net;",
        "fail  webhook|no secret ticket_functions_url",
        "fail  webhook|ticket_functions_key in Vault is not the key known here")]
    [InlineData(
        1,
        """
        delete from vault.secrets where name in ('ticket_functions_webhook_secret', 'ticket_functions_key');
        update vault.secrets set secret = 'canary' where name = 'ticket_functions_url';
        """,
        "fail  webhook|no secret ticket_functions_webhook_secret",
        "fail  webhook|ticket_functions_key in Vault is missing",
        "fail  webhook|ticket_functions_url in Vault is no address")]
    [InlineData(
        1,
        """
        update vault.secrets set secret = 'whsec_Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5Y2FuYXJ5' where name = 'ticket_functions_webhook_secret';
        update vault.secrets set secret = 'http://ana:canary@tickets.example.com/tickets?code=canary' where name = 'ticket_functions_url';
        """,
        "fail  webhook|is not Webhooks__Secret",
        "warn  webhook|is http://tickets.example.com/tickets, whose path is not /process-ticket",
        "warn  webhook|is http://tickets.example.com/tickets: the key travels in the clear")]
    [InlineData(
        0,
        """
        update vault.secrets set secret = substr(secret, 7) where name = 'ticket_functions_webhook_secret';
        update vault.secrets set secret = 'http://localhost:7071/process-ticket' where name = 'ticket_functions_url';
        """,
        "warn  webhook|the database's own machine")]
    [InlineData(
        0,
        "alter table tickets disable trigger ticket_webhook_of_insert",
        "warn  webhook|ticket_webhook_of_insert is disabled. Run: alter table public.tickets enable trigger \"ticket_webhook_of_insert\";",
        "warn  webhook|No enabled trigger fires on INSERT")]
    [InlineData(
        1,
        """
        create trigger every after insert or update on tickets for each row execute function ticket_webhook();
        create trigger two after update of description, category on tickets for each row execute function ticket_webhook();
        create function own() returns trigger language plpgsql as 'begin perform net.http_post(''canary''); return null; end';
        create trigger mine after update on tickets for each row execute function own();
        create trigger dash after insert on tickets for each row
          execute function supabase_functions.http_request('https://tickets.example.com/process-ticket', 'POST', '{"x-functions-key":"function-key"}', '{}', '1000');
        create trigger elsewhere after insert or update on tickets for each row
          execute function supabase_functions.http_request('https://hooks.example.com/canary', 'GET', '{}', '{}', '1000');
        """,
        "warn  webhook|every fires on every UPDATE",
        "warn  webhook|two fires on every UPDATE",
        "fail  webhook|dash does not sign")]
    public async Task What_is_wrong_in_the_database_is_found_and_nothing_else(int exitCode, string sql, params string[] expected)
    {
        var database = await project.CopyAsync();
        await using (var connection = new NpgsqlConnection(project.Server.ConnectionFor(database).ConnectionString))
        {
            // So that a clock can be told to be wrong.
            await connection.ExecuteAsync($"alter database {database} set search_path = public, pg_catalog");
            await connection.ExecuteAsync("set search_path = public;" + sql);
        }

        await FindAsync(project.Server.OwnersConnectionFor(database).ConnectionString, [], exitCode, expected);
    }

    [Theory]
    [InlineData(
        0,
        "Storage__Role= Webhooks__Secret= Model__Provider=baseline Keys__Admin=function-key",
        "warn  role|works as project, which owns the tables",
        "warn  webhook|The triggers sign and nobody checks it",
        "warn  model|No model is configured",
        "warn  keys|are the same")]
    [InlineData(
        1,
        "Storage__Role=nobody Model__Name=yours Keys__Function= ASPNETCORE_URLS=http://*:8080",
        "fail  role|There is no role nobody",
        "skip  grants|there is no such role",
        "fail  writes|42704",
        "fail  model|yours is not among the models",
        "fail  keys|The address http://*:8080 can be reached from other machines")]
    [InlineData(
        1,
        "Storage__Role=pg_monitor Model__Endpoint=http://127.0.0.1:1",
        "fail  role|grant pg_monitor to \"project\";",
        "fail  grants|grant insert, select on public.ticket_decisions to pg_monitor;",
        "fail  grants|No policy lets the service",
        "fail  writes|42501",
        "fail  model|cannot be reached")]
    public async Task What_is_wrong_in_the_settings_is_found_and_nothing_else(int exitCode, string settings, params string[] expected) =>
        await FindAsync(
            project.Server.OwnersConnectionFor(await project.CopyAsync()).ConnectionString,
            [.. settings.Split(' ').Select(setting => setting.Split('=', 2)).Select(setting => (setting[0], setting[1]))],
            exitCode,
            expected);

    [Fact]
    public async Task What_is_wrong_in_the_connection_string_is_found_and_the_rest_is_still_looked_at()
    {
        var database = project.Server.OwnersConnectionFor(await project.CopyAsync()).ConnectionString;
        await FindAsync($"{database};Password=canary", [], 1, ["fail  connection|does not take the login project", .. SkippedWithoutConnection]);
        await FindAsync($"{database};Port=1", [("Model__Name", "yours")], 1, ["fail  connection|cannot be reached", .. SkippedWithoutConnection, "fail  model|yours"]);
        await FindAsync($"{database};Database=nowhere", [], 1, ["fail  connection|has no database nowhere", .. SkippedWithoutConnection]);
        using (var silent = new TcpListener(IPAddress.Loopback, 0))
        {
            silent.Start();
            await FindAsync($"{database};Port={((IPEndPoint)silent.LocalEndpoint).Port};Timeout=1", [], 1, ["fail  connection|does not answer", .. SkippedWithoutConnection]);
        }

        await FindAsync($"{database};Maximum Pool Size=1", [], 0, "skip  pooler|does not show whether sessions are shared");
        await FindAsync($"{database};Maximum Pool Size=200", [], 0, "warn  connections|two processes use it up");
        await FindAsync($"{database};Maximum Pool Size=400", [], 1, "fail  connections|Set Maximum Pool Size to a part of that");

        // Two hosts are none of this machine's, as far as the settings tell.
        await FindAsync($"{database};Host=127.0.0.1,127.0.0.1;SSL Mode=Prefer", [], 1, "fail  tls|SSL Mode=Prefer lets tickets travel in the clear");
        await FindAsync(project.Server.ConnectionFor(await project.CopyAsync()).ConnectionString, [("Storage__Role", "")], 0, "warn  role|which is a superuser");
    }

    [Fact]
    public async Task A_login_of_the_least_rights_is_ok_and_is_told_what_it_cannot_see()
    {
        var database = await project.CopyAsync();
        await using var connection = new NpgsqlConnection(project.Server.ConnectionFor(database).ConnectionString);
        await connection.ExecuteAsync("create role app login password 'least' in role ticket_functions");

        var login = $"{project.Server.ConnectionFor(database).ConnectionString};Username=app;Password=least";
        await FindAsync(login, [("Storage__Role", "")], 0, "warn  migrations|may not read their history", "warn  webhook|may not read Vault");
        await connection.ExecuteAsync("alter role app bypassrls");
        await FindAsync(
            login, [("Storage__Role", "")], 0, "warn  role|works as app, which passes row level security", "warn  migrations|may not read", "warn  webhook|may not read Vault");

        // And it serves without a word about them.
        await using var serving = _product.Start(["serve"], ("ConnectionStrings__Tickets", login), ("ASPNETCORE_URLS", "http://127.0.0.1:0"));
        await serving.ReadLineWithAsync("Ctrl-C stops.");
        Assert.DoesNotContain("warning", serving.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_webhook_of_the_dashboard_is_ok_when_it_shows_the_key_and_nobody_asks_for_signatures()
    {
        const string Headers = """{"Content-Type":"application/json","X-Functions-Key":"function-key"}""";
        const string Address = "https://tickets.example.com/process-ticket";
        var database = await project.CopyAsync();
        var login = project.Server.OwnersConnectionFor(database).ConnectionString;
        await AddAsync(Headers);
        await FindAsync(login, [("Webhooks__Secret", "")], 0);
        await AddAsync("{}", address: Address + "?code=function-key");
        await FindAsync(login, [("Webhooks__Secret", "")], 0);
        await AddAsync(Headers.Replace("function-key", "canary", StringComparison.Ordinal), address: Address + "?code=function-key");
        await FindAsync(login, [("Webhooks__Secret", "")], 1, "fail  webhook|The header x-functions-key of dash is not the key known here");
        await AddAsync("{}", address: Address + "?code=canary", method: "GET");
        await FindAsync(
            login, [("Webhooks__Secret", "")], 1, "fail  webhook|of dash is not there, and the ?code= that stands in for it is not the key", "fail  webhook|dash does not send POST");
        await AddAsync("{}");
        await FindAsync(login, [("Webhooks__Secret", ""), ("Keys__Function", ""), ("Keys__Admin", "")], 0, "warn  webhook|The header x-functions-key of dash is missing");
        await AddAsync(Headers, "insert or update");
        await FindAsync(login, [("Webhooks__Secret", "")], 0, "warn  webhook|dash fires on every UPDATE");
        await AddAsync(Headers, address: "https://hooks.example.com/canary");
        await FindAsync(login, [("Webhooks__Secret", "")], 0, "warn  webhook|dash send requests elsewhere");

        async Task AddAsync(string headers, string events = "insert", string address = Address, string method = "POST")
        {
            await using var connection = new NpgsqlConnection(project.Server.ConnectionFor(database).ConnectionString);
            await connection.ExecuteAsync(
                $"""
                delete from vault.secrets;
                drop trigger if exists dash on tickets;
                create trigger dash after {events} on tickets for each row
                execute function supabase_functions.http_request('{address}', '{method}', '{headers}', '{"{}"}', '1000');
                """);
        }
    }

    /// <summary>Whoever follows them has what the migrations grant.</summary>
    [Fact]
    public async Task The_grants_it_asks_for_are_those_of_the_migrations()
    {
        const string Granted =
            """
            select concat_ws(' ', relname, attname, privilege_type)
            from (
              select relname, null as attname, acl.grantee, acl.privilege_type from pg_class, aclexplode(relacl) as acl where relname like 'ticket%'
              union all
              select relname, attname, acl.grantee, acl.privilege_type
              from pg_class join pg_attribute on attrelid = pg_class.oid, aclexplode(attacl) as acl
              where relname like 'ticket%'
            ) as granted
            where grantee = @role::regrole
            order by 1
            """;
        var database = await project.CopyAsync();
        await using var server = NpgsqlDataSource.Create(project.Server.ConnectionFor(database));
        await using var connection = await server.OpenConnectionAsync();
        await connection.ExecuteAsync("create role stranger; revoke usage on schema public from public");
        var diagnosis = new Diagnosis(server);

        var grants = await diagnosis.FindMissingGrantsAsync("stranger", default);
        Assert.Equal(7, grants.Count);
        await connection.ExecuteAsync(string.Concat(grants));

        Assert.Empty(await diagnosis.FindMissingGrantsAsync("stranger", default));
        var expected = await connection.QueryAsync<string>(Granted, new { role = "ticket_functions" });
        Assert.Equal(18, expected.Count());
        Assert.Equal(expected, await connection.QueryAsync<string>(Granted, new { role = "stranger" }));
    }

    [Theory]
    [InlineData("", 200, 200, 401, 404, "", 0)]
    [InlineData("", 404, 200, 401, 404, "fail  live|answered HTTP 404", 1)]
    [InlineData("", 200, 503, 401, 404, "fail  ready|HTTP 503", 1)]
    [InlineData("", 200, 200, 404, 404, "warn  no key|answered HTTP 404, not 401", 0)]
    [InlineData("", 200, 200, 401, 401, "fail  key|a signature; set Webhooks__Secret here", 1)]
    [InlineData("", 200, 200, 401, 503, "fail  key|answered HTTP 503", 1)]
    [InlineData("-60", 200, 200, 401, 404, "warn  clock|The service's clock is", 0)]
    [InlineData("+400", 200, 200, 401, 404, "fail  clock|The service's clock is", 1)]
    public async Task What_is_wrong_with_a_deployment_is_found_from_outside(string clock, int live, int ready, int withoutKey, int withKey, string expected, int exitCode)
    {
        await using var service = await ModelServer.StartAsync();
        service.On("GET /health/live", (context, _) =>
        {
            context.Response.StatusCode = live;
            context.Response.Headers.Date = DateTimeOffset.UtcNow.AddSeconds(clock.Length == 0 ? 0 : int.Parse(clock, System.Globalization.CultureInfo.InvariantCulture)).ToString("R");
            return Task.CompletedTask;
        });
        service.On("GET /health/ready", "{}", ready);
        service.On("POST /process-ticket", (context, _) =>
        {
            context.Response.StatusCode = context.Request.Headers["x-functions-key"] == "the-key" ? withKey : withoutKey;
            context.Response.ContentType = "application/problem+json";
            return context.Response.WriteAsync("{}");
        });

        var result = await _product.RunAsync("doctor", "--url", service.Root, "--key", "the-key");

        var other = new List<string> { "skip  database|ConnectionStrings__Tickets", "warn  model|No model" };
        if (expected.Length > 0)
        {
            other.Add(expected);
        }

        if (live != 200)
        {
            other.AddRange(["skip  ready|", "skip  no key|", "skip  key|"]);
        }

        AssertFound(result, exitCode, [.. other]);
        Assert.All(service.Requests.Where(request => request.Body.Length > 0), request => Assert.Matches("""^\{"id":"[0-9a-f-]{36}"\}$""", request.Body));
        Assert.DoesNotContain("the-key", result.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_deployment_that_wants_another_key_or_signature_or_serves_no_HTTPS_is_found()
    {
        await using var app = await TicketApp.StartAsync(("Keys__Function", SignedApp.Key), ("Webhooks__Secret", SignedApp.Secret));
        var url = app.Http.BaseAddress!.AbsoluteUri;
        string[] always = ["skip  database|", "warn  model|"];

        AssertFound(await _product.RunAsync("", [("Webhooks__Secret", SignedApp.Secret)], "doctor", "--url", url, "--key", SignedApp.Key), 0, always);
        AssertFound(await _product.RunAsync("", [("Webhooks__Secret", SignedApp.Secret)], "doctor", "--url", url), 0, [.. always, "skip  key|give the function key"]);
        AssertFound(
            await _product.RunAsync("", [("Webhooks__Secret", SignedApp.Secret)], "doctor", "--url", url, "--key", "wrong"),
            1, [.. always, "fail  key|another key is wanted, or its Webhooks__Secret is not the one set here"]);
        AssertFound(
            await _product.RunAsync("doctor", "--url", url, "--key", SignedApp.Key), 1, [.. always, "fail  key|or a signature; set Webhooks__Secret here"]);
        AssertFound(
            await _product.RunAsync("", [("Keys__Admin", "canary")], "doctor", "--url", url, "--key", "clé"),
            1, [.. always, "warn  keys|every caller needs the admin key", "fail  key|has characters that no header carries"]);
        AssertFound(
            await _product.RunAsync("doctor", "--url", url.Replace("http:", "https:", StringComparison.Ordinal), "--key", SignedApp.Key),
            1, [.. always, "fail  live|serves no HTTPS that this machine trusts", "skip  ready|", "skip  no key|", "skip  key|"]);
        AssertFound(
            await _product.RunAsync("doctor", "--url", "http://127.0.0.1:1", "--key", SignedApp.Key),
            1, [.. always, "fail  live|127.0.0.1:1 cannot be reached", "skip  ready|", "skip  no key|", "skip  key|"]);
    }

    /// <summary>The server stands in for a proxy, so that no name is asked for.</summary>
    [Fact]
    public async Task A_key_is_not_sent_where_others_could_read_it()
    {
        await using var service = await ModelServer.StartAsync();
        service.On("GET /health/live", "{}");
        service.On("GET /health/ready", "{}");
        service.On("POST /process-ticket", "{}", 200);

        AssertFound(
            await _product.RunAsync("", [("http_proxy", service.Root)], "doctor", "--url", "http://tickets.example.com", "--key", "canary"),
            1,
            ["skip  database|", "warn  model|", "fail  https|in the clear", "fail  no key|answered HTTP 200, not 401: anybody may spend", "skip  key|is not sent unencrypted"]);

        // Nor to a proxy that stands in for this machine.
        var local = await _product.RunAsync("", [("http_proxy", service.Root)], "doctor", "--url", "http://localhost:1", "--key", "canary");
        Assert.Contains("localhost:1 cannot be reached", local.Output, StringComparison.Ordinal);

        Assert.Equal(3, service.Requests.Count);
        Assert.All(service.Requests, request => Assert.DoesNotContain(request.Headers, header => header.Value.ToString().Contains("canary", StringComparison.Ordinal)));
    }

    [Fact]
    public async Task A_host_without_the_function_and_a_webhook_that_leads_to_another_host_are_found()
    {
        await using var service = await ModelServer.StartAsync();
        service.On("GET /health/live", "{}");
        service.On("GET /health/ready", "{}");
        service.On("POST /process-ticket", "{}", 404);
        var settings = project.SettingsFor(project.Server.OwnersConnectionFor(await project.CopyAsync()).ConnectionString);

        AssertFound(
            await _product.RunAsync("", settings, "doctor", "--url", service.Root),
            1,
            ["warn  no key|answered HTTP 404, not 401", "fail  key|answered HTTP 404, not 404 ticket-not-found"]);
        AssertFound(
            await _product.RunAsync("", [.. settings, ("http_proxy", service.Root), ("no_proxy", "127.0.0.1")], "doctor", "--url", "http://elsewhere.example.com"),
            1,
            [
                "warn  webhook|ticket_functions_url in Vault is https://tickets.example.com/process-ticket, and not the service at elsewhere.example.com",
                "fail  https|in the clear", "fail  no key|answered HTTP 404", "skip  key|is not sent unencrypted",
            ]);
    }

    [UnixFact]
    public async Task CtrlC_ends_it_while_a_deployment_does_not_answer()
    {
        await using var service = await ModelServer.StartAsync();
        var arrived = new TaskCompletionSource();
        service.On("GET /health/live", (context, body) =>
        {
            arrived.SetResult();
            return ModelServer.Hang(context, body);
        });
        await using var process = _product.Start(["doctor", "--url", service.Root]);
        await arrived.Task;

        await process.SignalAsync("INT");

        Assert.Equal(130, await process.WaitForExitAsync());
    }

    private static IEnumerable<string> SkippedWithoutConnection => Inside[2..^2].Select(what => $"skip  {what}|no connection");

    private static string Certificate => Path.Combine(WatchedProcess.Folder, "doctor.pem");

    /// <summary>Before a server of its own, with a certificate for this machine that nobody else has signed.</summary>
    private async Task<PgBouncer> StartPoolerWithTlsAsync()
    {
        var keyFile = Path.Combine(WatchedProcess.Folder, "doctor.key");
        if (!File.Exists(keyFile))
        {
            using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
            var name = new SubjectAlternativeNameBuilder();
            name.AddIpAddress(IPAddress.Loopback);
            var request = new CertificateRequest("CN=pooler", key, HashAlgorithmName.SHA256);
            request.CertificateExtensions.Add(name.Build());
            using var certificate = request.CreateSelfSigned(DateTimeOffset.UtcNow.AddDays(-1), DateTimeOffset.UtcNow.AddDays(1));
            await File.WriteAllTextAsync(Certificate, certificate.ExportCertificatePem());
            await File.WriteAllTextAsync(keyFile, key.ExportPkcs8PrivateKeyPem());
        }

        return await PgBouncer.StartAsync(
            project.Server.ConnectionFor("postgres"), "client_tls_sslmode = require", $"client_tls_key_file = {keyFile}", $"client_tls_cert_file = {Certificate}");
    }

    private async Task FindAsync(string connectionString, (string Name, string Value)[] settings, int exitCode, params string[] expected)
    {
        var result = await _product.RunAsync("", [.. project.SettingsFor(connectionString), .. settings], "doctor");

        AssertFound(result, exitCode, expected);
        Assert.Empty(Inside.Except(result.Lines.Select(ReadWhat)));
    }

    /// <summary>Every line that is not ok is expected, and every expected one is there: verdict, what, and what is said, with a bar in between.</summary>
    private static void AssertFound(CommandResult result, int exitCode, string[] expected)
    {
        var found = result.Lines.Where(line => !line.StartsWith("ok ", StringComparison.Ordinal)).ToList();
        Assert.True(expected.Length == found.Count, $"Expected {expected.Length} lines: {result.Output}{result.Error}");
        Assert.All(expected, line =>
        {
            var (head, text) = (line.Split('|')[0], line.Split('|')[1]);
            Assert.True(
                found.Exists(other => other.StartsWith(head + "  ", StringComparison.Ordinal) && other.Contains(text, StringComparison.Ordinal)),
                $"Not found: {line}\n{result.Output}");
        });
        Assert.DoesNotContain("canary", result.Output, StringComparison.OrdinalIgnoreCase);
        Assert.Equal((exitCode, ""), (result.ExitCode, result.Error));
    }

    private static string ReadWhat(string line) => line[6..18].TrimEnd();

    private static string ReadLine(CommandResult result, string what) => result.Lines.First(line => ReadWhat(line) == what);
}
