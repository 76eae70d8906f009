using System.Collections.Concurrent;
using System.Diagnostics;
using System.Diagnostics.Metrics;
using System.Text;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.Extensions.AI;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.SemanticKernel;
using Microsoft.SemanticKernel.ChatCompletion;
using TicketFunctions.Classification;
using TicketFunctions.Tests.Support;
using FunctionInvocationContext = Microsoft.SemanticKernel.FunctionInvocationContext;

namespace TicketFunctions.Tests.Classification.Providers.AzureFunctions;

/// <summary>Semantic Kernel around every classification: its filters and its telemetry.</summary>
public sealed class KernelTests
{
    [Fact]
    public async Task Filters_see_the_prompt_and_the_result_of_every_call()
    {
        const string Text = "La conexión se cae a las 9 < 10.";
        var functions = new Filter();
        var prompts = new PromptFilter();
        await using var harness = await StartAsync(functions, prompts);
        harness.Model.On(Text, ModelStub.Sequence(ModelStub.Content("hola"), ModelStub.Labels("Tecnico", "Negativo")));

        Assert.IsType<ClassificationResult.Labelled>(await harness.ClassifyAsync(Text));

        Assert.Equal(["Tickets.Classify", "Tickets.Classify"], functions.Seen.Select(context => context.Function.ToString()));
        Assert.Equal(["hola", """{"category":"Tecnico","sentiment":"Negativo"}"""], functions.Seen.Select(context => context.Result.GetValue<string>()));
        Assert.All(functions.Seen, context => Assert.Equal(321, context.Result.GetValue<ChatResponse>()!.Usage!.InputTokenCount));
        Assert.Equal(2, prompts.Seen.Count);
        Assert.Contains("La conexión se cae a las 9 &#60; 10.", prompts.Seen.First(), StringComparison.Ordinal);
        Assert.Contains("""<message role="assistant"><![CDATA[hola]]></message>""", prompts.Seen.Last(), StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_filter_that_changes_the_prompt_changes_what_the_model_is_asked()
    {
        const string Text = "Mi tarjeta es 4111 1111 1111 1111.";
        await using var harness = await StartAsync(new PromptFilter(async (context, next) =>
        {
            await next(context);
            context.RenderedPrompt = context.RenderedPrompt!.Replace("4111 1111 1111 1111", "[tarjeta]", StringComparison.Ordinal);
        }));

        Assert.IsType<ClassificationResult.Labelled>(await harness.ClassifyAsync(Text));

        var call = Assert.Single(harness.Model.CallsFor("Mi tarjeta es [tarjeta]."));
        Assert.Equal(harness.CreatePrompt().Instructions, (string?)call.Body["messages"]![0]!["content"]);
        Assert.True((bool)call.Body["response_format"]!["json_schema"]!["strict"]!);
    }

    [Fact]
    public async Task A_filter_that_changes_the_messages_changes_what_the_model_is_asked()
    {
        await using var harness = await StartAsync(new Filter(async (context, next) =>
        {
            context.Arguments["messages"] = ((IEnumerable<ChatMessage>)context.Arguments["messages"]!)
                .Select(message => new ChatMessage(message.Role, message.Text.Replace("Luis", "[<nombre>]", StringComparison.Ordinal)));
            await next(context);
        }));

        Assert.IsType<ClassificationResult.Labelled>(await harness.ClassifyAsync("Soy Luis."));

        Assert.Single(harness.Model.CallsFor("Soy [<nombre>]."));
    }

    [Fact]
    public async Task A_filter_may_answer_in_the_models_place()
    {
        const string Answer = """{"category":"Otro","sentiment":"Neutral"}""";
        foreach (var filter in new object[]
        {
            new Filter((context, _) =>
            {
                context.Result = new FunctionResult(context.Function, Answer);
                return Task.CompletedTask;
            }),
            new PromptFilter((context, _) =>
            {
                context.Result = new FunctionResult(context.Function, new ChatMessageContent(AuthorRole.Assistant, Answer));
                return Task.CompletedTask;
            }),
        })
        {
            await using var harness = await StartAsync(filter);

            var labelled = Assert.IsType<ClassificationResult.Labelled>(await harness.ClassifyAsync("Hola."));

            Assert.Equal(("Otro", "Neutral"), (labelled.Labels.Category, labelled.Labels.Sentiment));
            Assert.Empty(harness.Model.Calls);
        }
    }

    [Fact]
    public async Task A_filter_that_fails_or_says_nothing_is_a_fault_and_no_crash()
    {
        foreach (var filter in new object[]
        {
            new Filter((_, _) => throw new InvalidOperationException("canary")),
            new PromptFilter((_, _) => throw new InvalidOperationException("canary")),
            new Filter(async (context, next) =>
            {
                await next(context);
                throw new InvalidOperationException("canary");
            }),
            new Filter((_, _) => Task.CompletedTask),
        })
        {
            await using var harness = await StartAsync(filter);

            var failed = Assert.IsType<ClassificationResult.Failed>(await harness.ClassifyAsync("Hola."));

            Assert.Equal(FailureKind.UpstreamInvalid, failed.Kind);
            Assert.DoesNotContain(harness.Log, entry => entry.Message.Contains("canary", StringComparison.Ordinal));
        }
    }

    [Fact]
    public async Task The_kernel_tells_of_every_call_by_a_span_and_its_tokens()
    {
        var spans = new ConcurrentQueue<Activity>();
        using var listener = new ActivityListener
        {
            ShouldListenTo = source => source.Name.StartsWith("Microsoft.SemanticKernel", StringComparison.Ordinal),
            Sample = (ref ActivityCreationOptions<ActivityContext> _) => ActivitySamplingResult.AllDataAndRecorded,
            ActivityStopped = spans.Enqueue,
        };
        ActivitySource.AddActivityListener(listener);
        var tokens = new ConcurrentQueue<(string Name, long Value)>();
        using var meters = new MeterListener
        {
            InstrumentPublished = (instrument, meters) =>
            {
                if (instrument.Meter.Name == "Microsoft.SemanticKernel")
                {
                    meters.EnableMeasurementEvents(instrument);
                }
            },
        };
        meters.SetMeasurementEventCallback<long>((instrument, value, _, _) => tokens.Enqueue((instrument.Name, value)));
        meters.Start();
        await using var harness = await ModelHarness.StartAsync();
        using var caller = new Activity("caller").Start();

        Assert.IsType<ClassificationResult.Labelled>(await harness.ClassifyAsync("Hola."));

        var span = Assert.Single(spans, span => span.TraceId == caller.TraceId);
        Assert.Equal("execute_tool Classify", span.DisplayName);
        Assert.NotEqual(ActivityStatusCode.Error, span.Status);
        Assert.DoesNotContain(span.Tags, tag => tag.Value?.Contains("Hola.", StringComparison.Ordinal) == true);
        Assert.Contains(("semantic_kernel.function.invocation.token_usage.prompt", 321), tokens);
        Assert.Contains(("semantic_kernel.function.invocation.token_usage.completion", 17), tokens);
        Assert.DoesNotContain(harness.Log, entry => entry.Level >= LogLevel.Warning);
    }

    [Fact]
    public async Task The_kernels_span_of_a_failed_call_leaves_without_what_the_server_said()
    {
        var traces = "";
        var builder = WebApplication.CreateSlimBuilder(["--hostBuilder:reloadConfigOnChange=false"]);
        builder.Logging.ClearProviders();
        builder.WebHost.UseUrls("http://127.0.0.1:0");
        await using var collector = builder.Build();
        collector.MapPost("/v1/traces", async context =>
        {
            // Strings stand in protobuf as they are.
            using var body = new StreamReader(context.Request.Body, Encoding.Latin1);
            traces += await body.ReadToEndAsync();
        });
        await collector.StartAsync();

        await using (var harness = await ModelHarness.StartAsync(
            settings: [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.Urls.Single()), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")]))
        {
            harness.Model.Default = ModelStub.Json(401, new JsonObject { ["error"] = new JsonObject { ["message"] = "Incorrect API key provided: canary" } });
            foreach (var hosted in harness.Services.GetServices<IHostedService>())
            {
                await hosted.StartAsync(CancellationToken.None);
            }

            Assert.IsType<ClassificationResult.Failed>(await harness.ClassifyAsync("Hola."));
        }

        Assert.Contains("execute_tool Classify", traces, StringComparison.Ordinal);
        Assert.DoesNotContain("canary", traces, StringComparison.Ordinal);
    }

    private static Task<ModelHarness> StartAsync(params object[] filters) => ModelHarness.StartAsync(services =>
    {
        foreach (var filter in filters)
        {
            _ = filter is IPromptRenderFilter prompts ? services.AddSingleton(prompts) : services.AddSingleton((IFunctionInvocationFilter)filter);
        }
    });

    private sealed class Filter(Func<FunctionInvocationContext, Func<FunctionInvocationContext, Task>, Task>? act = null)
        : IFunctionInvocationFilter
    {
        public ConcurrentQueue<FunctionInvocationContext> Seen { get; } = new();

        public async Task OnFunctionInvocationAsync(
            FunctionInvocationContext context, Func<FunctionInvocationContext, Task> next)
        {
            await (act is null ? next(context) : act(context, next));
            Seen.Enqueue(context);
        }
    }

    private sealed class PromptFilter(Func<PromptRenderContext, Func<PromptRenderContext, Task>, Task>? act = null) : IPromptRenderFilter
    {
        public ConcurrentQueue<string> Seen { get; } = new();

        public async Task OnPromptRenderAsync(PromptRenderContext context, Func<PromptRenderContext, Task> next)
        {
            await (act is null ? next(context) : act(context, next));
            Seen.Enqueue(context.RenderedPrompt!);
        }
    }
}
