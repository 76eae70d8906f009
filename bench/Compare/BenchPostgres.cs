using Microsoft.Extensions.Logging.Abstractions;
using Npgsql;
using TicketFunctions.Hosting.AspNetCore;
using TicketFunctions.Storage;

namespace TicketFunctions.Compare;

/// <summary>
/// The server all contestants share: the one named by the environment variable BENCH_POSTGRES (a superuser's connection string), else an
/// embedded one of our own with the durability Postgres has by default. Each cell gets a database of its own, copied from a template.
/// </summary>
internal sealed class BenchPostgres : IAsyncDisposable
{
    /// <summary>A statement of ours, not the contestants'.</summary>
    public const string CountProcessed = "select count(*) from tickets where processed";

    private const string Prefix = "ticket_bench_";

    /// <summary>Sizes only: what it costs to be safe stays as it comes. Of the memory a quarter, as Postgres's documentation advises.</summary>
    private static readonly (string Name, string Value)[] Settings =
    [
        ("max_connections", "400"), ("shared_buffers", $"{Math.Max(1, (int)(Machine.Gigabytes / 4))}GB"), ("max_wal_size", "8GB"),
        ("checkpoint_timeout", "30min"),
    ];

    private static readonly string[] Told =
    [
        "server_version", "fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", "max_connections", "shared_buffers", "max_wal_size",
        "checkpoint_timeout", "autovacuum", "jit",
    ];

    private readonly EmbeddedPostgres? _embedded;
    private readonly NpgsqlConnectionStringBuilder _server;
    private readonly List<string> _databases = [];
    private int _copies;

    private BenchPostgres(EmbeddedPostgres? embedded, string connectionString)
    {
        _embedded = embedded;
        _server = new NpgsqlConnectionStringBuilder(connectionString) { Database = "postgres", Pooling = false, CommandTimeout = 3600 };
    }

    /// <summary>The process that starts all others of the server; null when it runs elsewhere.</summary>
    public int? Pid { get; private set; }

    /// <summary>Where a disk sync is measured.</summary>
    public string DataFolder { get; private set; } = Path.GetTempPath();

    public IReadOnlyDictionary<string, string> Description { get; private set; } = new Dictionary<string, string>();

    public static async Task<BenchPostgres> StartAsync(string solution, CancellationToken cancellationToken)
    {
        if (Environment.GetEnvironmentVariable("BENCH_POSTGRES") is { Length: > 0 } configured)
        {
            return await new BenchPostgres(null, ConnectionStrings.Parse(configured).ConnectionString).LookAroundAsync(cancellationToken);
        }

        var options = new EmbeddedPostgresOptions { Folder = Path.Combine(solution, ".postgres", "bench") };
        var embedded = await EmbeddedPostgres.StartAsync(options, NullLogger.Instance, cancellationToken);
        if (!embedded.IsOwner)
        {
            await embedded.DisposeAsync();
            throw new BenchException($"Another comparison is using the Postgres in {options.Folder}. Wait for it: two at once would measure each other.");
        }

        var postgres = new BenchPostgres(embedded, embedded.ConnectionString);
        var isSet = true;
        foreach (var (name, value) in Settings)
        {
            isSet &= await postgres.ScalarAsync<string>("postgres", $"select current_setting('{name}')", cancellationToken) == value;
        }

        if (!isSet)
        {
            foreach (var (name, value) in Settings)
            {
                await postgres.ExecuteAsync("postgres", $"alter system set {name} = '{value}'", cancellationToken);
            }

            var canWatch = await postgres.ScalarAsync<bool>("postgres", "select exists (select from pg_available_extensions where name = 'pg_stat_statements')", cancellationToken);
            if (canWatch)
            {
                await postgres.ExecuteAsync("postgres", "alter system set shared_preload_libraries = 'pg_stat_statements'", cancellationToken);
            }

            await embedded.DisposeAsync();
            embedded = await EmbeddedPostgres.StartAsync(options, NullLogger.Instance, cancellationToken);
            postgres = new BenchPostgres(embedded, embedded.ConnectionString);
            if (canWatch)
            {
                // Only where a suite asks for it.
                await postgres.ExecuteAsync("postgres", "alter system set pg_stat_statements.track = 'none'", cancellationToken);
                await postgres.ExecuteAsync("postgres", "select pg_reload_conf()", cancellationToken);
            }
        }

        return await postgres.LookAroundAsync(cancellationToken);
    }

    public NpgsqlConnectionStringBuilder ConnectionTo(string database) => new(_server.ConnectionString)
    {
        Database = database,
        Pooling = true,
        CommandTimeout = 30,
    };

