using System.Runtime.CompilerServices;
using Microsoft.Extensions.AI;
using Microsoft.Extensions.Options;
using OpenAI.Chat;
using TicketFunctions.Tickets;
using ChatFinishReason = Microsoft.Extensions.AI.ChatFinishReason;
using ChatMessage = Microsoft.Extensions.AI.ChatMessage;

namespace TicketFunctions.Classification;

/// <summary>
/// Asks language models: the first one, once more when its answer was no label, then the next one in the list.
/// Decides what an answer is worth; what happens on the way to a model is <see cref="ModelClient"/>'s.
/// </summary>
public sealed partial class LlmTicketClassifier : ITicketClassifier
{
    private readonly IReadOnlyList<ModelClient> _models;
    private readonly BaselineTicketClassifier _baseline;
    private readonly Taxonomy _taxonomy;
    private readonly TicketPrompt _prompt;
    private readonly ModelOptions _options;
    private readonly TimeProvider _time;
    private readonly ILogger<LlmTicketClassifier> _logger;
    private readonly ConditionalWeakTable<ChatOptions, ClassifierIdentity> _identities = [];
    private IReadOnlyList<ClassifierIdentity> _current;

    public LlmTicketClassifier(
        ChatClientFactory connect,
        BaselineTicketClassifier baseline,
        Taxonomy taxonomy,
        IOptions<ModelOptions> options,
        TimeProvider time,
        ILogger<LlmTicketClassifier> logger)
    {
        var retryBudget = new RetryBudget();
        _models = [.. options.Value.Targets.Select(target => new ModelClient(target, connect, taxonomy, options.Value, retryBudget, time, logger))];
        _baseline = baseline;
        _taxonomy = taxonomy;
        _prompt = new TicketPrompt(taxonomy);
        _options = options.Value;
        _time = time;
        _logger = logger;
        _current = [.. _models.Select(model => Identify(model, model.Options))];
    }

    public IReadOnlyList<ClassifierIdentity> Identities
    {
        get
        {
            var current = _current;
            for (var i = 0; i < current.Count; i++)
            {
                if (!ReferenceEquals(current[i], Identify(_models[i], _models[i].Options)))
                {
                    // A server turned out not to take a part of the request.
                    return _current = [.. _models.Select(model => Identify(model, model.Options))];
                }
            }

            return current;
        }
    }

    public async Task<ClassificationResult> ClassifyAsync(string text, CancellationToken cancellationToken)
    {
        using var budget = new CallBudget(_options.TotalTimeout!.Value, _time, cancellationToken, least: _options.AttemptTimeout!.Value / 2);
        var read = _options.MaskPersonalData ? PersonalData.Mask(text) : text;
        var calls = new List<CallRecord>();
        ClassificationResult.Failed? failed = null;
        var weight = -1;
        var isBusy = false;
        foreach (var model in _models)
        {
            var callsBefore = calls.Count;
            switch (await AskAsync(model, read, calls, budget))
            {
                case ClassificationResult.Labelled labelled:
                    return labelled;

                case ClassificationResult.Failed next:
                    var retryAfter = failed is null ? next.RetryAfter : Shorter(failed.RetryAfter, next.RetryAfter);
                    var nextWeight = WeightOf([.. calls.Skip(callsBefore)]);
                    failed = (nextWeight > weight ? next : failed!) with { RetryAfter = retryAfter };
                    weight = Math.Max(weight, nextWeight);
                    isBusy |= next.Kind == FailureKind.UpstreamBusy;
                    break;
            }

            if (budget.UntilLastCall < TimeSpan.Zero)
            {
                break;
            }
        }

        if (_options.BaselineStandsIn && !isBusy && failed is { WasAnswered: false, Kind: FailureKind.UpstreamUnavailable or FailureKind.UpstreamTimeout }
            && await _baseline.ClassifyAsync(text, cancellationToken) is ClassificationResult.Labelled standIn)
        {
            Log.StoodIn(_logger, failed.Reason);
            return standIn with { Calls = calls };
        }

        return failed! with { Calls = calls };
    }

    /// <summary>One for each form of request, however often it is sent.</summary>
    private ClassifierIdentity Identify(ModelClient model, ChatOptions sent) => _identities.TryGetValue(sent, out var identity)
        ? identity
        : _identities.GetOrAdd(sent, new ClassifierIdentity(
            "model", model.Target.Provider, model.Target.Name, _prompt.Version, _taxonomy.Version, model.DescribeParameters(sent, _options.MaskPersonalData)));

