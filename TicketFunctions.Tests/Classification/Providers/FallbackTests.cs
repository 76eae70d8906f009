using System.Text.Json.Nodes;
using TicketFunctions.Classification;
using TicketFunctions.Tests.Support;
using TicketFunctions.Tickets;

namespace TicketFunctions.Tests.Classification.Providers;

/// <summary>The next model in the list, and the baseline when there is none left; what confidence is taken from.</summary>
public sealed class FallbackTests
{
    public static TheoryData<string, int, CallOutcome> Reasons => new()
    {
        { "wrong twice", 2, CallOutcome.Unparseable },
        { "no label twice", 2, CallOutcome.OffTaxonomy },
        { "empty twice", 2, CallOutcome.Empty },
        { "refusal", 1, CallOutcome.Refused },
        { "filter", 1, CallOutcome.Filtered },
        { "cut", 1, CallOutcome.Truncated },
        { "HTML", 1, CallOutcome.Malformed },
        { "400", 1, CallOutcome.Rejected },
        { "401", 1, CallOutcome.Rejected },
        { "500", 1, CallOutcome.Unavailable },
        { "quota", 1, CallOutcome.QuotaSpent },
        { "silence", 1, CallOutcome.TimedOut },
    };

    [Theory]
    [MemberData(nameof(Reasons))]
    public async Task Whatever_keeps_the_first_model_from_labels_the_next_one_is_asked_and_decides_under_its_own_name(string reason, int calls, CallOutcome outcome)
    {
        await using var harness = await ModelHarness.StartAsync(
            null,
            ("Model__Output", "Schema"),
            ("Model__MaxRetries", "0"),
            ("Model__AttemptTimeout", reason == "silence" ? "00:00:00.5" : "00:00:20"),
            ("Model__Fallbacks__0__Name", "second-model"),
            ("Model__Fallbacks__0__Output", "Schema"),
            ("Model__InputPricePerMillion", "1"),
            ("Model__OutputPricePerMillion", "10"),
            ("Model__Fallbacks__0__InputPricePerMillion", "100"),
            ("Model__Fallbacks__0__OutputPricePerMillion", "1000"));
        harness.Model.Default = (call, context) => ((string?)call.Body["model"] == "second-model" ? ModelStub.Labels("Comercial", "Neutral") : reason switch
        {
            "wrong twice" => ModelStub.Content("hola"),
            "no label twice" => ModelStub.Content("""{"category":"Magia","sentiment":"Neutral"}"""),
            "empty twice" => ModelStub.Content(""),
            "refusal" => ModelStub.Content(null, refusal: "No."),
            "filter" => ModelStub.Content(null, finishReason: "content_filter"),
            "cut" => ModelStub.Content("""{"category":""", finishReason: "length"),
            "HTML" => ModelStub.Raw(200, "text/html", "<p>"),
            "quota" => ModelStub.Raw(429, "application/json", """{"error":{"code":"insufficient_quota"}}"""),
            "silence" => ModelStub.Hang,
            _ => ModelStub.Json(int.Parse(reason, System.Globalization.CultureInfo.InvariantCulture), new JsonObject()),
        })(call, context);

        var labelled = Assert.IsType<ClassificationResult.Labelled>(await harness.ClassifyAsync("¿Qué plan me conviene?"));

        Assert.Equal(new Labels("Comercial", "Neutral"), labelled.Labels);
        Assert.Equal(("model", "compatible", "second-model"), (labelled.Identity.Source, labelled.Identity.Provider, labelled.Identity.Model));
        Assert.Equal([.. Enumerable.Repeat(outcome, calls), CallOutcome.Labelled], labelled.Calls.Select(call => call.Outcome));
        Assert.Equal([.. Enumerable.Repeat("stub-model", calls), "second-model"], labelled.Calls.Select(call => call.Model));
        Assert.Equal(("stub-model-2026", 321, 17, 0.0491m), (labelled.Calls[^1].ServedModel, labelled.Calls[^1].TokensIn, labelled.Calls[^1].TokensOut, labelled.Calls[^1].Cost));
        Assert.Equal(labelled.Calls[0].TokensIn is null ? null : 0.000491m, labelled.Calls[0].Cost);
        Assert.Equal(calls + 1, harness.Model.Calls.Count);

        // The second model reads the ticket, and nothing of what the first one said.
        Assert.Equal(2, harness.Model.Calls.Last().Body["messages"]!.AsArray().Count);
        Assert.Equal(["stub-model", "second-model"], harness.Classifier.Identities.Select(identity => identity.Model));
    }

