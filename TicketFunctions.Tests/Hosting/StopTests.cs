using System.Net;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Hosting;

public sealed class StopTests
{
    [Fact]
    public async Task A_stop_lets_short_calls_end_and_gives_back_what_takes_longer()
    {
        await using var app = await TicketApp.StartAsync(("Model__AttemptTimeout", "00:01:00"), ("Model__TotalTimeout", "00:01:00"));
        var holds = new[] { "corta", "larga", "corta del barrido", "larga del barrido" }.ToDictionary(text => text, text => app.Model.Hold(text));
        var shortId = await app.AddTicketAsync("corta");
        var longId = await app.AddTicketAsync("larga");
        var shortCall = app.ProcessAsync(shortId);
        var longCall = app.ProcessAsync(longId);
        await holds["corta"].Arrived;
        await holds["larga"].Arrived;
        var shortSweptId = await app.AddTicketAsync("corta del barrido");
        var longSweptId = await app.AddTicketAsync("larga del barrido");
        await app.PostAsync("{}", "/admin/functions/SweepTickets");
        await holds["corta del barrido"].Arrived;
        await holds["larga del barrido"].Arrived;
        var lateId = await app.AddTicketAsync("tarde");

        var stop = app.Services.GetRequiredService<IHost>().StopAsync();
        Assert.True(app.Services.GetRequiredService<IHostApplicationLifetime>().ApplicationStopping.IsCancellationRequested);
        holds["corta"].Release();
        holds["corta del barrido"].Release();

        using var answer = await shortCall;
        Assert.Equal(HttpStatusCode.OK, answer.StatusCode);
        Assert.False(stop.IsCompleted);
        using var given = await longCall;
        await given.AssertProblemAsync(503, "upstream-unavailable");
        Assert.NotNull(given.Headers.RetryAfter);
        await stop.WaitAsync(TimeSpan.FromSeconds(30));

        Assert.True((await app.ReadTicketAsync(shortId)).Processed);
        Assert.True((await app.ReadTicketAsync(shortSweptId)).Processed);

        // Given back: nobody holds them, they are due, and the attempt does not count.
        foreach (var id in new[] { longId, longSweptId })
        {
            Assert.False((await app.ReadTicketAsync(id)).Processed);
            Assert.Equal(
                "attempts 0, due true, held false",
                await app.QuerySingleAsync<string>(
                    "select format('attempts %s, due %s, held %s', attempts, (due_at <= now())::text, (lease_token is not null)::text) from ticket_work where ticket_id = @id",
                    new { id }));
        }

        // Nothing new was begun.
        Assert.Empty(app.Model.CallsFor("tarde"));
        Assert.Equal(0, await app.QuerySingleAsync<int>("select count(*) from ticket_work where ticket_id = @lateId", new { lateId }));
    }
}
