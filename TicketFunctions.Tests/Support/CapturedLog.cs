using System.Collections.Concurrent;
using Microsoft.Extensions.Logging;

namespace TicketFunctions.Tests.Support;

/// <summary>Keeps what is logged, at every level.</summary>
public sealed class CapturedLog : ILoggerProvider
{
    public ConcurrentQueue<(LogLevel Level, string Message)> Entries { get; } = new();

    public ILogger CreateLogger(string categoryName) => new Logger(this);

    public void Dispose()
    {
    }

    private sealed class Logger(CapturedLog log) : ILogger
    {
        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => null;

        public bool IsEnabled(LogLevel logLevel) => true;

        public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
        {
            // Kestrel's warning that this machine is slow says nothing about the product.
            if (eventId.Name != "HeartbeatSlow")
            {
                log.Entries.Enqueue((logLevel, $"{formatter(state, exception)} {exception}".TrimEnd()));
            }
        }
    }
}
