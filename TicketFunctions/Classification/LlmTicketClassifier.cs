using Microsoft.Extensions.AI;
using Microsoft.Extensions.Options;
using TicketFunctions.Tickets;

namespace TicketFunctions.Classification;

/// <summary>Asks a language model, through any <see cref="IChatClient"/>: at most two calls, the second one to correct the first.</summary>
public sealed partial class LlmTicketClassifier : ITicketClassifier
{
    // Two labels in JSON are about 20 tokens; the rest is room for a fence or a synonym.
    private const int MaxOutputTokens = 64;

    private readonly IChatClient _chat;
    private readonly Taxonomy _taxonomy;
    private readonly TicketPrompt _prompt;
    private readonly ModelOptions _options;
    private readonly TimeProvider _time;
    private readonly ILogger<LlmTicketClassifier> _logger;

    public LlmTicketClassifier(
        IChatClient chat, Taxonomy taxonomy, IOptions<ModelOptions> options, TimeProvider time, ILogger<LlmTicketClassifier> logger)
    {
        _chat = chat;
        _taxonomy = taxonomy;
        _prompt = new TicketPrompt(taxonomy);
        _options = options.Value;
        _time = time;
        _logger = logger;
        Identity = new ClassifierIdentity(
            "model",
            _options.EffectiveProvider,
            _options.Name!,
            _prompt.Version,
            taxonomy.Version,
            $$"""{"temperature":0,"max_output_tokens":{{MaxOutputTokens}},"strict":true}""");
    }

    public ClassifierIdentity Identity { get; }

    public async Task<ClassificationResult> ClassifyAsync(string text, CancellationToken cancellationToken)
    {
        using var total = new CancellationTokenSource(_options.TotalTimeout!.Value, _time);
        using var budget = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, total.Token);
        var messages = _prompt.For(text);
        long? tokensIn = null, tokensOut = null;
        var error = "";
        for (var call = 1; call <= 2; call++)
        {
            ChatResponse response;
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
                return new ClassificationResult.Failed(FailureKind.UpstreamTimeout, "timeout: the model did not answer in time");
            }
            catch (Exception e)
            {
                // Client libraries throw whatever a broken answer breaks in them; none of it may reach the triage.
                var failure = ChatFaults.Describe(e, _time.GetUtcNow()) with { WasAnswered = call > 1 };
                Log.Failed(_logger, failure.Kind, failure.Reason, e.GetType().Name);
                return failure;
            }

            tokensIn = Sum(tokensIn, response.Usage?.InputTokenCount);
            tokensOut = Sum(tokensOut, response.Usage?.OutputTokenCount);
            var answer = response.Text;
            Log.Answered(_logger, call, response.FinishReason, answer.Length);
            if (FindRefusal(response) is { } refusal)
            {
                return refusal;
            }

            if (LabelParser.TryParse(answer, _taxonomy, out var labels, out error))
            {
                return new ClassificationResult.Labelled(
                    labels!, Confidence: null, NeedsReview: false, (int?)tokensIn, (int?)tokensOut, call);
            }

            messages.Add(new ChatMessage(ChatRole.Assistant, TicketText.Clip(answer)));
            messages.Add(TicketPrompt.AskAgain(error));
        }

        return new ClassificationResult.Failed(FailureKind.UpstreamInvalid, "invalid: the model answered twice without two labels of the taxonomy");
    }

    private async Task<ChatResponse> AskAsync(IEnumerable<ChatMessage> messages, CancellationToken cancellationToken)
    {
        using var attempt = new CancellationTokenSource(_options.AttemptTimeout!.Value, _time);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, attempt.Token);
        return await _chat.GetResponseAsync(
            messages,
            new ChatOptions
            {
                ModelId = _options.Name,
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
            return new(FailureKind.UpstreamInvalid, "truncated: the model's answer was cut at its length limit");
        }

        if (response.FinishReason == ChatFinishReason.ContentFilter)
        {
            return new(FailureKind.UpstreamInvalid, "filtered: the provider's content filter stopped the answer");
        }

        return response.Messages.SelectMany(message => message.Contents).OfType<ErrorContent>().Any()
            ? new(FailureKind.UpstreamInvalid, "refused: the model declined to answer")
            : null;
    }

    private static long? Sum(long? left, long? right) => left is null ? right : left + (right ?? 0);

    private static partial class Log
    {
        [LoggerMessage(Level = LogLevel.Debug, Message = "Model answer {Call}: finish reason {FinishReason}, {Length} characters")]
        public static partial void Answered(ILogger logger, int call, ChatFinishReason? finishReason, int length);

        [LoggerMessage(Level = LogLevel.Information, Message = "Model call failed ({Kind}): {Reason} [{Exception}]")]
        public static partial void Failed(ILogger logger, FailureKind kind, string reason, string exception);
    }
}
