using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Dapper;
using Microsoft.Extensions.Logging.Abstractions;
using Npgsql;
using TicketFunctions.Hosting.AspNetCore;
using TicketFunctions.Storage;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Faults;

/// <summary>A Postgres of one test, always on the same port, that the test crashes, restarts and fails over. Its database has the product's schema.</summary>
public sealed class FaultyPostgres : IAsyncDisposable
{
    private static readonly Lazy<Task<Template>> Made = new(MakeAsync);

    private readonly Template _template;
    private readonly string _folder;
    private WatchedProcess? _server;

    private FaultyPostgres(Template template)
    {
        _template = template;
        _folder = Path.Combine(WatchedProcess.Folder, $"{Guid.NewGuid():N}");
        Port = FindPort();
    }

    public int Port { get; }

    /// <summary>The tests' own way in, as superuser; without pooling, since a crash would leave it dead connections.</summary>
    public string ConnectionString => new NpgsqlConnectionStringBuilder(_template.ConnectionString) { Port = Port, Pooling = false, Timeout = 5 }.ConnectionString;

    /// <summary>A new server, started.</summary>
    public static async Task<FaultyPostgres> CreateAsync()
    {
        var server = new FaultyPostgres(await Made.Value);
        try
        {
            await server.CopyAsync();
            await server.StartAsync();
            return server;
        }
        catch
        {
            await server.DisposeAsync();
            throw;
        }
    }

    /// <summary>Another server that follows this one until it is promoted.</summary>
    public async Task<FaultyPostgres> CreateReplicaAsync()
    {
        // Both began as copies of one cluster: all that this one, and those it followed, did since is still in its log.
        var replica = new FaultyPostgres(_template);
        try
        {
            await replica.CopyAsync();
            var primary = new NpgsqlConnectionStringBuilder(ConnectionString);
            await File.AppendAllTextAsync(
                Path.Combine(replica._folder, "postgresql.auto.conf"),
                $"primary_conninfo = 'host=127.0.0.1 port={Port} user={primary.Username} password={primary.Password}'\n");
            await File.WriteAllTextAsync(Path.Combine(replica._folder, "standby.signal"), "");
            await replica.StartAsync();
            await Eventually.TrueAsync(
                async () => await QuerySingleAsync<int>("select count(*) from pg_stat_replication where state = 'streaming'") == 1, "the replica follows");
            return replica;
        }
        catch
        {
            await replica.DisposeAsync();
            throw;
        }
    }

    /// <summary>Waits until this replica has all that <paramref name="primary"/> has committed.</summary>
    public async Task CatchUpAsync(FaultyPostgres primary)
    {
        var written = await primary.QuerySingleAsync<string>("select pg_current_wal_lsn()::text");
        await Eventually.TrueAsync(
            async () => await QuerySingleAsync<bool>("select pg_last_wal_replay_lsn() >= @written::pg_lsn", new { written }), "the replica has caught up");
    }

    /// <summary>Makes this replica a server of its own that takes writes.</summary>
    public async Task PromoteAsync() => Assert.True(await QuerySingleAsync<bool>("select pg_promote()"));

    /// <summary>All sessions, also those that exist, take writes no more, or take them again.</summary>
    public async Task SetReadOnlyAsync(bool on)
    {
        await ExecuteAsync($"alter system set default_transaction_read_only = {(on ? "on" : "off")}");
        await ExecuteAsync("select pg_reload_conf()");
        await Eventually.TrueAsync(
            async () => await QuerySingleAsync<bool>("select current_setting('default_transaction_read_only')::bool") == on, "the setting was read");
    }

    /// <summary>Starts, or starts again, and waits until it lets clients in.</summary>
    public async Task StartAsync()
    {
        // Slow disks only make tests slow; a crash of the server alone loses nothing that it had handed to the system.
        _server = WatchedProcess.Start(
            _template.Account, "QUIT", Path.Combine(_template.BinFolder, "postgres"), "-D", _folder,
            "-p", Port.ToString(CultureInfo.InvariantCulture), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
            "-c", "fsync=off", "-c", "max_connections=300", "-c", "wal_keep_size=4GB", "-c", "timezone=UTC");
        await Eventually.TrueAsync(
            async () =>
            {
                Assert.False(_server.HasExited, _server.Output);
                try
                {
                    return await QuerySingleAsync<bool>("select true");
                }
                catch (NpgsqlException)
                {
                    return false;
                }
            },
            "the server lets clients in");
    }

    /// <summary>The immediate shutdown: as after a crash, the next start has to recover.</summary>
    public async Task StopAsync() => await _server!.DisposeAsync();

    public async Task<T> QuerySingleAsync<T>(string sql, object? parameters = null)
    {
        await using var connection = new NpgsqlConnection(ConnectionString);
        return await connection.QuerySingleAsync<T>(sql, parameters);
    }

    public async Task ExecuteAsync(string sql, object? parameters = null)
    {
        await using var connection = new NpgsqlConnection(ConnectionString);
        await connection.ExecuteAsync(sql, parameters);
    }

    public async ValueTask DisposeAsync()
    {
        if (_server is not null)
        {
            await _server.DisposeAsync();
        }

        if (Directory.Exists(_folder))
        {
            Directory.Delete(_folder, recursive: true);
        }
    }

    private Task CopyAsync() => WatchedProcess.RunAsync(default, "cp", "-a", _template.DataFolder, _folder);

    /// <summary>Not one that the system gives to others while the server is down.</summary>
    private static int FindPort()
    {
        while (true)
        {
            try
            {
                using var listener = new TcpListener(IPAddress.Loopback, Random.Shared.Next(20_000, 30_000));
                listener.Start();
                return ((IPEndPoint)listener.LocalEndpoint).Port;
            }
            catch (SocketException)
            {
                // Taken.
            }
        }
    }

    /// <summary>Has the product make a cluster and its schema, and stops it: servers are copies of that.</summary>
    private static async Task<Template> MakeAsync()
    {
        await using var postgres = await EmbeddedPostgres.StartAsync(
            new EmbeddedPostgresOptions { Folder = Path.Combine(WatchedProcess.Folder, "template"), NpmFolder = Path.Combine(Path.GetTempPath(), "ticketfunctions-postgres-npm"), FastAndUnsafe = true },
            NullLogger.Instance);
        string data;
        await using (var dataSource = NpgsqlDataSource.Create(postgres.ConnectionString + ";Pooling=false"))
        {
            await new Migrations(dataSource).ApplyAsync(CancellationToken.None);
            await using var show = dataSource.CreateCommand("show data_directory");
            data = (string)(await show.ExecuteScalarAsync())!;
        }

        using var stat = Process.Start(new ProcessStartInfo("stat", ["-c", "%u %g", data]) { RedirectStandardOutput = true })!;
        var account = (await stat.StandardOutput.ReadToEndAsync()).Split(' ').Select(number => int.Parse(number, CultureInfo.InvariantCulture)).ToArray();
        return new Template(data, postgres.BinFolder, postgres.ConnectionString, (account[0], account[1]));
    }

    private sealed record Template(string DataFolder, string BinFolder, string ConnectionString, (int User, int Group) Account);
}
