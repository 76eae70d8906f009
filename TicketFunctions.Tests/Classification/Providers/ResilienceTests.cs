using System.Globalization;
using System.Net;
using System.Net.Sockets;
using System.Text.Json.Nodes;
using Microsoft.Extensions.DependencyInjection;
using TicketFunctions.Classification;
using TicketFunctions.Tests.Support;
using Script = System.Func<TicketFunctions.Tests.Support.ModelCall, Microsoft.AspNetCore.Http.HttpContext, System.Threading.Tasks.Task>;

namespace TicketFunctions.Tests.Classification.Providers;

/// <summary>What becomes of a model's server that fails: I25, I26, I29, I30, I31, and several addresses for one model.</summary>
public sealed class ResilienceTests
{
    private static readonly Script Down = ModelStub.Json(500, new JsonObject());

    private static readonly Script Good = ModelStub.Labels("Tecnico", "Negativo");

    public static TheoryData<int, string> Permanent => new()
    {
        { 400, "{}" },
        { 401, """{"error":{"code":"invalid_api_key"}}""" },
        { 402, """{"error":"You have exceeded your monthly included credits"}""" },
        { 403, "{}" },
        { 404, """{"error":{"code":"model_not_found"}}""" },
        { 405, "{}" },
        { 413, "{}" },
        { 422, "{}" },
        { 429, """{"error":{"code":"insufficient_quota","message":"You exceeded your current quota, please check your plan and billing details."}}""" },
        { 400, """{"error":{"code":"content_filter","innererror":{"code":"ResponsibleAIPolicyViolation"}}}""" },
        { 307, "" },
    };

    [Theory]
    [MemberData(nameof(Permanent))]
    public async Task What_will_not_pass_is_not_tried_again(int status, string body)
    {
        await using var harness = await ModelHarness.StartAsync(null, ("Model__MaxRetries", "5"));
        harness.Model.Default = ModelStub.Raw(status, "application/json", body, ("Location", "/v1/chat/completions"));

        var failed = Assert.IsType<ClassificationResult.Failed>(await harness.ClassifyAsync("Una sola vez."));

        Assert.Single(harness.Model.Calls);
        Assert.Equal(status, Assert.Single(failed.Calls).Status);
    }

    [Theory]
    [InlineData(429)]
    [InlineData(500)]
    [InlineData(502)]
    [InlineData(503)]
    [InlineData(529)]
    [InlineData(0)]
    public async Task What_may_pass_is_tried_again_at_most_as_often_as_configured(int status)
    {
        await using var harness = await ModelHarness.StartAsync(null, ("Model__MaxRetries", "1"));
        Script fault = status == 0 ? ModelStub.Abort : ModelStub.Json(status, new JsonObject());
        harness.Model.On("Pasa.", ModelStub.Sequence(fault, Good));
        harness.Model.On("No pasa.", fault);

        var labelled = Assert.IsType<ClassificationResult.Labelled>(await harness.ClassifyAsync("Pasa."));
        var failed = Assert.IsType<ClassificationResult.Failed>(await harness.ClassifyAsync("No pasa."));

        var outcome = status == 429 ? CallOutcome.RateLimited : CallOutcome.Unavailable;
        Assert.Equal([outcome, CallOutcome.Labelled], labelled.Calls.Select(call => call.Outcome));
        Assert.Equal([outcome, outcome], failed.Calls.Select(call => call.Outcome));
        Assert.Equal(2, harness.Model.CallsFor("No pasa.").Count);
        Assert.Equal((FailureKind.UpstreamUnavailable, false), (failed.Kind, failed.WasAnswered));
    }

