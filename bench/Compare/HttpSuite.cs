namespace TicketFunctions.Compare;

/// <summary><c>POST /process-ticket</c>, each request another ticket; or, in the suite <c>duplicates</c>, every ticket twenty times.</summary>
internal sealed class HttpSuite(Bench bench, Contestants contestants)
{
    private const int Copies = 20;

    /// <summary>Duplicates come after this many others: after their ticket's answer, before its row is forgotten by any cache.</summary>
    private const int Apart = 500;

    /// <summary>The least that the warm-up sends: on a busy machine its seconds alone leave code that is not compiled to its end.</summary>
    private const int WarmUpRequests = 5000;

    public async Task RunAsync(CancellationToken cancellationToken)
    {
        var chosen = await bench.ChooseAsync(contestants.Http, cancellationToken);
        for (var round = 1; round <= bench.Options.Rounds; round++)
        {
            foreach (var (latency, clients) in bench.Options.Pairs((0, 1), (0, 64), (0, 256), (200, 256)))
            {
                foreach (var contestant in chosen)
                {
                    var blank = new Cell { Suite = "http", Contestant = contestant.Name, Round = round, Latency = latency, Clients = clients };
                    await MeasureAsync(contestant, blank, 1, 1, cancellationToken);
                }
            }
        }
    }

    public async Task RunDuplicatesAsync(CancellationToken cancellationToken)
    {
        var chosen = await bench.ChooseAsync(contestants.Http.Where(contestant => contestant.Name is "product" or "other"), cancellationToken);
        for (var round = 1; round <= bench.Options.Rounds; round++)
        {
            foreach (var (latency, clients) in bench.Options.Pairs((0, 64)))
            {
                foreach (var contestant in chosen)
                {
                    foreach (var (kind, copies, block) in new[] { ("fresh", 1, 1), ("at once", Copies, 1), ("one after the other", Copies, Apart) })
                    {
                        var blank = new Cell { Suite = "duplicates", Contestant = $"{contestant.Name}, {kind}", Round = round, Latency = latency, Clients = clients };
                        await MeasureAsync(contestant, blank, copies, block, cancellationToken);
                    }
                }
            }
        }
    }

    private Task MeasureAsync(Contestant contestant, Cell blank, int copies, int block, CancellationToken cancellationToken) => bench.MeasureAsync(
        $"{blank.Suite}, round {blank.Round}, {blank.Latency} ms, {blank.Clients} clients, {blank.Contestant}",
        blank,
        cell => bench.OnCopyAsync(bench.Template, database => MeasureAsync(contestant, cell, database, copies, block, cancellationToken), cancellationToken),
        cancellationToken);

    private async Task<Cell> MeasureAsync(Contestant contestant, Cell cell, string database, int copies, int block, CancellationToken cancellationToken)
    {
        var options = bench.Options;
        var canary = await bench.MeasureCanaryAsync(cancellationToken);
        var place = new Place(bench.Postgres.ConnectionTo(database), bench.Stub.Endpoint, Machine.FindFreePort(), 8, options.Tickets);
        var url = $"http://127.0.0.1:{place.Port}/process-ticket";
        await using var child = Child.Start(contestant.Launch(place), options.Log($"{cell.Suite}-{contestant.Name}"));
        await Contestants.ListenAsync(child, place.Port, cancellationToken);

        await bench.Stub.SetAsync(TimeSpan.Zero, cancellationToken);
        for (long sent = 0, times = 0; sent < WarmUpRequests && times < 4; times++)
        {
            sent += (await bench.LoadAsync(url, 64, options.WarmUp, sent + (times * 1000) + 1, 1, 1, cancellationToken)).Requests;
        }

        var (warm, warmCalls) = await bench.SettleAsync(database, cancellationToken);

        await bench.Stub.SetAsync(TimeSpan.FromMilliseconds(cell.Latency), cancellationToken);
        var cpu = Cpu(child);
        var ended = Machine.CpuOfEnded();
        // Past what the warm-up sent, answered or not.
        var load = await bench.LoadAsync(url, cell.Clients, options.SecondsAt(cell.Latency), Math.Max(warm, warmCalls.Calls) + 5000, copies, block, cancellationToken);
        var used = Cpu(child).Zip(cpu, (after, before) => Math.Max(0, after - before) / load.Requests * 1e6).ToArray();
        var loadCpu = (Machine.CpuOfEnded() - ended) / load.Requests * 1e6;
        var memory = Machine.MemoryOfTree(child.Pid);
        var (rows, ledger) = await bench.SettleAsync(database, cancellationToken);
        rows -= warm;

        var answered = load.Requests - load.Errors;
        return cell with
        {
            Rate = load.PerSecond,
            P50 = load.P50,
            P99 = load.P99,
            Max = load.Max,
            CpuService = used[0],
            CpuPostgres = bench.Postgres.Pid is null ? null : used[1],
            CpuStub = used[2],
            CpuLoad = loadCpu,
            Rss = memory.Rss,
            Pss = memory.Pss,
            Requests = load.Requests,
            Errors = load.Errors,
            Rows = rows,
            Calls = ledger.Calls,
            Canary = canary,
            Invalid = copies == 1 ? Judge(load, answered, rows, ledger, cell.Clients) : JudgeDuplicates(load, rows, ledger, copies, block),
        };
    }

    private double[] Cpu(Child child) =>
        [Machine.CpuOfTree(child.Pid), bench.Postgres.Pid is { } postgres ? Machine.CpuOfTree(postgres) : 0, Machine.CpuOfTree(bench.Stub.Pid)];

    /// <summary>Each answer is one row and one call; the last clients' may have come after the end.</summary>
    private string? Judge(LoadResult load, long answered, long rows, StubLedger ledger, int clients) =>
        load.Errors > 0 && bench.Options.Faults.Length == 0 ? $"{load.Statuses} answers were not 200, {load.Broken} did not come"
        : rows < answered || (rows > load.Requests + clients && bench.Options.Faults.Length == 0) ? $"{rows} rows were processed for {answered} answers"
        : ledger.Calls - ledger.Faulty < answered || (ledger.Calls > load.Requests + clients && bench.Options.Faults.Length == 0) ? $"the model was called {ledger.Calls} times for {answered} answers"
        : ledger.Bad > 0 ? $"the model got {ledger.Bad} requests that were none"
        : null;

    /// <summary>A duplicate that comes while its ticket is under way may be told to come again (409); none is decided or paid twice.</summary>
    private static string? JudgeDuplicates(LoadResult load, long rows, StubLedger ledger, int copies, int block) =>
        load.Broken > 0 ? $"{load.Broken} answers did not come"
        : block > 1 && load.Statuses > load.Requests / 100 ? $"{load.Statuses} answers were not 200"
        : ledger.Calls != rows ? $"the model was called {ledger.Calls} times for {rows} tickets"
        : Math.Abs(rows - (double)load.Requests / copies) > Math.Max(block, load.Requests * 0.01 / copies) + 256 ? $"{rows} tickets were decided by {load.Requests} requests"
        : null;
}
