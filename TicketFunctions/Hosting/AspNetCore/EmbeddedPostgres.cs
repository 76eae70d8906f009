using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using Microsoft.Extensions.Logging;
using Npgsql;

namespace TicketFunctions.Hosting.AspNetCore;

public sealed record EmbeddedPostgresOptions
{
    /// <summary>Keeps the data, the password, the log and, if Postgres had to be installed, its programs.</summary>
    public required string Folder { get; init; }

    /// <summary>The folder of initdb, postgres and pg_ctl; null searches PATH and the usual places.</summary>
    public string? BinFolder { get; init; }

    /// <summary>Where npm installs the programs; null is <c>npm</c> in <see cref="Folder"/>. Servers may share one.</summary>
    public string? NpmFolder { get; init; }

    /// <summary>False leaves out what is installed on the machine and takes the npm package.</summary>
    public bool UseInstalled { get; init; } = true;

    /// <summary>Gives up safety against crashes for speed, and allows more connections: for tests.</summary>
    public bool FastAndUnsafe { get; init; }
}

/// <summary>Says what went wrong with the embedded Postgres and how to mend it.</summary>
public sealed class EmbeddedPostgresException(string message, Exception? innerException = null) : Exception(message, innerException);

/// <summary>
/// A real Postgres for local runs and tests. The first process over a folder starts the server and owns it;
/// others join it. It stops with its owner, even when the owner is killed.
/// </summary>
public sealed class EmbeddedPostgres : IAsyncDisposable
{
    private const string User = "tickets";
    private const string DefaultDatabase = "tickets";

    private static readonly TimeSpan StartLimit = TimeSpan.FromMinutes(1);
    private static readonly TimeSpan JoinLimit = TimeSpan.FromMinutes(5);
    private static readonly TimeSpan StopLimit = TimeSpan.FromSeconds(10);

    /// <summary>
    /// Runs the server and ends it when standard input ends, which is when our process lets go of it or dies.
    /// SIGINT is a fast shutdown; it is repeated because it is lost on a server that is only just starting.
    /// After 10 s comes SIGQUIT, the immediate shutdown.
    /// </summary>
    private const string Watchdog =
        """
        trap '' INT HUP
        command -v setsid >/dev/null || set -m
        log=$1
        shift
        exec 3<&0 </dev/null >>"$log" 2>&1
        "$@" 3<&- &
        server=$!
        {
          while read -r _; do :; done <&3
          trap '' TERM
          n=0
          while [ $n -lt 150 ] && kill -$([ $n -lt 100 ] && echo INT || echo QUIT) $server; do
            sleep 0.1
            n=$((n + 1))
          done
        } 2>/dev/null &
        exec 3<&-
        wait $server
        status=$?
        { kill $!; wait $!; } 2>/dev/null
        exit $status
        """;

    /// <summary>What the log says when another try helps.</summary>
    private static readonly string[] Passing = ["could not bind", "is still in use", "\"postmaster.pid\" already exists"];

    private readonly PostgresHome home;
    private readonly ILogger logger;
    private readonly Lock stopGate = new();
    private FileStream? ownership;
    private PostgresBinaries? binaries;
    private Process? watchdog;
    private int port;
    private string password = "";
    private Task? stopping;

    private EmbeddedPostgres(PostgresHome home, ILogger logger)
    {
        this.home = home;
        this.logger = logger;
    }

    /// <summary>For Npgsql, as superuser of the database <c>tickets</c>.</summary>
    public string ConnectionString => ConnectionStringFor(DefaultDatabase);

    /// <summary>This start made the data folder.</summary>
    public bool IsNew { get; private set; }

    /// <summary>This instance started the server and stops it; otherwise it joined the server of another one.</summary>
    public bool IsOwner => ownership is not null;

    public Version Version { get; private set; } = new();

    public string BinFolder { get; private set; } = "";

    /// <exception cref="EmbeddedPostgresException">The message says how to mend it.</exception>
    public static async Task<EmbeddedPostgres> StartAsync(EmbeddedPostgresOptions options, ILogger logger, CancellationToken cancellationToken = default)
    {
        try
        {
            var server = new EmbeddedPostgres(await PostgresHome.PrepareAsync(options.Folder, logger, cancellationToken), logger);
            try
            {
                await server.OwnOrJoinAsync(options, cancellationToken);
                PostgresLog.Started(logger, server.Version, server.BinFolder, server.port, server.IsOwner);
                return server;
            }
            catch
            {
                await server.DisposeAsync();
                throw;
            }
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or Win32Exception or NpgsqlException or FormatException)
        {
            cancellationToken.ThrowIfCancellationRequested();
            throw new EmbeddedPostgresException(
                $"Postgres could not be started in {options.Folder}. Check that the folder belongs to the account that runs this and that the disk has room, or set ConnectionStrings__Tickets to a database of yours. "
                + $"The reason: {e.Message}", e);
        }
    }