    /// <summary>What OpenAI, Groq and Gemini say to a low tier: that one may pay for more does not mean that the account is empty.</summary>
    [Theory]
    [InlineData("Rate limit reached for gpt-4.1-mini on requests per min (RPM): Limit 3. Please try again in 20ms. You can increase your rate limit by adding a payment method to your account at https://platform.openai.com/account/billing.")]
    [InlineData("Rate limit reached for model `llama-3.3-70b-versatile` on tokens per minute (TPM). Need more tokens? Upgrade to Dev Tier today at https://console.groq.com/settings/billing")]
    [InlineData("You exceeded your current quota, please check your plan and billing details. * Quota exceeded for metric: generate_content_paid_tier_input_token_count, limit: 1000000 Please retry in 250.5ms.")]
    public async Task A_rate_limit_that_offers_to_pay_for_more_is_still_one(string message)
    {
        await using var harness = await ModelHarness.StartAsync(null, ("Model__MaxRetries", "1"));
        harness.Model.Default = ModelStub.Sequence(
            ModelStub.Json(429, new JsonObject { ["error"] = new JsonObject { ["message"] = message, ["code"] = "rate_limit_exceeded" } }), Good);

        var labelled = Assert.IsType<ClassificationResult.Labelled>(await harness.ClassifyAsync("Nivel gratuito."));

        Assert.Equal([CallOutcome.RateLimited, CallOutcome.Labelled], labelled.Calls.Select(call => call.Outcome));
    }

    [Fact]
    public async Task A_silent_model_is_not_asked_again_since_its_first_answer_may_have_been_paid()
    {
        await using var harness = await ModelHarness.StartAsync(null, ("Model__AttemptTimeout", "00:00:00.3"), ("Model__TotalTimeout", "00:00:10"));
        harness.Model.Default = ModelStub.Hang;

        var failed = Assert.IsType<ClassificationResult.Failed>(await harness.ClassifyAsync("Silencio."));

        Assert.Single(harness.Model.Calls);
        Assert.Equal((FailureKind.UpstreamTimeout, CallOutcome.TimedOut), (failed.Kind, Assert.Single(failed.Calls).Outcome));
    }

    /// <summary>A host that is off answers nothing: like one whose line of waiting connections is full.</summary>
    [Theory]
    [InlineData(20)]
    [InlineData(1)]
    public async Task A_server_that_takes_no_connections_is_out_of_reach_and_the_next_address_is_asked(int attemptTimeout)
    {
        if (OperatingSystem.IsWindows())
        {
            // There such a server refuses the connection.
            return;
        }

        using var full = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        full.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        full.Listen(0);
        using var waiting = new TcpClient();
        await waiting.ConnectAsync((IPEndPoint)full.LocalEndPoint!);
        var off = $"http://{full.LocalEndPoint}/v1";

        var timeout = ("Model__AttemptTimeout", $"00:00:{attemptTimeout}");
        await using var alone = await ModelHarness.StartAsync(null, timeout, ("Model__Endpoint", off), ("Model__MaxRetries", "0"));
        await using var backed = await ModelHarness.StartAsync(null, timeout, ("Model__Endpoint", $"{off},{alone.Model.Endpoint}"));
        var results = await Task.WhenAll([alone.ClassifyAsync("Nadie."), .. Enumerable.Range(1, 2).Select(n => backed.ClassifyAsync($"El otro, {n}."))]);

        var failed = Assert.IsType<ClassificationResult.Failed>(results[0]);
        Assert.Equal((FailureKind.UpstreamUnavailable, CallOutcome.Unavailable), (failed.Kind, Assert.Single(failed.Calls).Outcome));
        Assert.All(results[1..], result => Assert.IsType<ClassificationResult.Labelled>(result));
        Assert.Contains(results[1..], result => result.Calls[0].Outcome == CallOutcome.Unavailable);
    }

