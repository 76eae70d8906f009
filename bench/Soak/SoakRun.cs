using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using System.Net;
using Dapper;
using Npgsql;
using TicketFunctions.Tests.Faults;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Soak;

/// <summary>What was done to the system.</summary>
internal sealed class SoakCounts
{
    public int Tickets, Edits, Deletes, Posts, Duplicates, Kills, Terms, Resets, BlackHoles, Terminations, Crashes, ReadOnly, FailOvers;

    public override string ToString() =>
        $"tickets {Tickets}, edits {Edits}, deletes {Deletes}, requests {Posts} (duplicates {Duplicates}), kills {Kills}, terms {Terms}, "
        + $"connection cuts {Resets} + {BlackHoles} black holes, backend terminations {Terminations}, crashes {Crashes}, read-only {ReadOnly}, fail-overs {FailOvers}";
}

/// <summary>A ticket whose worker was killed while it waited for the model.</summary>
internal sealed record Orphan(Guid Id, string Text, DateTime KilledAt);

/// <summary>One soak: set-up, load and faults side by side, the quiet after them, and the verdict.</summary>
internal sealed class SoakRun : IAsyncDisposable
{
    public const int MaxAttempts = 3;
    public static readonly TimeSpan Lease = TimeSpan.FromSeconds(3);
    public static readonly TimeSpan Sweep = TimeSpan.FromSeconds(1);

    /// <summary>What a machine that runs all of it at once may add to a bound.</summary>
    public static readonly TimeSpan Slack = TimeSpan.FromSeconds(2);

    /// <summary>One question is asked twice at most; what was answered is not sent again.</summary>
    public const int AnswersPerAttempt = 2;

    private const int Workers = 3;

    private readonly int _seed;
    private readonly SoakCounts _counts = new();
    private readonly ConcurrentBag<string> _violations = [];
    private readonly ConcurrentDictionary<Guid, bool> _acknowledged = new();
    private readonly ConcurrentQueue<DateTime> _faultTimes = new();
    private readonly ConcurrentBag<Orphan> _orphans = [];
    private readonly ConcurrentDictionary<HttpStatusCode, int> _statuses = new();
    private readonly ConcurrentBag<TcpLink> _blackHoles = [];
    private readonly WorkerProcess?[] _workers = new WorkerProcess?[Workers];
    private readonly Task[] _restarts = [.. Enumerable.Repeat(Task.CompletedTask, Workers)];
    private readonly List<(Guid Id, string Text)> _recent = [];
    private FaultyPostgres _primary = null!;
    private FaultyPostgres _replica = null!;
    private TcpProxy _toServer = null!;
    private TcpProxy? _toPooler;
    private PgBouncer? _pooler;
    private ModelStub _stub = null!;
    private SoakModel _model = null!;

    private SoakRun(int seed) => _seed = seed;

    private TcpProxy[] Proxies => _toPooler is null ? [_toServer] : [_toServer, _toPooler];

    /// <returns>Whether nothing was violated.</returns>
    public static async Task<bool> RunAsync(TimeSpan length, int seed, CancellationToken cancellationToken)
    {
        DefaultTypeMap.MatchNamesWithUnderscores = true;
        Console.WriteLine($"Seed: {seed}");
        await using var run = new SoakRun(seed);
        await run.StartAsync(cancellationToken);
        await run.MistreatAsync(length, cancellationToken);
        return await run.JudgeAsync(cancellationToken);
    }

    public async ValueTask DisposeAsync()
    {
        await Task.WhenAll(_restarts).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        foreach (IAsyncDisposable? part in (IEnumerable<IAsyncDisposable?>)[.. _workers, _toPooler, _pooler, _toServer, _replica, _primary, _stub])
        {
            if (part is not null)
            {
                await part.DisposeAsync();
            }
        }
    }

