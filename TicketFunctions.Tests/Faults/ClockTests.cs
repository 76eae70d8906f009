using Microsoft.Extensions.DependencyInjection;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Faults;

/// <summary>Processes whose clocks are wrong. Only the database's decides about leases.</summary>
public sealed class ClockTests
{
    [Theory]
    [InlineData(2, -2)]
    [InlineData(-2, 2)]
    public async Task A_clock_that_is_hours_wrong_neither_ends_a_lease_nor_lengthens_it(int hoursOfFirst, int hoursOfSecond)
    {
        await using var first = await TicketApp.StartAsync(null, SetClock(hoursOfFirst));
        await using var second = await TicketApp.StartAsync(first.ConnectionString, SetClock(hoursOfSecond), ("ConnectionStrings__Tickets", "Application Name=second"));
        const string Text = "los relojes no coinciden";
        var id = await first.AddTicketAsync(Text);
        var hold = first.Model.Hold(Text);
        var request = first.ProcessAsync(id);
        await hold.Arrived;

        Assert.InRange(await first.QuerySingleAsync<double>("select extract(epoch from due_at - now())::float8 from ticket_work"), 60, 90);
        await (await second.ProcessAsync(id)).AssertProblemAsync(409, "ticket-in-progress");
        Assert.Equal(0, (await second.SweepAsync()).Claimed);
        await first.LetTimePassAsync();
        Assert.Equal(1, (await second.SweepAsync()).Labelled);

        // A wait after a failure is the database's as well.
        var failing = await first.AddTicketAsync("falla");
        first.Model.On("falla", ModelStub.Content("nada"));
        second.Model.On("falla", ModelStub.Content("nada"));
        await first.ProcessAsync(failing);
        Assert.InRange(await first.QuerySingleAsync<double>("select extract(epoch from due_at - now())::float8 from ticket_work"), 20, 30);
        Assert.Equal(0, (await second.SweepAsync()).Claimed);
        await first.LetTimePassAsync();
        Assert.Equal(1, (await second.SweepAsync()).Claimed);

        hold.Release();
        Assert.Equal("stored", (string?)(await (await request).ReadJsonAsync())["source"]);
        Assert.Equal(2, await first.QuerySingleAsync<int>("select attempts from ticket_decisions"));
    }

    private static Action<IServiceCollection> SetClock(int hours) => services => services.AddSingleton<TimeProvider>(new WrongTime(TimeSpan.FromHours(hours)));

    private sealed class WrongTime(TimeSpan error) : TimeProvider
    {
        public override DateTimeOffset GetUtcNow() => base.GetUtcNow() + error;
    }
}
