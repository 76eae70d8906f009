using TicketFunctions.Storage;

namespace TicketFunctions.Hosting.AspNetCore.Commands;

/// <summary>A database and the services over it, for the length of one command.</summary>
internal sealed class DatabaseSession : IAsyncDisposable
{
    private readonly IHost _host;

    private DatabaseSession(LocalDatabase database, IHost host)
    {
        Database = database;
        _host = host;
    }

    public LocalDatabase Database { get; }

    public IServiceProvider Services => _host.Services;

    /// <param name="migrateEmbedded">Bring the embedded database up to date; a configured one is never changed unasked.</param>
    /// <param name="cancellationToken">Ctrl-C.</param>
    public static async Task<DatabaseSession> OpenAsync(bool migrateEmbedded, CancellationToken cancellationToken)
    {
        var (configuration, loggers) = CommandServices.Prepare();
        var database = await LocalDatabase.OpenAsync(configuration, loggers.CreateLogger<EmbeddedPostgres>(), cancellationToken);
        try
        {
            var host = await CommandServices.StartAsync([database.Setting], cancellationToken);
            if (migrateEmbedded && database.IsEmbedded)
            {
                await host.Services.GetRequiredService<Migrations>().ApplyAsync(cancellationToken);
            }

            return new DatabaseSession(database, host);
        }
        catch
        {
            await database.DisposeAsync();
            throw;
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _host.StopAsync();
        _host.Dispose();
        await Database.DisposeAsync();
    }
}
