using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.DependencyInjection;
using TicketFunctions.Classification;
using TicketFunctions.Tests.Support;
using static TicketFunctions.Classification.CallOutcome;
using Script = System.Func<TicketFunctions.Tests.Support.ModelCall, Microsoft.AspNetCore.Http.HttpContext, System.Threading.Tasks.Task>;

namespace TicketFunctions.Tests.Classification.Providers;

/// <summary>I6: whatever two models do one after the other, each is asked twice at most, and each question sent again as often as configured.</summary>
public sealed class CallCapTests
{
    private const int MaxRetries = 1;

    /// <summary>What the first model does, call by call, and then the second, as it is recorded.</summary>
    private static readonly Dictionary<string, (CallOutcome[] First, CallOutcome[] Second)> Sequences = new()
    {
        ["both fail and err as long as they are asked"] = ([Unavailable, Unparseable, Unavailable, OffTaxonomy], [RateLimited, Empty, Unavailable, Unparseable]),
        ["the first is down, the second errs once"] = ([Unavailable, Unavailable], [OffTaxonomy, Labelled]),
        ["the first errs, then is silent"] = ([Unparseable, TimedOut], [Labelled]),
        ["both are silent"] = ([TimedOut], [TimedOut]),
        ["refused by one, filtered by the other"] = ([Refused], [Filtered]),
        ["cut by one, no completion from the other"] = ([Truncated], [Malformed]),
        ["no key for one, no money for the other"] = ([Rejected], [QuotaSpent]),
        ["one retry helps"] = ([Unavailable, Labelled], []),
        ["one question more helps"] = ([Unparseable, Unavailable, Labelled], []),
    };

    public static TheoryData<string, string> Cells => Dialect.Cross(Sequences.Keys);

    [Theory]
    [MemberData(nameof(Cells))]
    public async Task Faults_one_after_the_other_cost_so_many_calls_and_no_more(string provider, string name)
    {
        var (first, second) = Sequences[name];
        await using var pair = await Pair.StartAsync(provider);
        pair.First.Default = pair.Play(pair.FirstDialect, first);
        pair.Second.Default = pair.Play(pair.SecondDialect, second);

        var result = await pair.Harness.ClassifyAsync("Uno tras otro.");

        Assert.Equal([.. first, .. second], result.Calls.Select(call => call.Outcome));
        Assert.Equal((first.Length, second.Length), (pair.First.Calls.Count, pair.Second.Calls.Count));
        Assert.Equal(first.Concat(second).Last() == Labelled, result is ClassificationResult.Labelled);
    }

    /// <summary>The same with faults drawn at random: a seed that fails is told by the test's name.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    public async Task Faults_at_random_never_cost_more_calls(int seed)
    {
        var random = new Random(seed);
        CallOutcome[] faults = [Labelled, Empty, Unparseable, OffTaxonomy, Truncated, Refused, Filtered, Malformed, Rejected, RateLimited, QuotaSpent, Unavailable];
        await using var pair = await Pair.StartAsync(Dialect.All.Keys.ElementAt(seed % Dialect.All.Count));
        for (var i = 1; i <= 60; i++)
        {
            var text = $"Al azar {i}.";
            var (first, second) = (random.GetItems(faults, 10), random.GetItems(faults, 10));
            pair.First.On(text, pair.Play(pair.FirstDialect, first));
            pair.Second.On(text, pair.Play(pair.SecondDialect, second));

            var result = await pair.Harness.ClassifyAsync(text);

            var (firstCalls, secondCalls) = (pair.First.CallsFor(text).Count, pair.Second.CallsFor(text).Count);
            Assert.Equal([.. first[..firstCalls], .. second[..secondCalls]], result.Calls.Select(call => call.Outcome));
            foreach (var calls in new[] { first[..firstCalls], second[..secondCalls] })
            {
                Assert.InRange(calls.Length, 0, 2 * (1 + MaxRetries));
                Assert.InRange(calls.Count(outcome => outcome <= Malformed), 0, 2);
            }

            Assert.Equal(result is ClassificationResult.Labelled, result.Calls[^1].Outcome == Labelled);
        }
    }

    [Fact]
    public async Task Nothing_is_sent_when_the_total_time_is_over()
    {
        await using var pair = await Pair.StartAsync("openai", ("Model__AttemptTimeout", "00:00:02"), ("Model__TotalTimeout", "00:00:02"));
        pair.First.On("Se acaba en la primera.", ModelStub.Hang);
        pair.First.On("Se acaba en la segunda.", ModelStub.Sequence(ModelStub.Content("hola"), ModelStub.Hang));

        foreach (var (text, calls) in new[] { ("Se acaba en la primera.", 1), ("Se acaba en la segunda.", 2) })
        {
            Assert.Equal(FailureKind.UpstreamTimeout, Assert.IsType<ClassificationResult.Failed>(await pair.Harness.ClassifyAsync(text)).Kind);
            Assert.Equal(calls, pair.First.CallsFor(text).Count);
        }

        // What came for a ticket later would be here by the time another one is labelled.
        Assert.IsType<ClassificationResult.Labelled>(await pair.Harness.ClassifyAsync("Otro."));
        Assert.Empty(pair.Second.Calls);
        Assert.Equal(4, pair.First.Calls.Count);
    }

