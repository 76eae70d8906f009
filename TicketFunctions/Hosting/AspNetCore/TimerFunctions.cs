using System.Collections.Concurrent;
using System.Reflection;
using Microsoft.Azure.Functions.Worker;
using TicketFunctions.Storage;
using TicketFunctions.Triggers;

namespace TicketFunctions.Hosting.AspNetCore;

/// <summary>Runs the timer functions: on their schedules, and when the admin endpoint asks.</summary>
public sealed partial class TimerFunctions(
    IServiceProvider services,
    IConfiguration configuration,
    IHostApplicationLifetime lifetime,
    TimeProvider time,
    ILogger<TimerFunctions> logger) : BackgroundService
{
    private static readonly TimeSpan LongestWait = TimeSpan.FromMinutes(1);

    private readonly List<TimerFunction> _functions = [.. TriggerFunctions.FindTimers(configuration)];
    private readonly ConcurrentDictionary<Task, bool> _started = new();

    /// <summary>Starts a run at once; it goes on after the caller has gone, and the stop of the process waits for it.</summary>
    /// <returns>False when there is no timer function of that name.</returns>
    public bool TryStart(string name)
    {
        var function = _functions.Find(function => function.Name.Equals(name, StringComparison.OrdinalIgnoreCase));
        if (function is null)
        {
            return false;
        }

        var run = RunAsync(function, new TimerInfo(), lifetime.ApplicationStopping);
        _started.TryAdd(run, true);
        _ = run.ContinueWith(ended => _started.TryRemove(ended, out _), TaskScheduler.Default);
        return true;
    }

    public override async Task StopAsync(CancellationToken cancellationToken)
    {
        await base.StopAsync(cancellationToken);
        await Task.WhenAll(_started.Keys).WaitAsync(cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
    }

    // Services are stopped one after the other, the web server first: the token of our own comes when its last request has ended.
    protected override Task ExecuteAsync(CancellationToken stoppingToken) =>
        Task.WhenAll(_functions.Select(function => RunOnScheduleAsync(function, lifetime.ApplicationStopping)));

    private async Task RunOnScheduleAsync(TimerFunction function, CancellationToken stopping)
    {
        var last = default(DateTime);
        try
        {
            while (true)
            {
                var now = time.GetUtcNow().UtcDateTime;
                var next = function.Schedule.GetNextOccurrence(now);

                // Never long at once: a clock that is set back brings the next run nearer.
                while (next - now > TimeSpan.Zero)
                {
                    await Task.Delay(next - now < LongestWait ? next - now : LongestWait, time, stopping);
                    var before = now;
                    now = time.GetUtcNow().UtcDateTime;
                    next = now < before ? function.Schedule.GetNextOccurrence(now) : next;
                }

                await RunAsync(
                    function,
                    new TimerInfo
                    {
                        ScheduleStatus = new ScheduleStatus { Last = last, Next = function.Schedule.GetNextOccurrence(now), LastUpdated = last },
                    },
                    stopping);
                last = now;
            }
        }
        catch (OperationCanceledException) when (stopping.IsCancellationRequested)
        {
        }
    }

    private async Task RunAsync(TimerFunction function, TimerInfo info, CancellationToken stopping)
    {
        try
        {
            await using var scope = services.CreateAsyncScope();
            var target = scope.ServiceProvider.GetRequiredService(function.Method.DeclaringType!);
            var arguments = function.Method.GetParameters().Select<ParameterInfo, object>(
                parameter => parameter.ParameterType == typeof(CancellationToken) ? stopping : info);
            await (Task)function.Method.Invoke(target, BindingFlags.DoNotWrapExceptions, null, [.. arguments], null)!;
        }
        catch (OperationCanceledException) when (stopping.IsCancellationRequested)
        {
        }
        catch (Exception e)
        {
            // As in the Functions host, a failed run is logged and the next one comes on schedule.
            Log.Failed(logger, function.Name, StorageFaults.Describe(e));
        }
    }

    private static partial class Log
    {
        [LoggerMessage(Level = LogLevel.Error, Message = "Timer {Name} failed; it runs again on its schedule: {Details}")]
        public static partial void Failed(ILogger logger, string name, string details);
    }
}
