using System.Net;
using System.Net.Http.Json;
using System.Text;
using System.Text.Json.Nodes;
using Dapper;
using Microsoft.AspNetCore.Builder;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Npgsql;
using TicketFunctions.Hosting.AspNetCore;
using TicketFunctions.Tests.Faults;
using TicketFunctions.Tickets;

namespace TicketFunctions.Tests.Support;

/// <summary>A row of tickets.</summary>
public sealed record TicketRow(Guid Id, string Description, string? Category, string? Sentiment, bool Processed);

/// <summary>
/// The product as its users meet it: the plain host on a free loopback port, a database of its own, a model stub behind it.
/// Use it as a class fixture, or start one with other settings by <see cref="StartAsync"/>.
/// </summary>
public sealed class TicketApp : IAsyncLifetime, IAsyncDisposable
{
    /// <summary>Everything that uses an app can also be run through PgBouncer.</summary>
    public static bool IsThroughPooler { get; } = Environment.GetEnvironmentVariable("TEST_PGBOUNCER") == "1";

    private readonly List<KeyValuePair<string, string?>> _settings = [];
    private readonly CapturedLog _log = new();
    private readonly string? _database;
    private readonly Action<IServiceCollection>? _configure;
    private WebApplication? _app;

    // Also where the store is only used in processes of its own, and nobody has set it here.
    static TicketApp() => DefaultTypeMap.MatchNamesWithUnderscores = true;

    /// <summary>Settings by default: a time-out that a test can wait for, no sweep unless it is asked for.</summary>
    public TicketApp()
        : this([])
    {
    }

    private TicketApp(IEnumerable<(string Name, string? Value)> settings, string? database = null, Action<IServiceCollection>? configure = null)
    {
        _settings.AddRange(settings.Select(setting => KeyValuePair.Create(setting.Name.Replace("__", ":", StringComparison.Ordinal), setting.Value)));
        _database = database;
        _configure = configure;
    }

    public ModelStub Model { get; private set; } = null!;

    /// <summary>The tests' own way into the database; the app's sessions have another application name.</summary>
    public string ConnectionString { get; private set; } = "";

    public HttpClient Http { get; private set; } = null!;

    public IServiceProvider Services => _app!.Services;

    /// <summary>What was logged, as level and message, but for Trace: texts may stand there.</summary>
    public IReadOnlyCollection<(LogLevel Level, string Message)> Log => [.. _log.Entries.Where(entry => entry.Level > LogLevel.Trace)];

    /// <param name="settings">Settings by their environment names, over the defaults; those of the connection string are added to the database's own.</param>
    public static Task<TicketApp> StartAsync(params (string Name, string? Value)[] settings) => StartAsync(null, null, settings);

    /// <param name="database">A database that has the schema and belongs to somebody else; null for one of its own.</param>
    /// <param name="configure">Last changes to the services.</param>
    /// <inheritdoc cref="StartAsync((string, string?)[])"/>
    public static async Task<TicketApp> StartAsync(string? database, Action<IServiceCollection>? configure, params (string Name, string? Value)[] settings)
    {
        var app = new TicketApp(settings, database, configure);
        await app.InitializeAsync();
        return app;
    }

    public async Task InitializeAsync()
    {
        var database = _database ?? await TestPostgres.CreateDatabaseAsync();
        ConnectionString = $"{database};Application Name=tests";
        Model = await ModelStub.StartAsync();
        var settings = new Dictionary<string, string?>
        {
            ["urls"] = "http://127.0.0.1:0",
            ["ConnectionStrings:Tickets"] = IsThroughPooler && _database is null ? $"{database};{await PgBouncer.ReadSettingsAsync()}" : database,
            ["Model:Endpoint"] = Model.Endpoint,
            ["Model:Name"] = "stub-model",
            ["Model:ApiKey"] = "stub-key",
            ["Model:AttemptTimeout"] = "00:00:20",
            ["Model:TotalTimeout"] = "00:00:30",
            // One call is one call, whatever the calls before it came to: ResilienceTests has the rest.
            ["Model:Output"] = "Schema",
            ["Model:MaxRetries"] = "0",
            ["Model:BreakDuration"] = "00:00:00",
            // Once a year: tests sweep by themselves.
            ["SweepSchedule"] = "0 0 0 1 1 *",
        };
        foreach (var (name, value) in _settings)
        {
            settings[name] = name == "ConnectionStrings:Tickets" ? $"{settings[name]};{value}" : value;
        }

        _app = PlainHost.Build(settings, services =>
        {
            services.AddLogging(logging => logging.ClearProviders().AddProvider(_log));
            _configure?.Invoke(services);
        });
        await _app.StartAsync();
        Http = new HttpClient { BaseAddress = new Uri(_app.Urls.Single()), Timeout = TimeSpan.FromSeconds(60) };
    }

    /// <summary>Inserts a ticket and returns its id.</summary>
    public Task<Guid> AddTicketAsync(string description) =>
        QuerySingleAsync<Guid>("insert into tickets (description) values (@description) returning id", new { description });

    public Task<TicketRow> ReadTicketAsync(Guid id) =>
        QuerySingleAsync<TicketRow>("select id, description, category, sentiment, processed from tickets where id = @id", new { id });

