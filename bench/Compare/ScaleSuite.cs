using System.Diagnostics;
using System.Globalization;

namespace TicketFunctions.Compare;

/// <summary>What a claim, a look-up of the text and a finish cost the database when millions of tickets are behind it, and what dead rows a million leave.</summary>
internal sealed class ScaleSuite(Bench bench, Contestants contestants)
{
    /// <summary>The figure of a cell that says how many rows were done before it.</summary>
    public const string Processed = "processed";

    /// <summary>The same of a cell right after a checkpoint.</summary>
    public const string ProcessedAfterCheckpoint = "processed, after a checkpoint";

    private const int Small = 10_000;
    private const int Fresh = 20_000;
    private const int AtOnce = 64;

    /// <summary>Tickets until nearly each page that a ticket may touch was touched since the last checkpoint, when it goes into the log as a whole.</summary>
    private const int Warming = 300_000;

    private const int FilledAtOnce = 500_000;

    /// <summary>Where the rows are that come and go with every ticket.</summary>
    private static readonly string[] HotTables = ["ticket_work", "ticket_text_locks"];

    private readonly SweepSuite _sweep = new(bench, contestants);

    public async Task RunAsync(CancellationToken cancellationToken)
    {
        var product = contestants.Drains[0];
        var databases = new List<(int Rows, string Name)>();
        foreach (var rows in (int[])[Small, bench.Options.Rows])
        {
            databases.Add((rows, await FillAsync(rows, cancellationToken)));
        }

        var next = bench.Options.Rows + 1L;
        var (largest, large) = databases[^1];
        await bench.Postgres.AddTicketsAsync(large, next, Warming, cancellationToken);
        next += Warming;
        Bench.Say($"Warming the database of {largest} processed rows with {Warming} tickets …");
        await _sweep.MeasureAsync(product, new Cell { Suite = "scale", Contestant = "", Round = 0, Clients = AtOnce }, large, Warming, cancellationToken);

        // Checkpoints come last: what they bring lasts longer than a cell.
        foreach (var isAfterCheckpoint in (bool[])[false, true])
        {
            for (var round = 1; round <= bench.Options.Rounds; round++)
            {
                foreach (var (rows, database) in databases)
                {
                    await bench.Postgres.AddTicketsAsync(database, next, Fresh, cancellationToken);
                    var name = string.Create(CultureInfo.InvariantCulture, $"{rows:N0} processed rows{(isAfterCheckpoint ? ", after a checkpoint" : "")}");
                    await bench.MeasureAsync(
                        $"scale, round {round}, {name}",
                        new Cell { Suite = "scale", Contestant = name, Round = round, Clients = AtOnce },
                        cell => MeasureAsync(product, cell, database, rows, isAfterCheckpoint, cancellationToken), cancellationToken);
                }

                next += Fresh;
            }
        }

        foreach (var (_, database) in databases)
        {
            await bench.Postgres.DropAsync(database, cancellationToken);
        }

        await bench.MeasureAsync(
            $"bloat over {bench.Options.Bloat} tickets", new Cell { Suite = "bloat", Contestant = string.Create(CultureInfo.InvariantCulture, $"{bench.Options.Bloat:N0} tickets"), Round = 1, Clients = AtOnce },
            cell => MeasureBloatAsync(product, cell, cancellationToken), cancellationToken);
    }

    /// <summary>A database with so many tickets done, each with its decision.</summary>
    private async Task<string> FillAsync(int rows, CancellationToken cancellationToken)
    {
        var watch = Stopwatch.StartNew();
        var database = await bench.Postgres.CreateTemplateAsync(0, cancellationToken);
        for (var first = 1; first <= rows; first += FilledAtOnce)
        {
            Bench.Say($"Filling a database: {first - 1} of {rows} processed rows …");
            await bench.Postgres.ExecuteAsync(database, string.Create(CultureInfo.InvariantCulture,
                $"""
                set synchronous_commit = off;

                insert into tickets (id, created_at, description, category, sentiment, processed)
                select ticket_id(n), now() - interval '1 year' + n * interval '1 s', 'Un caso resuelto hace tiempo, con su texto de siempre y su número: ' || n, 'Tecnico', 'Negativo', true
                from generate_series({first}, {Math.Min(first + FilledAtOnce - 1, rows)}) n;

                insert into ticket_decisions (ticket_id, decided_at, category, sentiment, source, provider, model, prompt_version, taxonomy_version, parameters, text_sha256, model_calls, latency_ms, attempts)
                select ticket_id(n), now() - interval '1 year' + n * interval '1 s', 'Tecnico', 'Negativo', 'model', 'compatible', 'stub', 'bench', 'bench', '{"{}"}',
                  sha256(convert_to('Un caso resuelto hace tiempo, con su texto de siempre y su número: ' || n, 'UTF8')), 1, 200, 1
                from generate_series({first}, {Math.Min(first + FilledAtOnce - 1, rows)}) n;
                """), cancellationToken);
        }

        await bench.Postgres.ExecuteAsync(database, "vacuum (analyze, freeze)", cancellationToken);
        await bench.Postgres.ExecuteAsync(database, "checkpoint", cancellationToken);
        var bytes = await bench.Postgres.ScalarAsync<long>(database, "select pg_database_size(current_database())", cancellationToken);
        Bench.Say($"Filled {rows} processed rows in {watch.Elapsed.TotalSeconds:0} s: {bytes >> 20} MB.");
        return database;
    }

