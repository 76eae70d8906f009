using Microsoft.Extensions.Options;
using TicketFunctions.Storage;

namespace TicketFunctions.Hosting.AspNetCore.Commands;

/// <summary>The services without the web: for commands that do their work and end.</summary>
internal static class CommandServices
{
    /// <summary>Builds and starts the services. Settings are checked before anything is touched.</summary>
    /// <exception cref="OptionsValidationException">A setting is wrong.</exception>
    public static async Task<IHost> StartAsync(CancellationToken cancellationToken)
    {
        var builder = Host.CreateApplicationBuilder(new HostApplicationBuilderSettings { Args = PlainHost.ReadSettingsOnce, ContentRootPath = AppContext.BaseDirectory });
        builder.Configuration.AddLocalSettings();
        builder.AddQuietLogging();
        // What the service says once at its start.
        builder.Logging.AddFilter(typeof(TicketStore).FullName, LogLevel.Warning);
        builder.Services.AddTicketFunctions(builder.Configuration).AddChatClients();

        // Ctrl-C belongs to the command line, which cancels the command.
        builder.Services.AddSingleton<IHostLifetime, NoLifetime>();
        var host = builder.Build();
        await host.StartAsync(cancellationToken);
        return host;
    }

    /// <summary>Signals are the command line's business: it cancels what runs.</summary>
    internal sealed class NoLifetime : IHostLifetime
    {
        public Task WaitForStartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

        public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;
    }
}
