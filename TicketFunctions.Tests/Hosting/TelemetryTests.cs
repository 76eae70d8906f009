using System.Collections.Concurrent;
using System.Diagnostics;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Hosting;

/// <summary>Traces and metrics of model calls, by the OpenTelemetry conventions for generative AI, and where telemetry goes.</summary>
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
        using var measurements = new Measurements(Telemetry.Name);
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

        var metrics = measurements.All.Where(metric => metric.Tags.GetValueOrDefault("gen_ai.request.model") == "traced-model").ToList();
        Assert.Equal(2, metrics.Count(metric => metric.Name == "gen_ai.client.operation.duration"));
        Assert.Single(metrics, metric => metric.Name == "gen_ai.client.operation.duration" && metric.Tags.GetValueOrDefault("error.type") == "503");
        Assert.Equal(
            [("input", 321d), ("output", 17d)],
            metrics.Where(metric => metric.Name == "gen_ai.client.token.usage").Select(metric => (metric.Tags["gen_ai.token.type"]!, metric.Value)));
    }

    [Theory]
    [InlineData("OTEL_EXPORTER_OTLP_ENDPOINT", "", "logs metrics traces", "OTEL_SERVICE_NAME", "mesa-de-ayuda")]
    [InlineData("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "/v1/traces", "traces", "OTEL_SERVICE_NAME", "mesa-de-ayuda")]
    [InlineData("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "/v1/metrics", "metrics", "OTEL_RESOURCE_ATTRIBUTES", "service.name=mesa-de-ayuda")]
    [InlineData("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "/v1/logs", "logs", "OTEL_RESOURCE_ATTRIBUTES", "service.name=mesa-de-ayuda")]
    public async Task The_standard_variables_say_where_traces_metrics_and_logs_go(string variable, string path, string signals, string nameVariable, string name)
    {
        await using var collector = await OtlpCollector.StartAsync();
        Guid id;
        await using (var app = await TicketApp.StartAsync(
            (variable, collector.Endpoint + path), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"), (nameVariable, name),
            ("Logging__LogLevel__Default", "Trace")))
        {
            id = await app.AddTicketAsync("Se exporta, sin su texto.");
            await app.ProcessAsync(id, query: "?code=clave-canario");
        }

        // Whatever is left is sent when the process ends.
        Assert.Equal(signals, string.Join(' ', collector.Received.Keys.Order(StringComparer.Ordinal)));
        Assert.All(collector.Received, sent =>
        {
            Assert.Contains(
                sent.Key switch { "traces" => "gen_ai.request.max_tokens", "metrics" => "tickets.outcomes", _ => $"Ticket {id}: labelled (model) in " },
                sent.Value,
                StringComparison.Ordinal);
            Assert.Contains("mesa-de-ayuda", sent.Value, StringComparison.Ordinal);
            Assert.DoesNotContain("ticket-functions", sent.Value, StringComparison.Ordinal);

            // Else two processes would send one series.
            Assert.Contains("service.instance.id", sent.Value, StringComparison.Ordinal);

            // Not even where the log on the screen shows everything.
            Assert.DoesNotContain("Se exporta", sent.Value, StringComparison.Ordinal);
            Assert.DoesNotContain("clave-canario", sent.Value, StringComparison.Ordinal);
        });
    }
}
