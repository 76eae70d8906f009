using Npgsql;
using TicketFunctions.Storage;

namespace TicketFunctions.Hosting.AspNetCore;

/// <summary>The database a command works on: the configured one, or else the embedded one.</summary>
public sealed class LocalDatabase : IAsyncDisposable
{
    private readonly EmbeddedPostgres? _embedded;

    private LocalDatabase(string description, EmbeddedPostgres? embedded)
    {
        Description = description;
        _embedded = embedded;
    }

    /// <summary>One line for people, without a password.</summary>
    public string Description { get; }

    public bool IsEmbedded => _embedded is not null;

    /// <summary>Checks the configured connection string, or starts the embedded server and configures the services with it.</summary>
    /// <exception cref="FormatException">A setting of the database is wrong.</exception>
    /// <exception cref="EmbeddedPostgresException">No server can be started.</exception>
    public static async Task<LocalDatabase> OpenAsync(IServiceProvider services, CancellationToken cancellationToken)
    {
        var configuration = services.GetRequiredService<IConfiguration>();
        if (TicketFunctionsSetup.FindConnectionString(configuration) is { } configured)
        {
            var builder = ConnectionStrings.Parse(configured);
            return new LocalDatabase($"{builder.Database ?? builder.Username} on {builder.Host}:{builder.Port}", null);
        }

        var section = configuration.GetSection("EmbeddedPostgres");
        if (TicketFunctionsSetup.FindUnknown(section, section.Key, ["Folder", "BinFolder"]).FirstOrDefault() is { } error)
        {
            throw new FormatException(error);
        }

        var embedded = await EmbeddedPostgres.StartAsync(
            new EmbeddedPostgresOptions
            {
                Folder = section["Folder"] is { } folder && !string.IsNullOrWhiteSpace(folder) ? folder : DefaultFolder(),
                BinFolder = section["BinFolder"] is { } bin && !string.IsNullOrWhiteSpace(bin) ? bin : null,
            },
            services.GetRequiredService<ILogger<EmbeddedPostgres>>(),
            cancellationToken);
        configuration["ConnectionStrings:Tickets"] = embedded.ConnectionString;
        var port = new NpgsqlConnectionStringBuilder(embedded.ConnectionString).Port;
        return new LocalDatabase($"embedded Postgres {embedded.Version} on 127.0.0.1:{port}", embedded);
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
            Environment.GetFolderPath(Environment.SpecialFolder.LocalApplicationData, Environment.SpecialFolderOption.DoNotVerify), "TicketFunctions", "postgres");
    }
}