    /// <summary>Waits within the budget are waited for; what lies beyond it ends the attempt at once, and says when to come back.</summary>
    [Theory]
    [InlineData("Retry-After", "1", 2, null)]
    [InlineData("retry-after-ms", "600", 2, null)]
    [InlineData("Retry-After", "0", 2, null)]
    [InlineData("Retry-After", "-1", 2, null)]
    [InlineData("Retry-After", "abc", 2, null)]
    [InlineData("Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT", 2, null)]
    [InlineData("Retry-After", "12-31", 2, null)]
    [InlineData("Retry-After", "23:59", 2, null)]
    [InlineData("Retry-After", "1, 1", 2, null)]
    [InlineData("Retry-After", "12, 3600", 1, 3600d)]
    [InlineData("Retry-After", "3600", 1, 3600d)]
    [InlineData("Retry-After", "86400", 1, 86400d)]
    [InlineData("retry-after-ms", "3600000", 1, 3600d)]
    public async Task A_wait_that_the_server_asks_for_is_kept_within_the_budget(string header, string value, int calls, double? retryAfter)
    {
        await using var harness = await ModelHarness.StartAsync(null, ("Model__TotalTimeout", "00:00:08"), ("Model__AttemptTimeout", "00:00:05"));
        harness.Model.Default = ModelStub.Sequence(ModelStub.Raw(429, "application/json", "{}", (header, value)), Good);
        var started = TimeProvider.System.GetTimestamp();

        var result = await harness.ClassifyAsync("Espera.");

        Assert.Equal(calls, harness.Model.Calls.Count);
        Assert.Equal(calls == 2, result is ClassificationResult.Labelled);
        Assert.Equal(retryAfter, (result as ClassificationResult.Failed)?.RetryAfter?.TotalSeconds);
        if (value is "1" or "600")
        {
            var asked = double.Parse(value, CultureInfo.InvariantCulture) * (value == "1" ? 1000 : 1);
            Assert.True(TimeProvider.System.GetElapsedTime(started).TotalMilliseconds >= asked - 20, "It came back too early.");
        }
    }

    [Fact]
    public async Task While_a_server_asks_to_be_left_alone_nobody_calls_it()
    {
        await using var harness = await ModelHarness.StartAsync(null, ("Model__MaxRetries", "0"), ("Model__TotalTimeout", "00:00:05"), ("Model__AttemptTimeout", "00:00:05"));
        harness.Model.Default = ModelStub.Raw(503, "application/json", "{}", ("Retry-After", "86400"));

        await harness.ClassifyAsync("Quien lo oye.");
        var next = Assert.IsType<ClassificationResult.Failed>(await harness.ClassifyAsync("Quien viene después."));

        Assert.Single(harness.Model.Calls);
        Assert.Empty(next.Calls);
        Assert.Equal(FailureKind.UpstreamUnavailable, next.Kind);

        // Not for a day: a minute later somebody asks again.
        Assert.InRange(next.RetryAfter!.Value.TotalSeconds, 50, 60);
    }

    [Fact]
    public async Task Who_waits_in_line_hears_it_too_when_the_server_asks_to_be_left_alone()
    {
        await using var harness = await ModelHarness.StartAsync(
            null, ("Model__MaxRetries", "0"), ("Model__MaxConcurrency", "1"), ("Model__TotalTimeout", "00:00:05"), ("Model__AttemptTimeout", "00:00:05"));
        var hold = harness.Model.HoldAll(ModelStub.Raw(429, "application/json", "{}", ("Retry-After", "3600")));
        var first = harness.ClassifyAsync("El primero.");
        await hold.Arrived;
        var waiting = Enumerable.Range(1, 4).Select(i => harness.ClassifyAsync($"En la fila {i}.")).ToList();

        hold.Release();
        await first;
        var failed = (await Task.WhenAll(waiting)).Cast<ClassificationResult.Failed>().ToList();

        Assert.Single(harness.Model.Calls);
        Assert.All(failed, result => Assert.Empty(result.Calls));
        Assert.All(failed, result => Assert.InRange(result.RetryAfter!.Value.TotalSeconds, 50, 60));
    }

