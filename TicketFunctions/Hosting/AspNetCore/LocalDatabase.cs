using Npgsql;
using TicketFunctions.Storage;

namespace TicketFunctions.Hosting.AspNetCore;

/// <summary>The database a command works on: the configured one, or else the embedded one.</summary>
public sealed class LocalDatabase : IAsyncDisposable
{
    private readonly EmbeddedPostgres? _embedded;

    private LocalDatabase(string connectionString, string description, EmbeddedPostgres? embedded)
    {
        ConnectionString = connectionString;
        Description = description;
        _embedded = embedded;
    }

    public string ConnectionString { get; }

    /// <summary>One line for people, without a password.</summary>
    public string Description { get; }

    public bool IsEmbedded => _embedded is not null;

    /// <summary>The setting that makes the services use this database.</summary>
    public KeyValuePair<string, string?> Setting => KeyValuePair.Create("ConnectionStrings:Tickets", (string?)ConnectionString);

    public static async Task<LocalDatabase> OpenAsync(IConfiguration configuration, ILogger logger, CancellationToken cancellationToken)
    {
        if (TicketFunctionsSetup.FindConnectionString(configuration) is { } configured)
        {
            var builder = ConnectionStrings.Parse(configured);
            return new LocalDatabase(configured, $"{builder.Database ?? builder.Username} on {builder.Host}:{builder.Port}", null);
        }

        var embedded = await EmbeddedPostgres.StartAsync(
            new EmbeddedPostgresOptions
            {
                Folder = configuration["EmbeddedPostgres:Folder"] ?? DefaultFolder(),
                BinFolder = configuration["EmbeddedPostgres:BinFolder"],
            },
            logger,
            cancellationToken);
        var port = new NpgsqlConnectionStringBuilder(embedded.ConnectionString).Port;
        return new LocalDatabase(embedded.ConnectionString, $"embedded Postgres {embedded.Version} on 127.0.0.1:{port}", embedded);
    }

    public async ValueTask DisposeAsync()
    {
        if (_embedded is not null)
        {
            await _embedded.DisposeAsync();
        }
    }

    /// <summary>Beside the solution when run from a clone, else among the user's application data.</summary>
    private static string DefaultFolder()
    {
        for (var folder = new DirectoryInfo(AppContext.BaseDirectory); folder is not null; folder = folder.Parent)
        {
            if (File.Exists(Path.Combine(folder.FullName, "TicketFunctions.sln")))
            {
                return Path.Combine(folder.FullName, ".postgres");
            }
        }

        return Path.Combine(
            Environment.GetFolderPath(Environment.SpecialFolder.LocalApplicationData, Environment.SpecialFolderOption.Create), "TicketFunctions", "postgres");
    }
}