    /// <summary>A migrated database with so many tickets to do, from which cells are copied.</summary>
    public async Task<string> CreateTemplateAsync(int tickets, CancellationToken cancellationToken)
    {
        var template = await CreateAsync($"template{++_copies}", "template0", cancellationToken);
        await using (var dataSource = NpgsqlDataSource.Create(ConnectionTo(template).ConnectionString + ";Pooling=false"))
        {
            await new Migrations(dataSource).ApplyAsync(cancellationToken);
        }

        // As Load/tickets.lua makes them.
        await ExecuteAsync(template,
            """
            create function ticket_id(number bigint) returns uuid language sql immutable strict parallel safe
            return (lpad(to_hex(number * 2246822519 % 4294967296), 8, '0') || '-0000-4000-8000-' || lpad(to_hex(number), 12, '0'))::uuid;

            create function add_tickets(first bigint, count bigint) returns void language sql as $$
              insert into tickets (id, created_at, description)
              select ticket_id(n), now() - interval '1 day' + n * interval '1 ms',
                'No puedo entrar en mi cuenta desde ayer: cambio la clave, la acepta y al volver me dice que no es válida. Caso ' || n
              from generate_series(first, first + count - 1) n;
            $$;
            """, cancellationToken);
        await AddTicketsAsync(template, 1, tickets, cancellationToken);
        return template;
    }

    public async Task AddTicketsAsync(string database, long first, long count, CancellationToken cancellationToken)
    {
        await ExecuteAsync(database, $"select add_tickets({first}, {count})", cancellationToken);
        await ExecuteAsync(database, "vacuum (analyze)", cancellationToken);
    }

    /// <summary>A fresh copy of a template.</summary>
    public Task<string> CopyAsync(string template, CancellationToken cancellationToken) => CreateAsync($"{++_copies}", template, cancellationToken);

    public async Task DropAsync(string database, CancellationToken cancellationToken)
    {
        await ExecuteAsync("postgres", $"drop database if exists {database} with (force)", cancellationToken);
        _databases.Remove(database);
    }

    /// <summary>From now on statements in this database are counted and timed.</summary>
    /// <returns>False where the server cannot.</returns>
    public async Task<bool> WatchStatementsAsync(string database, CancellationToken cancellationToken)
    {
        if (!(await ScalarAsync<string>("postgres", "select current_setting('shared_preload_libraries')", cancellationToken)).Contains("pg_stat_statements", StringComparison.Ordinal))
        {
            return false;
        }

        await ExecuteAsync(
            database,
            $"""
            create extension if not exists pg_stat_statements;
            alter database {database} set pg_stat_statements.track = 'top';
            alter database {database} set pg_stat_statements.track_planning = on;
            select pg_stat_statements_reset();
            """,
            cancellationToken);
        return true;
    }

    public Task<long> CountProcessedAsync(string database, CancellationToken cancellationToken) =>
        ScalarAsync<long>(database, CountProcessed, cancellationToken);

    public async Task ExecuteAsync(string database, string sql, CancellationToken cancellationToken)
    {
        await using var connection = await OpenAsync(database, cancellationToken);
        await using var command = new NpgsqlCommand(sql, connection);
        await command.ExecuteNonQueryAsync(cancellationToken);
    }

    public async Task<T> ScalarAsync<T>(string database, string sql, CancellationToken cancellationToken)
    {
        await using var connection = await OpenAsync(database, cancellationToken);
        await using var command = new NpgsqlCommand(sql, connection);
        return (T)(await command.ExecuteScalarAsync(cancellationToken))!;
    }

    public async ValueTask DisposeAsync()
    {
        try
        {
            foreach (var database in _databases.ToArray())
            {
                await DropAsync(database, CancellationToken.None);
            }
        }
        catch (NpgsqlException) when (_embedded is not null)
        {
            // The next run drops what this one could not.
        }
        finally
        {
            if (_embedded is not null)
            {
                await _embedded.DisposeAsync();
            }
        }
    }

    private async Task<BenchPostgres> LookAroundAsync(CancellationToken cancellationToken)
    {
        await using var connection = await OpenAsync("postgres", cancellationToken);
        Pid = ConnectionStrings.IsLoopback(_server) ? Machine.FindPostmaster(connection.ProcessID) : null;
        if (_embedded is not null)
        {
            DataFolder = Path.GetDirectoryName(await ScalarAsync<string>("postgres", "select current_setting('data_directory')", cancellationToken))!;
        }

        var description = new Dictionary<string, string>();
        foreach (var name in Told)
        {
            description[name] = await ScalarAsync<string>("postgres", $"select current_setting('{name}')", cancellationToken);
        }

        if (Pid is { } pid && Machine.UsesHugePages(pid) is { } isInUse)
        {
            description["huge pages"] = isInUse ? "in use" : "not in use";
        }

        Description = description;
        await using var command = new NpgsqlCommand($"select coalesce(array_agg(datname::text), '{{}}') from pg_database where datname like '{Prefix}%'", connection);
        foreach (var left in (string[])(await command.ExecuteScalarAsync(cancellationToken))!)
        {
            await DropAsync(left, cancellationToken);
        }

        return this;
    }

    private async Task<string> CreateAsync(string name, string template, CancellationToken cancellationToken)
    {
        var database = Prefix + name;
        // Copying files ends with a checkpoint, so that no cell pays for what was done before it.
        await ExecuteAsync("postgres", $"create database {database} template {template} strategy file_copy", cancellationToken);
        _databases.Add(database);
        return database;
    }

    private async Task<NpgsqlConnection> OpenAsync(string database, CancellationToken cancellationToken)
    {
        var connection = new NpgsqlConnection(new NpgsqlConnectionStringBuilder(_server.ConnectionString) { Database = database }.ConnectionString);
        try
        {
            await connection.OpenAsync(cancellationToken);
            return connection;
        }
        catch
        {
            await connection.DisposeAsync();
            throw;
        }
    }
}
