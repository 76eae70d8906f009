using System.Threading.RateLimiting;
using Microsoft.Extensions.Options;
using TicketFunctions.Tickets;

namespace TicketFunctions.Triggers;

/// <summary>Admits so many requests at once as <see cref="TriageOptions.MaxConcurrentRequests"/> says: better to refuse than to keep all waiting.</summary>
public sealed class RequestLimit(IOptions<TriageOptions> options) : IDisposable
{
    private readonly ConcurrencyLimiter _limiter = new(new ConcurrencyLimiterOptions
    {
        PermitLimit = options.Value.MaxConcurrentRequests,
        QueueLimit = 0,
    });

    /// <summary>A place, to be disposed; not acquired when there is none.</summary>
    public RateLimitLease TryEnter() => _limiter.AttemptAcquire();

    public void Dispose() => _limiter.Dispose();
}
