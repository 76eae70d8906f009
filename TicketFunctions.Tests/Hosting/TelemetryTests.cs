using System.Collections.Concurrent;
using System.Diagnostics;
using System.Diagnostics.Metrics;
using System.Text;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Logging;
using TicketFunctions.Classification;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Hosting;

/// <summary>Traces and metrics of model calls, by the OpenTelemetry conventions for generative AI.</summary>
public sealed class TelemetryTests
{
    [Fact]
    public async Task Each_call_of_a_model_is_a_span_and_two_metrics_by_the_conventions_and_holds_no_text()
    {
        var spans = new ConcurrentQueue<Activity>();
        using var listener = new ActivityListener
        {
            ShouldListenTo = source => source.Name == Telemetry.Name,
            Sample = (ref ActivityCreationOptions<ActivityContext> _) => ActivitySamplingResult.AllDataAndRecorded,
            ActivityStopped = spans.Enqueue,
        };
        ActivitySource.AddActivityListener(listener);
        var measured = new ConcurrentQueue<(string Name, double Value, Dictionary<string, object?> Tags)>();
        using var meters = new MeterListener
        {
            InstrumentPublished = (instrument, meters) =>
            {
                if (instrument.Meter.Name == Telemetry.Name)
                {
                    meters.EnableMeasurementEvents(instrument);
                }
            },
        };
        meters.SetMeasurementEventCallback<double>((instrument, value, tags, _) => measured.Enqueue((instrument.Name, value, tags.ToArray().ToDictionary())));
        meters.SetMeasurementEventCallback<long>((instrument, value, tags, _) => measured.Enqueue((instrument.Name, value, tags.ToArray().ToDictionary())));
        meters.Start();
        await using var app = await TicketApp.StartAsync(("Model__Name", "traced-model"));
        app.Model.On("Falla.", ModelStub.Raw(503, "application/json", "{}"));

        await app.ProcessAsync(await app.AddTicketAsync("Responde."));
        await app.ProcessAsync(await app.AddTicketAsync("Falla."));

        // Other tests run at the same time, with other models.
        var ours = spans.Where(span => Equals(span.GetTagItem("gen_ai.request.model"), "traced-model")).ToList();
        Assert.Equal(2, ours.Count);
        var server = new Uri(app.Model.Endpoint);
        Assert.All(ours, span =>
        {
            Assert.Equal(("chat traced-model", ActivityKind.Client), (span.DisplayName, span.Kind));
            Assert.Equal("chat", span.GetTagItem("gen_ai.operation.name"));
            Assert.Equal("compatible", span.GetTagItem("gen_ai.provider.name"));
            Assert.Equal(server.Host, span.GetTagItem("server.address"));
            Assert.Equal(server.Port, span.GetTagItem("server.port"));
            Assert.Equal(64, span.GetTagItem("gen_ai.request.max_tokens"));
            Assert.DoesNotContain(span.TagObjects, tag => $"{tag.Value}".Contains("Responde", StringComparison.Ordinal) || $"{tag.Value}".Contains("Falla", StringComparison.Ordinal));
        });
        Assert.Equal("stub-model-2026", ours[0].GetTagItem("gen_ai.response.model"));
        Assert.Equal(new[] { "stop" }, ours[0].GetTagItem("gen_ai.response.finish_reasons"));
        Assert.Equal((321, 17), (ours[0].GetTagItem("gen_ai.usage.input_tokens"), ours[0].GetTagItem("gen_ai.usage.output_tokens")));
        Assert.Equal((ActivityStatusCode.Unset, null), (ours[0].Status, ours[0].GetTagItem("error.type")));
        Assert.Equal((ActivityStatusCode.Error, "503"), (ours[1].Status, ours[1].GetTagItem("error.type")));

        var metrics = measured.Where(metric => Equals(metric.Tags.GetValueOrDefault("gen_ai.request.model"), "traced-model")).ToList();
        Assert.Equal(2, metrics.Count(metric => metric.Name == "gen_ai.client.operation.duration"));
        Assert.Single(metrics, metric => metric.Name == "gen_ai.client.operation.duration" && Equals(metric.Tags.GetValueOrDefault("error.type"), "503"));
        Assert.Equal(
            [("input", 321d), ("output", 17d)],
            metrics.Where(metric => metric.Name == "gen_ai.client.token.usage").Select(metric => ((string)metric.Tags["gen_ai.token.type"]!, metric.Value)));
    }

    [Theory]
    [InlineData("OTEL_EXPORTER_OTLP_ENDPOINT", "", "metrics traces")]
    [InlineData("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "/v1/traces", "traces")]
    [InlineData("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "/v1/metrics", "metrics")]
    public async Task The_standard_variables_say_where_traces_and_metrics_go(string variable, string path, string signals)
    {
        var received = new ConcurrentDictionary<string, string>();
        var builder = WebApplication.CreateSlimBuilder(["--hostBuilder:reloadConfigOnChange=false"]);
        builder.Logging.ClearProviders();
        builder.WebHost.UseUrls("http://127.0.0.1:0");
        await using var collector = builder.Build();
        collector.MapPost("/v1/{signal}", async (string signal, HttpContext context) =>
        {
            using var body = new MemoryStream();
            await context.Request.Body.CopyToAsync(body);
            received.AddOrUpdate(signal, Encoding.UTF8.GetString(body.ToArray()), (_, before) => before + Encoding.UTF8.GetString(body.ToArray()));
        });
        await collector.StartAsync();

        await using (var app = await TicketApp.StartAsync(
            (variable, collector.Urls.Single() + path), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"), ("OTEL_SERVICE_NAME", "mesa-de-ayuda")))
        {
            await app.ProcessAsync(await app.AddTicketAsync("Se exporta, sin su texto."), query: "?code=clave-canario");
        }

        // Whatever is left is sent when the process ends. Strings stand in protobuf as they are.
        Assert.Equal(signals, string.Join(' ', received.Keys.Order(StringComparer.Ordinal)));
        Assert.All(received, sent =>
        {
            Assert.Contains(sent.Key == "traces" ? "gen_ai.request.max_tokens" : "gen_ai.client.token.usage", sent.Value, StringComparison.Ordinal);
            Assert.Contains("mesa-de-ayuda", sent.Value, StringComparison.Ordinal);
        });
        Assert.All(received.Values, sent =>
        {
            Assert.DoesNotContain("Se exporta", sent, StringComparison.Ordinal);
            Assert.DoesNotContain("clave-canario", sent, StringComparison.Ordinal);
        });
    }
}