    private async Task<Cell> MeasureAsync(Contestant product, Cell cell, string database, int rows, bool isAfterCheckpoint, CancellationToken cancellationToken)
    {
        var watchesStatements = await bench.Postgres.WatchStatementsAsync(database, cancellationToken);
        var measured = await _sweep.MeasureAsync(product, cell, database, Fresh, cancellationToken, isAfterCheckpoint);
        var more = new Dictionary<string, double> { [isAfterCheckpoint ? ProcessedAfterCheckpoint : Processed] = rows, ["rows/s"] = measured.Rate };
        if (measured.CpuPostgres is { } cpu)
        {
            more["CPU Postgres µs"] = cpu;
        }

        if (watchesStatements)
        {
            var parts = await bench.Postgres.ScalarAsync<double[]>(
                database,
                $"""
                select array[
                  sum(total_exec_time + total_plan_time) * 1000,
                  coalesce(sum(total_exec_time + total_plan_time) filter (where query like 'with fresh as%'), 0) * 1000,
                  coalesce(sum(total_exec_time + total_plan_time) filter (where query like '%to\_jsonb(earlier)%'), 0) * 1000,
                  coalesce(sum(total_exec_time + total_plan_time) filter (where query like '%insert into public.ticket\_decisions%'), 0) * 1000,
                  sum(wal_fpi)
                ]::float8[]
                from pg_stat_statements
                where dbid = (select oid from pg_database where datname = current_database())
                  and query not like '%pg_stat_statements%'
                  and query not like '{BenchPostgres.CountProcessed}%'
                  and query not like 'checkpoint%'
                """,
                cancellationToken);
            foreach (var (name, sum) in ((string[])["µs in statements", "of claims", "of look-ups", "of finishes", "page images"]).Zip(parts))
            {
                more[name] = sum / Fresh;
            }
        }

        return measured with { More = more };
    }

    private async Task<Cell> MeasureBloatAsync(Contestant product, Cell cell, CancellationToken cancellationToken)
    {
        var tickets = bench.Options.Bloat;
        var database = await bench.Postgres.CreateTemplateAsync(tickets, cancellationToken);
        try
        {
            using var sampling = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
            var sizes = HotTables.ToDictionary(table => table, _ => new List<(double Megabytes, double Dead)>());
            var sampled = SampleAsync(database, sizes, sampling.Token);
            var measured = await _sweep.MeasureAsync(product, cell, database, tickets, cancellationToken);
            await sampling.CancelAsync();
            await sampled;

            var more = new Dictionary<string, double> { ["rows/s"] = measured.Rate };
            foreach (var (table, samples) in sizes.Where(size => size.Value.Count > 0))
            {
                more[$"{table} MB at most"] = samples.Max(sample => sample.Megabytes);
                more[$"{table} dead rows at most"] = samples.Max(sample => sample.Dead);
            }

            var seconds = (await bench.Stub.ReadAsync(cancellationToken)).BySecond;
            var tenth = Math.Max(1, seconds.Length / 10);
            more["rows/s in the first tenth"] = Cell.Median(seconds.Take(tenth).Select(calls => (double)calls));
            more["rows/s in the last tenth"] = Cell.Median(seconds.SkipLast(1).TakeLast(tenth).Select(calls => (double)calls));
            return measured with { More = more };
        }
        finally
        {
            await bench.Postgres.DropAsync(database, CancellationToken.None);
        }
    }

    private async Task SampleAsync(string database, Dictionary<string, List<(double Megabytes, double Dead)>> sizes, CancellationToken cancellationToken)
    {
        using var timer = new PeriodicTimer(TimeSpan.FromSeconds(1));
        try
        {
            while (await timer.WaitForNextTickAsync(cancellationToken))
            {
                foreach (var (table, samples) in sizes)
                {
                    var sample = await bench.Postgres.ScalarAsync<double[]>(
                        database, $"select array[pg_total_relation_size(relid) / 1048576.0, n_dead_tup]::float8[] from pg_stat_user_tables where relname = '{table}'", cancellationToken);
                    samples.Add((sample[0], sample[1]));
                }
            }
        }
        catch (OperationCanceledException)
        {
            // The sweep is over.
        }
    }
}