    private async Task StartAsync(CancellationToken cancellationToken)
    {
        _stub = await ModelStub.StartAsync();
        _model = new SoakModel(_stub, _seed);
        _primary = await FaultyPostgres.CreateAsync();
        await AddReplicaAsync();
        await _primary.ExecuteAsync(TicketAudit.Install);
        cancellationToken.ThrowIfCancellationRequested();

        _toServer = new TcpProxy(_primary.Port);
        if (PgBouncer.Program is not null)
        {
            // By default it leaves a server alone for 15 s after one failed login.
            _pooler = await PgBouncer.StartAsync(
                new NpgsqlConnectionStringBuilder(_primary.ConnectionString) { Host = "127.0.0.1", Port = _toServer.Port }, "server_login_retry = 1");
            _toPooler = new TcpProxy(_pooler.Port);
        }

        await Task.WhenAll(Enumerable.Range(0, Workers).Select(StartWorkerAsync));
        var way = _pooler is null ? "direct (PgBouncer is not installed), through a TCP proxy" : "through PgBouncer in transaction mode, a TCP proxy before and behind it";
        Console.WriteLine($"Set-up: {Workers} workers, lease {Lease.TotalSeconds:0} s, a sweep each second, {MaxAttempts} attempts; Postgres with a synchronous replica, {way}.");
    }

    /// <summary>What is committed is on the replica: a fail-over loses nothing. And a crash of the one doesn't keep the other away for long.</summary>
    private async Task AddReplicaAsync()
    {
        _replica = await _primary.CreateReplicaAsync();
        await _replica.ExecuteAsync("alter system set wal_retrieve_retry_interval = '200ms'");
        await _replica.ExecuteAsync("select pg_reload_conf()");
        await _primary.ExecuteAsync("alter system set synchronous_commit = remote_apply");
        await _primary.ExecuteAsync("alter system set synchronous_standby_names = '*'");
        await _primary.ExecuteAsync("select pg_reload_conf()");
    }

    private async Task StartWorkerAsync(int n)
    {
        var port = (_toPooler ?? _toServer).Port;
        var database = $"{_primary.ConnectionString};Pooling=true;{_pooler?.Settings ?? "Host=127.0.0.1"};Port={port}";
        _workers[n] = await WorkerProcess.StartAsync(
            database, _stub, NameOf(n),
            ("Triage__Lease", Lease.ToString()),
            ("Triage__MaxAttempts", MaxAttempts.ToString(CultureInfo.InvariantCulture)),
            ("Model__ApiKey", NameOf(n)),
            ("Model__Output", "Schema"),
            ("Model__AttemptTimeout", SoakModel.AttemptTimeout.ToString()),
            ("Model__TotalTimeout", (Lease * 0.8).ToString()),
            ("Model__BreakDuration", "00:00:01"));
    }

    private static string NameOf(int worker) => $"soak-{worker}";

    private async Task MistreatAsync(TimeSpan length, CancellationToken cancellationToken)
    {
        using var over = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        over.CancelAfter(length);
        await Task.WhenAll(LoadAsync(new Random(_seed), over.Token), BreakAsync(new Random(_seed + 1), over.Token), ReportAsync(over.Token));
        cancellationToken.ThrowIfCancellationRequested();

        // From here on nothing fails any more.
        LiftBlackHoles();
        _model.IsHealthy = true;
        await Task.WhenAll(_restarts);
        cancellationToken.ThrowIfCancellationRequested();
    }

    private async Task ReportAsync(CancellationToken over)
    {
        var running = Stopwatch.StartNew();
        while (await Forgive(() => Task.Delay(TimeSpan.FromSeconds(10), over)))
        {
            Console.WriteLine($"{running.Elapsed.TotalSeconds,4:0} s: {_counts}; model calls {_model.Calls}");
        }
    }

