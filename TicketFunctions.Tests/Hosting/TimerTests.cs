using System.Net;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
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
    public async Task A_clock_that_is_set_back_does_not_put_off_the_sweep()
    {
        await using var app = await TicketApp.StartAsync(null, services => services.AddSingleton<TimeProvider>(new SetBackTime()), ("SweepSchedule", "0 0 * * * *"));

        var id = await app.AddTicketAsync("Antes de hora");

        await Eventually.TrueAsync(() => IsProcessedAsync(app, id), "the sweep of the full hour that the clock shows comes");
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
    [InlineData("0 0 0 30 2 *")]
    public void A_schedule_that_cannot_be_read_or_never_comes_stops_the_start_of_either_host(string schedule)
    {
        KeyValuePair<string, string?>[] settings = [new("SweepSchedule", schedule), new("ConnectionStrings:Tickets", "Host=localhost")];
        var configuration = new ConfigurationBuilder().AddInMemoryCollection(settings).Build();
        using var worker = new ServiceCollection()
            .AddLogging().AddSingleton<IConfiguration>(configuration).AddTicketFunctions(configuration).BuildServiceProvider();

        foreach (var start in new[] { () => ((IDisposable)PlainHost.Build(settings)).Dispose(), () => TicketFunctionsSetup.Validate(worker) })
        {
            var error = Assert.Throws<FormatException>(start);

            Assert.Contains("SweepSchedule", error.Message, StringComparison.Ordinal);
            Assert.Contains("`0 */5 * * * *`", error.Message, StringComparison.Ordinal);
        }
    }

    private static async Task<bool> IsProcessedAsync(TicketApp app, Guid id) => (await app.ReadTicketAsync(id)).Processed;

    /// <summary>A clock that shows half past ten and, after a minute's wait, which takes no time, some moments before ten.</summary>
    private sealed class SetBackTime : TimeProvider
    {
        private readonly DateTimeOffset _started = DateTimeOffset.UtcNow;
        private DateTimeOffset _shown = new(2026, 12, 1, 10, 30, 0, TimeSpan.Zero);

        public override DateTimeOffset GetUtcNow() => _shown + (DateTimeOffset.UtcNow - _started);

        public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period)
        {
            if (dueTime != TimeSpan.FromMinutes(1))
            {
                return base.CreateTimer(callback, state, dueTime, period);
            }

            _shown = new DateTimeOffset(2026, 12, 1, 9, 59, 59, TimeSpan.Zero) - (DateTimeOffset.UtcNow - _started);
            return base.CreateTimer(callback, state, TimeSpan.Zero, period);
        }
    }
}
