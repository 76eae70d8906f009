using System.Diagnostics;
using System.Diagnostics.Metrics;

namespace TicketFunctions.Classification;

/// <summary>Traces and metrics by the OpenTelemetry conventions for generative AI.</summary>
/// <remarks>https://opentelemetry.io/docs/specs/semconv/gen-ai/</remarks>
public static class Telemetry
{
    /// <summary>The name of the activity source and of the meter.</summary>
    public const string Name = "TicketFunctions";

    internal static readonly ActivitySource Source = new(Name);

    private static readonly Meter Meter = new(Name);

    private static readonly Histogram<double> Duration = Meter.CreateHistogram(
        "gen_ai.client.operation.duration",
        "s",
        "How long a call of a model took.",
        advice: new InstrumentAdvice<double> { HistogramBucketBoundaries = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92] });

    private static readonly Histogram<long> Tokens = Meter.CreateHistogram(
        "gen_ai.client.token.usage",
        "{token}",
        "Tokens read and written by a model.",
        advice: new InstrumentAdvice<long> { HistogramBucketBoundaries = [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864] });

    /// <summary>A span around one call; null when nobody listens.</summary>
    internal static Activity? StartCall(ModelTarget target, Uri address)
    {
        var activity = Source.StartActivity($"chat {target.Name}", ActivityKind.Client);
        if (activity is not null)
        {
            foreach (var (name, value) in Describe(target, address))
            {
                activity.SetTag(name, value);
            }

            activity.SetTag("gen_ai.request.max_tokens", target.MaxOutputTokens);
        }

        return activity;
    }

    internal static void EndCall(
        Activity? activity, ModelTarget target, Uri address, TimeSpan elapsed, string? servedModel, string? finishReason, int? tokensIn, int? tokensOut, string? error)
    {
        var tags = Describe(target, address);
        if (servedModel is not null)
        {
            tags.Add("gen_ai.response.model", servedModel);
            activity?.SetTag("gen_ai.response.model", servedModel);
        }

        if (finishReason is not null)
        {
            activity?.SetTag("gen_ai.response.finish_reasons", new[] { finishReason });
        }

        RecordTokens(tokensIn, "input", "gen_ai.usage.input_tokens");
        RecordTokens(tokensOut, "output", "gen_ai.usage.output_tokens");
        if (error is not null)
        {
            tags.Add("error.type", error);
            activity?.SetTag("error.type", error).SetStatus(ActivityStatusCode.Error);
        }

        Duration.Record(elapsed.TotalSeconds, tags);

        void RecordTokens(int? count, string type, string attribute)
        {
            if (count is { } tokens)
            {
                activity?.SetTag(attribute, tokens);
                var typed = tags;
                typed.Add("gen_ai.token.type", type);
                Tokens.Record(tokens, typed);
            }
        }
    }

    private static TagList Describe(ModelTarget target, Uri address) => new()
    {
        { "gen_ai.operation.name", "chat" },
        { "gen_ai.provider.name", target.Provider == "azure-openai" ? "azure.ai.openai" : target.Provider },
        { "gen_ai.request.model", target.Name },
        { "server.address", address.Host },
        { "server.port", address.Port },
    };
}
