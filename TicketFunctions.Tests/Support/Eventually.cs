using System.Diagnostics;

namespace TicketFunctions.Tests.Support;

/// <summary>Waits for what nobody announces.</summary>
public static class Eventually
{
    /// <summary>Completes when the condition holds; fails when it does not within the limit, 30 s by default.</summary>
    public static async Task TrueAsync(Func<Task<bool>> condition, string what, TimeSpan? limit = null)
    {
        using var timer = new PeriodicTimer(TimeSpan.FromMilliseconds(20));
        var waited = Stopwatch.StartNew();
        while (!await condition())
        {
            Assert.True(waited.Elapsed < (limit ?? TimeSpan.FromSeconds(30)), $"Waited {waited.Elapsed.TotalSeconds:0} s in vain: {what}.");
            await timer.WaitForNextTickAsync();
        }
    }
}