    [Fact]
    public async Task Who_waits_in_line_goes_on_after_the_wait_that_the_server_asks_for()
    {
        await using var harness = await ModelHarness.StartAsync(null, ("Model__MaxRetries", "0"), ("Model__MaxConcurrency", "1"));
        var hold = new ModelHold();
        harness.Model.Default = ModelStub.Sequence(ModelStub.Held(hold, ModelStub.Raw(429, "application/json", "{}", ("Retry-After", "1"))), Good);
        var first = harness.ClassifyAsync("El primero.");
        await hold.Arrived;
        var waiting = Enumerable.Range(1, 4).Select(i => harness.ClassifyAsync($"En la fila {i}.")).ToList();
        var started = TimeProvider.System.GetTimestamp();

        hold.Release();
        await first;

        Assert.All(await Task.WhenAll(waiting), result => Assert.IsType<ClassificationResult.Labelled>(result));
        Assert.True(TimeProvider.System.GetElapsedTime(started).TotalMilliseconds >= 930, "They came back too early.");
    }

    [Fact]
    public async Task Five_failures_open_the_breaker_and_one_probe_after_the_break_closes_it()
    {
        await using var harness = await ModelHarness.StartAsync(null, ("Model__MaxRetries", "0"), ("Model__BreakDuration", "00:00:00.6"));
        harness.Model.Default = Down;
        for (var i = 1; i <= 5; i++)
        {
            await harness.ClassifyAsync($"Fallo {i}.");
        }

        var open = Assert.IsType<ClassificationResult.Failed>(await harness.ClassifyAsync("Abierto."));
        Assert.Equal(5, harness.Model.Calls.Count);
        Assert.Empty(open.Calls);
        Assert.Equal(FailureKind.UpstreamUnavailable, open.Kind);
        Assert.InRange(open.RetryAfter!.Value.TotalSeconds, 0, 0.6);

        // After the break one call goes through, and the others wait for what becomes of it.
        var probe = harness.Model.HoldAll(Good);
        Task<ClassificationResult>? probing = null;
        var arrived = probe.Arrived;
        await Eventually.TrueAsync(
            async () =>
            {
                probing = harness.ClassifyAsync("Sonda.");
                return await Task.WhenAny(probing, arrived) == arrived;
            },
            "the breaker never let a probe through");
        Assert.Empty((await harness.ClassifyAsync("A la vez.")).Calls);
        probe.Release();
        Assert.IsType<ClassificationResult.Labelled>(await probing!);

        Assert.IsType<ClassificationResult.Labelled>(await harness.ClassifyAsync("Cerrado."));
        Assert.Equal(7, harness.Model.Calls.Count);
    }

    [Fact]
    public async Task Few_failures_open_the_breaker_and_as_many_among_answers_do_not()
    {
        var clock = new Clock();
        await using var slow = await ModelHarness.StartAsync(services => services.AddSingleton<TimeProvider>(clock), ("Model__MaxRetries", "0"));
        slow.Model.Default = Down;
        for (var i = 1; i <= 8; i++)
        {
            await slow.ClassifyAsync($"Uno cada cinco segundos {i}.");
            clock.Advance(TimeSpan.FromSeconds(i < 5 ? 5 : 0));
        }

        Assert.Equal(5, slow.Model.Calls.Count);

        await using var mixed = await ModelHarness.StartAsync(null, ("Model__MaxRetries", "0"));
        for (var i = 1; i <= 3; i++)
        {
            await mixed.ClassifyAsync($"Bien {i}.");
        }

        mixed.Model.Default = Down;
        for (var i = 1; i <= 20; i++)
        {
            await mixed.ClassifyAsync($"Mal {i}.");
        }

        // Twelve of fifteen are four fifths.
        Assert.Equal(15, mixed.Model.Calls.Count);
    }

    [Fact]
    public async Task A_server_that_keeps_silent_opens_the_breaker_too()
    {
        await using var harness = await ModelHarness.StartAsync(null, ("Model__AttemptTimeout", "00:00:00.1"));
        harness.Model.Default = ModelStub.Hang;
        var calls = new List<int>();
        for (var i = 1; i <= 7; i++)
        {
            calls.Add((await harness.ClassifyAsync($"Silencio {i}.")).Calls.Count);
        }

        Assert.Equal([1, 1, 1, 1, 1, 0, 0], calls);
    }