    private async Task LoadAsync(Random random, CancellationToken over)
    {
        var sent = new List<Task>();
        for (var n = 0; await Forgive(() => Task.Delay(random.Next(20, 120), over)); n++)
        {
            var dice = random.Next(100);
            var known = _recent.Count == 0 ? default : _recent[random.Next(Math.Max(0, _recent.Count - 30), _recent.Count)];
            var isRepeated = random.Next(5) == 0 && known.Text is not null;
            var text = isRepeated ? known.Text! : $"Caso {n}: la aplicación {random.Next(1_000_000)} no responde";
            var id = new Guid([.. Enumerable.Range(0, 16).Select(_ => (byte)random.Next(256))]);
            var shape = random.Next(4);
            var workers = Enumerable.Range(0, 3).Select(_ => random.Next(Workers)).ToArray();
            switch (dice)
            {
                case var _ when known.Text is null || dice < 75:
                    if (await TryAsync("insert into tickets (id, description) values (@id, @text)", new { id, text }) == 1)
                    {
                        _acknowledged[id] = true;
                        _counts.Tickets++;
                    }

                    // Also if nobody told us that it is there.
                    _recent.Add((id, text));

                    // One is left to the sweeps.
                    var times = shape switch { 0 => 0, 1 => 1, 2 => 3, _ => 2 };
                    _counts.Duplicates += Math.Max(0, times - 1);
                    sent.AddRange(workers.Take(times).Select(worker => PostAsync(worker, id, isWebhook: shape == 3, isAsync: shape > 0 && n % 3 == 0)));
                    break;

                case < 93:
                    _counts.Edits += Math.Max(0, await TryAsync("update tickets set description = @text where id = @Id and description <> @text", new { text, known.Id }));
                    break;

                default:
                    // Before: nobody tells us whether it was carried out.
                    _acknowledged.TryRemove(known.Id, out _);
                    _counts.Deletes += Math.Max(0, await TryAsync("delete from tickets where id = @Id", new { known.Id }));
                    break;
            }

            sent.RemoveAll(post => post.IsCompletedSuccessfully);
        }

        await Task.WhenAll(sent);
    }

    private async Task PostAsync(int worker, Guid id, bool isWebhook, bool isAsync)
    {
        Interlocked.Increment(ref _counts.Posts);
        if (_workers[worker] is { } process && await process.PostAsync(id, isWebhook, isAsync) is { } status)
        {
            _statuses.AddOrUpdate(status, 1, (_, n) => n + 1);
            if (status == HttpStatusCode.InternalServerError)
            {
                Violate(id, "a request was answered 500; expected an answer that says what to do");
            }
        }
    }

    private async Task BreakAsync(Random random, CancellationToken over)
    {
        var running = Stopwatch.StartNew();
        var failOverAt = TimeSpan.FromSeconds(random.Next(20, 40));
        while (await Forgive(() => Task.Delay(random.Next(200, 1200), over)))
        {
            if (running.Elapsed > failOverAt)
            {
                await FailOverAsync();
                failOverAt = running.Elapsed + TimeSpan.FromSeconds(random.Next(20, 60));
                continue;
            }

            var dice = random.Next(100);
            var worker = random.Next(Workers);
            var share = random.NextDouble();
            var pause = TimeSpan.FromMilliseconds(random.Next(500, 2000));
            if (dice >= 25)
            {
                _faultTimes.Enqueue(DateTime.UtcNow);
            }

            switch (dice)
            {
                // What is lost with this one has to recover from nothing else.
                case < 10:
                    await Forgive(() => Task.Delay(Slack, over));
                    await KillAsync(worker, over);
                    await Forgive(() => Task.Delay(Lease + Sweep + Slack, over));
                    break;

                case < 25:
                    await KillAsync(worker, over);
                    break;

                case < 35:
                    await TerminateAsync(worker);
                    break;

                case < 55:
                    foreach (var link in PickLinks(random, share))
                    {
                        link.Reset();
                        _counts.Resets++;
                    }

                    break;

                case < 65:
                    foreach (var link in PickLinks(random, share / 2))
                    {
                        link.BlackHole(random.Next(3) switch { 0 => [Way.ToServer], 1 => [Way.ToClient], _ => [Way.ToServer, Way.ToClient] });
                        _blackHoles.Add(link);
                        _counts.BlackHoles++;
                    }

                    await Forgive(() => Task.Delay(pause * 2, over));
                    LiftBlackHoles();
                    break;

                case < 82:
                    _counts.Terminations += Math.Max(0, await TryCountAsync(
                        """
                        select count(pg_terminate_backend(pid))
                        from pg_stat_activity
                        where backend_type = 'client backend'
                          and application_name like 'soak-%'
                          and random() < @share
                        """,
                        new { share }));
                    break;

                case < 90:
                    _counts.Crashes++;
                    await _primary.StopAsync();
                    await Task.Delay(pause, CancellationToken.None);
                    await _primary.StartAsync();
                    break;

                default:
                    _counts.ReadOnly++;
                    await _primary.SetReadOnlyAsync(true);
                    await Task.Delay(pause, CancellationToken.None);
                    await _primary.SetReadOnlyAsync(false);
                    break;
            }

            if (dice >= 25)
            {
                // The end of it, too: what recovers meanwhile recovers from more than one thing.
                _faultTimes.Enqueue(DateTime.UtcNow);
            }
        }
    }

