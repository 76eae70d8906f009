using System.CommandLine;
using System.Runtime.InteropServices;
using Microsoft.Extensions.Options;
using Npgsql;
using Spectre.Console;
using TicketFunctions.Hosting.AspNetCore.Commands;
using TicketFunctions.Storage;

namespace TicketFunctions.Hosting.AspNetCore;

/// <summary>The command line of the plain host.</summary>
public static class CommandLine
{
    public const int Success = 0;

    /// <summary>The work could not be done, or not all of it.</summary>
    public const int Failure = 1;

    /// <summary>The words or the settings are wrong; nothing was tried.</summary>
    public const int Usage = 2;

    /// <summary>Ended by Ctrl-C: 128 + SIGINT.</summary>
    public const int Interrupted = 130;

    /// <summary>Commands end themselves on Ctrl-C: they give back what they hold. This is for one that does not.</summary>
    private static readonly TimeSpan TerminationTimeout = TimeSpan.FromSeconds(15);

    public static Task<int> RunAsync(string[] args) => args is [] or [ServeCommand.Name] ? ServeAsync() : RunCommandAsync(args);

    /// <summary>Serves without setting up what reads commands: that took a seventh of the time until it listened.</summary>
    private static async Task<int> ServeAsync()
    {
        using var stop = new CancellationTokenSource();
        using var overdue = new CancellationTokenSource();
        void Stop(PosixSignalContext signal)
        {
            signal.Cancel = true;
            overdue.CancelAfter(TerminationTimeout);
            stop.Cancel();
        }

        using var interrupt = PosixSignalRegistration.Create(PosixSignal.SIGINT, Stop);
        using var terminate = PosixSignalRegistration.Create(PosixSignal.SIGTERM, Stop);
        try
        {
            return await Guarded(ServeCommand.RunAsync, stop.Token).WaitAsync(overdue.Token);
        }
        catch (OperationCanceledException) when (overdue.IsCancellationRequested)
        {
            return Interrupted;
        }
    }

    private static async Task<int> RunCommandAsync(string[] args)
    {
        var root = new RootCommand("Gives every support ticket in a Postgres table a category and a sentiment. Without a command it serves.");
        var serve = ServeCommand.Create();
        root.Subcommands.Add(serve);
        root.Subcommands.Add(HealthCommand.Create());
        root.Subcommands.Add(MigrateCommand.Create());
        root.Subcommands.Add(SweepCommand.Create());
        root.Subcommands.Add(ParkedCommand.Create());
        root.Subcommands.Add(ReviveCommand.Create());
        root.Subcommands.Add(ReprocessCommand.Create());
        root.Subcommands.Add(AddCommand.Create());
        root.Subcommands.Add(CostsCommand.Create());
        root.Subcommands.Add(ClassifyCommand.Create());
        root.Subcommands.Add(EvaluateCommand.Create());
        root.Subcommands.Add(ModelsCommand.Create());
        root.Subcommands.Add(DoctorCommand.Create());
        root.Subcommands.Add(TrainCommand.Create());
        root.SetAction((_, cancellationToken) => Guarded(ServeCommand.RunAsync, cancellationToken));

        // No response files: a ticket's text may begin with an @.
        var parsed = root.Parse(args, new ParserConfiguration { ResponseFileTokenReplacer = null });
        var configuration = new InvocationConfiguration
        {
            ProcessTerminationTimeout = TerminationTimeout,
            EnableDefaultExceptionHandler = false,
        };
        var exitCode = await parsed.InvokeAsync(configuration);
        return parsed.Errors.Count > 0 ? Usage : exitCode;
    }

    /// <summary>Runs a command; what a person can mend is said in a sentence, without a stack.</summary>
    internal static async Task<int> Guarded(Func<CancellationToken, Task<int>> run, CancellationToken cancellationToken)
    {
        try
        {
            return await run(cancellationToken);
        }
        catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
        {
            return Interrupted;
        }
        catch (Exception e) when (TicketFunctionsSetup.FindSentences(e) is { } sentences)
        {
            return Fail(Usage, sentences);
        }
        catch (EmbeddedPostgresException e)
        {
            return Fail(Failure, [e.Message]);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // A file, a pipe, or the address to listen on: Npgsql wraps its own.
            return Fail(Failure, [e.Message]);
        }
        catch (PostgresException e)
        {
            var mend = e.SqlState == PostgresErrorCodes.UndefinedTable ? ". If its migrations were not applied, run the command `migrate`." : "";
            return Fail(Failure, [$"The database cannot be used: {e.MessageText} ({e.SqlState}){mend}"]);
        }
        catch (Exception e) when (StorageFaults.IsUnavailable(e))
        {
            return Fail(Failure, [$"The database cannot be used: {e.Message}"]);
        }
    }

    internal static int Fail(int exitCode, IEnumerable<string> sentences)
    {
        foreach (var sentence in sentences)
        {
            Console.Error.WriteLine($"error: {sentence}");
        }

        return exitCode;
    }

    /// <summary>For what people look at; plain text when it is redirected.</summary>
    internal static IAnsiConsole Screen => AnsiConsole.Console;
}
