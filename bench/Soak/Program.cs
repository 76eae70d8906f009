using System.CommandLine;
using TicketFunctions.Soak;

const int Failure = 1;
const int Usage = 2;
const int Interrupted = 130;

var seconds = new Option<int>("--seconds") { Description = "How long the faults go on.", DefaultValueFactory = _ => 60 };
seconds.Validators.Add(result =>
{
    if (result.Tokens.Count > 0 && int.TryParse(result.Tokens[0].Value, out var value) && value is < 10 or > 86_400)
    {
        result.AddError("--seconds must be between 10 and 86400.");
    }
});
var seed = new Option<int?>("--seed") { Description = "The seed of an earlier run: the same schedule of faults. By default another one each time." };
var root = new RootCommand(
    "Runs three workers of the built product under a seeded random mix of faults, and then checks that no ticket was lost and none was classified twice. "
    + "Starts and removes everything it needs. Exit code 0: nothing was violated.")
{
    seconds,
    seed,
};
root.SetAction(async (parsed, cancellationToken) =>
{
    try
    {
        return await SoakRun.RunAsync(TimeSpan.FromSeconds(parsed.GetValue(seconds)), parsed.GetValue(seed) ?? Random.Shared.Next(), cancellationToken) ? 0 : Failure;
    }
    catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
    {
        return Interrupted;
    }
    catch (Exception e)
    {
        // What the harness could not start, or lost: nothing is known of the product then.
        Console.Error.WriteLine($"error: the soak could not be carried out: {e}");
        return Failure;
    }
});
var line = root.Parse(args);
var exitCode = await line.InvokeAsync(new InvocationConfiguration { ProcessTerminationTimeout = TimeSpan.FromSeconds(30), EnableDefaultExceptionHandler = false });
return line.Errors.Count > 0 ? Usage : exitCode;
