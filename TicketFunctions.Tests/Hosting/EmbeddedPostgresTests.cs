using System.Diagnostics;
using System.Runtime.CompilerServices;
using Microsoft.Extensions.Logging.Abstractions;
using Npgsql;
using TicketFunctions.Hosting.AspNetCore;

namespace TicketFunctions.Tests.Hosting;

public sealed class EmbeddedPostgresTests : IDisposable
{
    private const string OwnerFolder = "TICKETFUNCTIONS_TEST_POSTGRES_OWNER";

    private readonly string folder = Path.Combine(Path.GetTempPath(), $"ticketfunctions-postgres-{Guid.NewGuid():N}");

    private string Data => Path.Combine(folder, "data");

    public void Dispose()
    {
        if (Directory.Exists(folder)) Directory.Delete(folder, recursive: true);
    }

    [Fact]
    public async Task Starts_a_server_for_us_alone()
    {
        await using var postgres = await StartAsync();

        Assert.True(postgres.IsNew);
        Assert.True(postgres.IsOwner);
        Assert.True(postgres.Version.Major >= 15);
        Assert.True(Directory.Exists(postgres.BinFolder));
        Assert.Equal("tickets|UTF8|UTC|127.0.0.1|off", await ScalarAsync(postgres,
            """
            select concat_ws('|', current_database(), current_setting('server_encoding'), current_setting('timezone'),
              current_setting('listen_addresses'), current_setting('fsync'))
            """));
        Assert.StartsWith("SCRAM-SHA-256", await ScalarAsync(postgres, "select rolpassword from pg_authid where rolname = current_user") as string);
    }

    [Fact]
    public async Task Keeps_its_data_between_runs()
    {
        await using (var first = await StartAsync())
        {
            await ScalarAsync(first, "create table kept (id int); insert into kept values (1)");
        }

        await using var second = await StartAsync();

        Assert.False(second.IsNew);
        Assert.Equal(1L, await ScalarAsync(second, "select count(*) from kept"));
    }

    [Fact]
    public async Task Is_gone_once_it_is_disposed_and_can_be_disposed_twice()
    {
        var postgres = await StartAsync();
        await Task.WhenAll(postgres.DisposeAsync().AsTask(), postgres.DisposeAsync().AsTask());
        await postgres.DisposeAsync();

        Assert.False(File.Exists(Path.Combine(Data, "postmaster.pid")));
        await Assert.ThrowsAnyAsync<NpgsqlException>(() => ScalarAsync(postgres, "select 1"));
    }

    [Fact]
    public async Task Starts_at_the_same_moment_share_one_server_that_stops_with_its_owner()
    {
        var all = await Task.WhenAll(Enumerable.Range(0, 4).Select(_ => Task.Run(() => StartAsync())));
        var owner = Assert.Single(all, postgres => postgres.IsOwner);
        Assert.Single(all, postgres => postgres.IsNew);
        Assert.Single(all.Select(postgres => (postgres.ConnectionString, postgres.Version, postgres.BinFolder)).Distinct());

        foreach (var joined in all.Where(postgres => postgres != owner)) await joined.DisposeAsync();
        Assert.Equal(1, await ScalarAsync(owner, "select 1"));

        await owner.DisposeAsync();
        await Assert.ThrowsAnyAsync<NpgsqlException>(() => ScalarAsync(owner, "select 1"));
    }

    [Fact]
    public async Task The_server_of_a_killed_process_stops_and_the_next_start_finds_its_data()
    {
        var info = new ProcessStartInfo("dotnet", [typeof(EmbeddedPostgresTests).Assembly.Location])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            Environment = { [OwnerFolder] = folder },
        };
        using var process = Process.Start(info)!;
        Assert.Equal("ready", await process.StandardOutput.ReadLineAsync());
        await using (var joined = await StartAsync())
        {
            Assert.False(joined.IsOwner);
            await ScalarAsync(joined, "create table kept (id int); insert into kept values (1)");
        }

        process.Kill();
        await process.WaitForExitAsync();
        await using var next = await StartAsync();

