namespace TicketFunctions.Tickets;

/// <summary>Work that goes on after its caller has gone, and for a short grace after the process is asked to stop.</summary>
public sealed class WorkDrain : IDisposable
{
    /// <summary>What may still finish after the request to stop; anything longer is given back. Hosts grant 10 s and more.</summary>
    public static readonly TimeSpan Grace = TimeSpan.FromSeconds(5);

    private readonly CancellationTokenSource _source;
    private readonly CancellationTokenRegistration _registration;

    public WorkDrain(IHostApplicationLifetime lifetime, TimeProvider time)
    {
        _source = new CancellationTokenSource(Timeout.InfiniteTimeSpan, time);
        _registration = lifetime.ApplicationStopping.Register(() => _source.CancelAfter(Grace));
    }

    /// <summary>Cancelled when the grace is over.</summary>
    public CancellationToken Token => _source.Token;

    public void Dispose()
    {
        _registration.Dispose();
        _source.Dispose();
    }
}