    /// <summary>Hugging Face's router passes on what the provider behind it says; some take no strict schema, some none at all.</summary>
    [Fact]
    public async Task Other_forms_of_a_question_are_no_more_answers()
    {
        await using var pair = await Pair.StartAsync("huggingface", ("Model__Output", null));
        pair.First.Default = (call, context) =>
        {
            var format = call.Body["response_format"];
            var refusal = format?["json_schema"]?["strict"] is not null ? """{"message":"'strict' : Extra inputs are not permitted"}"""
                : (string?)format?["type"] == "json_schema" ? """{"error":"response_format json_schema is not supported"}"""
                : null;
            return (refusal is null ? ModelStub.Content("hola") : ModelStub.Raw(422, "application/json", refusal))(call, context);
        };
        pair.Second.Default = pair.Play(pair.SecondDialect, [Labelled]);

        var result = await pair.Harness.ClassifyAsync("De otra forma.");

        Assert.Equal([Rejected, Rejected, Unparseable, Unparseable, Labelled], result.Calls.Select(call => call.Outcome));
        Assert.Equal((4, 1), (pair.First.Calls.Count, pair.Second.Calls.Count));
    }

    /// <summary>A classifier before two models: one of this provider at two addresses, so that a retry need not wait, and one of the next.</summary>
    private sealed class Pair : IAsyncDisposable
    {
        private const string Labels = """{"category":"Tecnico","sentiment":"Negativo"}""";

        private static readonly TimeSpan AttemptTimeout = TimeSpan.FromSeconds(20);

        private readonly Alarm _alarm;

        private Pair(ModelHarness harness, Alarm alarm, ModelStub first, ModelStub second, Dialect firstDialect, Dialect secondDialect) =>
            (Harness, _alarm, First, Second, FirstDialect, SecondDialect) = (harness, alarm, first, second, firstDialect, secondDialect);

        public ModelHarness Harness { get; }

        public ModelStub First { get; }

        public ModelStub Second { get; }

        public Dialect FirstDialect { get; }

        public Dialect SecondDialect { get; }

        public static async Task<Pair> StartAsync(string provider, params (string Name, string? Value)[] settings)
        {
            var firstDialect = Dialect.All[provider];
            var secondDialect = Dialect.All.Values.SkipWhile(dialect => dialect != firstDialect).Skip(1).FirstOrDefault() ?? Dialect.All.Values.First();
            var (first, second) = (await ModelStub.StartAsync(), await ModelStub.StartAsync());
            var alarm = new Alarm(AttemptTimeout);
            var harness = await ModelHarness.StartAsync(
                services => services.AddSingleton<TimeProvider>(alarm),
                [
                    ("Model__Provider", provider),
                    ("Model__Endpoint", $"{first.Address},{first.Address}"),
                    ("Model__ApiKey", Dialect.Key),
                    ("Model__Output", "Schema"),
                    ("Model__Fallbacks__0__Provider", secondDialect.Provider),
                    ("Model__Fallbacks__0__Endpoint", $"{second.Address},{second.Address}"),
                    ("Model__Fallbacks__0__Name", "stub-model"),
                    ("Model__Fallbacks__0__ApiKey", Dialect.Key),
                    ("Model__Fallbacks__0__Output", "Schema"),
                    ("Model__MaxRetries", $"{MaxRetries}"),
                    ("Model__BreakDuration", "00:00:00"),
                    ("Model__AttemptTimeout", $"{AttemptTimeout}"),
                    .. settings,
                ]);
            return new Pair(harness, alarm, first, second, firstDialect, secondDialect);
        }

        /// <summary>Ends one call after the other as it is to be recorded. What comes after the last one would be labelled.</summary>
        public Script Play(Dialect dialect, IEnumerable<CallOutcome> outcomes)
        {
            return dialect.Serve(ModelStub.Sequence(
            [
                .. outcomes.Select(outcome => outcome switch
                {
                    Labelled => Answer(Labels),
                    Empty => Answer(""),
                    Unparseable => Answer("hola"),
                    OffTaxonomy => Answer("""{"category":"Magia","sentiment":"Neutral"}"""),
                    Truncated => Answer(Labels, "length"),
                    Filtered => Answer(Labels, "content_filter"),
                    Refused => ModelStub.Content(null, refusal: "No."),
                    Malformed => ModelStub.Json(200, new JsonObject()),
                    TimedOut => HangAsync,
                    Rejected => Dialect.Report(dialect.Errors["bad key"]),
                    RateLimited => Dialect.Report(dialect.Errors["too many requests"]),
                    QuotaSpent => ModelStub.Json(402, new JsonObject()),
                    _ => Dialect.Report(dialect.Errors["failing"]),
                }),
                Answer(Labels),
            ]));

            Task HangAsync(ModelCall call, HttpContext context)
            {
                _alarm.Ring();
                return ModelStub.Hang(call, context);
            }

            Script Answer(string content, string finishReason = "stop") => ModelStub.Json(200, dialect.Complete(content, finishReason));
        }

        public async ValueTask DisposeAsync()
        {
            await ((IAsyncDisposable)Harness).DisposeAsync();
            await First.DisposeAsync();
            await Second.DisposeAsync();
        }
    }
}