    [Theory]
    [InlineData("stub-model")]
    [InlineData("second-model")]
    public async Task When_no_model_gives_labels_the_paid_answer_counts_more_than_the_model_out_of_reach_whichever_was_first(string answers)
    {
        await using var harness = await ModelHarness.StartAsync(
            null, ("Model__Output", "Schema"), ("Model__MaxRetries", "0"), ("Model__Fallbacks__0__Name", "second-model"), ("Model__BaselineStandsIn", "true"));
        harness.Model.Default = (call, context) =>
            ((string?)call.Body["model"] == answers ? ModelStub.Content("hola") : ModelStub.Json(503, new JsonObject()))(call, context);

        var failed = Assert.IsType<ClassificationResult.Failed>(await harness.ClassifyAsync("Nadie sabe."));

        Assert.Equal((FailureKind.UpstreamInvalid, true), (failed.Kind, failed.WasAnswered));
        Assert.Equal(
            answers == "stub-model"
                ? [CallOutcome.Unparseable, CallOutcome.Unparseable, CallOutcome.Unavailable]
                : [CallOutcome.Unavailable, CallOutcome.Unparseable, CallOutcome.Unparseable],
            failed.Calls.Select(call => call.Outcome));
    }

    /// <summary>A time-out may have been paid: else a slow first model and a second one out of reach would be asked for ever, at no attempt.</summary>
    [Theory]
    [InlineData("stub-model")]
    [InlineData("second-model")]
    public async Task When_no_model_gives_labels_the_time_out_counts_more_than_the_model_out_of_reach(string hangs)
    {
        await using var harness = await ModelHarness.StartAsync(
            null, ("Model__MaxRetries", "0"), ("Model__AttemptTimeout", "00:00:00.5"), ("Model__Fallbacks__0__Name", "second-model"));
        harness.Model.Default = (call, context) =>
            (string?)call.Body["model"] == hangs ? ModelStub.Hang(call, context) : ModelStub.Json(503, new JsonObject(), ("Retry-After", "7"))(call, context);

        var failed = Assert.IsType<ClassificationResult.Failed>(await harness.ClassifyAsync("Nadie contesta."));

        Assert.Equal((FailureKind.UpstreamTimeout, TimeSpan.FromSeconds(7)), (failed.Kind, failed.RetryAfter));
        Assert.Equal(2, failed.Calls.Count);
    }

    [Fact]
    public async Task All_models_together_have_the_time_of_one_attempt()
    {
        await using var harness = await ModelHarness.StartAsync(
            null, ("Model__AttemptTimeout", "00:00:01.5"), ("Model__TotalTimeout", "00:00:02.6"), ("Model__Fallbacks__0__Name", "second"), ("Model__Fallbacks__1__Name", "third"));
        harness.Model.Default = ModelStub.Hang;

        var failed = Assert.IsType<ClassificationResult.Failed>(await harness.ClassifyAsync("Todos callan."));

        Assert.Equal(FailureKind.UpstreamTimeout, failed.Kind);
        Assert.Equal(["stub-model", "second"], harness.Model.Calls.Select(call => (string)call.Body["model"]!));
    }

