using System.CommandLine;
using System.Globalization;
using TicketFunctions.Compare;
using TicketFunctions.Hosting.AspNetCore;

const int Failure = 1;
const int Usage = 2;
const int Interrupted = 130;

var suites = new Argument<string[]>("suites")
{
    Description = $"What to measure: {string.Join(", ", BenchOptions.AllSuites)}, or all (which leaves out scale).",
    DefaultValueFactory = _ => ["http"],
    Arity = ArgumentArity.ZeroOrMore,
};
suites.AcceptOnlyFromAmong([.. BenchOptions.AllSuites, "all"]);
var rounds = Number("--rounds", "Interleaved rounds; the tables hold their medians.", 3, 1, 100);
var seconds = Number("--seconds", "The length of each cell under load; with a slow model it is the least.", 5, 1, 600);
var warmUp = Number("--warm-up", "Seconds of load before it that are not measured.", 4, 1, 600);
var only = List("--only", "The contestants, by name; by default all.");
var latencies = List("--latency", "The model's latencies in milliseconds.", "0,200");
var clients = List("--clients", "Clients, or a sweep's calls at once: every number with every latency. By default the pairs that the bars speak of.");
var output = new Option<string?>("--output") { Description = "The folder of the report and the logs. By default one of its own under artifacts/bench." };
var other = new Option<string?>("--other") { Description = "A published TicketFunctions of another commit, to be the contestant `other`." };
var dialect = new Option<string>("--dialect") { Description = "Whose way of answering the stub has.", DefaultValueFactory = _ => StubBehaviour.Default.Dialect };
dialect.AcceptOnlyFromAmong(StubBehaviour.Dialects);
var faults = new Option<string>("--faults") { Description = $"The share of calls that fails, by kind, like 429:0.05,badjson:0.02. Kinds: {string.Join(", ", StubBehaviour.FaultKinds)}.", DefaultValueFactory = _ => "" };
faults.Validators.Add(result =>
{
    try
    {
        StubBehaviour.ParseFaults(result.Tokens.Count > 0 ? result.Tokens[0].Value : "");
    }
    catch (FormatException e)
    {
        result.AddError(e.Message);
    }
});
var seed = Number("--seed", "The same seed fails the same calls.", 1, 0, int.MaxValue);
var idsOnly = new Option<bool>("--ids-only") { Description = "Requests without the text. The contestants that do not read the row cannot take part." };
var batchSize = Number("--batch", "Rows per claim of the product's sweep.", 500, 1, 1000);
var backlog = Number("--backlog", "Tickets that a sweep drains at 0 ms. At other latencies: what fills about 20 s.", 200_000, 1000, 1_000_000);
var rows = Number("--rows", "Processed rows of scale's large database: ten million take 6 GB of disk and ten minutes to fill.", 10_000_000, 20_000, 100_000_000);
var bloat = Number("--bloat", "Tickets that scale processes in one database to see what dead rows are left.", 1_000_000, 10_000, 10_000_000);
var assert = new Option<bool>("--assert") { Description = "A missed bar is a failure." };

var root = new RootCommand(
    "Measures this product side by side with what one might use instead, on one Postgres and one stub of a model, all started here and ended with it. "
    + "Linux only. Exit code 0: everything was measured; 1: something could not be, or with --assert a bar was missed.")
{
    suites, rounds, seconds, warmUp, only, latencies, clients, output, other, dialect, faults, seed, idsOnly, batchSize, backlog, rows, bloat, assert,
};
root.SetAction((parsed, cancellationToken) => GuardedAsync(async () =>
{
    if (!OperatingSystem.IsLinux())
    {
        throw new BenchException("The comparison reads /proc and runs wrk: it works on Linux only");
    }

    foreach (var (program, package) in new[] { ("wrk", "wrk"), ("dotnet", "dotnet-sdk-10.0") })
    {
        if (Machine.FindOnPath(program) is null)
        {
            throw new BenchException($"{program} is missing; install it (Debian: apt install {package})");
        }
    }

    var solution = FindSolution();
    var asked = parsed.GetValue(suites)!;
    var options = new BenchOptions
    {
        CommandLine = $"dotnet run -c Release --project bench/Compare -- {string.Join(' ', args)}".TrimEnd(),
        Solution = solution,
        Output = Path.GetFullPath(parsed.GetValue(output) ?? Path.Combine(solution, "artifacts", "bench", DateTime.Now.ToString("yyyyMMdd-HHmmss", CultureInfo.InvariantCulture))),
        Suites = asked.Contains("all") ? [.. BenchOptions.AllSuites.Except(["scale"]).Union(asked.Except(["all"]))] : asked,
        Rounds = parsed.GetValue(rounds),
        Seconds = parsed.GetValue(seconds),
        WarmUp = parsed.GetValue(warmUp),
        Only = parsed.GetValue(only)!,
        Latencies = [.. parsed.GetValue(latencies)!.Select(text => int.Parse(text, CultureInfo.InvariantCulture))],
        Clients = [.. parsed.GetValue(clients)!.Select(text => int.Parse(text, CultureInfo.InvariantCulture))],
        Other = parsed.GetValue(other),
        Dialect = parsed.GetValue(dialect)!,
        Faults = parsed.GetValue(faults)!,
        Seed = parsed.GetValue(seed),
        IdsOnly = parsed.GetValue(idsOnly),
        BatchSize = parsed.GetValue(batchSize),
        Backlog = parsed.GetValue(backlog),
        Rows = parsed.GetValue(rows),
        Bloat = parsed.GetValue(bloat),
        Assert = parsed.GetValue(assert),
    };
    return await CompareRun.RunAsync(options, cancellationToken) ? 0 : Failure;
}, cancellationToken));