    private async Task<ClassificationResult> AskAsync(ModelClient model, string ticket, List<CallRecord> calls, CallBudget budget)
    {
        var messages = _prompt.For(ticket);
        for (var ask = 1; ; ask++)
        {
            if (_logger.IsEnabled(LogLevel.Trace))
            {
                Log.Asked(_logger, model.Target.Name, messages[^1].Text);
            }

            var (reply, sent) = await model.AskAsync(messages, temperature: 0, calls, budget);
            if (reply.Fault is { } fault)
            {
                return new ClassificationResult.Failed(fault.Kind, fault.Reason, fault.RetryAfter, calls);
            }

            var text = reply.Response!.Text;
            var answer = Judge(reply.Response, text);
            calls.Add(reply.Record with { Outcome = answer.Outcome });
            if (ask == 1)
            {
                model.NoteAnswer(answer.Outcome, sent);
            }

            Log.Answered(_logger, model.Target.Name, answer.Outcome, reply.Response.FinishReason, text.Length);
            Log.Answer(_logger, text);
            switch (answer.Outcome)
            {
                case CallOutcome.Labelled:
                    var confidence = model.Evidence == ConfidenceEvidence.None
                        ? null
                        : await FindConfidenceAsync(model, messages, answer.Labels!, reply.Response, calls, budget);
                    return new ClassificationResult.Labelled(
                        answer.Labels!, Identify(model, sent), confidence, NeedsReview: confidence < _options.ReviewBelow, calls);

                case CallOutcome.Empty or CallOutcome.Unparseable or CallOutcome.OffTaxonomy:
                    if (ask == 2)
                    {
                        return Fail("invalid: the model answered twice without two labels of the taxonomy");
                    }

                    messages.Add(new ChatMessage(ChatRole.Assistant, TicketText.Clip(text)));
                    messages.Add(TicketPrompt.AskAgain(answer.Error));
                    break;

                // To ask the same again would end the same.
                case CallOutcome.Truncated:
                    return Fail("truncated: the model's answer was cut at its length limit; a model that thinks first needs a higher Model__MaxOutputTokens");
                case CallOutcome.Filtered:
                    return Fail("filtered: the provider's content filter stopped the answer");
                default:
                    return Fail("refused: the model declined to answer");
            }
        }

        ClassificationResult.Failed Fail(string reason) => new(FailureKind.UpstreamInvalid, reason, null, calls);
    }

    private (CallOutcome Outcome, Labels? Labels, string Error) Judge(ChatResponse response, string text)
    {
        // Before parsing: what a cut answer starts with may look like a whole one.
        if (response.FinishReason == ChatFinishReason.Length)
        {
            return (CallOutcome.Truncated, null, "");
        }

        if (response.FinishReason == ChatFinishReason.ContentFilter)
        {
            return (CallOutcome.Filtered, null, "");
        }

        foreach (var message in response.Messages)
        {
            foreach (var content in message.Contents)
            {
                if (content is ErrorContent)
                {
                    return (CallOutcome.Refused, null, "");
                }
            }
        }

        var outcome = LabelParser.Parse(text, _taxonomy, out var labels, out var error);
        return (outcome, labels, error);
    }

    private async Task<float?> FindConfidenceAsync(
        ModelClient model, IReadOnlyList<ChatMessage> messages, Labels labels, ChatResponse response, List<CallRecord> calls, CallBudget budget)
    {
        if (model.Evidence != ConfidenceEvidence.Samples)
        {
            return LabelConfidence.FromLogprobs(response.RawRepresentation as ChatCompletion);
        }

        // The label is found already, and paid: whatever happens to the second sample only leaves it without evidence.
        ModelReply reply;
        try
        {
            (reply, _) = await model.AskAsync(messages, temperature: 1, calls, budget);
        }
        catch (OperationCanceledException) when (budget.Stopping.IsCancellationRequested)
        {
            return null;
        }

        if (reply.Fault is not null)
        {
            return null;
        }

        var second = Judge(reply.Response!, reply.Response!.Text);
        calls.Add(reply.Record with { Outcome = second.Outcome == CallOutcome.Labelled ? CallOutcome.Sampled : second.Outcome });
        return second.Labels is null ? null : LabelConfidence.FromSamples(labels, second.Labels);
    }

    /// <summary>An answer that was no label tells more than a time-out, which may have been paid too; that more than a model out of reach; and a call more than none.</summary>
    private static int WeightOf(List<CallRecord> calls) =>
        calls.Exists(call => call.WasAnswered) ? 3
        : calls.Exists(call => call.Outcome == CallOutcome.TimedOut) ? 2
        : calls.Count > 0 ? 1
        : 0;

    private static TimeSpan? Shorter(TimeSpan? left, TimeSpan? right) => left is null || right < left ? right ?? left : left;

    private static partial class Log
    {
        [LoggerMessage(Level = LogLevel.Trace, Message = "Model {Model} is asked: {Text}")]
        public static partial void Asked(ILogger logger, string model, string text);

        [LoggerMessage(Level = LogLevel.Trace, Message = "The model answered: {Text}")]
        public static partial void Answer(ILogger logger, string text);

        [LoggerMessage(Level = LogLevel.Debug, Message = "Model {Model}: {Outcome}, finish reason {FinishReason}, {Length} characters")]
        public static partial void Answered(ILogger logger, string model, CallOutcome outcome, ChatFinishReason? finishReason, int length);

        [LoggerMessage(Level = LogLevel.Warning, Message = "No model can be reached ({Reason}): the embedded baseline stands in")]
        public static partial void StoodIn(ILogger logger, string reason);
    }
}
