using System.Diagnostics;
using System.Net;
using TicketFunctions.Tests.Support;
using Xunit.Abstractions;

namespace TicketFunctions.Tests.Faults;

/// <summary>The database crashes, stops taking writes, or moves to another server, and the product is not restarted.</summary>
public sealed class FailoverTests(ITestOutputHelper output)
{
    [Fact]
    public async Task After_a_crash_of_the_database_everything_goes_on_and_a_paid_answer_that_waited_for_it_is_stored()
    {
        await using var server = await FaultyPostgres.CreateAsync();
        await using var app = await StartAsync(server, server.Port);
        const string Text = "la base de datos cae mientras el modelo piensa";
        var thinking = await app.AddTicketAsync(Text);
        var next = await app.AddTicketAsync("llega durante la caída");
        var hold = app.Model.Hold(Text);
        var request = app.ProcessAsync(thinking);
        await hold.Arrived;
        await FillPoolAsync(app);

        await server.StopAsync();
        hold.Release();
        await AssertUnavailableAsync(app, next);
        await Eventually.TrueAsync(() => Task.FromResult(app.Log.Any(entry => entry.Message.Contains("(try 2", StringComparison.Ordinal))), "the answer could not be stored twice");
        var down = Stopwatch.StartNew();
        await server.StartAsync();
        var up = Stopwatch.StartNew();

        // From the first moment, by whichever connection of the pool.
        Assert.All(await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => app.Http.GetAsync("/health/ready"))), ready => Assert.Equal(HttpStatusCode.OK, ready.StatusCode));
        Assert.Equal("model", (string?)(await (await app.ProcessAsync(next)).ReadJsonAsync())["source"]);
        output.WriteLine($"Started in {(down.Elapsed - up.Elapsed).TotalSeconds:0.0} s; all well {up.Elapsed.TotalSeconds:0.00} s later.");
        Assert.Equal("model", (string?)(await (await request).ReadJsonAsync())["source"]);
        output.WriteLine($"The paid answer was stored after {up.Elapsed.TotalSeconds:0.0} s.");
        Assert.Single(app.Model.CallsFor(Text));
        Assert.Equal([1, 1], await app.QueryAsync<int>("select attempts from ticket_decisions"));
    }

    [Fact]
    public async Task A_database_that_takes_no_writes_is_not_ready_and_works_again_the_moment_it_does()
    {
        await using var server = await FaultyPostgres.CreateAsync();
        await using var app = await StartAsync(server, server.Port);
        var id = await app.AddTicketAsync("no se puede escribir");
        await FillPoolAsync(app);

        await server.SetReadOnlyAsync(true);
        await AssertUnavailableAsync(app, id);
        Assert.Equal(HttpStatusCode.OK, (await app.Http.GetAsync("/backlog")).StatusCode);
        await server.SetReadOnlyAsync(false);

        var healthy = Stopwatch.StartNew();
        Assert.Equal(HttpStatusCode.OK, (await app.Http.GetAsync("/health/ready")).StatusCode);
        Assert.Equal("model", (string?)(await (await app.ProcessAsync(id)).ReadJsonAsync())["source"]);
        output.WriteLine($"Healthy after {healthy.Elapsed.TotalSeconds:0.00} s.");
        Assert.InRange(healthy.Elapsed, TimeSpan.Zero, TimeSpan.FromSeconds(5));
        Assert.Equal(1, await app.QuerySingleAsync<int>("select attempts from ticket_decisions"));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_fail_over_fails_no_request_after_it_whether_the_old_server_dies_or_only_stops_writing(bool oldOneDies)
    {
        await using var primary = await FaultyPostgres.CreateAsync();
        await using var replica = await primary.CreateReplicaAsync();
        await using var proxy = new TcpProxy(primary.Port);
        await using var app = await StartAsync(primary, proxy.Port);
        const string Text = "el modelo piensa durante el cambio";
        var thinking = await app.AddTicketAsync(Text);
        var next = await app.AddTicketAsync("llega después del cambio");
        var hold = app.Model.Hold(Text);
        var request = app.ProcessAsync(thinking);
        await hold.Arrived;
        await FillPoolAsync(app);
        await replica.CatchUpAsync(primary);

        // The pool's connections are alive: on the old server every read would still succeed.
        if (oldOneDies)
        {
            await primary.StopAsync();
        }
        else
        {
            await primary.SetReadOnlyAsync(true);
        }

        await replica.PromoteAsync();
        proxy.Target = replica.Port;
        var waiting = Stopwatch.StartNew();
        var first = await app.Http.GetAsync("/health/ready");
        var second = await app.ProcessAsync(next);
        output.WriteLine($"Healthy {waiting.Elapsed.TotalSeconds:0.00} s after the fail-over.");
        Assert.InRange(waiting.Elapsed, TimeSpan.Zero, TimeSpan.FromSeconds(5));
        Assert.Equal(HttpStatusCode.OK, first.StatusCode);
        Assert.Equal("model", (string?)(await second.ReadJsonAsync())["source"]);
        Assert.All(await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => app.Http.GetAsync("/health/ready"))), ready => Assert.Equal(HttpStatusCode.OK, ready.StatusCode));

        hold.Release();
        Assert.Equal("model", (string?)(await (await request).ReadJsonAsync())["source"]);
        Assert.Single(app.Model.CallsFor(Text));
        Assert.Equal(2, await replica.QuerySingleAsync<int>("select count(*) from tickets join ticket_decisions on ticket_id = tickets.id where processed"));
    }

    /// <summary>The app by another port, or by the server's own.</summary>
    private static Task<TicketApp> StartAsync(FaultyPostgres server, int port) =>
        TicketApp.StartAsync(server.ConnectionString, null, ("ConnectionStrings__Tickets", $"Pooling=true;Port={port}"));

    /// <summary>Leaves several connections idle in the pool.</summary>
    private static async Task FillPoolAsync(TicketApp app) => Assert.All(
        await Task.WhenAll(Enumerable.Range(0, 8).Select(_ => app.Http.GetAsync("/health/ready"))), ready => Assert.Equal(HttpStatusCode.OK, ready.StatusCode));

    private static async Task AssertUnavailableAsync(TicketApp app, Guid id)
    {
        for (var n = 0; n < 3; n++)
        {
            var refused = await app.ProcessAsync(id);
            await refused.AssertProblemAsync(503, "storage-unavailable");
            Assert.NotNull(refused.Headers.RetryAfter);
            Assert.Equal(HttpStatusCode.ServiceUnavailable, (await app.Http.GetAsync("/health/ready")).StatusCode);
            Assert.Equal(HttpStatusCode.OK, (await app.Http.GetAsync("/health/live")).StatusCode);
        }
    }
}
