using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Classification.Providers;

/// <summary>Both builds send what they trace, measure and log.</summary>
public sealed class ExportTests
{
    [Fact]
    public async Task A_call_of_a_model_arrives_as_a_span_two_metrics_and_a_log_line_and_without_its_text()
    {
        await using var collector = await OtlpCollector.StartAsync();
        await using (var harness = await ModelHarness.StartAsync(
            null,
            ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.Endpoint), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("Model__Name", "modelo-exportado"), ("Model__MaxRetries", "0"), ("Model__Output", "Schema")))
        {
            harness.Model.On("Falla, sin su texto.", ModelStub.Raw(503, "application/json", """{"error": {"message": "Falla, sin su texto."}}"""));
            foreach (var service in harness.Services.GetServices<IHostedService>())
            {
                await service.StartAsync(CancellationToken.None);
            }

            await harness.ClassifyAsync("Responde, sin su texto.");
            await harness.ClassifyAsync("Falla, sin su texto.");

            // Nothing is held back where the log is kept, though the kernel logs what it sends.
            Assert.Contains(harness.Log, line => line.Message.Contains("Responde, sin su texto.", StringComparison.Ordinal));
        }

        Assert.Equal(["logs", "metrics", "traces"], collector.Received.Keys.Order(StringComparer.Ordinal));
        Assert.Contains("chat modelo-exportado", collector.Received["traces"], StringComparison.Ordinal);
        Assert.Contains("gen_ai.client.operation.duration", collector.Received["metrics"], StringComparison.Ordinal);
        Assert.Contains("gen_ai.client.token.usage", collector.Received["metrics"], StringComparison.Ordinal);
        Assert.Contains("Model modelo-exportado: Unavailable, ", collector.Received["logs"], StringComparison.Ordinal);
        Assert.All(collector.Received.Values, sent => Assert.DoesNotContain("sin su texto", sent, StringComparison.Ordinal));
    }
}