    public string ConnectionStringFor(string database) => ConnectionSettings(database).ConnectionString;

    /// <summary>Creates a database unless it exists; others may do so at the same moment.</summary>
    public async Task EnsureDatabaseAsync(string database, CancellationToken cancellationToken)
    {
        await using var connection = await OpenAsync(cancellationToken);
        await EnsureDatabaseAsync(connection, database, cancellationToken);
    }

    private static async Task EnsureDatabaseAsync(NpgsqlConnection connection, string database, CancellationToken cancellationToken)
    {
        await using var find = new NpgsqlCommand("select 1 from pg_database where datname = $1", connection) { Parameters = { new() { Value = database } } };
        if (await find.ExecuteScalarAsync(cancellationToken) is not null) return;
        try
        {
            await using var create = new NpgsqlCommand($"create database \"{database.Replace("\"", "\"\"", StringComparison.Ordinal)}\"", connection);
            await create.ExecuteNonQueryAsync(cancellationToken);
        }
        catch (PostgresException e) when (e.SqlState is PostgresErrorCodes.DuplicateDatabase or PostgresErrorCodes.UniqueViolation)
        {
            // Somebody else was faster.
        }
    }

    /// <summary>Stops the server if this instance owns it: fast, and after 10 s immediately.</summary>
    public ValueTask DisposeAsync()
    {
        lock (stopGate) return new ValueTask(stopping ??= StopAsync());
    }

    private async Task OwnOrJoinAsync(EmbeddedPostgresOptions options, CancellationToken cancellationToken)
    {
        // Whoever waits may become the owner: the one before may go, or never get its server to run.
        using var timer = new PeriodicTimer(TimeSpan.FromMilliseconds(50));
        var waiting = Stopwatch.StartNew();
        do
        {
            ownership = PostgresHome.TryLock(home.LockFile);
            if (ownership is not null)
            {
                await OwnAsync(options, cancellationToken);
                return;
            }

            if (await TryJoinAsync(cancellationToken)) return;
        }
        while (waiting.Elapsed < JoinLimit && await timer.WaitForNextTickAsync(cancellationToken));

        throw new EmbeddedPostgresException(
            $"Another process holds {home.LockFile}, but its Postgres does not answer. End that process, then start again. {home.ReadLogTail()}");
    }

    private async Task<bool> TryJoinAsync(CancellationToken cancellationToken)
    {
        if (home.ReadPidFile() is not { IsReady: true } running) return false;
        password = PostgresHome.ReadShared(home.PasswordFile);
        if (!await TryGetInAsync(running.Port, cancellationToken)) return false;

        // The server notes its command line there: the program, then the quoted arguments.
        var commandLine = PostgresHome.ReadShared(Path.Combine(home.DataFolder, "postmaster.opts"));
        BinFolder = Path.GetDirectoryName(commandLine.Split(" \"")[0]) ?? "";
        return true;
    }

    private async Task OwnAsync(EmbeddedPostgresOptions options, CancellationToken cancellationToken)
    {
        await File.WriteAllTextAsync(Path.Combine(home.Folder, ".gitignore"), "*\n", cancellationToken);
        binaries = await PostgresBinaries.FindAsync(options, home, logger, cancellationToken);
        BinFolder = binaries.Folder;
        password = PostgresHome.ReadShared(home.PasswordFile);
        await EndLeftoverAsync(binaries, cancellationToken);
        if (!home.HasData)
        {
            await InitialiseAsync(binaries, options, cancellationToken);
            IsNew = true;
        }

        if (password.Length == 0) throw PasswordLost();
        if (File.Exists(home.LogFile)) File.Move(home.LogFile, home.LogFile + ".1", overwrite: true);
        CreatePrivateFile(home.LogFile, "");
        await home.HandOverAsync([home.LogFile, home.LockFile, home.PasswordFile], cancellationToken);

        for (var attempt = 1; ; attempt++)
        {
            port = FindFreePort();
            if (await LaunchAsync(binaries, options, cancellationToken) && await WaitUntilReadyAsync(cancellationToken)) return;

            // The port was taken in between, or a server that was killed is not quite gone.
            var tail = home.ReadLogTail();
            if (attempt == 5 || !Passing.Any(text => tail.Contains(text, StringComparison.Ordinal)))
            {
                throw new EmbeddedPostgresException($"Postgres ended while it started in {home.DataFolder}. {tail}");
            }

            await Task.Delay(TimeSpan.FromMilliseconds(300), cancellationToken);
        }
    }

    /// <summary>Nobody holds the lock, yet a server may run on the data: its owner was killed and it is still stopping, or nobody stops it.</summary>
    private async Task EndLeftoverAsync(PostgresBinaries programs, CancellationToken cancellationToken)
    {
        using var timer = new PeriodicTimer(TimeSpan.FromMilliseconds(50));
        var waiting = Stopwatch.StartNew();
        while (home.ReadPidFile() is { } old)
        {
            if (!PostgresHome.IsPostgres(old.Pid))
            {
                // Stale. Postgres would refuse to start if the number belongs to another process by now.
                File.Delete(Path.Combine(home.DataFolder, "postmaster.pid"));
                return;
            }

            // Only a server that knows our password is surely ours to stop.
            if (old.IsReady && waiting.Elapsed > TimeSpan.FromSeconds(2) && await TryGetInAsync(old.Port, cancellationToken))
            {
                PostgresLog.StoppingLeftover(logger, old.Pid, home.DataFolder);
                await home.RunAsync([programs.PgCtl, "stop", "-s", "-w", "-t", "10", "-m", "fast", "-D", home.DataFolder], 2 * StopLimit, cancellationToken);
            }

            if (waiting.Elapsed > 2 * StopLimit)
            {
                throw new EmbeddedPostgresException(
                    $"The Postgres process {old.Pid} still runs on {home.DataFolder}. End it; if it belongs to another Postgres, delete {Path.Combine(home.DataFolder, "postmaster.pid")}.");
            }

            await timer.WaitForNextTickAsync(cancellationToken);
        }
    }

    private async Task InitialiseAsync(PostgresBinaries programs, EmbeddedPostgresOptions options, CancellationToken cancellationToken)
    {
        if (Directory.Exists(home.DataFolder))
        {
            if (Directory.EnumerateFileSystemEntries(home.DataFolder).Any())
            {
                throw new EmbeddedPostgresException($"{home.DataFolder} is not a data folder of Postgres. Delete it to start with an empty database.");
            }

            Directory.Delete(home.DataFolder);
        }

        PostgresLog.Initialising(logger, programs.Major, home.DataFolder);
        await PostgresHome.BuildAsync(home.DataFolder, async building =>
        {
            password = RandomNumberGenerator.GetHexString(32);
            CreatePrivateFile(home.PasswordFile, password);
            await home.HandOverAsync([building, home.PasswordFile], cancellationToken);

            // Sorting by code point everywhere; letters beyond ASCII where the version or the system knows them.
            string[] locale =
                programs.Major >= 17 ? ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
                : OperatingSystem.IsLinux() ? ["--locale=C", "--lc-ctype=C.UTF-8"]
                : ["--locale=C"];
            string[] speed = options.FastAndUnsafe ? ["--no-sync"] : [];
            var (exitCode, output) = await home.RunAsync(
                [programs.Initdb, "-D", building, "-U", User, $"--pwfile={home.PasswordFile}", "--auth=scram-sha-256", "--encoding=UTF8", .. locale, .. speed],
                2 * StartLimit, cancellationToken);
            if (exitCode != 0) throw new EmbeddedPostgresException($"initdb of {programs.Folder} could not make a database in {home.Folder}. It said: {output}");
        });
    }

    /// <returns>False when the server is known to have ended already.</returns>
    private async Task<bool> LaunchAsync(PostgresBinaries programs, EmbeddedPostgresOptions options, CancellationToken cancellationToken)
    {
        string[] settings =
        [
            "-p", port.ToString(CultureInfo.InvariantCulture), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=",
            "-c", "timezone=UTC", "-c", "log_timezone=UTC",
            .. options.FastAndUnsafe ? (string[])["-c", "fsync=off", "-c", "synchronous_commit=off", "-c", "full_page_writes=off", "-c", "max_connections=300"] : [],
        ];
        if (OperatingSystem.IsWindows())
        {
            // pg_ctl lets go of an administrator's rights, with which postgres.exe refuses to run.
            var (exitCode, _) = await home.RunAsync(
                [programs.PgCtl, "start", "-s", "-w", "-D", home.DataFolder, "-l", home.LogFile, "-o", string.Join(' ', settings)],
                StartLimit, cancellationToken, readOutput: false);
            return exitCode == 0;
        }

        watchdog?.Dispose();
        watchdog = Process.Start(home.Command(["/bin/sh", "-c", Watchdog, "watchdog", home.LogFile, programs.Postgres, "-D", home.DataFolder, .. settings]));
        return true;
    }

    /// <returns>False when the server ended.</returns>
    private async Task<bool> WaitUntilReadyAsync(CancellationToken cancellationToken)
    {
        using var timer = new PeriodicTimer(TimeSpan.FromMilliseconds(20));
        var waiting = Stopwatch.StartNew();
        do
        {
            if (watchdog is { HasExited: true }) return false;
            if (home.ReadPidFile() is not { IsReady: true } running || running.Port != port) continue;
            if (await TryGetInAsync(port, cancellationToken, isOurs: true)) return true;
        }
        while (waiting.Elapsed < StartLimit && await timer.WaitForNextTickAsync(cancellationToken));

        throw new EmbeddedPostgresException($"Postgres in {home.DataFolder} was not ready within {StartLimit.TotalSeconds} s. {home.ReadLogTail()}");
    }

    /// <returns>False when nobody is there, or not ours, or it is coming up or going down.</returns>
    private async Task<bool> TryGetInAsync(int onPort, CancellationToken cancellationToken, bool isOurs = false)
    {
        port = onPort;
        try
        {
            await using var connection = await OpenAsync(cancellationToken);
            await EnsureDatabaseAsync(connection, DefaultDatabase, cancellationToken);
            Version = connection.PostgreSqlVersion;
            return true;
        }
        catch (PostgresException e) when (e.SqlState == PostgresErrorCodes.InvalidPassword)
        {
            return isOurs ? throw PasswordLost() : false;
        }
        catch (NpgsqlException e) when (e is not PostgresException { SqlState: var state } || state.StartsWith("57", StringComparison.Ordinal))
        {
            return false;
        }
    }

    private EmbeddedPostgresException PasswordLost() => new(
        $"{home.PasswordFile} does not hold the password of the data in {home.DataFolder}. Put the right file back, or delete the data folder to start with an empty database.");

    private async Task StopAsync()
    {
        if (watchdog is not null)
        {
            watchdog.StandardInput.Close();
            using var limit = new CancellationTokenSource(1.5 * StopLimit);
            try
            {
                await watchdog.WaitForExitAsync(limit.Token);
            }
            catch (OperationCanceledException)
            {
                PostgresLog.DidNotStop(logger, home.DataFolder);
            }

            watchdog.Dispose();
        }
        else if (OperatingSystem.IsWindows() && ownership is not null && binaries is not null && home.ReadPidFile() is not null)
        {
            foreach (var mode in (string[])["fast", "immediate"])
            {
                var stop = await home.RunAsync([binaries.PgCtl, "stop", "-s", "-w", "-t", "10", "-m", mode, "-D", home.DataFolder], 2 * StopLimit, CancellationToken.None);
                if (stop.ExitCode == 0) break;
            }
        }

        // Last, so that the next owner finds the server gone.
        if (ownership is not null) await ownership.DisposeAsync();
    }

    private async Task<NpgsqlConnection> OpenAsync(CancellationToken cancellationToken)
    {
        var settings = ConnectionSettings("postgres");
        settings.Pooling = false;
        var connection = new NpgsqlConnection(settings.ConnectionString);
        await connection.OpenAsync(cancellationToken);
        return connection;
    }

    private NpgsqlConnectionStringBuilder ConnectionSettings(string database) => new()
    {
        Host = "127.0.0.1",
        Port = port,
        Database = database,
        Username = User,
        Password = password,
        SslMode = SslMode.Disable,
        GssEncryptionMode = GssEncryptionMode.Disable,
    };

    private static int FindFreePort()
    {
        using var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        return ((IPEndPoint)listener.LocalEndpoint).Port;
    }

    private static void CreatePrivateFile(string path, string text)
    {
        File.Delete(path);
        var options = new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write };
        if (!OperatingSystem.IsWindows()) options.UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite;
        using var writer = new StreamWriter(path, options);
        writer.Write(text);
    }
}