var port = new Option<int>("--port") { Required = true };
var latency = new Option<int>("--latency");
var stub = new Command("stub", "The stub of a model alone, for a process of its own.") { port, latency, dialect, faults, seed };
stub.Hidden = true;
stub.SetAction(parsed =>
{
    new ModelStub(new StubBehaviour(
        TimeSpan.FromMilliseconds(parsed.GetValue(latency)), parsed.GetValue(dialect)!, StubBehaviour.ParseFaults(parsed.GetValue(faults)!), parsed.GetValue(seed)))
        .Run(parsed.GetValue(port));
    return 0;
});
root.Subcommands.Add(stub);

var line = root.Parse(args);
var exitCode = await line.InvokeAsync(new InvocationConfiguration { ProcessTerminationTimeout = TimeSpan.FromMinutes(1), EnableDefaultExceptionHandler = false });
return line.Errors.Count > 0 ? Usage : exitCode;

static async Task<int> GuardedAsync(Func<Task<int>> run, CancellationToken cancellationToken)
{
    try
    {
        return await run();
    }
    catch (Exception) when (cancellationToken.IsCancellationRequested)
    {
        // Ctrl-C in a terminal ends the children too, so anything may have failed since.
        return Interrupted;
    }
    catch (Exception e)
    {
        await Console.Error.WriteLineAsync($"error: {(e is BenchException or EmbeddedPostgresException ? e.Message : $"the comparison could not be carried out: {e}")}");
        return e is UsageException ? Usage : Failure;
    }
}

static Option<int> Number(string name, string description, int usual, int least, int most)
{
    var option = new Option<int>(name) { Description = description, DefaultValueFactory = _ => usual };
    option.Validators.Add(result =>
    {
        if (result.Tokens.Count > 0 && int.TryParse(result.Tokens[0].Value, CultureInfo.InvariantCulture, out var value) && (value < least || value > most))
        {
            result.AddError(string.Create(CultureInfo.InvariantCulture, $"{name} must be between {least} and {most}."));
        }
    });
    return option;
}

static Option<string[]> List(string name, string description, string usual = "")
{
    var option = new Option<string[]>(name)
    {
        Description = description,
        CustomParser = result => Split(string.Join(',', result.Tokens.Select(token => token.Value))),
        DefaultValueFactory = _ => Split(usual),
    };
    if (name is "--latency" or "--clients")
    {
        option.Validators.Add(result =>
        {
            foreach (var text in Split(string.Join(',', result.Tokens.Select(token => token.Value))))
            {
                if (!int.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out var value) || value > 10_000 || (name == "--clients" && value == 0))
                {
                    result.AddError($"{name}: '{text}' is no number up to 10000; write a list like {(name == "--clients" ? "1,64,256" : "0,200")}.");
                }
            }
        });
    }

    return option;

    static string[] Split(string text) => text.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries);
}

static string FindSolution()
{
    var folder = new DirectoryInfo(AppContext.BaseDirectory);
    while (!File.Exists(Path.Combine(folder.FullName, "TicketFunctions.sln")))
    {
        folder = folder.Parent ?? throw new BenchException("The comparison must run from within the clone");
    }

    return folder.FullName;
}
