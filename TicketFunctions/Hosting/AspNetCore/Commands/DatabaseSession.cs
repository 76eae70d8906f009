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
        var host = await CommandServices.StartAsync(cancellationToken);
        var session = new DatabaseSession(await LocalDatabase.OpenAsync(host.Services, cancellationToken), host);
        try
        {
            if (migrateEmbedded && session.Database.IsEmbedded)
            {
                await session.Services.GetRequiredService<Migrations>().ApplyAsync(cancellationToken);
            }

            return session;
        }
        catch
        {
            await session.DisposeAsync();
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
