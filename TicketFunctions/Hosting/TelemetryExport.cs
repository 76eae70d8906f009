using System.Diagnostics;
using OpenTelemetry;
using OpenTelemetry.Metrics;
using OpenTelemetry.Resources;
using OpenTelemetry.Trace;
using TicketFunctions.Classification;

namespace TicketFunctions.Hosting;

/// <summary>Sends traces and metrics to where the standard <c>OTEL_</c> variables say; nowhere without them.</summary>
/// <remarks>https://opentelemetry.io/docs/specs/otel/protocol/exporter/</remarks>
internal sealed class TelemetryExport(IConfiguration configuration) : IHostedService, IDisposable
{
    /// <summary>
    /// Ours, Semantic Kernel's where there is one, and the host's: its span around a request is the parent of ours,
    /// and the child of a parent that nobody records is not recorded either.
    /// </summary>
    private static readonly string[] Sources = [Telemetry.Name, "Microsoft.SemanticKernel*", "Microsoft.AspNetCore", "Microsoft.Azure.Functions.Worker"];

    private OpenTelemetrySdk? _sdk;

    public Task StartAsync(CancellationToken cancellationToken)
    {
        var traces = IsSet("OTEL_EXPORTER_OTLP_ENDPOINT") || IsSet("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        var metrics = IsSet("OTEL_EXPORTER_OTLP_ENDPOINT") || IsSet("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT");
        if ((traces || metrics) && !string.Equals(configuration["OTEL_SDK_DISABLED"], "true", StringComparison.OrdinalIgnoreCase))
        {
            _sdk = OpenTelemetrySdk.Create(builder =>
            {
                // The exporter reads its variables from here: from the same settings as everything else.
                builder.Services.AddSingleton(configuration);
                builder.ConfigureResource(resource =>
                {
                    if (!IsSet("OTEL_SERVICE_NAME"))
                    {
                        resource.AddService("ticket-functions");
                    }
                });

                if (traces)
                {
                    builder.WithTracing(tracing => tracing.AddSource(Sources).AddProcessor(new StatusWithoutText()));
                }

                if (metrics)
                {
                    builder.WithMetrics(metering => metering.AddMeter(Telemetry.Name, "Microsoft.SemanticKernel*"));
                }

                builder.UseOtlpExporter();
            });
        }

        return Task.CompletedTask;

        bool IsSet(string name) => !string.IsNullOrWhiteSpace(configuration[name]);
    }

    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    /// <summary>Sends what is left.</summary>
    public void Dispose() => _sdk?.Dispose();

    /// <summary>Semantic Kernel describes a failed call by its exception's message, which may quote the ticket, the answer or the key.</summary>
    private sealed class StatusWithoutText : BaseProcessor<Activity>
    {
        public override void OnEnd(Activity data)
        {
            if (data.StatusDescription is not null)
            {
                data.SetStatus(data.Status);
            }
        }
    }
}
