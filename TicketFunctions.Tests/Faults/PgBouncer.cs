using System.Globalization;
using System.Net;
using System.Net.Sockets;
using Npgsql;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Faults;

/// <summary>PgBouncer in transaction mode before a Postgres: each statement may run in another session.</summary>
public sealed class PgBouncer : IAsyncDisposable
{
    /// <summary>Server sessions for each database: fewer than the product's own connections.</summary>
    public const int PoolSize = 4;

    private static readonly Lazy<Task<PgBouncer>> OfTests = new(async () => await StartAsync(await TestPostgres.FindServerAsync()));

    private WatchedProcess? _process;

    private PgBouncer(int port) => Port = port;

    /// <summary>Where it listens.</summary>
    public int Port { get; }

    /// <summary>The program of the Debian package, or null.</summary>
    public static string? Program { get; } = (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator).Append("/usr/sbin")
        .Select(folder => Path.Combine(folder, "pgbouncer")).FirstOrDefault(File.Exists);

    /// <summary>What to add to a connection string of <see cref="TestPostgres"/> to go through the pooler that all tests share.</summary>
    public static async Task<string> ReadSettingsAsync() => (await OfTests.Value).Settings;

    /// <summary>What to add to a connection string of the server to go through this pooler.</summary>
    public string Settings => $"Host=127.0.0.1;Port={Port};SSL Mode=Disable;No Reset On Close=true;Max Auto Prepare=0";

    /// <param name="server">A login that may do everything the tests do.</param>
    /// <param name="settings">Lines to add to its settings.</param>
    public static async Task<PgBouncer> StartAsync(NpgsqlConnectionStringBuilder server, params string[] settings)
    {
        using (var listener = new TcpListener(IPAddress.Loopback, 0))
        {
            listener.Start();
            var pooler = new PgBouncer(((IPEndPoint)listener.LocalEndpoint).Port);
            listener.Stop();
            try
            {
                await pooler.RunAsync(server, settings);
                return pooler;
            }
            catch
            {
                await pooler.DisposeAsync();
                throw;
            }
        }
    }

    public async ValueTask DisposeAsync()
    {
        if (_process is not null)
        {
            await _process.DisposeAsync();
        }
    }

    private async Task RunAsync(NpgsqlConnectionStringBuilder server, string[] settings)
    {
        Assert.True(Program is not null, PgBouncerFactAttribute.Missing);
        var ini = Path.Combine(WatchedProcess.Folder, $"pgbouncer-{Port}.ini");
        var users = Path.Combine(WatchedProcess.Folder, $"pgbouncer-{Port}.users");
        await File.WriteAllTextAsync(users, $"\"{server.Username}\" \"{server.Password}\"\n");
        await File.WriteAllTextAsync(ini, string.Create(CultureInfo.InvariantCulture, $"""
            [databases]
            * = host={server.Host} port={server.Port}
            [pgbouncer]
            listen_addr = 127.0.0.1
            listen_port = {Port}
            unix_socket_dir =
            auth_type = {(server.Password is null ? "trust" : "scram-sha-256")}
            auth_file = {users}
            auth_user = {server.Username}
            pool_mode = transaction
            default_pool_size = {PoolSize}
            max_client_conn = 1000
            {string.Join('\n', settings)}

            """));

        // It refuses to run as root.
        _process = WatchedProcess.Start(Nobody, "TERM", Program!, ini);
        await Eventually.TrueAsync(
            async () =>
            {
                Assert.False(_process.HasExited, _process.Output);
                using var client = new TcpClient();
                try
                {
                    await client.ConnectAsync(IPAddress.Loopback, Port);
                    return true;
                }
                catch (SocketException)
                {
                    return false;
                }
            },
            "PgBouncer listens");
    }

    private static readonly (int User, int Group) Nobody = (65534, 65534);
}

/// <summary>A test that needs PgBouncer: without it skipped, and failed in CI.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class PgBouncerFactAttribute : FactAttribute
{
    internal const string Missing = "PgBouncer is missing; install it (Debian: apt install pgbouncer, and stop the service it starts).";

    public PgBouncerFactAttribute() => Skip = PgBouncer.Program is null && Environment.GetEnvironmentVariable("CI") != "true" ? Missing : null;
}