        Assert.True(next.IsOwner);
        Assert.False(next.IsNew);
        Assert.Equal(1L, await ScalarAsync(next, "select count(*) from kept"));
    }

    [Fact]
    public async Task A_half_made_data_folder_is_made_anew()
    {
        var halfMade = Path.Combine(folder, "data.new-1");
        Directory.CreateDirectory(Path.Combine(halfMade, "base"));
        await File.WriteAllTextAsync(Path.Combine(halfMade, "PG_VERSION"), "15");
        await File.WriteAllTextAsync(Path.Combine(folder, "password"), "of the half-made one");

        await using var postgres = await StartAsync();

        Assert.True(postgres.IsNew);
        Assert.False(Directory.Exists(halfMade));
    }

    [Fact]
    public async Task A_process_that_got_the_number_of_a_crashed_server_does_no_harm()
    {
        await using (await StartAsync())
        {
        }

        await File.WriteAllTextAsync(Path.Combine(Data, "postmaster.pid"), $"{Environment.ProcessId}\n{Data}\n1700000000\n5432\n\n127.0.0.1\n\nready\n");
        await using var postgres = await StartAsync();

        Assert.Equal(1, await ScalarAsync(postgres, "select 1"));
    }

    [Fact]
    public async Task A_BinFolder_without_Postgres_is_explained()
    {
        var error = await Assert.ThrowsAsync<EmbeddedPostgresException>(() => StartAsync(binFolder: Path.GetTempPath()));

        Assert.Contains("must contain initdb, postgres and pg_ctl", error.Message, StringComparison.Ordinal);
        Assert.Contains("BinFolder", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Data_of_another_version_is_left_alone_and_explained()
    {
        Directory.CreateDirectory(Data);
        await File.WriteAllTextAsync(Path.Combine(Data, "PG_VERSION"), "9\n");

        var error = await Assert.ThrowsAsync<EmbeddedPostgresException>(() => StartAsync());

        Assert.Contains("was made by Postgres 9", error.Message, StringComparison.Ordinal);
        Assert.Contains($"delete {Data}", error.Message, StringComparison.Ordinal);
        Assert.True(File.Exists(Path.Combine(Data, "PG_VERSION")));
    }

    [Fact]
    public async Task A_server_that_cannot_start_is_explained_with_its_log()
    {
        await using (await StartAsync())
        {
        }

        await File.AppendAllTextAsync(Path.Combine(Data, "postgresql.conf"), "nonsense = 3\n");
        var error = await Assert.ThrowsAsync<EmbeddedPostgresException>(() => StartAsync());

        Assert.Contains("unrecognized configuration parameter", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_cancelled_start_leaves_nothing_half_made()
    {
        using var soon = new CancellationTokenSource(TimeSpan.FromMilliseconds(150));
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => StartAsync(cancellationToken: soon.Token));
        Assert.Empty(Directory.EnumerateDirectories(folder, "data.new*"));

        await using var postgres = await StartAsync();
        Assert.Equal(1, await ScalarAsync(postgres, "select 1"));
    }

    /// <summary>
    /// The test that kills a process runs this assembly as a program: it then owns a server until it is killed or its input ends.
    /// A module initializer, because the entry point of a test project is generated.
    /// </summary>
    [ModuleInitializer]
    internal static void OwnServerIfAsked()
    {
        if (Environment.GetEnvironmentVariable(OwnerFolder) is not { Length: > 0 } folder) return;
        var postgres = EmbeddedPostgres.StartAsync(Options(folder), NullLogger.Instance).GetAwaiter().GetResult();
        Console.WriteLine("ready");
        Console.In.ReadLine();
        postgres.DisposeAsync().AsTask().GetAwaiter().GetResult();
        Environment.Exit(0);
    }

    private static EmbeddedPostgresOptions Options(string folder, string? binFolder = null) => new()
    {
        Folder = folder,
        BinFolder = binFolder,
        NpmFolder = Path.Combine(Path.GetTempPath(), "ticketfunctions-postgres-npm"),
        FastAndUnsafe = true,
    };

    private Task<EmbeddedPostgres> StartAsync(string? binFolder = null, CancellationToken cancellationToken = default) =>
        EmbeddedPostgres.StartAsync(Options(folder, binFolder), NullLogger.Instance, cancellationToken);

    private static async Task<object?> ScalarAsync(EmbeddedPostgres postgres, string sql)
    {
        await using var connection = new NpgsqlConnection(postgres.ConnectionString + ";Pooling=false");
        await connection.OpenAsync();
        await using var command = new NpgsqlCommand(sql, connection);
        return await command.ExecuteScalarAsync();
    }
}
