using System.Net;
using System.Net.Http.Json;
using System.Net.Sockets;
using System.Text.Json.Nodes;
using Npgsql;
using TicketFunctions.Storage;
using TicketFunctions.Tests.Storage;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Commands;

/// <summary><c>serve</c>, the command that does not end by itself.</summary>
public sealed class ServeTests
{
    private static readonly (string Name, string Value) FreePort = ("ASPNETCORE_URLS", "http://127.0.0.1:0");

    [UnixTheory]
    [InlineData("ConnectionStrings__Tickets", false, "INT", "serve")]
    [InlineData("SUPABASE_DB_URL", true, "TERM")]
    public async Task It_serves_a_configured_database_until_it_is_asked_to_stop(string setting, bool asUri, string signal, params string[] command)
    {
        await using var app = await TicketApp.StartAsync();
        var server = new NpgsqlConnectionStringBuilder(app.ConnectionString);
        using var product = new Product(
            FreePort,
            (setting, asUri ? DatabaseCommandTests.ToUri(server) : app.ConnectionString),
            ("Model__Endpoint", app.Model.Endpoint),
            ("Model__Name", "stub-model"),
            ("Model__ApiKey", "canary-key"));
        var id = await app.AddTicketAsync("Sirve o no sirve");

        await using var process = product.Start(command);
        using var http = await process.ConnectAsync();
        await process.ReadLineWithAsync("Ctrl-C stops.");
        Assert.Equal(HttpStatusCode.OK, (await http.GetAsync("/health/ready")).StatusCode);
        var answer = await (await http.PostAsJsonAsync("/process-ticket", new JsonObject { ["id"] = id.ToString() })).ReadJsonAsync();
        Assert.Equal("model", (string?)answer["source"]);
        await process.SignalAsync(signal);

        Assert.Equal(0, await process.WaitForExitAsync());
        Assert.Matches($"Database +{server.Database} on {server.Host}:{server.Port}", process.Output);
        Assert.Matches($@"Model +stub-model \(compatible at {new Uri(app.Model.Endpoint).Authority}\)", process.Output);
        Assert.Matches(@"Sweep +0 \*/5 \* \* \* \*", process.Output);
        Assert.EndsWith("Stopped.\n", process.Output, StringComparison.Ordinal);
        Assert.True((await app.ReadTicketAsync(id)).Processed);
        Assert.DoesNotMatch("(warn|fail|crit|warning|error):", process.Error);
        Assert.DoesNotContain(server.Password ?? "(no password)", process.Output + process.Error, StringComparison.Ordinal);
        Assert.DoesNotContain("canary-key", process.Output + process.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_database_that_is_not_ready_is_told_and_waited_for()
    {
        await using var empty = await ScratchDatabase.CreateAsync();
        using var product = new Product(FreePort);

        await using var unmigrated = product.Start([], ("ConnectionStrings__Tickets", empty.ConnectionString));
        using var unmigratedHttp = await unmigrated.ConnectAsync();
        await using var away = product.Start([], ("ConnectionStrings__Tickets", "postgresql://u:canary@127.0.0.1:1/d"));
        using var awayHttp = await away.ConnectAsync();

        Assert.Contains("-- migrate", await unmigrated.ReadLineWithAsync($"warning: the database lacks {Migrations.All.Count} migration(s)"), StringComparison.Ordinal);
        await away.ReadLineWithAsync("warning: the database cannot be reached yet");
        foreach (var http in new[] { unmigratedHttp, awayHttp })
        {
            Assert.Equal(HttpStatusCode.OK, (await http.GetAsync("/health/live")).StatusCode);
            Assert.Equal(HttpStatusCode.ServiceUnavailable, (await http.GetAsync("/health/ready")).StatusCode);
        }

        await new Migrations(empty.DataSource).ApplyAsync(default);
        Assert.Equal(HttpStatusCode.OK, (await unmigratedHttp.GetAsync("/health/ready")).StatusCode);
        Assert.DoesNotContain("canary", away.Output + away.Error, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_container_asks_the_service_for_its_health_by_the_address_it_listens_on()
    {
        await using var app = await TicketApp.StartAsync();
        var port = FindFreePort();
        using var product = new Product(("ASPNETCORE_HTTP_PORTS", $"{port}"), ("Keys__Function", "a-key"), ("http_proxy", "http://127.0.0.1:1"));

        var before = await product.RunAsync("health");
        await using var serving = product.Start([], ("ConnectionStrings__Tickets", app.ConnectionString));
        await serving.ReadLineWithAsync("Ctrl-C stops.");
        var ready = await product.RunAsync("health");
        await app.ExecuteAsync("alter table ticket_heartbeat rename to away");
        var broken = await product.RunAsync("health");

        Assert.Equal((1, $"localhost:{port}: does not answer\n"), (before.ExitCode, before.Output));
        Assert.Equal((0, $"localhost:{port}: ready\n"), (ready.ExitCode, ready.Output));
        Assert.Equal((1, $"localhost:{port}: not ready: the database takes no writes, or its migrations were not applied\n"), (broken.ExitCode, broken.Output));
    }

    [UnixFact]
    public async Task Health_asks_where_the_service_listens_whatever_setting_says_so()
    {
        await using var service = await ModelServer.StartAsync();
        service.On("GET /health/ready", "{}");
        using var product = new Product(("ConnectionStrings__Tickets", "postgresql://u:p@127.0.0.1:1/d"));
        var socket = Path.Combine(product.Folder, "s");

        var endpoint = await product.RunAsync("", [("Kestrel__Endpoints__A__Url", service.Root), ("ASPNETCORE_URLS", "http://127.0.0.1:1")], "health");
        var before = await product.RunAsync("", [("ASPNETCORE_URLS", $"http://unix:{socket}")], "health");
        await using var serving = product.Start([], ("ASPNETCORE_URLS", $"http://unix:{socket}"));
        await serving.ReadLineWithAsync("Listening");
        var pipe = await product.RunAsync("", [("ASPNETCORE_URLS", $"http://unix:{socket}")], "health");

        Assert.Equal($"{new Uri(service.Root).Authority}: ready\n", endpoint.Output);
        Assert.Equal((1, $"{socket}: does not answer\n", ""), (before.ExitCode, before.Output, before.Error));
        Assert.Equal($"{socket}: not ready: the database takes no writes, or its migrations were not applied\n", pipe.Output);
    }

    [Fact]
    public async Task What_it_cannot_listen_on_stops_it_with_a_sentence()
    {
        using var product = new Product(("ConnectionStrings__Tickets", "postgresql://u:p@127.0.0.1:1/d"));
        using var taken = new TcpListener(IPAddress.Loopback, 0);
        taken.Start();

        var open = await product.RunAsync("", [("ASPNETCORE_URLS", "http://0.0.0.0:0")], "serve");
        var busy = await product.RunAsync("", [("ASPNETCORE_URLS", $"http://{taken.LocalEndpoint}")], "serve");
        var away = await product.RunAsync("", [("ASPNETCORE_URLS", "http://192.0.2.1:7071"), ("Keys__Function", "a-key")], "serve");

        Assert.Equal(2, open.ExitCode);
        Assert.Matches("^error: .+Keys__Function.+\n$", open.Error);
        Assert.Equal(1, busy.ExitCode);
        Assert.Equal(
            $"error: The service cannot listen on http://{taken.LocalEndpoint}: Failed to bind to address http://{taken.LocalEndpoint}: address already in use. "
                + "Set ASPNETCORE_URLS to another address, like http://localhost:7072.\n",
            busy.Error);
        Assert.Equal(1, away.ExitCode);
        Assert.Matches(@"^error: The service cannot listen on http://192\.0\.2\.1:7071: [^.]+\. Set ASPNETCORE_URLS to another address, .+\n$", away.Error);
    }

    [UnixFact]
    public async Task Without_a_database_and_without_a_place_for_its_own_it_says_what_is_missing()
    {
        using var product = new Product(FreePort, ("EmbeddedPostgres__Folder", "/dev/null/postgres"));

        var result = await product.RunAsync("serve");

        Assert.Equal(1, result.ExitCode);
        Assert.Matches("^error: Postgres could not be started in /dev/null/postgres\\. .+ set ConnectionStrings__Tickets .+\n$", result.Error);
    }

    [Theory]
    [InlineData("""{ "version": "2.0", /* as it is written */ "extensions": { "http": { "routePrefix": "hooks/v1" } } }""", "/hooks/v1")]
    [InlineData("""{ "version": "2.0" }""", "/api")]
    public async Task Routes_start_with_the_prefix_of_host_json(string hostJson, string prefix)
    {
        var program = Directory.CreateTempSubdirectory("ticketfunctions-program-");
        try
        {
            // A copy of the program: it reads the host.json beside it.
            foreach (var file in Directory.EnumerateFiles(AppContext.BaseDirectory).Where(file => Path.GetExtension(file) is ".dll" or ".json"))
            {
                File.Copy(file, Path.Combine(program.FullName, Path.GetFileName(file)));
            }

            await File.WriteAllTextAsync(Path.Combine(program.FullName, "host.json"), hostJson);
            using var product = new Product(FreePort, ("ConnectionStrings__Tickets", "postgresql://u:p@127.0.0.1:1/d")) { ProgramFolder = program.FullName };
            await using var process = product.Start(["serve"]);
            using var http = await process.ConnectAsync();

            Assert.Equal(HttpStatusCode.OK, (await http.GetAsync($"{prefix}/health/live")).StatusCode);
            await (await http.PostAsync($"{prefix}/process-ticket", null)).AssertProblemAsync(415, "unsupported-media-type");
            await (await http.PostAsync("/process-ticket", null)).AssertProblemAsync(404, "not-found");

            // The administrator's addresses have none, as in the Functions host.
            Assert.Equal(HttpStatusCode.Accepted, (await http.PostAsync("/admin/functions/SweepTickets", null)).StatusCode);

            var health = await product.RunAsync("", [("ASPNETCORE_URLS", $"{http.BaseAddress}")], "health");
            Assert.Equal($"{http.BaseAddress!.Authority}: not ready: the database takes no writes, or its migrations were not applied\n", health.Output);
        }
        finally
        {
            program.Delete(recursive: true);
        }
    }

    [UnixFact]
    public async Task A_stop_while_it_starts_is_its_normal_end_too()
    {
        using var product = new Product(FreePort, ("EmbeddedPostgres__Folder", "postgres"), ("EmbeddedPostgres__BinFolder", " "));
        await using var process = product.Start(["serve"]);
        await Eventually.TrueAsync(() => Task.FromResult(Directory.Exists(Path.Combine(product.Folder, "postgres"))), "its database is made");

        await process.SignalAsync("TERM");

        Assert.Equal(0, await process.WaitForExitAsync());
        Assert.Equal("Stopped.\n", process.Output);
    }

    [UnixFact]
    public async Task Without_a_database_it_brings_one_with_labelled_samples_and_survives_a_kill()
    {
        using var product = new Product(FreePort, ("EmbeddedPostgres__Folder", "postgres"));
        string id;
        await using (var first = product.Start([]))
        {
            using var http = await first.ConnectAsync();
            await first.ReadLineWithAsync("Ctrl-C stops.");
            Assert.Matches(@"Database +embedded Postgres \d+", first.Output);
            Assert.Matches(@"Model +embedded baseline \(set Model__Provider to use a language model\)", first.Output);
            Assert.Contains("12 labelled, 0 to retry, 0 parked", first.Output, StringComparison.Ordinal);
            Assert.Contains("No puedo iniciar sesión desde ayer", first.Output, StringComparison.Ordinal);
            Assert.Matches(@"""unprocessed"":0\b", await http.GetStringAsync("/backlog"));

            var curl = await first.ReadLineWithAsync("curl");
            Assert.StartsWith($"curl -s {http.BaseAddress}process-ticket -H 'content-type: application/json' -d '{{\"id\":\"", curl.Trim(), StringComparison.Ordinal);
            var body = curl[(curl.IndexOf("-d '", StringComparison.Ordinal) + 4)..curl.LastIndexOf('\'')];
            Assert.Equal("stored", await PostAsync(http, body));

            // A second process joins the same database.
            var added = await product.RunAsync("add", "La app se cierra sola");
            Assert.Equal(0, added.ExitCode);
            id = Assert.Single(added.Lines);
            Assert.Equal("baseline", await PostAsync(http, $$"""{"id":"{{id}}"}"""));

            await first.SignalAsync("KILL");
            await first.WaitForExitAsync();
        }

        // And now with a key, which it does not show.
        await using var second = product.Start([], ("Keys__Function", "a-key"));
        using (var http = await second.ConnectAsync())
        {
            http.DefaultRequestHeaders.Add("x-functions-key", "a-key");
            await second.ReadLineWithAsync("Ctrl-C stops.");
            Assert.Contains("process-ticket -H \"x-functions-key: $Keys__Function\" -H", second.Output, StringComparison.Ordinal);
            Assert.Equal("stored", await PostAsync(http, $$"""{"id":"{{id}}"}"""));
            Assert.DoesNotContain("labelled", second.Output, StringComparison.Ordinal);
        }

        await second.SignalAsync("INT");
        Assert.Equal(0, await second.WaitForExitAsync());
        Assert.Empty(Directory.EnumerateFiles(product.Folder, "postmaster.pid", SearchOption.AllDirectories));
    }

    private static int FindFreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }

    private static async Task<string?> PostAsync(HttpClient http, string body)
    {
        using var answer = await http.PostAsync("/process-ticket", new StringContent(body, System.Text.Encoding.UTF8, "application/json"));
        Assert.Equal(HttpStatusCode.OK, answer.StatusCode);
        return (string?)(await answer.ReadJsonAsync())["source"];
    }
}
