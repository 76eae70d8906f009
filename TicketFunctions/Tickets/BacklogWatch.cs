using System.Diagnostics.Metrics;
using TicketFunctions.Storage;

namespace TicketFunctions.Tickets;

/// <summary>
/// What the gauges of the backlog tell: what was counted last, by a sweep at its end, and in a serving process every
/// <see cref="Period"/> while somebody collects them. While the database cannot be asked they tell nothing.
/// </summary>
public sealed partial class BacklogWatch : BackgroundService
{
    /// <summary>How often the backlog is counted for the gauges.</summary>
    public static readonly TimeSpan Period = TimeSpan.FromSeconds(30);

    private readonly TicketStore _store;
    private readonly TimeProvider _time;
    private readonly ILogger<BacklogWatch> _logger;
    private readonly ObservableGauge<double> _gauge;
    private Backlog? _last;

    public BacklogWatch(TicketStore store, TimeProvider time, ILogger<BacklogWatch> logger)
    {
        _store = store;
        _time = time;
        _logger = logger;
        _gauge = Telemetry.ObserveBacklog(() => Volatile.Read(ref _last));
    }

    /// <summary>Counts the backlog; null when the database cannot be asked.</summary>
    public async Task<Backlog?> CountAsync(CancellationToken cancellationToken)
    {
        Backlog? counted = null;
        try
        {
            counted = await _store.CountBacklogAsync(cancellationToken);
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            // Whatever it is: what only tells of the work must not end it.
            Log.NotCounted(_logger, e.GetType().Name, StorageFaults.NameOf(e));
        }

        Volatile.Write(ref _last, counted);
        return counted;
    }

    protected override async Task ExecuteAsync(CancellationToken stoppingToken)
    {
        using var timer = new PeriodicTimer(Period, _time);
        try
        {
            do
            {
                if (_gauge.Enabled)
                {
                    await CountAsync(stoppingToken);
                }
            }
            while (await timer.WaitForNextTickAsync(stoppingToken));
        }
        catch (OperationCanceledException) when (stoppingToken.IsCancellationRequested)
        {
            // Also when the host never started: it would take this for a crash.
        }
    }

    public override void Dispose()
    {
        _gauge.Meter.Dispose();
        base.Dispose();
    }

    private static partial class Log
    {
        [LoggerMessage(Level = LogLevel.Warning, Message = "The backlog could not be counted ({Exception} {SqlState})")]
        public static partial void NotCounted(ILogger logger, string exception, string sqlState);
    }
}
