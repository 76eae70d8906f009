using System.Net;
using Microsoft.Extensions.Logging;
using TicketFunctions.Hosting.AspNetCore;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Hosting;

public sealed class TimerTests
{
    [Fact]
    public async Task The_sweep_runs_on_its_schedule_again_and_again_even_after_a_run_that_failed()
    {
        await using var app = await TicketApp.StartAsync(("SweepSchedule", "* * * * * *"));
        var first = await app.AddTicketAsync("El primero");
        await Eventually.TrueAsync(() => IsProcessedAsync(app, first), "the schedule sweeps");

        await app.ExecuteAsync("alter table ticket_work rename to elsewhere");
        await Eventually.TrueAsync(
            () => Task.FromResult(app.Log.Any(entry => entry.Level == LogLevel.Error && entry.Message.Contains("SweepTickets", StringComparison.Ordinal))),
            "a failed run is logged");
        await app.ExecuteAsync("alter table elsewhere rename to ticket_work");

        var second = await app.AddTicketAsync("El segundo");
        await Eventually.TrueAsync(() => IsProcessedAsync(app, second), "the schedule sweeps again");
    }

    [Fact]
    public async Task The_administrator_fires_the_sweep_by_name_and_does_not_wait_for_it()
    {
        await using var app = await TicketApp.StartAsync();
        const string Text = "Me urge";
        var hold = app.Model.Hold(Text);
        var id = await app.AddTicketAsync(Text);

        var accepted = await app.PostAsync("{}", "/admin/functions/SweepTickets");
        await hold.Arrived;

        Assert.Equal(HttpStatusCode.Accepted, accepted.StatusCode);
        Assert.Empty(await accepted.Content.ReadAsStringAsync());
        Assert.False((await app.ReadTicketAsync(id)).Processed);
        hold.Release();
        await Eventually.TrueAsync(() => IsProcessedAsync(app, id), "the sweep that was fired ends");
    }

    [Fact]
    public async Task Only_timers_can_be_fired()
    {
        await using var app = await TicketApp.StartAsync();

        await (await app.PostAsync("{}", "/admin/functions/Nothing")).AssertProblemAsync(404, "not-found");
        await (await app.PostAsync("{}", "/admin/functions/ProcessTicket")).AssertProblemAsync(404, "not-found");
        var get = await app.Http.GetAsync("/admin/functions/SweepTickets");
        await get.AssertProblemAsync(405, "method-not-allowed");
        Assert.Equal(["POST"], get.Content.Headers.Allow);
    }

    [Theory]
    [InlineData("")]
    [InlineData("nope")]
    [InlineData("* * * * *")]
    [InlineData("61 * * * * *")]
    [InlineData("0 0 0 31 13 *")]
    public void A_schedule_that_cannot_be_read_stops_the_start(string schedule)
    {
        var error = Assert.Throws<FormatException>(() => PlainHost.Build([new("SweepSchedule", schedule)]));

        Assert.Contains("SweepSchedule", error.Message, StringComparison.Ordinal);
        Assert.Contains("`0 */5 * * * *`", error.Message, StringComparison.Ordinal);
    }

    private static async Task<bool> IsProcessedAsync(TicketApp app, Guid id) => (await app.ReadTicketAsync(id)).Processed;
}