    private IEnumerable<TcpLink> PickLinks(Random random, double share) => [.. Proxies.SelectMany(proxy => proxy.Links).Where(_ => random.NextDouble() < share)];

    private void LiftBlackHoles()
    {
        while (_blackHoles.TryTake(out var link))
        {
            link.Reset();
        }
    }

    /// <summary>A worker that waits for the model, if there is one in a moment.</summary>
    private async Task KillAsync(int n, CancellationToken over)
    {
        while (!_restarts[n].IsCompleted)
        {
            n = (n + 1) % Workers;
            await Task.Delay(10, CancellationToken.None);
        }

        for (var wait = 0; wait < 50 && _model.UnderWayFor(NameOf(n)).Length == 0 && !over.IsCancellationRequested; wait++)
        {
            await Task.Delay(20, CancellationToken.None);
        }

        var texts = _model.UnderWayFor(NameOf(n));
        await _workers[n]!.KillAsync();
        _counts.Kills++;
        var killed = DateTime.UtcNow;
        try
        {
            await using var connection = new NpgsqlConnection(_primary.ConnectionString);
            foreach (var (id, text) in await connection.QueryAsync<(Guid, string)>(
                """
                select id, description
                from tickets
                join ticket_work on ticket_id = id
                where description = any(@texts)
                  and not processed
                  and lease_token is not null
                """,
                new { texts }))
            {
                _orphans.Add(new Orphan(id, text, killed));
            }
        }
        catch (Exception e) when (e is NpgsqlException or TimeoutException)
        {
            // Then this kill is not measured.
        }

        _restarts[n] = RestartAsync(n);
    }

    private async Task TerminateAsync(int n)
    {
        if (!_restarts[n].IsCompleted)
        {
            return;
        }

        _counts.Terms++;
        var worker = _workers[n]!;
        await worker.TerminateAsync();
        _restarts[n] = EndAsync();

        async Task EndAsync()
        {
            try
            {
                var exitCode = await worker.WaitForExitAsync(TimeSpan.FromSeconds(10) + Slack);
                if (exitCode != 0)
                {
                    Violate(null, $"{NameOf(n)} ended with {exitCode} after SIGTERM; expected 0 (I13): {Tail(worker)}");
                }
            }
            catch (TimeoutException)
            {
                Violate(null, $"{NameOf(n)} had not ended 10 s after SIGTERM (I13): {Tail(worker)}");
            }

            await RestartAsync(n);
        }
    }

    private async Task RestartAsync(int n)
    {
        await _workers[n]!.DisposeAsync();
        await StartWorkerAsync(n);
    }

