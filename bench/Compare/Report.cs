using System.Globalization;
using System.Text;
using System.Text.Json;
using System.Text.Json.Serialization;
using Spectre.Console;

namespace TicketFunctions.Compare;

/// <summary>The medians of one contestant's rounds under one load.</summary>
internal sealed record Medians(string Suite, string Contestant, int Latency, int Clients, IReadOnlyList<Cell> Valid, int Rounds)
{
    public double Rate => Of(cell => cell.Rate) ?? double.NaN;

    public double? Cpu => Of(cell => cell.Cpu);

    public double? Of(Func<Cell, double?> value) =>
        Valid.Select(value).OfType<double>().ToArray() is { Length: > 0 } values ? Cell.Median(values) : null;

    public double? More(string name) => Of(cell => cell.More.TryGetValue(name, out var value) ? value : null);
}

/// <summary>What a run found: on the screen, as Markdown to paste, and as JSON with every cell.</summary>
internal sealed class Report(BenchOptions options, Bench bench, string published)
{
    private const string Floor = "floor";

    private static readonly JsonSerializerOptions Json = new(JsonSerializerDefaults.Web)
    {
        WriteIndented = true,
        DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
        NumberHandling = JsonNumberHandling.AllowNamedFloatingPointLiterals,
    };

    private readonly List<Medians> _medians = [.. bench.Cells
        .GroupBy(cell => (cell.Suite, cell.Latency, cell.Clients, cell.Contestant))
        .Select(group => new Medians(group.Key.Suite, group.Key.Contestant, group.Key.Latency, group.Key.Clients, [.. group.Where(cell => cell.Invalid is null)], group.Count()))];

    public bool HasInvalid => bench.Cells.Any(cell => cell.Invalid is not null);

    public IReadOnlyList<Bar> Bars => Bar.Evaluate(_medians);

    /// <summary>One cell in a line, for the progress.</summary>
    public static string Describe(Cell cell) => cell.Invalid is { } why
        ? $"INVALID: {why}"
        : string.Create(CultureInfo.InvariantCulture, $"{Number(cell.Rate)}{(cell.Suite is "start" ? " ms" : "/s")}")
            + (cell.P50 is null ? "" : $", p50 {Number(cell.P50)} ms, p99 {Number(cell.P99)} ms")
            + (cell.CpuService is null ? "" : $", CPU {Number(cell.CpuService)} + {Number(cell.CpuPostgres)} µs")
            + (cell.Canary is null ? "" : $" (stub {Number(cell.CpuStub)} µs, load {Number(cell.CpuLoad)} µs; canary {Number(cell.Canary.StubPerSecond)}/s, sync {Number(cell.Canary.SyncMicroseconds)} µs)");

    public async Task WriteAsync(CancellationToken cancellationToken)
    {
        // A table that is cut says nothing; into a file or a pipe it may be as wide as it is.
        if (Console.IsOutputRedirected)
        {
            AnsiConsole.Profile.Width = 220;
            AnsiConsole.Profile.Capabilities.Ansi = false;
        }

        foreach (var (title, columns, rows) in Tables())
        {
            var table = new Table().Title(Markup.Escape(title)).Border(TableBorder.Simple);
            foreach (var column in columns)
            {
                var cell = new TableColumn(Markup.Escape(column)).NoWrap();
                table.AddColumn(column == columns[0] ? cell : cell.RightAligned());
            }

            foreach (var row in rows)
            {
                table.AddRow([.. row.Select(Markup.Escape)]);
            }

            AnsiConsole.Write(table);
        }

        var markdown = Path.Combine(options.Output, "report.md");
        var json = Path.Combine(options.Output, "report.json");
        await File.WriteAllTextAsync(markdown, ToMarkdown(), cancellationToken);
        await File.WriteAllTextAsync(json, JsonSerializer.Serialize(new
        {
            Date = DateTimeOffset.UtcNow,
            Machine = Machine.Describe(),
            Postgres = bench.Postgres.Description,
            Published = published,
            Options = options with { Solution = "", Output = "" },
            bench.LeftOut,
            Bars,
            bench.Cells,
        }, Json), cancellationToken);
        Console.WriteLine($"Written: {markdown} and {json}.");
    }

    private string ToMarkdown()
    {
        var text = new StringBuilder();
        text.Append(CultureInfo.InvariantCulture, $"Measured on {DateTime.UtcNow:yyyy-MM-dd} UTC, on {Machine.Describe()}, by `{options.CommandLine}`; {(options.Rounds == 1 ? "one round" : $"medians of {options.Rounds} interleaved rounds")}.\n\n");
        text.Append(CultureInfo.InvariantCulture, $"Postgres: {string.Join(", ", bench.Postgres.Description.Select(setting => $"{setting.Key} {setting.Value}"))}. What is in .NET was published {published}.\n");
        var canaries = bench.Cells.Select(cell => cell.Canary).OfType<Canary>().ToList();
        if (canaries.Count > 0)
        {
            text.Append(CultureInfo.InvariantCulture,
                $"The machine meanwhile: the stub alone {Spread(canaries.Select(canary => canary.StubPerSecond))} calls/s, a disk sync {Spread(canaries.Select(canary => canary.SyncMicroseconds))} µs (least, median, most).\n");
        }

        foreach (var (name, why) in bench.LeftOut)
        {
            text.Append(CultureInfo.InvariantCulture, $"Left out: {name}, because {why}.\n");
        }

        foreach (var (title, columns, rows) in Tables())
        {
            text.Append(CultureInfo.InvariantCulture, $"\n**{title}**\n\n| {string.Join(" | ", columns)} |\n|{string.Concat(columns.Select((_, i) => i == 0 ? "---|" : "--:|"))}\n");
            foreach (var row in rows)
            {
                text.Append(CultureInfo.InvariantCulture, $"| {string.Join(" | ", row)} |\n");
            }
        }

        return text.ToString();
    }

