using Dapper;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using Npgsql;
using TicketFunctions.Classification;
using TicketFunctions.Tests.Support;
using TicketFunctions.Tickets;

namespace TicketFunctions.Tests.Tickets;

/// <summary>The daily budget: when it is used up tickets wait for the next day, and none is lost or parked.</summary>
public sealed class BudgetTests
{
    /// <summary>What one call of the stub takes.</summary>
    private const string OneCall = "338";

    [Fact]
    public async Task When_the_budget_is_used_up_a_ticket_waits_for_tomorrow_and_costs_neither_a_call_nor_an_attempt()
    {
        await using var app = await TicketApp.StartAsync(("Model__TokensPerDay", OneCall), ("Triage__MaxAttempts", "1"));
        var paid = await app.AddTicketAsync("Cabe en el presupuesto.");
        Assert.True((await app.ProcessAsync(paid)).IsSuccessStatusCode);

        var id = await app.AddTicketAsync("Ya no cabe.");
        for (var request = 1; request <= 3; request++)
        {
            var deferred = await app.ProcessAsync(id);
            var problem = await deferred.AssertProblemAsync(503, "upstream-unavailable");
            Assert.Equal("The daily budget for model calls is used up. The ticket stays unprocessed and is tried again later.", (string?)problem["detail"]);
            var untilTomorrow = TimeSpan.FromSeconds(await app.QuerySingleAsync<double>("select extract(epoch from date_trunc('day', now(), 'UTC') + interval '24 hours' - now())"));
            Assert.InRange(deferred.Headers.RetryAfter!.Delta!.Value, untilTomorrow - TimeSpan.FromSeconds(1), untilTomorrow + TimeSpan.FromMinutes(5.5));
            Assert.Equal(
                (0, true, "deferred: the daily budget for model calls is used up"),
                await app.QuerySingleAsync<(int, bool, string)>(
                    """
                    select
                      attempts,
                      lease_token is null and parked_at is null
                        and due_at - date_trunc('day', now(), 'UTC') between interval '24 hours' - interval '1 second' and interval '24 hours 5 minutes 1 second',
                      last_error
                    from ticket_work
                    where ticket_id = @id
                    """,
                    new { id }));
        }

        Assert.Single(app.Model.Calls);
        Assert.Equal((0, 0), await app.QuerySingleAsync<(int, int)>("select (select count(*) from ticket_failures), (select count(*) from ticket_text_locks)"));

        // What costs nothing goes on; a forced ticket keeps what it has.
        var same = await app.ProcessAsync(await app.AddTicketAsync("Cabe en el presupuesto."));
        Assert.Equal("reused", (string?)(await same.ReadJsonAsync())["source"]);
        var forced = await app.ProcessAsync(paid, query: "?force=true");
        var kept = await forced.AssertProblemAsync(503, "upstream-unavailable");
        Assert.Equal("The daily budget for model calls is used up. The ticket keeps the labels it had.", (string?)kept["detail"]);
        var tomorrowIn = TimeSpan.FromSeconds(await app.QuerySingleAsync<double>("select extract(epoch from date_trunc('day', now(), 'UTC') + interval '24 hours' - now())"));
        Assert.InRange(forced.Headers.RetryAfter!.Delta!.Value, tomorrowIn - TimeSpan.FromSeconds(1), tomorrowIn + TimeSpan.FromMinutes(5.5));
        Assert.Equal("stored", (string?)(await (await app.ProcessAsync(paid)).ReadJsonAsync())["source"]);
        Assert.Equal(0, await app.QuerySingleAsync<int>("select count(*) from ticket_work where ticket_id = @paid", new { paid }));
        Assert.Equal((0, 0), await app.QuerySingleAsync<(int, int)>("select (select count(*) from ticket_text_locks), (select count(*) from ticket_work where parked_at is not null)"));
        Assert.DoesNotContain(app.Log, entry => entry.Level >= LogLevel.Warning);

        // Tomorrow, when everything was yesterday, and in a process that does not remember today.
        await app.ExecuteAsync(
            """
            alter table ticket_decisions disable trigger ticket_decisions_are_final;
            update ticket_decisions set decided_at = decided_at - interval '1 day';
            """);
        await app.LetTimePassAsync();
        var tomorrow = CreateProcess(app, ActivatorUtilities.CreateInstance<Spending>(app.Services));
        Assert.True(await tomorrow.ProcessAsync(id, null, false, default, default) is TriageResult.Labelled { Source: "model" });
        Assert.Equal(1, await app.QuerySingleAsync<int>("select attempts from ticket_decisions where ticket_id = @id", new { id }));
    }

