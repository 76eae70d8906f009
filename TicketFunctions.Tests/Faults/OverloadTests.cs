using System.Diagnostics;
using System.Net;
using TicketFunctions.Tests.Support;
using Xunit.Abstractions;

namespace TicketFunctions.Tests.Faults;

/// <summary>More comes than the service can do.</summary>
public sealed class OverloadTests(ITestOutputHelper output)
{
    [Fact]
    public async Task Ten_times_too_many_requests_are_told_at_once_to_come_back_and_all_is_well_when_they_do()
    {
        const int Places = 8;
        await using var app = await TicketApp.StartAsync(("Triage__MaxConcurrentRequests", $"{Places}"), ("ConnectionStrings__Tickets", "Maximum Pool Size=4"));
        var hold = app.Model.HoldAll();
        var ids = await app.QueryAsync<Guid>(
            "insert into tickets (description) select format('demasiados %s', n) from generate_series(1, @count) as n returning id", new { count = 10 * Places });

        // Those who got a place hold it; all others have their answer before any of them.
        var waiting = Stopwatch.StartNew();
        var requests = ids.Select(id => app.ProcessAsync(id)).ToList();
        await hold.WaitForAsync(Places);
        var refused = new List<HttpResponseMessage>();
        await foreach (var request in Task.WhenEach(requests))
        {
            refused.Add(await request);
            if (refused.Count == requests.Count - Places)
            {
                break;
            }
        }

        output.WriteLine($"{refused.Count} of {requests.Count} refused in {waiting.Elapsed.TotalSeconds:0.00} s.");
        Assert.All(refused, answer => Assert.Equal((HttpStatusCode.TooManyRequests, true), (answer.StatusCode, answer.Headers.RetryAfter is not null)));
        Assert.Equal(HttpStatusCode.OK, (await app.Http.GetAsync("/health/ready")).StatusCode);
        Assert.Equal(Places, await app.QuerySingleAsync<int>("select count(*) from ticket_work"));
        hold.Release();
        Assert.Equal(Places, (await Task.WhenAll(requests)).Count(answer => answer.StatusCode == HttpStatusCode.OK));

        // They come back, no more at once than there are places.
        waiting.Restart();
        await Parallel.ForEachAsync(ids, new ParallelOptions { MaxDegreeOfParallelism = Places }, async (id, _) =>
            Assert.Equal(HttpStatusCode.OK, (await app.ProcessAsync(id)).StatusCode));
        output.WriteLine($"The rest took {waiting.Elapsed.TotalSeconds:0.00} s.");
        Assert.InRange(waiting.Elapsed, TimeSpan.Zero, TimeSpan.FromSeconds(30));
        Assert.Equal(ids.Count, app.Model.Calls.Count);
        Assert.All(await app.QueryAsync<int>("select attempts from ticket_decisions"), attempts => Assert.Equal(1, attempts));
    }
}
