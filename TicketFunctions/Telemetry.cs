using System.Diagnostics;
using System.Diagnostics.Metrics;
using System.Text.Json;
using TicketFunctions.Classification;
using TicketFunctions.Storage;
using TicketFunctions.Tickets;

namespace TicketFunctions;

/// <summary>
/// Every span and every metric: model calls by the OpenTelemetry conventions for generative AI, tickets by names of our own.
/// Attributes have few values; no id and no text is among them.
/// </summary>
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

    private static readonly Counter<double> Cost = Meter.CreateCounter<double>(
        "tickets.cost", "{currency}", "What model calls cost, in the currency of the configured prices; nothing where no price is known.");

    private static readonly Counter<long> Outcomes = Meter.CreateCounter<long>(
        "tickets.outcomes", "{ticket}", "How attempts at tickets ended.");

    private static readonly Histogram<double> TimeToLabel = Meter.CreateHistogram(
        "tickets.time_to_label",
        "s",
        "From the creation of a ticket to its first labels.",
        advice: new InstrumentAdvice<double> { HistogramBucketBoundaries = [1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 14400, 86400] });

    private static readonly Counter<long> ExpiredLeases = Meter.CreateCounter<long>(
        "tickets.leases.expired", "{lease}", "Tickets that were taken over from an attempt which had not ended within its lease.");

    private static readonly Counter<long> StorageFaultCount = Meter.CreateCounter<long>(
        "tickets.storage.faults", "{fault}", "Statements that the database did not take or did not answer.");

    /// <summary>Makes the gauges of the backlog. Every process tells the same numbers, so they are never added up.</summary>
    /// <param name="read">What was counted last; null when nobody knows, and then nothing is reported.</param>
    /// <returns>One of the gauges; they all end with its meter.</returns>
    internal static ObservableGauge<double> ObserveBacklog(Func<Backlog?> read)
    {
        var meter = new Meter(Name);
        Observe("unprocessed", "{ticket}", "Tickets without labels, parked ones included.", backlog => backlog.Unprocessed);
        Observe("in_flight", "{ticket}", "Tickets that somebody holds.", backlog => backlog.InFlight);
        Observe("parked", "{ticket}", "Tickets whose attempts are used up.", backlog => backlog.Parked);
        return Observe("age", "s", "The age of the oldest ticket without labels that is not parked.", backlog => backlog.OldestWaitingSeconds);

        ObservableGauge<T> Observe<T>(string name, string unit, string description, Func<Backlog, T> find)
            where T : struct =>
            meter.CreateObservableGauge<T>($"tickets.backlog.{name}", () => read() is { } backlog ? [new Measurement<T>(find(backlog))] : [], unit, description);
    }

    /// <summary>Counts what became of an attempt that was made.</summary>
    internal static void CountOutcome(TriageResult result)
    {
        switch (result)
        {
            case TriageResult.Labelled labelled:
                Outcomes.Add(1, new("outcome", "labelled"), new("source", labelled.Source));
                break;
            case TriageResult.RetryLater retry:
                CountOutcome("retry", NameOf(retry.Kind));
                break;
            case TriageResult.Parked parked:
                CountOutcome("parked", NameOf(parked.Kind));
                break;
            case TriageResult.BlankText:
                CountOutcome("parked", "blank");
                break;
            case TriageResult.NotForced kept:
                CountOutcome("kept", NameOf(kept.Kind));
                break;
            case TriageResult.InProgress:
                Outcomes.Add(1, new KeyValuePair<string, object?>("outcome", "given_back"));
                break;
        }
    }

    /// <summary>Counts tickets whose last attempt ended with its process.</summary>
    internal static void CountInterrupted(int tickets)
    {
        if (tickets > 0)
        {
            CountOutcome("parked", "interrupted", tickets);
        }
    }

    /// <summary>Whether anybody records it: to find out whether a label is a ticket's first takes the database a look for each.</summary>
    internal static bool RecordsTimeToLabel => TimeToLabel.Enabled;

    internal static void RecordTimeToLabel(TimeSpan age, string source) =>
        TimeToLabel.Record(age.TotalSeconds, new KeyValuePair<string, object?>("source", source));

    internal static void CountExpiredLeases(int leases)
    {
        if (leases > 0)
        {
            ExpiredLeases.Add(leases);
        }
    }

    /// <summary>Counts a fault of the database by its SQLSTATE, or by the name of the exception where the server said nothing.</summary>
    internal static void CountStorageFault(Exception fault) =>
        StorageFaultCount.Add(1, new KeyValuePair<string, object?>("error.type", StorageFaults.NameOf(fault)));

    private static void CountOutcome(string outcome, string error, int tickets = 1) => Outcomes.Add(tickets, new("outcome", outcome), new("error.type", error));

    private static string NameOf(FailureKind kind) => JsonNamingPolicy.SnakeCaseLower.ConvertName($"{kind}");

    /// <summary>A span around one call; null when nobody listens.</summary>
    internal static Activity? StartCall(ModelTarget target, Uri address)
    {
        var activity = Source.HasListeners() ? Source.StartActivity($"chat {target.Name}", ActivityKind.Client) : null;
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
        Activity? activity, ModelTarget target, Uri address, TimeSpan elapsed, string? servedModel, string? finishReason, int? tokensIn, int? tokensOut, decimal? cost, string? error)
    {
        if (activity is null && !Duration.Enabled && !Tokens.Enabled && !Cost.Enabled)
        {
            return;
        }

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

        if (cost is { } price)
        {
            Cost.Add((double)price, new("gen_ai.provider.name", NameOf(target.Provider)), new("gen_ai.request.model", target.Name));
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
        { "gen_ai.provider.name", NameOf(target.Provider) },
        { "gen_ai.request.model", target.Name },
        { "server.address", address.Host },
        { "server.port", address.Port },
    };

    private static string NameOf(string provider) => provider == "azure-openai" ? "azure.ai.openai" : provider;
}