    [Fact]
    public async Task What_the_end_of_the_whole_attempt_cuts_off_does_not_open_the_breaker()
    {
        await using var harness = await ModelHarness.StartAsync(
            null, ("Model__AttemptTimeout", "00:00:01.5"), ("Model__TotalTimeout", "00:00:02.6"), ("Model__Fallbacks__0__Name", "second"));
        harness.Model.Default = ModelStub.Hang;
        await Task.WhenAll(Enumerable.Range(1, 5).Select(i => harness.ClassifyAsync($"Callan los dos {i}.")));
        Assert.Equal(10, harness.Model.Calls.Count);

        harness.Model.Default = Good;
        var labelled = Assert.IsType<ClassificationResult.Labelled>(await harness.ClassifyAsync("El primero está roto, el segundo no."));

        Assert.Equal("second", Assert.Single(labelled.Calls).Model);
    }

    /// <summary>The second is OpenRouter's word.</summary>
    [Theory]
    [InlineData("The request was blocked by the content_filter.")]
    [InlineData("openai/gpt-4.1-mini requires moderation on OpenAI. Your input was flagged for \"violence\". No credits were charged.")]
    public async Task Tickets_that_are_filtered_do_not_open_the_breaker_for_the_others(string message)
    {
        await using var harness = await ModelHarness.StartAsync();
        harness.Model.Default = ModelStub.Json(403, new JsonObject { ["error"] = new JsonObject { ["message"] = message } });
        for (var i = 1; i <= 6; i++)
        {
            var failed = Assert.IsType<ClassificationResult.Failed>(await harness.ClassifyAsync($"Violento {i}."));
            Assert.Equal(CallOutcome.Filtered, Assert.Single(failed.Calls).Outcome);
        }

        harness.Model.Default = Good;
        Assert.IsType<ClassificationResult.Labelled>(await harness.ClassifyAsync("Pacífico."));
    }

    /// <summary>Else more work than the server can do would have each call begin just before its end, paid and cut off.</summary>
    [Fact]
    public async Task Who_gets_a_place_too_late_is_not_sent_and_the_baseline_does_not_stand_in_for_a_server_that_is_well()
    {
        var clock = new Clock();
        await using var harness = await ModelHarness.StartAsync(
            services => services.AddSingleton<TimeProvider>(clock), ("Model__MaxConcurrency", "1"), ("Model__BaselineStandsIn", "true"));
        var hold = harness.Model.Hold("Delante.", Good);
        var ahead = harness.ClassifyAsync("Delante.");
        await hold.Arrived;
        var behind = harness.ClassifyAsync("La factura, detrás.");
        clock.Advance(TimeSpan.FromSeconds(21));
        hold.Release();

        var failed = Assert.IsType<ClassificationResult.Failed>(await behind);

        Assert.Equal((FailureKind.UpstreamBusy, TimeSpan.FromSeconds(5)), (failed.Kind, failed.RetryAfter));
        Assert.Empty(failed.Calls);
        Assert.IsType<ClassificationResult.Labelled>(await ahead);
        Assert.IsType<ClassificationResult.Labelled>(await harness.ClassifyAsync("Después."));
        Assert.Equal(["Delante.", "Después."], harness.Model.Calls.Select(call => call.Ticket));
    }