    [Fact]
    public async Task The_baseline_stands_in_while_no_model_can_be_reached_if_the_operator_says_so()
    {
        await using var model = await ModelStub.StartAsync();
        foreach (var standsIn in new[] { true, false })
        {
            await using var harness = await ModelHarness.StartAsync(
                null, ("Model__Endpoint", model.Endpoint), ("Model__MaxRetries", "0"), ("Model__BaselineStandsIn", standsIn ? "true" : "false"));
            model.Default = ModelStub.Json(503, new JsonObject());

            // Past the fifth the breaker is open, and nobody is called: it stands in all the same.
            for (var i = 1; i <= 7; i++)
            {
                var result = await harness.ClassifyAsync("La factura de mayo está cobrada dos veces.");
                Assert.Equal(i <= 5 ? 1 : 0, result.Calls.Count);
                if (standsIn)
                {
                    var labelled = Assert.IsType<ClassificationResult.Labelled>(result);
                    Assert.Equal(("baseline", "embedded", "Facturacion"), (labelled.Identity.Source, labelled.Identity.Provider, labelled.Labels.Category));
                }
                else
                {
                    Assert.IsType<ClassificationResult.Failed>(result);
                }
            }
        }

        await using var wrong = await ModelHarness.StartAsync(null, ("Model__BaselineStandsIn", "true"));
        wrong.Model.Default = ModelStub.Content("hola");
        Assert.IsType<ClassificationResult.Failed>(await wrong.ClassifyAsync("La factura está cobrada dos veces."));
        wrong.Model.Default = ModelStub.Sequence(ModelStub.Content("hola"), ModelStub.Json(404, new JsonObject()));
        Assert.IsType<ClassificationResult.Failed>(await wrong.ClassifyAsync("La factura está cobrada dos veces."));
    }

    [Fact]
    public async Task Personal_data_is_masked_for_the_model_if_the_operator_says_so()
    {
        await using var harness = await ModelHarness.StartAsync(null, ("Model__MaskPersonalData", "true"));

        var labelled = Assert.IsType<ClassificationResult.Labelled>(await harness.ClassifyAsync("Soy ana.lopez@example.com, llamadme al +34 600 123 456."));

        Assert.Equal("Soy [email], llamadme al [phone].", Assert.Single(harness.Model.Calls).Ticket);
        Assert.Contains("\"masked\":true", labelled.Identity.Parameters, StringComparison.Ordinal);
    }

    /// <summary>The tokens as a model may cut its answer, with their probabilities, and what comes of them.</summary>
    public static TheoryData<string, string, string, float?> Tokens => new()
    {
        { "whole labels", """{"category":"Tecnico","sentiment":"Negativo"}""", """{"=1|category=1|":"=1|Tecnico=0.9|","sentiment":"=1|Negativo=0.5|"}=1""", 0.5f },
        { "labels in pieces", """{"category":"Tecnico","sentiment":"Negativo"}""", """{"category":"=0.1|Te=0.8|cnico=0.5|","sentiment":"=0.1|Neg=0.9|ativo"}=1""", 0.4f },
        { "the other order", """{"sentiment":"Negativo","category":"Tecnico"}""", """{"sentiment":"=1|Negativo=0.75|","category":"=1|Tecnico=0.25|"}=1""", 0.25f },
        { "in a fence", "```json\n{\"category\":\"Tecnico\",\"sentiment\":\"Negativo\"}\n```", "```json\n=0.2|{\"category\":\"=1|Tecnico=0.5|\",\"sentiment\":\"=1|Negativo=1|\"}\n```=0.3", 0.5f },
        { "with an opinion of its own", """{"category":"Tecnico","sentiment":"Negativo","confidence":1}""", """{"category":"=1|Tecnico=0.5|","sentiment":"=1|Negativo=1|","confidence":1}=0.01""", 0.5f },
        { "labels with their quotes", """{"category":"Tecnico","sentiment":"Negativo"}""", """{"category":=0.1|"Tecnico",=0.5|"sentiment":=0.1|"Negativo"}=0.9""", 0.5f },
        { "tokens of another answer", """{"category":"Tecnico","sentiment":"Negativo"}""", """{"category":"Otro"}=0.5""", null },
        { "no tokens", """{"category":"Tecnico","sentiment":"Negativo"}""", "", null },
    };

