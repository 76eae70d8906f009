using Microsoft.Extensions.AI;
using Microsoft.Extensions.Options;
using TicketFunctions.Tickets;

namespace TicketFunctions.Classification;

/// <summary>Asks a language model, through any <see cref="IChatClient"/>: at most two calls, the second one to correct the first.</summary>
public sealed partial class LlmTicketClassifier : ITicketClassifier
{
    // Two labels in JSON are about 20 tokens; the rest is room for a fence or a synonym.
    private const int MaxOutputTokens = 64;

    private readonly ModelTarget _target;
    private readonly IChatClient _chat;
    private readonly Taxonomy _taxonomy;
    private readonly TicketPrompt _prompt;
    private readonly ModelOptions _options;
    private readonly TimeProvider _time;
    private readonly ILogger<LlmTicketClassifier> _logger;

    public LlmTicketClassifier(
        ChatClientFactory connect, Taxonomy taxonomy, IOptions<ModelOptions> options, TimeProvider time, ILogger<LlmTicketClassifier> logger)
    {
        var target = options.Value.Targets[0];
        _target = target;
        _chat = connect(ModelConnection.Open(target, target.Endpoints[0]), target.Name);
        _taxonomy = taxonomy;
        _prompt = new TicketPrompt(taxonomy);
        _options = options.Value;
        _time = time;
        _logger = logger;
        Identities =
        [
            new ClassifierIdentity(
                "model",
                target.Provider,
                target.Name,
                _prompt.Version,
                taxonomy.Version,
                $$"""{"temperature":0,"max_output_tokens":{{MaxOutputTokens}},"strict":true}"""),
        ];
    }

    public IReadOnlyList<ClassifierIdentity> Identities { get; }

    public async Task<ClassificationResult> ClassifyAsync(string text, CancellationToken cancellationToken)
    {
        using var total = new CancellationTokenSource(_options.TotalTimeout!.Value, _time);
        using var budget = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, total.Token);
        var messages = _prompt.For(text);
        var calls = new List<CallRecord>();
        var error = "";
        for (var call = 1; call <= 2; call++)
        {
            ChatResponse response;
            var started = _time.GetTimestamp();
            try
            {
                response = await AskAsync(messages, budget.Token);
            }
            catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
            {
                throw;
            }
            catch (OperationCanceledException)
            {
                calls.Add(Record(CallOutcome.TimedOut, null));
                return new ClassificationResult.Failed(FailureKind.UpstreamTimeout, "timeout: the model did not answer in time", null, calls);
            }
            catch (Exception e)
            {
                // Client libraries throw whatever a broken answer breaks in them; none of it may reach the triage.
                var failure = ChatFaults.Describe(e, _time.GetUtcNow());
                calls.Add(Record(failure.Kind == FailureKind.UpstreamInvalid ? CallOutcome.Malformed : CallOutcome.Unavailable, null));
                failure = failure with { Calls = calls };
                Log.Failed(_logger, failure.Kind, failure.Reason, e.GetType().Name);
                return failure;
            }

            var answer = response.Text;
            Log.Answered(_logger, call, response.FinishReason, answer.Length);
            if (FindRefusal(response) is { } refusal)
            {
                calls.Add(Record(CallOutcome.Refused, response));
                return refusal with { Calls = calls };
            }

            if (LabelParser.TryParse(answer, _taxonomy, out var labels, out error))
            {
                calls.Add(Record(CallOutcome.Labelled, response));
                return new ClassificationResult.Labelled(labels!, Identities[0], Confidence: null, NeedsReview: false, calls);
            }

            calls.Add(Record(CallOutcome.Unparseable, response));

            messages.Add(new ChatMessage(ChatRole.Assistant, TicketText.Clip(answer)));
            messages.Add(TicketPrompt.AskAgain(error));

            CallRecord Record(CallOutcome outcome, ChatResponse? response)
            {
                var (tokensIn, tokensOut) = ((int?)response?.Usage?.InputTokenCount, (int?)response?.Usage?.OutputTokenCount);
                return new CallRecord(
                    _target.Provider, _target.Name, response?.ModelId, outcome, null, tokensIn, tokensOut, _target.PriceOf(tokensIn, tokensOut),
                    (int)_time.GetElapsedTime(started).TotalMilliseconds);
            }
        }

        return new ClassificationResult.Failed(FailureKind.UpstreamInvalid, "invalid: the model answered twice without two labels of the taxonomy", null, calls);
    }

    private async Task<ChatResponse> AskAsync(IEnumerable<ChatMessage> messages, CancellationToken cancellationToken)
    {
        using var attempt = new CancellationTokenSource(_options.AttemptTimeout!.Value, _time);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, attempt.Token);
        return await _chat.GetResponseAsync(
            messages,
            new ChatOptions
            {
                ModelId = _target.Name,
                Temperature = 0,
                MaxOutputTokens = MaxOutputTokens,
                ResponseFormat = ChatResponseFormat.ForJsonSchema(_taxonomy.Schema, "ticket_labels"),
                AdditionalProperties = new() { ["strict"] = true },
            },
            either.Token);
    }

    private static ClassificationResult.Failed? FindRefusal(ChatResponse response)
    {
        // Before parsing: what a cut answer starts with may look like a whole one.
        if (response.FinishReason == ChatFinishReason.Length)
        {
            return new(FailureKind.UpstreamInvalid, "truncated: the model's answer was cut at its length limit", null, []);
        }

        if (response.FinishReason == ChatFinishReason.ContentFilter)
        {
            return new(FailureKind.UpstreamInvalid, "filtered: the provider's content filter stopped the answer", null, []);
        }

        return response.Messages.SelectMany(message => message.Contents).OfType<ErrorContent>().Any()
            ? new(FailureKind.UpstreamInvalid, "refused: the model declined to answer", null, [])
            : null;
    }

    private static partial class Log
    {
        [LoggerMessage(Level = LogLevel.Debug, Message = "Model answer {Call}: finish reason {FinishReason}, {Length} characters")]
        public static partial void Answered(ILogger logger, int call, ChatFinishReason? finishReason, int length);

        [LoggerMessage(Level = LogLevel.Information, Message = "Model call failed ({Kind}): {Reason} [{Exception}]")]
        public static partial void Failed(ILogger logger, FailureKind kind, string reason, string exception);
    }
}
