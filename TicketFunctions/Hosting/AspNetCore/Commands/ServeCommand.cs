using System.CommandLine;
using System.Net.Sockets;
using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Hosting.Server.Features;
using Microsoft.Extensions.Options;
using Npgsql;
using Spectre.Console;
using TicketFunctions.Classification;
using TicketFunctions.Storage;
using TicketFunctions.Triggers;

namespace TicketFunctions.Hosting.AspNetCore.Commands;

/// <summary><c>serve</c>, also what runs without a command: the HTTP functions and the timer.</summary>
internal static class ServeCommand
{
    public const string Name = "serve";

    public static Command Create()
    {
        var command = new Command(Name, "Serve the HTTP functions and run the sweep on its schedule, until Ctrl-C. This is what runs without a command.");
        command.SetAction((_, cancellationToken) => CommandLine.Guarded(RunAsync, cancellationToken));
        return command;
    }

    public static async Task<int> RunAsync(CancellationToken cancellationToken)
    {
        try
        {
            await ServeAsync(cancellationToken);
        }
        catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
        {
            // While it started: nobody had asked anything of it yet.
        }

        Console.WriteLine("Stopped.");
        return CommandLine.Success;
    }

    private static async Task ServeAsync(CancellationToken cancellationToken)
    {
        await using var app = PlainHost.Build(configure: services => services.AddSingleton<IHostLifetime, CommandServices.NoLifetime>());

        // While the server is set up: its first request finds a connection that is open.
        var missing = TicketFunctionsSetup.FindConnectionString(app.Configuration) is null
            ? null
            : Task.Run(() => app.Services.GetRequiredService<Migrations>().FindMissingAsync(cancellationToken), cancellationToken);
        await using var database = await LocalDatabase.OpenAsync(app.Services, cancellationToken);
        if (database.IsEmbedded)
        {
            await app.Services.GetRequiredService<Migrations>().ApplyAsync(cancellationToken);
            await SampleTickets.InsertAsync(app.Services.GetRequiredService<NpgsqlDataSource>(), cancellationToken);
        }

        await ListenAsync(app);
        try
        {
            await IntroduceAsync(app, database, missing, cancellationToken);
        }
        catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
        {
            // It takes requests already: it stops like any service.
        }

        await app.WaitForShutdownAsync(cancellationToken);
    }

    private static async Task IntroduceAsync(WebApplication app, LocalDatabase database, Task<IReadOnlyList<Migration>>? missing, CancellationToken cancellationToken)
    {
        var addresses = app.Services.GetRequiredService<IServer>().Features.Get<IServerAddressesFeature>()!.Addresses;
        PrintBanner(app, database, addresses);
        if (database.IsEmbedded)
        {
            await ShowAroundAsync(app, addresses.First(), cancellationToken);
        }
        else
        {
            await WarnOfMissingMigrationsAsync(missing!);
        }

        Console.WriteLine("Ctrl-C stops.");
    }

    /// <summary>Not interrupted: it takes a moment, and what is half started takes requests and is not stopped in order.</summary>
    private static async Task ListenAsync(WebApplication app)
    {
        try
        {
            await app.StartAsync(CancellationToken.None);
        }
        catch (Exception e) when (e is InvalidOperationException or ArgumentException or FormatException or IOException or SocketException)
        {
            throw new IOException($"The service cannot listen on {string.Join(";", FunctionKeys.FindAddresses(app.Configuration))}: {e.Message.TrimEnd('.')}. Set ASPNETCORE_URLS to another address, like http://localhost:7072.");
        }
    }

    private static void PrintBanner(WebApplication app, LocalDatabase database, IEnumerable<string> addresses)
    {
        // Written plainly: four lines are not worth loading what draws tables.
        Console.WriteLine($"""
            Listening  {string.Join(", ", addresses)}
            Database   {database.Description}
            Model      {app.Services.GetRequiredService<IOptions<ModelOptions>>().Value.Describe()}
            Sweep      {app.Configuration["SweepSchedule"]}
            """);
    }

    private static async Task WarnOfMissingMigrationsAsync(Task<IReadOnlyList<Migration>> missing)
    {
        try
        {
            if (await missing is { Count: > 0 and var count })
            {
                Console.Error.WriteLine($"warning: the database lacks {count} migration(s); run `dotnet run --project TicketFunctions -- migrate`.");
            }
        }
        catch (PostgresException e) when (e.SqlState == PostgresErrorCodes.InsufficientPrivilege)
        {
            // A login of the least rights cannot see them, and need not.
        }
        catch (Exception e) when (StorageFaults.IsUnavailable(e))
        {
            Console.Error.WriteLine($"warning: the database cannot be reached yet ({e.Message}); the service goes on and tries again with every request.");
        }
    }

    /// <summary>What a newcomer wants to see: tickets with labels, and what to type next.</summary>
    private static async Task ShowAroundAsync(WebApplication app, string address, CancellationToken cancellationToken)
    {
        var backlog = await app.Services.GetRequiredService<TicketStore>().CountBacklogAsync(cancellationToken);
        if (backlog.Unprocessed > backlog.Parked)
        {
            await SweepCommand.RunAsync(app.Services, cancellationToken);
        }

        var rows = await SampleTickets.ReadAsync(app.Services.GetRequiredService<NpgsqlDataSource>(), cancellationToken);
        if (rows.Count == 0)
        {
            return;
        }

        var table = new Table().AddColumns("ticket", "category", "sentiment");
        foreach (var row in rows)
        {
            table.AddRow(Markup.Escape(row.Description), Markup.Escape(row.Category ?? "-"), Markup.Escape(row.Sentiment ?? "-"));
        }

        CommandLine.Screen.Write(table);

        // Written plainly: a line that the screen wraps cannot be pasted. Keys are not shown, and a signature cannot be typed.
        if (!app.Services.GetRequiredService<WebhookSignatures>().AreRequired)
        {
            var key = app.Services.GetRequiredService<FunctionKeys>().FindVariable() is not { } variable ? ""
                : $" -H \"x-functions-key: {(Environment.GetEnvironmentVariable(variable) is null ? $"<{variable}>" : $"${variable}")}\"";
            Console.WriteLine($$"""
                Try:
                  curl -s {{address}}/process-ticket{{key}} -H 'content-type: application/json' -d '{"id":"{{rows[0].Id}}"}'
                """);
        }

        Console.WriteLine("""
            A new ticket, from another terminal:
              dotnet run --project TicketFunctions -- add "La app se cierra sola al abrir la cámara."
            """);
    }
}
