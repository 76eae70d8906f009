using System.Collections.Concurrent;

namespace TicketFunctions.Tickets;

/// <summary>Work that goes on after its caller has gone, and for a short grace after the process is asked to stop.</summary>
public sealed class WorkDrain : IHostedService, IDisposable
{
    /// <summary>What may still finish after the request to stop; anything longer is given back. Hosts grant 10 s and more.</summary>
    public static readonly TimeSpan Grace = TimeSpan.FromSeconds(5);

    private readonly CancellationTokenSource _source;
    private readonly CancellationTokenRegistration _registration;
    private readonly ConcurrentDictionary<Task, bool> _started = new();

    public WorkDrain(IHostApplicationLifetime lifetime, TimeProvider time)
    {
        _source = new CancellationTokenSource(Timeout.InfiniteTimeSpan, time);
        _registration = lifetime.ApplicationStopping.Register(() => _source.CancelAfter(Grace));
    }

    /// <summary>Cancelled when the grace is over.</summary>
    public CancellationToken Token => _source.Token;

    /// <summary>Starts work that nobody waits for but the stop of the process.</summary>
    /// <param name="work">Throws nothing: nobody would hear of it.</param>
    public void Start(Func<Task> work)
    {
        var started = Task.Run(work, CancellationToken.None);
        _started.TryAdd(started, true);
        _ = started.ContinueWith(ended => _started.TryRemove(ended, out _), TaskScheduler.Default);
    }

    Task IHostedService.StartAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    async Task IHostedService.StopAsync(CancellationToken cancellationToken) =>
        await Task.WhenAll(_started.Keys).WaitAsync(cancellationToken).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);

    public void Dispose()
    {
        _registration.Dispose();
        _source.Dispose();
    }
}
