using System.Diagnostics;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using OpenTelemetry;
using OpenTelemetry.Logs;
using OpenTelemetry.Metrics;
using OpenTelemetry.Resources;
using OpenTelemetry.Trace;

namespace TicketFunctions.Hosting;

/// <summary>Sends traces, metrics and logs to where the standard <c>OTEL_</c> variables say; nowhere without them.</summary>
/// <remarks>https://opentelemetry.io/docs/specs/otel/protocol/exporter/</remarks>
internal sealed class TelemetryExport(IConfiguration configuration, ILoggerFactory loggers) : IHostedService, IDisposable
{
    /// <summary>
    /// Ours, Semantic Kernel's where there is one, and the host's: its span around a request is the parent of ours,
    /// and the child of a parent that nobody records is not recorded either.
    /// </summary>
    private static readonly string[] Sources = [Telemetry.Name, "Microsoft.SemanticKernel*", "Microsoft.AspNetCore", "Microsoft.Azure.Functions.Worker"];

    /// <summary>Ours, Semantic Kernel's, and the web server's <c>http.server.request.duration</c>: 5xx by route.</summary>
    private static readonly string[] Meters = [Telemetry.Name, "Microsoft.SemanticKernel*", "Microsoft.AspNetCore.Hosting"];

    private const string TimeoutVariable = "OTEL_EXPORTER_OTLP_TIMEOUT";

    /// <summary>In milliseconds, unless the variable is set. The process stops within ten seconds, also when its collector does not answer.</summary>
    private const string ShortTimeout = "2000";

    private OpenTelemetrySdk? _sdk;

    /// <summary>Whether a signal goes anywhere.</summary>
    /// <param name="signal"><c>TRACES</c>, <c>METRICS</c> or <c>LOGS</c>.</param>
    /// <param name="configuration">The settings.</param>
    public static bool IsOn(string signal, IConfiguration configuration) =>
        (IsSet("OTEL_EXPORTER_OTLP_ENDPOINT", configuration) || IsSet($"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT", configuration))
        && !string.Equals(configuration[$"OTEL_{signal}_EXPORTER"], "none", StringComparison.OrdinalIgnoreCase)
        && !string.Equals(configuration["OTEL_SDK_DISABLED"], "true", StringComparison.OrdinalIgnoreCase);

    /// <exception cref="OptionsValidationException">OpenTelemetry does not take one of its variables.</exception>
    public Task StartAsync(CancellationToken cancellationToken)
    {
        var (traces, metrics, logs) = (IsOn("TRACES", configuration), IsOn("METRICS", configuration), IsOn("LOGS", configuration));
        if (traces || metrics || logs)
        {
            try
            {
                _sdk = CreateSdk(traces, metrics, logs);
            }
            catch (Exception e)
            {
                // By their names: the text of the exception may quote a header's secret.
                var variables = configuration.AsEnumerable().Select(setting => setting.Key).Where(name => name.StartsWith("OTEL_", StringComparison.Ordinal));
                throw new OptionsValidationException("OTEL", typeof(OpenTelemetrySdk), [
                    $"OpenTelemetry does not take one of {string.Join(", ", variables.Order(StringComparer.Ordinal))} ({e.GetType().Name}); mend it as its specification says, or remove it."]);
            }

            if (logs)
            {
                loggers.AddProvider(new LogForwarder(_sdk.GetLoggerFactory()));
            }
        }

        return Task.CompletedTask;
    }

    public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;

    /// <summary>Sends what is left.</summary>
    public void Dispose() => _sdk?.Dispose();

    private OpenTelemetrySdk CreateSdk(bool traces, bool metrics, bool logs) =>
        OpenTelemetrySdk.Create(builder =>
        {
            // The exporter reads its variables from here: from the same settings as everything else.
            builder.Services.AddSingleton<IConfiguration>(
                new ConfigurationBuilder().AddInMemoryCollection([new(TimeoutVariable, ShortTimeout)]).AddConfiguration(configuration).Build());

            // Ours first, so that the variables win. The generated id of the instance keeps the numbers of several processes apart.
            builder.ConfigureResource(resource => resource.Clear().AddService("ticket-functions").AddTelemetrySdk().AddEnvironmentVariableDetector());

            if (traces)
            {
                builder.WithTracing(tracing => tracing.AddSource(Sources).AddProcessor(new StatusWithoutText()));
            }

            if (metrics)
            {
                builder.WithMetrics(metering => metering.AddMeter(Meters));
            }

            if (logs)
            {
                builder.WithLogging(configureBuilder: null, options => options.IncludeFormattedMessage = true);

                // The filters of the process decide before; but texts, which stand at Trace, never leave it.
                builder.Services.AddLogging(logging => logging.SetMinimumLevel(LogLevel.Debug));
            }

            builder.UseOtlpExporter();
        });

    private static bool IsSet(string name, IConfiguration configuration) => !string.IsNullOrWhiteSpace(configuration[name]);

    /// <summary>Passes what the process logs on to the exporter.</summary>
    [ProviderAlias("OpenTelemetry")]
    private sealed class LogForwarder(ILoggerFactory exporter) : ILoggerProvider
    {
        public ILogger CreateLogger(string categoryName) => exporter.CreateLogger(categoryName);

        public void Dispose()
        {
            // The exporter ends with the SDK.
        }
    }

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