    [Theory]
    [MemberData(nameof(Tokens))]
    public async Task Confidence_is_the_probability_of_the_less_certain_label_where_the_provider_tells_it(string name, string content, string tokens, float? confidence)
    {
        await using var harness = await ModelHarness.StartAsync(null, ("Model__Confidence", "Logprobs"), ("Model__ReviewBelow", "0.45"));
        await using var none = await ModelHarness.StartAsync(null, ("Model__Confidence", "None"));
        var completion = JsonNode.Parse(
            """{"id":"1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant"}}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}""")!;
        completion["choices"]![0]!["message"]!["content"] = content;
        completion["choices"]![0]!["logprobs"] = new JsonObject
        {
            ["content"] = new JsonArray([.. tokens.Split('|', StringSplitOptions.RemoveEmptyEntries).Select(pair => pair.Split('=')).Select(pair => (JsonNode)new JsonObject
            {
                ["token"] = pair[0],
                ["logprob"] = pair.Length > 1 ? Math.Log(double.Parse(pair[1], System.Globalization.CultureInfo.InvariantCulture)) : 0,
                ["bytes"] = new JsonArray([.. System.Text.Encoding.UTF8.GetBytes(pair[0]).Select(b => (JsonNode)(int)b)]),
                ["top_logprobs"] = new JsonArray(),
            })]),
        };
        harness.Model.Default = ModelStub.Json(200, completion);

        var labelled = Assert.IsType<ClassificationResult.Labelled>(await harness.ClassifyAsync($"Seguridad: {name}."));

        Assert.Equal(confidence, labelled.Confidence is { } found ? MathF.Round(found, 4) : null);
        Assert.Equal(confidence < 0.45f, labelled.NeedsReview);

        // A server that tells it unasked changes nothing.
        none.Model.Default = harness.Model.Default;
        Assert.Null(Assert.IsType<ClassificationResult.Labelled>(await none.ClassifyAsync("Sin ella.")).Confidence);
    }

    [Fact]
    public async Task A_label_that_is_paid_is_not_lost_when_the_process_stops_during_the_second_sample()
    {
        await using var harness = await ModelHarness.StartAsync(null, ("Model__Confidence", "Samples"));
        var second = new ModelHold();
        harness.Model.Default = ModelStub.Sequence(ModelStub.Labels("Otro", "Neutral"), ModelStub.Held(second, ModelStub.Labels("Otro", "Neutral")));
        using var stopping = new CancellationTokenSource();

        var classifying = harness.ClassifyAsync("Se para a mitad.", stopping.Token);
        await second.Arrived;
        await stopping.CancelAsync();

        var labelled = Assert.IsType<ClassificationResult.Labelled>(await classifying);
        Assert.Equal((new Labels("Otro", "Neutral"), null), (labelled.Labels, labelled.Confidence));
    }

    [Fact]
    public async Task Two_samples_are_taken_only_if_asked_for_and_their_disagreement_is_the_doubt()
    {
        await using var harness = await ModelHarness.StartAsync(null, ("Model__Confidence", "Samples"), ("Model__ReviewBelow", "0.9"), ("Model__MaxRetries", "0"));
        harness.Model.On("Igual.", ModelStub.Labels("Otro", "Neutral"));
        harness.Model.On("Distinto.", ModelStub.Sequence(ModelStub.Labels("Otro", "Neutral"), ModelStub.Labels("Otro", "Negativo")));
        harness.Model.On("Sin segunda.", ModelStub.Sequence(ModelStub.Labels("Otro", "Neutral"), ModelStub.Json(503, new JsonObject())));
        harness.Model.On("Segunda mala.", ModelStub.Sequence(ModelStub.Labels("Otro", "Neutral"), ModelStub.Content("hola")));

        Assert.Equal((1f, false, CallOutcome.Sampled), await AskAsync("Igual."));
        Assert.Equal((0.5f, true, CallOutcome.Sampled), await AskAsync("Distinto."));
        Assert.Equal((null, false, CallOutcome.Unavailable), await AskAsync("Sin segunda."));
        Assert.Equal((null, false, CallOutcome.Unparseable), await AskAsync("Segunda mala."));

        Assert.Equal([0d, 1d], harness.Model.CallsFor("Igual.").Select(call => (double)call.Body["temperature"]!));
        Assert.Equal(8, harness.Model.Calls.Count);

        async Task<(float? Confidence, bool NeedsReview, CallOutcome Second)> AskAsync(string text)
        {
            var labelled = Assert.IsType<ClassificationResult.Labelled>(await harness.ClassifyAsync(text));
            Assert.Equal(new Labels("Otro", "Neutral"), labelled.Labels);
            Assert.Equal([CallOutcome.Labelled], labelled.Calls.Take(1).Select(call => call.Outcome));
            return (labelled.Confidence, labelled.NeedsReview, labelled.Calls[1].Outcome);
        }
    }
}