    /// <summary>All that the tables hold, as one text: what is equal before and after was not touched.</summary>
    public Task<string> ReadEverythingAsync() => QuerySingleAsync<string>(
        """
        select concat_ws(
          ' ',
          (select json_agg(tickets order by id) from tickets),
          (select json_agg(ticket_work order by ticket_id) from ticket_work),
          (select json_agg(ticket_decisions order by id) from ticket_decisions),
          (select json_agg(ticket_failures order by id) from ticket_failures),
          (select json_agg(ticket_text_locks order by text_sha256) from ticket_text_locks)
        )
        """);

    /// <summary>The decisions on a ticket as JSON, the oldest first.</summary>
    public async Task<JsonArray> ReadDecisionsAsync(Guid id) => JsonNode.Parse(await QuerySingleAsync<string>(
        "select coalesce(json_agg(ticket_decisions order by id), '[]') from ticket_decisions where ticket_id = @id", new { id }))!.AsArray();

    public async Task<T> QuerySingleAsync<T>(string sql, object? parameters = null)
    {
        await using var connection = new NpgsqlConnection(ConnectionString);
        return await connection.QuerySingleAsync<T>(sql, parameters);
    }

    public async Task<IReadOnlyList<T>> QueryAsync<T>(string sql, object? parameters = null)
    {
        await using var connection = new NpgsqlConnection(ConnectionString);
        return [.. await connection.QueryAsync<T>(sql, parameters)];
    }

    public async Task<int> ExecuteAsync(string sql, object? parameters = null)
    {
        await using var connection = new NpgsqlConnection(ConnectionString);
        return await connection.ExecuteAsync(sql, parameters);
    }

    /// <summary>Asks for a ticket that must get labels.</summary>
    /// <returns>Where they come from.</returns>
    public async Task<string?> FindSourceAsync(Guid id, string query = "")
    {
        var response = await ProcessAsync(id, query: query);
        Assert.True(response.IsSuccessStatusCode, await response.Content.ReadAsStringAsync());
        return (string?)(await response.ReadJsonAsync())["source"];
    }

    /// <summary>Takes tickets through every request: decided, stored, reused, forced, edited, refused. Leaves two processed ones.</summary>
    public async Task AssertRequestsAsync()
    {
        var id = await AddTicketAsync("La factura está duplicada");
        Assert.Equal("model", await FindSourceAsync(id));
        Assert.Equal("stored", await FindSourceAsync(id));
        Assert.Equal("reused", await FindSourceAsync(await AddTicketAsync("La factura está duplicada")));
        Assert.Equal("model", await FindSourceAsync(id, "?force=true"));
        await ExecuteAsync("update tickets set description = 'Otra cosa' where id = @id", new { id });
        Assert.Equal("model", await FindSourceAsync(id));
        Assert.Equal(HttpStatusCode.Conflict, (await ProcessAsync(id, "no es el texto")).StatusCode);
    }

    /// <summary>Posts a ticket's id, and its text if given.</summary>
    public Task<HttpResponseMessage> ProcessAsync(Guid id, string? description = null, string query = "")
    {
        var body = new JsonObject { ["id"] = id.ToString() };
        if (description is not null)
        {
            body["description"] = description;
        }

        return Http.PostAsJsonAsync("/process-ticket" + query, body);
    }

    /// <summary>Posts any text as application/json.</summary>
    public Task<HttpResponseMessage> PostAsync(string body, string path = "/process-ticket") =>
        Http.PostAsync(path, new StringContent(body, Encoding.UTF8, "application/json"));

    /// <summary>Runs one sweep to its end.</summary>
    public Task<SweepSummary> SweepAsync(CancellationToken stopping = default) =>
        Services.GetRequiredService<TicketSweep>().RunAsync(null, stopping);

    /// <summary>Lets every backoff and lease be over, as if time had passed: only the database's clock counts.</summary>
    public Task LetTimePassAsync() => ExecuteAsync(
        """
        update ticket_work set due_at = now() - interval '1 second' where parked_at is null;
        update ticket_text_locks set held_until = now() - interval '1 second';
        """);

    public async Task DisposeAsync()
    {
        Http.Dispose();
        await _app!.StopAsync();
        await _app.DisposeAsync();
        await Model.DisposeAsync();
        if (_database is null)
        {
            await TestPostgres.DropDatabaseAsync(ConnectionString);
        }
    }

    ValueTask IAsyncDisposable.DisposeAsync() => new(DisposeAsync());
}

/// <summary>Reads answers.</summary>
public static class HttpAnswers
{
    /// <summary>The body as JSON.</summary>
    public static async Task<JsonNode> ReadJsonAsync(this HttpResponseMessage response) =>
        JsonNode.Parse(await response.Content.ReadAsStringAsync())!;

    /// <summary>Asserts a whole problem answer: status, media type, members, and no more.</summary>
    public static async Task<JsonNode> AssertProblemAsync(this HttpResponseMessage response, int status, string type)
    {
        var text = await response.Content.ReadAsStringAsync();
        Assert.True(status == (int)response.StatusCode, $"expected {status} {type}, got {(int)response.StatusCode}: {text}");
        Assert.Equal("application/problem+json", response.Content.Headers.ContentType?.MediaType);
        var problem = JsonNode.Parse(text)!;
        Assert.Equal(type, (string?)problem["type"]);
        Assert.Equal(status, (int?)problem["status"]);
        Assert.NotEmpty((string?)problem["title"] ?? "");
        Assert.NotEmpty((string?)problem["detail"] ?? "");
        Assert.NotEmpty((string?)problem["traceId"] ?? "");
        return problem;
    }
}
