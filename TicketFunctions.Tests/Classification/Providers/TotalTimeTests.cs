using System.Diagnostics;
using System.Text;
using TicketFunctions.Classification;

namespace TicketFunctions.Tests.Classification.Providers;

/// <summary>I27: what does not end by itself is ended, and its server sees it.</summary>
public sealed class TotalTimeTests
{
    /// <summary>Answers that do not come to an end by themselves, and how the call ends.</summary>
    private static readonly Dictionary<string, (CallOutcome Outcome, Func<Dialect, RawCall, Task> Script)> Silences = new()
    {
        ["silence"] = (CallOutcome.TimedOut, (_, _) => Task.CompletedTask),
        ["silence after the headers"] = (CallOutcome.TimedOut, (dialect, call) => call.SendAsync(Answer(dialect)[..^Body(dialect).Length])),
        ["a byte a second"] = (CallOutcome.TimedOut, (dialect, call) => call.DripAsync(Encoding.UTF8.GetBytes(Answer(dialect)), TimeSpan.FromSeconds(1))),
        ["half an answer, half-closed"] = (CallOutcome.Unavailable, HalfCloseAsync),
    };

    public static TheoryData<string> Providers => [.. Dialect.All.Keys];

    [Theory]
    [MemberData(nameof(Providers))]
    public Task The_total_time_ends_what_does_not_end_and_the_server_sees_it(string provider) =>
        Task.WhenAll(Silences.Keys.Select(name => AssertEndsAsync(provider, name)));

    private static async Task AssertEndsAsync(string provider, string name)
    {
        // Long enough for a busy machine to bring the call there.
        var total = TimeSpan.FromSeconds(3);
        var (outcome, script) = Silences[name];
        await using var server = new RawModelServer(async call =>
        {
            await script(Dialect.All[provider], call);
            await call.HangAsync();
        });
        await using var harness = await ModelHarness.StartAsync(
            null,
            ("Model__Provider", provider),
            ("Model__Endpoint", server.Address),
            ("Model__ApiKey", Dialect.Key),
            ("Model__MaxRetries", "0"),
            ("Model__AttemptTimeout", $"{total}"),
            ("Model__TotalTimeout", $"{total}"));
        var watch = Stopwatch.StartNew();

        var failed = Assert.IsType<ClassificationResult.Failed>(await harness.ClassifyAsync("No acaba."));

        Assert.InRange(watch.Elapsed, TimeSpan.Zero, total + TimeSpan.FromSeconds(1));
        Assert.Equal(outcome, Assert.Single(failed.Calls).Outcome);
        await Assert.Single(server.Calls).Left.WaitAsync(TimeSpan.FromSeconds(30));
        Assert.Single(server.Calls);
    }

    private static async Task HalfCloseAsync(Dialect dialect, RawCall call)
    {
        await call.SendAsync(Answer(dialect)[..^100]);
        call.HalfClose();
    }

    private static string Body(Dialect dialect) => dialect.Complete("").ToJsonString();

    private static string Answer(Dialect dialect) => dialect.Write(Body(dialect));
}