    private async Task FailOverAsync()
    {
        _faultTimes.Enqueue(DateTime.UtcNow);
        await _replica.CatchUpAsync(_primary);
        var old = _primary;
        await old.StopAsync();
        await _replica.PromoteAsync();
        _primary = _replica;
        _toServer.Target = _primary.Port;
        _counts.FailOvers++;
        await old.DisposeAsync();
        await AddReplicaAsync();
        _faultTimes.Enqueue(DateTime.UtcNow);
    }

    private async Task<bool> JudgeAsync(CancellationToken cancellationToken)
    {
        var quiet = DateTime.UtcNow;
        var due = new Dictionary<Guid, DateTime>();
        var end = quiet + TimeSpan.FromSeconds(60);
        while (true)
        {
            IReadOnlyList<(Guid Id, DateTime? Due)> open;
            await using (var connection = new NpgsqlConnection(_primary.ConnectionString))
            {
                open = [.. await connection.QueryAsync<(Guid, DateTime?)>(
                    """
                    select id, case when lease_token is null then due_at end
                    from tickets
                    left join ticket_work on ticket_id = id
                    where not processed
                      and parked_at is null
                    """)];
            }

            foreach (var (id, at) in open)
            {
                if (at is { } waits)
                {
                    due[id] = waits;
                }
            }

            if (open.Count == 0 || DateTime.UtcNow > end)
            {
                break;
            }

            await Task.Delay(100, cancellationToken);
        }

        // Locks on texts whose worker died go with the next sweep after their lease.
        await Task.Delay(Lease + (2 * Sweep), cancellationToken);
        var oracle = new SoakOracle(_primary.ConnectionString, _model, Violate);
        var findings = await oracle.CheckAsync(quiet, due, _acknowledged.Keys, [.. _orphans], [.. _faultTimes]);
        Console.WriteLine();
        Console.WriteLine($"Seed {_seed}: {_counts}");
        Console.WriteLine($"Answers: {string.Join(", ", _statuses.OrderBy(entry => entry.Key).Select(entry => $"{(int)entry.Key} × {entry.Value}"))}; none where the worker was gone.");
        Console.WriteLine($"Model: {_model.Calls} calls, {_model.FaultsGiven} of them met a fault, {_model.Answered} were answered; {findings}");
        if (!_violations.IsEmpty)
        {
            for (var n = 0; n < Workers; n++)
            {
                Console.WriteLine($"--- {NameOf(n)}\n{Tail(_workers[n]!)}");
            }
        }

        // Last, where whoever reads only the end of a log finds them.
        foreach (var violation in _violations)
        {
            Console.WriteLine($"VIOLATION {violation}");
        }

        Console.WriteLine(_violations.IsEmpty ? "Verdict: zero violations." : $"Verdict: {_violations.Count} violations, seed {_seed}.");
        return _violations.IsEmpty;
    }

    private static string Tail(WorkerProcess worker) => string.Join('\n', worker.Output.Split('\n').TakeLast(40));

    private void Violate(Guid? ticket, string what) => _violations.Add(ticket is null ? what : $"ticket {ticket}: {what}");

    /// <returns>How many rows it changed; -1 when nobody knows.</returns>
    private async Task<int> TryAsync(string sql, object parameters)
    {
        try
        {
            await using var connection = new NpgsqlConnection(_primary.ConnectionString);
            return await connection.ExecuteAsync(new CommandDefinition(sql, parameters, commandTimeout: 5));
        }
        catch (Exception e) when (e is NpgsqlException or TimeoutException)
        {
            return -1;
        }
    }

    /// <inheritdoc cref="TryAsync"/>
    private async Task<int> TryCountAsync(string sql, object parameters)
    {
        try
        {
            return await _primary.QuerySingleAsync<int>(sql, parameters);
        }
        catch (Exception e) when (e is NpgsqlException or TimeoutException)
        {
            return -1;
        }
    }

    /// <returns>False when the time is over.</returns>
    private static async Task<bool> Forgive(Func<Task> wait)
    {
        try
        {
            await wait();
            return true;
        }
        catch (OperationCanceledException)
        {
            return false;
        }
    }
}
