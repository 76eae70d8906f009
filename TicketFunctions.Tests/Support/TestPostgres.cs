using Microsoft.Extensions.Logging.Abstractions;
using Npgsql;
using TicketFunctions.Hosting.AspNetCore;
using TicketFunctions.Storage;

namespace TicketFunctions.Tests.Support;

/// <summary>
/// The server all tests share: the one named by the environment variable TEST_POSTGRES (a superuser's connection string),
/// else an embedded one of their own. Each class gets a database of its own, copied from a migrated template.
/// </summary>
public static class TestPostgres
{
    private static readonly Lazy<Task<string>> Server = new(StartAsync);
    private static readonly Lazy<Task<string>> Template = new(CreateTemplateAsync);
    private static readonly SemaphoreSlim Copying = new(1, 1);

    /// <summary>A new database with the product's schema and no rows.</summary>
    public static async Task<string> CreateDatabaseAsync()
    {
        var template = await Template.Value;

        // Postgres copies a template only while nobody else does.
        await Copying.WaitAsync();
        try
        {
            return await CreateAsync(NewName(), $"template {template}");
        }
        finally
        {
            Copying.Release();
        }
    }

    /// <summary>A new database with nothing in it.</summary>
    public static Task<string> CreateEmptyDatabaseAsync() => CreateAsync(NewName(), "template template0");

    public static async Task DropDatabaseAsync(string connectionString)
    {
        var builder = new NpgsqlConnectionStringBuilder(connectionString);
        NpgsqlConnection.ClearPool(new NpgsqlConnection(connectionString));
        await ExecuteOnServerAsync($"drop database if exists {builder.Database} with (force)");
    }

    /// <summary>The server itself, as superuser.</summary>
    public static async Task<NpgsqlConnectionStringBuilder> FindServerAsync() => new(await Server.Value);

    private static string NewName() => $"test_{Guid.NewGuid():N}";

    private static async Task<string> CreateTemplateAsync()
    {
        var name = NewName();
        var connectionString = await CreateAsync(name, "template template0");
        await using (var dataSource = NpgsqlDataSource.Create(connectionString + ";Pooling=false"))
        {
            await new Migrations(dataSource).ApplyAsync(CancellationToken.None);
        }

        AppDomain.CurrentDomain.ProcessExit += (_, _) => DropDatabaseAsync(connectionString).Wait(TimeSpan.FromSeconds(5));
        return name;
    }

    private static async Task<string> CreateAsync(string name, string options)
    {
        await ExecuteOnServerAsync($"create database {name} {options}");
        return new NpgsqlConnectionStringBuilder(await Server.Value) { Database = name }.ConnectionString;
    }

    private static async Task ExecuteOnServerAsync(string sql)
    {
        await using var connection = new NpgsqlConnection(
            new NpgsqlConnectionStringBuilder(await Server.Value) { Database = "postgres", Pooling = false, CommandTimeout = 60 }.ConnectionString);
        await connection.OpenAsync();
        await using var command = new NpgsqlCommand(sql, connection);
        await command.ExecuteNonQueryAsync();
    }

    private static async Task<string> StartAsync()
    {
        if (Environment.GetEnvironmentVariable("TEST_POSTGRES") is { Length: > 0 } configured)
        {
            var parsed = ConnectionStrings.Parse(configured);
            Console.WriteLine($"Tests use the Postgres of TEST_POSTGRES on {parsed.Host}:{parsed.Port}.");
            return parsed.ConnectionString;
        }

        var embedded = await EmbeddedPostgres.StartAsync(
            new EmbeddedPostgresOptions { Folder = Path.Combine(SolutionFolder, ".postgres", "tests"), FastAndUnsafe = true },
            NullLogger.Instance,
            CancellationToken.None);
        AppDomain.CurrentDomain.ProcessExit += (_, _) => embedded.DisposeAsync().AsTask().Wait(TimeSpan.FromSeconds(10));
        Console.WriteLine($"Tests use an embedded Postgres {embedded.Version} of their own.");
        return ConnectionStrings.Parse(embedded.ConnectionString).ConnectionString;
    }

    /// <summary>The folder of the solution, found from where the tests were built.</summary>
    public static string SolutionFolder { get; } = FindSolutionFolder();

    private static string FindSolutionFolder()
    {
        var folder = new DirectoryInfo(AppContext.BaseDirectory);
        while (!File.Exists(Path.Combine(folder.FullName, "TicketFunctions.sln")))
        {
            folder = folder.Parent ?? throw new InvalidOperationException("The tests must run from within the clone.");
        }

        return folder.FullName;
    }
}
