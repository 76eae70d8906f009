namespace TicketFunctions.Compare;

/// <summary>What the product promises of its speed, as a ratio within one run.</summary>
internal sealed record Bar(string What, bool IsAtLeast, double Limit, double Measured)
{
    public bool IsMet => IsAtLeast ? Measured >= Limit : Measured <= Limit;

    /// <summary>Those whose cells were asked for; where the product's are, but nothing valid to compare it with, the ratio is not a number and the bar is missed.</summary>
    public static IReadOnlyList<Bar> Evaluate(IReadOnlyList<Medians> medians)
    {
        var bars = new List<Bar>();
        if (Find("http", "product", 0, 64) is { } http)
        {
            Add("HTTP, 0 ms, 64 clients: tickets/s ÷ floor's", true, 1, http.Rate / Find("http", "floor", 0, 64)?.Rate);
            Add("… ÷ the original design's", true, 12, http.Rate / Find("http", "original", 0, 64)?.Rate);
            Add("… ÷ the best async Python's", true, 2.5, http.Rate / Best("http", 0, 64, "async-python", "async-python-2"));
            Add("… CPU of service and Postgres ÷ floor's", false, 1.2, http.Cpu / Find("http", "floor", 0, 64)?.Cpu);
        }

        if (Find("http", "product", 0, 1) is { } single)
        {
            Add("HTTP, 0 ms, one client: p50 ÷ floor's", false, 1.5, single.Of(cell => cell.P50) / Find("http", "floor", 0, 1)?.Of(cell => cell.P50));
        }

        if (Find("http", "product", 200, 256) is { } slow)
        {
            Add("HTTP, 200 ms, 256 clients: tickets/s ÷ (clients ÷ latency)", true, 0.96, slow.Rate / 1280);
            Add("… p99 ÷ latency", false, 1.2, slow.Of(cell => cell.P99) / 200);
        }

        foreach (var clients in (int[])[64, 256])
        {
            if (Find("sweep", "product", 200, clients) is { } sweep)
            {
                Add($"Sweep, 200 ms, {clients} at once: rows/s ÷ (concurrency ÷ latency)", true, 0.97, sweep.Rate / (clients * 5));
                Add("… least second ÷ median second", true, 0.9, sweep.More("leastSecond") / sweep.More("medianSecond"));
            }
        }

        if (Find("sweep", "product", 0, 64) is { } fast)
        {
            Add("Sweep, 0 ms, 64 at once: rows/s ÷ the best queue's", true, 2.5, fast.Rate / Best("sweep", 0, 64, "graphile-worker", "pg-boss"));
        }

        if (Find("start", "product", 0, 0) is { } start)
        {
            Add("First answer after start ÷ floor's", false, 1.5, start.Rate / Find("start", "floor", 0, 0)?.Rate);
            Add("Memory after 1,000 requests ÷ floor's", false, 1.5, start.Of(cell => cell.Rss) / Find("start", "floor", 0, 0)?.Of(cell => cell.Rss));
        }

        foreach (var kind in (string[])["at once", "one after the other"])
        {
            if (Find("duplicates", $"product, {kind}", 0, 64) is { } duplicates)
            {
                Add($"20 duplicates of each, {kind}: model calls ÷ tickets", false, 1, duplicates.Of(cell => cell.Calls / (double)cell.Rows));
                Add("… requests/s ÷ fresh tickets'", true, 1.5, duplicates.Rate / Find("duplicates", "product, fresh", 0, 64)?.Rate);
            }
        }

        foreach (var processed in (string[])[ScaleSuite.Processed, ScaleSuite.ProcessedAfterCheckpoint])
        {
            if (medians.Where(row => row.Suite == "scale" && row.More(processed) is not null).OrderBy(row => row.More(processed)).ToList() is { Count: > 1 } scale)
            {
                Add($"Claim and finish, the most ÷ the fewest {processed}: time in Postgres", false, 1.2, scale[^1].More("µs in statements") / scale[0].More("µs in statements"));
                Add("… CPU of Postgres", false, 1.2, scale[^1].More("CPU Postgres µs") / scale[0].More("CPU Postgres µs"));
            }
        }

        return bars;

        void Add(string what, bool isAtLeast, double limit, double? measured) => bars.Add(new Bar(what, isAtLeast, limit, measured ?? double.NaN));

        Medians? Find(string suite, string contestant, int latency, int clients) =>
            medians.FirstOrDefault(row => row.Suite == suite && row.Contestant == contestant && row.Latency == latency && row.Clients == clients);

        double? Best(string suite, int latency, int clients, params string[] contestants) =>
            contestants.Select(contestant => Find(suite, contestant, latency, clients)?.Rate).OfType<double>().Where(rate => !double.IsNaN(rate)).Cast<double?>().Max();
    }
}
