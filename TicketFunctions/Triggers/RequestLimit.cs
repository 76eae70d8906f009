using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;
using System.Threading.RateLimiting;
using Microsoft.Extensions.Options;
using TicketFunctions.Tickets;

namespace TicketFunctions.Triggers;

/// <summary>
/// Admits so many requests at once as <see cref="TriageOptions.MaxConcurrentRequests"/> says, and so many a minute for each key as
/// <see cref="TriageOptions.RequestsPerMinute"/> says: better to refuse than to keep all waiting.
/// </summary>
public sealed class RequestLimit(IOptions<TriageOptions> options) : IDisposable
{
    internal const string KeyHeader = "x-functions-key";

    internal const string KeyQuery = "code";

    /// <summary>Buckets there are at most. Where nobody checks keys anybody can make them up; of the few true ones two rarely share a bucket.</summary>
    private const int Buckets = 4096;

    private readonly ConcurrencyLimiter _atOnce = new(new ConcurrencyLimiterOptions
    {
        PermitLimit = options.Value.MaxConcurrentRequests,
        QueueLimit = 0,
    });

    private readonly PartitionedRateLimiter<HttpRequest>? _perKey = options.Value.RequestsPerMinute is { } requests ? CreatePerKey(requests) : null;

    /// <returns>A place, to be disposed, or the problem to answer with.</returns>
    public (IDisposable? Place, Problem? Problem) Enter(HttpRequest request)
    {
        // The place first: who finds none has not used up anything.
        var place = _atOnce.AttemptAcquire();
        if (!place.IsAcquired)
        {
            return (null, Problem.RateLimited(TimeSpan.FromSeconds(1)));
        }

        if (_perKey?.AttemptAcquire(request) is { IsAcquired: false } refused)
        {
            place.Dispose();
            return (null, Problem.RateLimited(refused.TryGetMetadata(MetadataName.RetryAfter, out var wait) ? wait : TimeSpan.FromMinutes(1)));
        }

        return (place, null);
    }

    /// <summary>The key that a request shows, as the Functions host reads it: the header wins over the query.</summary>
    internal static string? ReadKey(HttpRequest request) =>
        request.Headers.TryGetValue(KeyHeader, out var header) ? header : request.Query[KeyQuery];

    public void Dispose()
    {
        _atOnce.Dispose();
        _perKey?.Dispose();
    }

    private static PartitionedRateLimiter<HttpRequest> CreatePerKey(int requestsPerMinute) =>
        PartitionedRateLimiter.Create<HttpRequest, int>(request => RateLimitPartition.GetTokenBucketLimiter(FindBucket(request), _ => new TokenBucketRateLimiterOptions
        {
            TokenLimit = requestsPerMinute,
            TokensPerPeriod = 1,
            ReplenishmentPeriod = TimeSpan.FromMinutes(1) / requestsPerMinute,
            QueueLimit = 0,
        }));

    private static int FindBucket(HttpRequest request) =>
        BinaryPrimitives.ReadUInt16LittleEndian(SHA256.HashData(Encoding.UTF8.GetBytes(ReadKey(request) ?? ""))) % Buckets;
}