    [Fact]
    public async Task A_call_is_begun_only_while_half_of_its_time_is_left()
    {
        var clock = new Clock();
        await using var harness = await ModelHarness.StartAsync(
            services => services.AddSingleton<TimeProvider>(clock),
            ("Model__MaxRetries", "0"), ("Model__Fallbacks__0__Name", "second"), ("Model__Fallbacks__1__Name", "third"));
        harness.Model.Default = (call, context) =>
        {
            clock.Advance(TimeSpan.FromSeconds((string?)call.Body["model"] == "stub-model" ? 19 : 2));
            return Down(call, context);
        };

        var failed = Assert.IsType<ClassificationResult.Failed>(await harness.ClassifyAsync("Se acaba el tiempo."));

        Assert.Equal(["stub-model", "second"], failed.Calls.Select(call => call.Model));
        Assert.Equal(FailureKind.UpstreamUnavailable, failed.Kind);
    }

    [Fact]
    public async Task A_key_that_is_not_taken_opens_the_breaker_and_a_request_that_is_not_does_not()
    {
        await using var harness = await ModelHarness.StartAsync();
        harness.Model.Default = ModelStub.Json(400, new JsonObject());
        for (var i = 1; i <= 12; i++)
        {
            await harness.ClassifyAsync($"Mala petición {i}.");
        }

        Assert.Equal(12, harness.Model.Calls.Count);

        await using var other = await ModelHarness.StartAsync();
        other.Model.Default = ModelStub.Json(401, new JsonObject());
        for (var i = 1; i <= 12; i++)
        {
            await other.ClassifyAsync($"Mala llave {i}.");
        }

        Assert.Equal(5, other.Model.Calls.Count);
    }

    [Fact]
    public async Task Retries_are_a_share_of_all_questions_however_long_the_outage()
    {
        await using var model = await ModelStub.StartAsync();
        model.Default = Down;

        // Several addresses of one dead server: a retry goes to the next of them without a wait.
        await using var harness = await ModelHarness.StartAsync(
            null, ("Model__BreakDuration", "00:00:00"), ("Model__MaxRetries", "5"), ("Model__Endpoint", string.Join(',', Enumerable.Repeat(model.Endpoint, 6))));

        for (var i = 1; i <= 200; i++)
        {
            await harness.ClassifyAsync($"Apagón {i}.");
        }

        // A fifth, and the ten of the start.
        Assert.Equal(200 + 40 + 9, model.Calls.Count);
    }

    [Fact]
    public async Task Addresses_of_one_model_share_the_work_by_what_each_has_to_do()
    {
        await using var first = await ModelStub.StartAsync();
        await using var second = await ModelStub.StartAsync();
        await using var harness = await ModelHarness.StartAsync(null, ("Model__Endpoint", $"{first.Endpoint},{second.Endpoint}"));
        var slow = first.HoldAll(Good);

        // One call hangs at the first address; whoever comes meanwhile goes to the second.
        var all = new List<Task<ClassificationResult>> { harness.ClassifyAsync("Uno."), harness.ClassifyAsync("Dos.") };
        await slow.Arrived;
        await Task.WhenAny(all);
        for (var i = 1; i <= 6; i++)
        {
            Assert.IsType<ClassificationResult.Labelled>(await harness.ClassifyAsync($"Más {i}."));
        }

        Assert.Single(first.Calls);
        Assert.Equal(7, second.Calls.Count);
        slow.Release();
        Assert.All(await Task.WhenAll(all), result => Assert.IsType<ClassificationResult.Labelled>(result));

        // And when both are idle they take turns.
        for (var i = 1; i <= 10; i++)
        {
            await harness.ClassifyAsync($"Por turnos {i}.");
        }

        Assert.Equal((6, 12), (first.Calls.Count, second.Calls.Count));
    }

    [Fact]
    public async Task An_address_that_fails_is_passed_over_without_the_ticket_noticing()
    {
        await using var dead = await ModelStub.StartAsync();
        await using var good = await ModelStub.StartAsync();
        await using var harness = await ModelHarness.StartAsync(null, ("Model__Endpoint", $"{dead.Endpoint},{good.Endpoint}"));
        dead.Default = Down;

        for (var i = 1; i <= 20; i++)
        {
            Assert.IsType<ClassificationResult.Labelled>(await harness.ClassifyAsync($"Sin notarlo {i}."));
        }

        // Five failures of its own, and then it is left alone.
        Assert.Equal((5, 20), (dead.Calls.Count, good.Calls.Count));
    }

