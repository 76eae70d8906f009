using System.Globalization;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Tickets;

/// <summary>I25, as a ticket and its caller meet it: what lies beyond an attempt's time is kept with the ticket, within reason.</summary>
public sealed class RetryAfterTests
{
    [Theory]
    [InlineData(429, "Retry-After", "120", 120)]
    [InlineData(503, "Retry-After", "31.5", 31.5)]
    [InlineData(429, "retry-after-ms", "45000", 45)]
    [InlineData(503, "Retry-After", "7", 30)]
    [InlineData(429, "Retry-After", "0", 30)]
    [InlineData(429, "Retry-After", "-1", 30)]
    [InlineData(429, "Retry-After", "abc", 30)]
    [InlineData(429, "Retry-After", "NaN", 30)]
    [InlineData(429, "Retry-After", "Infinity", 30)]
    [InlineData(429, "Retry-After", "86400", 3600)]
    [InlineData(429, "Retry-After", "99999999999999999999999999", 30)]
    [InlineData(429, "retry-after-ms", "99999999999999999999999999", 30)]
    [InlineData(429, "Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT", 30)]
    [InlineData(429, "Retry-After", "Wed, 21 Oct 2099 07:28:00 GMT", 3600)]
    [InlineData(429, "Retry-After", "Wed, 99 Foo 2099", 30)]
    public async Task What_the_provider_asks_to_wait_is_honoured_within_reason(int status, string header, string value, double wait)
    {
        // An address that asked to be left alone is: each of these has its own.
        await using var app = await TicketApp.StartAsync();
        var id = await app.AddTicketAsync("Con prisa.");
        app.Model.Default = ModelStub.Raw(status, "application/json", "{}", (header, value));

        var response = await app.ProcessAsync(id);

        await response.AssertProblemAsync(503, "upstream-unavailable");
        Assert.Equal(Math.Ceiling(wait).ToString(CultureInfo.InvariantCulture), response.Headers.RetryAfter?.ToString());
        Assert.Single(app.Model.Calls);
        Assert.InRange(
            await app.QuerySingleAsync<double>("select extract(epoch from due_at - now())::float8 from ticket_work where ticket_id = @id and lease_token is null", new { id }),
            wait - 10,
            wait);
    }
}