    private IEnumerable<(string Title, string[] Columns, List<string[]> Rows)> Tables()
    {
        foreach (var group in _medians.GroupBy(row => (row.Suite, row.Latency, row.Clients)).OrderBy(group => Array.IndexOf(BenchOptions.AllSuites, group.Key.Suite)))
        {
            var rows = group.ToList();
            var (suite, latency, clients) = group.Key;
            var isDuplicates = suite == "duplicates";
            var floor = rows.Find(row => row.Contestant == (isDuplicates ? "product, fresh" : Floor));
            var unit = isDuplicates ? "÷ fresh" : "÷ floor";
            yield return suite switch
            {
                "http" or "duplicates" => ($"{(isDuplicates ? "Duplicates" : "HTTP")}, model {latency} ms, {clients} client{(clients == 1 ? "" : "s")}",
                    ["contestant", isDuplicates ? "requests/s" : "tickets/s", unit, "p50 ms", "p99 ms", "CPU service", "CPU Postgres", $"together {unit}", "CPU stub", "CPU load", "RSS MB",
                        isDuplicates ? "409" : "errors", "valid"],
                    [.. rows.Select(row => new[]
                    {
                        row.Contestant, Number(row.Rate), Ratio(row.Rate, floor?.Rate), Number(row.Of(cell => cell.P50)), Number(row.Of(cell => cell.P99)),
                        Number(row.Of(cell => cell.CpuService)), Number(row.Of(cell => cell.CpuPostgres)), Ratio(row.Cpu, floor?.Cpu),
                        Number(row.Of(cell => cell.CpuStub)), Number(row.Of(cell => cell.CpuLoad)), Number(row.Of(cell => cell.Rss)),
                        Number(row.Of(cell => cell.Errors)), Valid(row),
                    })]),
                "sweep" => ($"Sweep, model {latency} ms, {clients} calls at once{(latency > 0 ? $" (bound {clients * 1000 / latency}/s)" : "")}",
                    ["contestant", "rows/s", "÷ floor", "÷ bound", "rows/s by its own word", "least, median second", "CPU service", "CPU Postgres", "CPU stub", "valid"],
                    [.. rows.Select(row => new[]
                    {
                        row.Contestant, Number(row.Rate), Ratio(row.Rate, floor?.Rate), latency > 0 ? Ratio(row.Rate, clients * 1000.0 / latency, 3) : "–",
                        Number(row.More("own")), $"{Number(row.More("leastSecond"))}, {Number(row.More("medianSecond"))}",
                        Number(row.Of(cell => cell.CpuService)), Number(row.Of(cell => cell.CpuPostgres)), Number(row.Of(cell => cell.CpuStub)), Valid(row),
                    })]),
                "start" => ("Start and memory",
                    ["contestant", "first answer ms", "÷ floor", "CPU ms until then", "RSS MB then", "RSS MB after 1,000 requests", "÷ floor", "PSS MB", "valid"],
                    [.. rows.Select(row => new[]
                    {
                        row.Contestant, Number(row.Rate), Ratio(row.Rate, floor?.Rate), Number(row.More("cpu")), Number(row.More("firstRss")),
                        Number(row.Of(cell => cell.Rss)), Ratio(row.Of(cell => cell.Rss), floor?.Of(cell => cell.Rss)), Number(row.Of(cell => cell.Pss)), Valid(row),
                    })]),
                "database" => ("Postgres alone (pgbench)",
                    ["statement", "rows/s", "CPU Postgres", "valid"],
                    [.. rows.Select(row => new[] { row.Contestant, Number(row.Rate), Number(row.Of(cell => cell.CpuPostgres)), Valid(row) })]),
                _ => (suite == "bloat" ? "Dead rows of a long sweep" : "Claim and finish at scale", ["database", .. Names(rows), "valid"],
                    [.. rows.Select(row => (string[])[row.Contestant, .. Names(rows).Select(name => Number(row.More(name))), Valid(row)])]),
            };
        }

        if (Bars is { Count: > 0 } bars)
        {
            yield return ("Bars", ["bar", "asked", "measured", ""],
                [.. bars.Select(bar => new[] { bar.What, $"{(bar.IsAtLeast ? "≥" : "≤")} {Number(bar.Limit)}", double.IsNaN(bar.Measured) ? "not measured" : Number(bar.Measured), double.IsNaN(bar.Measured) ? "–" : bar.IsMet ? "met" : "missed" })]);
        }

        static string[] Names(List<Medians> rows) => [.. rows.SelectMany(row => row.Valid).SelectMany(cell => cell.More.Keys).Distinct()];
    }

    private static string Valid(Medians row) => $"{row.Valid.Count}/{row.Rounds}";

    private static string Spread(IEnumerable<double> values)
    {
        var all = values.ToList();
        return $"{Number(all.Min())}, {Number(Cell.Median(all))}, {Number(all.Max())}";
    }

    private static string Ratio(double? value, double? unit, int decimals = 2) =>
        value is null || unit is null || double.IsNaN(value.Value) || double.IsNaN(unit.Value) ? "–" : (value.Value / unit.Value).ToString($"F{decimals}", CultureInfo.InvariantCulture);

    private static string Number(double? value) => value is not { } number || double.IsNaN(number) ? "–"
        : number.ToString(Math.Abs(number) >= 100 || number == Math.Floor(number) ? "N0" : Math.Abs(number) >= 10 ? "N1" : "N2", CultureInfo.InvariantCulture);
}
