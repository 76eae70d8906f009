using System.Globalization;
using System.Text.Json;
using System.Text.RegularExpressions;

namespace TicketFunctions.Compare;

/// <summary>Emptying a backlog, each contestant in a process that ends when it is empty.</summary>
internal sealed partial class SweepSuite(Bench bench, Contestants contestants)
{
    private static readonly TimeSpan Limit = TimeSpan.FromMinutes(10);

    public async Task RunAsync(CancellationToken cancellationToken)
    {
        var chosen = await bench.ChooseAsync(contestants.Drains, cancellationToken);
        for (var round = 1; round <= bench.Options.Rounds; round++)
        {
            foreach (var (latency, concurrency) in bench.Options.Pairs((0, 64), (200, 64), (200, 256)))
            {
                // About 20 s of work: at 200 ms at the bound, whatever the concurrency; at 0 ms for who is fast.
                var tickets = latency == 0 ? bench.Options.Backlog : concurrency * 20_000 / latency;
                var template = await bench.Postgres.CreateTemplateAsync(tickets, cancellationToken);
                foreach (var contestant in chosen)
                {
                    var blank = new Cell { Suite = "sweep", Contestant = contestant.Name, Round = round, Latency = latency, Clients = concurrency };
                    await bench.MeasureAsync(
                        $"sweep, round {round}, {latency} ms, {concurrency} at once, {contestant.Name}", blank,
                        cell => bench.OnCopyAsync(template, database => MeasureAsync(contestant, cell, database, tickets, cancellationToken), cancellationToken),
                        cancellationToken);
                }

                await bench.Postgres.DropAsync(template, cancellationToken);
            }
        }
    }

    /// <summary>Lets a contestant empty a database.</summary>
    public async Task<Cell> MeasureAsync(
        Contestant contestant, Cell cell, string database, int tickets, CancellationToken cancellationToken, bool isAfterCheckpoint = true)
    {
        var place = new Place(bench.Postgres.ConnectionTo(database), bench.Stub.Endpoint, Machine.FindFreePort(), cell.Clients, tickets);
        if (contestant.Prepare is { } prepare)
        {
            await Child.RunAsync(prepare(place), bench.Options.Log($"sweep-{contestant.Name}-fill"), Limit, cancellationToken);
        }

        var before = await bench.Postgres.CountProcessedAsync(database, cancellationToken);
        if (isAfterCheckpoint)
        {
            await bench.Postgres.ExecuteAsync(database, "checkpoint", cancellationToken);
        }

        var canary = await bench.MeasureCanaryAsync(cancellationToken);
        await bench.Stub.SetAsync(TimeSpan.FromMilliseconds(cell.Latency), cancellationToken);
        var cpu = Cpu();
        var output = await DrainAsync(contestant.Launch(place), bench.Options.Log($"sweep-{contestant.Name}"), cancellationToken);
        var used = Cpu().Zip(cpu, (after, start) => Math.Max(0, after - start) / tickets * 1e6).ToArray();
        var rows = await bench.Postgres.CountProcessedAsync(database, cancellationToken) - before;
        var ledger = await bench.Stub.ReadAsync(cancellationToken);

        // The last second is cut off where it ends; what fills less than three says nothing of steadiness.
        var seconds = ledger.BySecond.Length > 3 ? ledger.BySecond[..^1].Select(calls => (double)calls).ToList() : [];
        var more = new Dictionary<string, double>();
        if (FindOwnSeconds(output) is { } own)
        {
            more["own"] = tickets / own;
        }

        if (seconds.Count > 0)
        {
            more["leastSecond"] = seconds.Min();
            more["medianSecond"] = Cell.Median(seconds);
        }

        return cell with
        {
            Rate = rows / (ledger.Milliseconds / 1000),
            CpuService = used[0],
            CpuPostgres = bench.Postgres.Pid is null ? null : used[1],
            CpuStub = used[2],
            Requests = tickets,
            Rows = rows,
            Calls = ledger.Calls,
            More = more,
            Canary = canary,
            Invalid = rows != tickets && bench.Options.Faults.Length == 0 ? $"{rows} rows were processed of {tickets}"
                : ledger.Calls != tickets && bench.Options.Faults.Length == 0 ? $"the model was called {ledger.Calls} times for {tickets} tickets"
                : null,
        };
    }

    private async Task<string> DrainAsync(Launch launch, string log, CancellationToken cancellationToken)
    {
        await using var child = Child.Start(launch, log);
        await child.WaitAsync(Limit, cancellationToken);

        // With faults some tickets are left for a later sweep, which the product's exit code says.
        return child.ExitCode == 0 || bench.Options.Faults.Length > 0 ? child.Output : throw child.Failed($"it ended with {child.ExitCode}");
    }

    private double[] Cpu() =>
        [Machine.CpuOfEnded(), bench.Postgres.Pid is { } postgres ? Machine.CpuOfTree(postgres) : 0, Machine.CpuOfTree(bench.Stub.Pid)];

    /// <summary>How long it says it took: the product in a sentence, the others in JSON.</summary>
    private static double? FindOwnSeconds(string output)
    {
        if (Summary().Match(output) is { Success: true } summary)
        {
            return double.Parse(summary.Groups[1].Value, CultureInfo.InvariantCulture);
        }

        var json = output.Split('\n').FirstOrDefault(line => line.StartsWith("JSON ", StringComparison.Ordinal));
        return json is null ? null : JsonDocument.Parse(json["JSON ".Length..]).RootElement.GetProperty("milliseconds").GetDouble() / 1000;
    }

    [GeneratedRegex(@"labelled, .* in ([\d.]+) s")]
    private static partial Regex Summary();
}
