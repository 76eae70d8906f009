using System.Net;
using System.Text;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Options;
using TicketFunctions.Tests.Support;
using TicketFunctions.Tickets;
using TicketFunctions.Triggers;

namespace TicketFunctions.Tests.Triggers;

/// <summary>The limit per key. A bucket of one is full again after a minute, which no test waits for.</summary>
public sealed class RequestLimitTests
{
    [Fact]
    public async Task Each_key_has_its_own_share_and_what_is_beyond_it_is_429_with_a_time_to_come_back()
    {
        await using var app = await TicketApp.StartAsync(("Triage__RequestsPerMinute", "1"), ("Keys__Function", "f"), ("Keys__Admin", "a"));
        var id = await app.AddTicketAsync("Una por minuto.");
        var other = await app.AddTicketAsync("Otra.");

        Assert.Equal(HttpStatusCode.OK, (await SendAsync(app, id, header: "f")).StatusCode);
        var before = await app.ReadEverythingAsync();
        var refused = await SendAsync(app, other, header: "f");
        await refused.AssertProblemAsync(429, "rate-limited");
        Assert.InRange(refused.Headers.RetryAfter!.Delta!.Value.TotalSeconds, 1, 60);

        // However the key is shown, whatever is asked for, and without waiting too.
        await (await SendAsync(app, other, code: "f")).AssertProblemAsync(429, "rate-limited");
        await (await SendAsync(app, other, header: "f", code: "a")).AssertProblemAsync(429, "rate-limited");
        await (await SendAsync(app, other, header: "f", prefer: "respond-async")).AssertProblemAsync(429, "rate-limited");
        await (await app.Http.GetAsync("/models?code=f")).AssertProblemAsync(429, "rate-limited");
        Assert.Equal(before, await app.ReadEverythingAsync());
        Assert.Empty(app.Model.CallsFor("Otra."));

        // Another key has its own; a wrong one gets none.
        await (await SendAsync(app, other, header: "wrong")).AssertProblemAsync(401, "unauthorized");
        Assert.Equal(HttpStatusCode.OK, (await SendAsync(app, other, header: "a")).StatusCode);
        await (await SendAsync(app, other, header: "a")).AssertProblemAsync(429, "rate-limited");
        Assert.Equal(HttpStatusCode.OK, (await app.Http.GetAsync("/backlog?code=f")).StatusCode);
        Assert.Equal(0, (await app.SweepAsync()).Claimed);
    }

    [Fact]
    public async Task What_asks_for_nothing_does_not_count()
    {
        await using var app = await TicketApp.StartAsync(("Triage__RequestsPerMinute", "1"));
        var id = await app.AddTicketAsync("La primera que cuenta.");
        for (var i = 0; i < 5; i++)
        {
            await (await app.PostAsync("{")).AssertProblemAsync(400, "malformed-json");
            await (await app.PostAsync("{}")).AssertProblemAsync(400, "invalid-shape");
            Assert.Equal(HttpStatusCode.OK, (await app.PostAsync("""{"type":"DELETE","schema":"public","table":"tickets","record":null}""")).StatusCode);
        }

        Assert.Equal(HttpStatusCode.OK, (await app.ProcessAsync(id)).StatusCode);
        await (await app.ProcessAsync(id)).AssertProblemAsync(429, "rate-limited");
    }

    [Fact]
    public async Task The_share_comes_back_evenly()
    {
        using var limit = Create(requestsPerMinute: 60);
        for (var i = 0; i < 60; i++)
        {
            Assert.Null(limit.Enter(Request("k")).Problem);
        }

        // Sixty take no second, unless the machine is busy: then some came back already.
        Problem? problem;
        while ((problem = limit.Enter(Request("k")).Problem) is null)
        {
        }

        Assert.Equal((429, TimeSpan.FromSeconds(1)), (problem.Status, problem.RetryAfter));
        await Eventually.TrueAsync(() => Task.FromResult(limit.Enter(Request("k")).Problem is null), "a token has come back");
    }

    [Fact]
    public void Who_finds_no_place_uses_up_nothing_and_who_is_beyond_his_share_holds_no_place()
    {
        using var limit = Create(requestsPerMinute: 2, atOnce: 1);
        var (first, _) = limit.Enter(Request("k"));
        Assert.Equal(TimeSpan.FromSeconds(1), limit.Enter(Request("k")).Problem?.RetryAfter);
        first!.Dispose();
        limit.Enter(Request("k")).Place!.Dispose();

        Assert.Equal(TimeSpan.FromSeconds(30), limit.Enter(Request("k")).Problem?.RetryAfter);

        Assert.NotNull(limit.Enter(Request("l")).Place);
    }

    [Fact]
    public void Without_the_setting_only_those_at_once_are_limited()
    {
        using var limit = Create(requestsPerMinute: null, atOnce: 1);
        for (var i = 0; i < 10_000; i++)
        {
            limit.Enter(Request("k")).Place!.Dispose();
        }
    }

    [Fact]
    public void Keys_that_somebody_makes_up_share_a_fixed_number_of_buckets()
    {
        using var limit = Create(requestsPerMinute: 1);
        var admitted = 0;
        for (var i = 0; i < 100_000; i++)
        {
            var (place, _) = limit.Enter(Request($"key {i}"));
            place?.Dispose();
            admitted += place is null ? 0 : 1;
        }

        // Some of the buckets may be full again by the end.
        Assert.InRange(admitted, 4_000, 8_000);
    }

    private static RequestLimit Create(int? requestsPerMinute, int atOnce = 1000) =>
        new(Options.Create(new TriageOptions { RequestsPerMinute = requestsPerMinute, MaxConcurrentRequests = atOnce }));

    private static HttpRequest Request(string key) => new DefaultHttpContext { Request = { Headers = { ["x-functions-key"] = key } } }.Request;

    private static Task<HttpResponseMessage> SendAsync(TicketApp app, Guid id, string? header = null, string? code = null, string? prefer = null)
    {
        var request = new HttpRequestMessage(HttpMethod.Post, "/process-ticket" + (code is null ? "" : $"?code={code}"))
        {
            Content = new StringContent($$"""{"id":"{{id}}"}""", Encoding.UTF8, "application/json"),
        };
        if (header is not null)
        {
            request.Headers.Add("x-functions-key", header);
        }

        if (prefer is not null)
        {
            request.Headers.Add("Prefer", prefer);
        }

        return app.Http.SendAsync(request);
    }
}