    [Fact]
    public async Task A_sweep_that_finds_the_budget_used_up_ends_and_leaves_the_rest_as_they_were()
    {
        await using var app = await TicketApp.StartAsync(
            ("Model__CostPerDay", "0.0011"), ("Model__InputPricePerMillion", "1.5"), ("Model__OutputPricePerMillion", "6"), ("Sweep__Concurrency", "1"));
        await app.ExecuteAsync("insert into tickets (description) select 'barrido ' || n from generate_series(1, 30) as n");

        // A call costs 0.0005835.
        var summary = await app.SweepAsync();

        Assert.Equal((3, 2, 1, 0, SweepEnd.BudgetSpent), (summary.Claimed, summary.Labelled, summary.Waiting, summary.Parked, summary.End));
        Assert.Equal(2, app.Model.Calls.Count);
        Assert.Equal(1, await app.QuerySingleAsync<int>("select count(*) from ticket_work"));
        Assert.Contains(app.Log, entry => entry.Message.EndsWith("(daily budget spent)", StringComparison.Ordinal));
        Assert.Equal(0.001167m, await app.QuerySingleAsync<decimal>("select sum(cost) from ticket_decisions"));

        // The next one finds the same after one ticket, and does not come to this one again before tomorrow.
        var next = await app.SweepAsync();
        Assert.Equal((1, 0, 1, 0, SweepEnd.BudgetSpent), (next.Claimed, next.Labelled, next.Waiting, next.Parked, next.End));
        Assert.Equal(2, await app.QuerySingleAsync<int>("select count(*) from ticket_work where attempts = 0"));
    }

    [Fact]
    public async Task The_budget_is_exceeded_by_the_calls_under_way_and_no_more()
    {
        await using var app = await TicketApp.StartAsync(("Model__TokensPerDay", "1"));
        await app.ExecuteAsync("insert into tickets (description) select 'a la vez ' || n from generate_series(1, 30) as n");

        var summary = await app.SweepAsync();

        Assert.Equal(SweepEnd.BudgetSpent, summary.End);
        Assert.InRange(app.Model.Calls.Count, 1, 8);
        Assert.Equal(summary.Labelled, app.Model.Calls.Count);
    }

    [Fact]
    public async Task Answers_without_labels_are_spent_like_any_other()
    {
        await using var app = await TicketApp.StartAsync(("Model__TokensPerDay", "600"));
        app.Model.On("En vano.", ModelStub.Content("nada"));
        await (await app.ProcessAsync(await app.AddTicketAsync("En vano."))).AssertProblemAsync(502, "upstream-invalid");

        await (await app.ProcessAsync(await app.AddTicketAsync("Tarde."))).AssertProblemAsync(503, "upstream-unavailable");
        var other = CreateProcess(app, ActivatorUtilities.CreateInstance<Spending>(app.Services));
        Assert.True(
            await other.ProcessAsync(await app.AddTicketAsync("También tarde."), null, false, default, default) is TriageResult.RetryLater { Kind: FailureKind.BudgetSpent });

        Assert.Equal(2, app.Model.Calls.Count);
    }

    [Fact]
    public async Task What_other_processes_spend_is_noticed_after_seconds_and_ones_own_calls_at_once()
    {
        await using var app = await TicketApp.StartAsync(("Model__TokensPerDay", "1000"));
        var time = new ShiftedTime();
        var spending = ActivatorUtilities.CreateInstance<Spending>(app.Services, time);
        Assert.Null(await spending.FindWaitAsync(default));

        for (var n = 1; n <= 3; n++)
        {
            Assert.True((await app.ProcessAsync(await app.AddTicketAsync($"de otro proceso {n}"))).IsSuccessStatusCode);
        }

        Assert.Null(await spending.FindWaitAsync(default));
        time.Advance(TimeSpan.FromSeconds(5));
        Assert.InRange((await spending.FindWaitAsync(default))!.Value, TimeSpan.FromSeconds(-10), TimeSpan.FromHours(24));

        var own = ActivatorUtilities.CreateInstance<Spending>(
            app.Services, Options.Create(new ModelOptions { CostPerDay = 0.5m }), TimeProvider.System);
        Assert.Null(await own.FindWaitAsync(default));
        own.Add([ScriptedClassifier.Call("m", cost: 0.3m)]);
        Assert.Null(await own.FindWaitAsync(default));
        own.Add([ScriptedClassifier.Call("m", cost: null), ScriptedClassifier.Call("m", cost: 0.2m)]);
        Assert.NotNull(await own.FindWaitAsync(default));
    }

    [Fact]
    public async Task A_database_that_does_not_tell_the_sum_keeps_nobody_waiting_in_line_beyond_his_lease()
    {
        await using var app = await TicketApp.StartAsync(("Model__TokensPerDay", "1000"), ("ConnectionStrings__Tickets", "Command Timeout=20"));
        var spending = app.Services.GetRequiredService<Spending>();
        await using var connection = new NpgsqlConnection(app.ConnectionString);
        await connection.OpenAsync();
        await using var transaction = await connection.BeginTransactionAsync();
        await connection.ExecuteAsync("lock table ticket_decisions");

        var first = spending.FindWaitAsync(default);
        await Assert.ThrowsAsync<TimeoutException>(() => spending.FindWaitAsync(default));

        await transaction.CommitAsync();
        Assert.Null(await first);
        Assert.Null(await spending.FindWaitAsync(default));
    }

    private static TicketTriage CreateProcess(TicketApp app, Spending spending) => ActivatorUtilities.CreateInstance<TicketTriage>(app.Services, spending);
}
