using Microsoft.Extensions.Options;
using TicketFunctions.Classification;
using TicketFunctions.Storage;

namespace TicketFunctions.Tickets;

/// <summary>Calls, tokens and their price; no price where none is known.</summary>
public sealed record Spent(long Calls, long Tokens, decimal? Cost);

/// <summary>What is left of the daily budget; null where there is no cap.</summary>
public sealed record Budget(long? Tokens, decimal? Cost);

/// <summary>The current UTC day: what models cost, what reuse saved, what is left.</summary>
public sealed record Today(Spent Spent, Spent Saved, Budget Left);

/// <summary>
/// What models cost today, against <see cref="ModelOptions.TokensPerDay"/> and <see cref="ModelOptions.CostPerDay"/>.
/// The sum is the database's, read every few seconds at most, and the calls of this process since. It may be exceeded by the
/// calls under way, and by what other processes spent in those seconds.
/// </summary>
public sealed class Spending(TicketStore store, IOptions<ModelOptions> options, TimeProvider time) : IDisposable
{
    private static readonly TimeSpan MaxAge = TimeSpan.FromSeconds(5);

    private readonly ModelOptions _options = options.Value;
    private readonly SemaphoreSlim _reading = new(1, 1);
    private readonly Lock _sum = new();
    private long _tokens;
    private decimal _cost;
    private long _readAt;
    private TimeSpan? _untilTomorrow;

    /// <summary>How long until there is money again; null while there is some.</summary>
    /// <exception cref="TimeoutException">Somebody else has been asking the database for too long.</exception>
    public async Task<TimeSpan?> FindWaitAsync(CancellationToken cancellationToken)
    {
        if (_options.TokensPerDay is null && _options.CostPerDay is null)
        {
            return null;
        }

        // Where the database hangs, a line of readers who each wait for their own time-out would outlast their leases.
        if (!await _reading.WaitAsync(MaxAge, cancellationToken))
        {
            throw new TimeoutException("The database does not tell what today has cost.");
        }

        try
        {
            if (_untilTomorrow is null || time.GetElapsedTime(_readAt) is var age && (age >= MaxAge || age >= _untilTomorrow))
            {
                var day = await store.SumDayAsync(cancellationToken);
                _untilTomorrow = TimeSpan.FromSeconds(day.SecondsLeft);
                _readAt = time.GetTimestamp();
                lock (_sum)
                {
                    (_tokens, _cost) = (day.Tokens, day.Cost ?? 0);
                }
            }

            lock (_sum)
            {
                return _tokens >= _options.TokensPerDay || _cost >= _options.CostPerDay ? _untilTomorrow - time.GetElapsedTime(_readAt) : null;
            }
        }
        finally
        {
            _reading.Release();
        }
    }

    /// <summary>Counts calls that are not in the database yet.</summary>
    public void Add(IReadOnlyList<CallRecord> calls)
    {
        // Before they are written, so that no sum that is read meanwhile counts them twice.
        var usage = Usage.Of(calls);
        lock (_sum)
        {
            _tokens += (usage.TokensIn ?? 0) + (usage.TokensOut ?? 0);
            _cost += usage.Cost ?? 0;
        }
    }

    public async Task<Today> ReadTodayAsync(CancellationToken cancellationToken)
    {
        var day = await store.SumDayAsync(cancellationToken);
        return new Today(
            new Spent(day.Calls, day.Tokens, day.Cost),
            new Spent(day.SavedCalls, day.SavedTokens, day.SavedCost),
            new Budget(
                _options.TokensPerDay is { } tokens ? Math.Max(0, tokens - day.Tokens) : null,
                _options.CostPerDay is { } cost ? Math.Max(0, cost - (day.Cost ?? 0)) : null));
    }

    public void Dispose() => _reading.Dispose();
}
