using Microsoft.Extensions.Options;

namespace TicketFunctions.Classification;

/// <summary>Logs at the start which model answers.</summary>
internal sealed partial class ModelAnnouncement(IOptions<ModelOptions> options, ILogger<ModelAnnouncement> logger) : IHostedService
{
    public Task StartAsync(CancellationToken cancellationToken)
    {
        Log.Model(logger, options.Value.Describe());
        return Task.CompletedTask;
    }

    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    private static partial class Log
    {
        [LoggerMessage(Level = LogLevel.Information, Message = "Model: {Model}")]
        public static partial void Model(ILogger logger, string model);
    }
}