    [Fact]
    public async Task A_question_goes_to_a_busy_address_sooner_than_to_one_that_failed_it()
    {
        await using var dead = await ModelStub.StartAsync();
        await using var busy = await ModelStub.StartAsync();
        await using var harness = await ModelHarness.StartAsync(null, ("Model__Endpoint", $"{dead.Endpoint},{busy.Endpoint}"));
        var slow = busy.Hold("Largo.", Good);
        dead.On("Largo.", Down);
        dead.Default = Down;
        var first = harness.ClassifyAsync("Largo.");
        await slow.Arrived;
        var failuresBefore = dead.Calls.Count;

        Assert.IsType<ClassificationResult.Labelled>(await harness.ClassifyAsync("Corto."));

        Assert.Equal(failuresBefore + 1, dead.Calls.Count);
        slow.Release();
        Assert.IsType<ClassificationResult.Labelled>(await first);
    }

    [Fact]
    public async Task Fewer_calls_go_at_once_after_too_many_requests_and_more_again_with_each_answer()
    {
        await using var harness = await ModelHarness.StartAsync(null, ("Model__MaxConcurrency", "16"), ("Model__MaxRetries", "0"));
        var refuse = new ModelHold();
        harness.Model.Default = ModelStub.Held(refuse, ModelStub.Json(429, new JsonObject()));
        var refused = Enumerable.Range(1, 20).Select(i => harness.ClassifyAsync($"Demasiados {i}.")).ToList();
        await refuse.WaitForAsync(16);

        // Sixteen are refused together, which counts once: eight go on. Four waited, and are among them.
        var busiest = 0;
        var busy = 0;
        harness.Model.Default = async (call, context) =>
        {
            InterlockedMax(ref busiest, Interlocked.Increment(ref busy));
            await Good(call, context);
            Interlocked.Decrement(ref busy);
        };
        refuse.Release();
        await Task.WhenAll(refused);
        Assert.True(busiest <= 8, $"{busiest} at once after the refusal");

        var hold = harness.Model.HoldAll(Good);
        var after = Enumerable.Range(1, 40).Select(i => harness.ClassifyAsync($"Después {i}.")).ToList();
        await hold.WaitForAsync(8);

        // By the time that others were called and answered, a ninth would be here.
        await using var other = await ModelHarness.StartAsync(null, ("Model__Endpoint", harness.Model.Endpoint));
        harness.Model.On("Otro proceso.", Good);
        for (var i = 1; i <= 10; i++)
        {
            await other.ClassifyAsync("Otro proceso.");
        }

        Assert.Equal(8, harness.Model.Calls.Count(call => call.Ticket.StartsWith("Después", StringComparison.Ordinal)));
        hold.Release();
        Assert.All(await Task.WhenAll(after), result => Assert.IsType<ClassificationResult.Labelled>(result));

        // By then it has grown: more than eight are under way together.
        var grown = harness.Model.HoldAll(Good);
        var late = Enumerable.Range(1, 16).Select(i => harness.ClassifyAsync($"Más tarde {i}.")).ToList();
        await grown.WaitForAsync(10);
        grown.Release();
        await Task.WhenAll(late);

        static void InterlockedMax(ref int target, int value)
        {
            for (var seen = target; seen < value; seen = target)
            {
                Interlocked.CompareExchange(ref target, value, seen);
            }
        }
    }

    /// <summary>The date too, by which the breaker counts; timers go by the real one.</summary>
    private sealed class Clock : TimeProvider
    {
        private TimeSpan _shift;

        public void Advance(TimeSpan time) => _shift += time;

        public override DateTimeOffset GetUtcNow() => base.GetUtcNow() + _shift;

        public override long GetTimestamp() => base.GetTimestamp() + (long)(_shift.TotalSeconds * TimestampFrequency);
    }
}
