using Microsoft.Extensions.AI;
using Polly;
using Polly.Retry;

namespace TicketFunctions.Classification;

/// <summary>One model: its addresses share the work, passing faults are tried again, and requests are put in the form its server takes.</summary>
internal sealed partial class ModelClient
{
    private readonly ModelEndpoint[] _endpoints;
    private readonly ModelCapabilities _capabilities;
    private readonly Taxonomy _taxonomy;
    private readonly RetryBudget _retryBudget;
    private readonly TimeProvider _time;
    private readonly ILogger _logger;
    private readonly ResiliencePipeline<ModelReply> _retry;
    private int _turn;

    public ModelClient(ModelTarget target, ChatClientFactory connect, Taxonomy taxonomy, ModelOptions options, RetryBudget retryBudget, TimeProvider time, ILogger logger)
    {
        Target = target;
        _endpoints =
        [
            .. target.Endpoints.Select(address =>
                new ModelEndpoint(connect(ModelConnection.Open(target, address), target.Name), target, address, options, time)),
        ];

        // Asked for, or where it is known to be understood: a server that does not know the member may refuse the whole request.
        Evidence = options.Confidence
            ?? (target.Provider is "openai" or "azure-openai" or "ollama" ? ConfidenceEvidence.Logprobs : ConfidenceEvidence.None);
        _capabilities = new ModelCapabilities(target, Evidence == ConfidenceEvidence.Logprobs, logger);
        _taxonomy = taxonomy;
        _retryBudget = retryBudget;
        _time = time;
        _logger = logger;
        _retry = options.MaxRetries == 0
            ? ResiliencePipeline<ModelReply>.Empty
            : new ResiliencePipelineBuilder<ModelReply> { TimeProvider = time }
                .AddRetry(new RetryStrategyOptions<ModelReply>
                {
                    MaxRetryAttempts = options.MaxRetries,
                    Delay = TimeSpan.FromSeconds(0.5),
                    BackoffType = DelayBackoffType.Exponential,
                    UseJitter = true,
                    ShouldHandle = args => ValueTask.FromResult(
                        args.AttemptNumber < options.MaxRetries && Question.Of(args.Context).MayRepeat(args.Outcome.Result) && _retryBudget.TrySpend()),
                    DelayGenerator = args => ValueTask.FromResult(Question.Of(args.Context).FindDelay()),
                })
                .Build();
    }

    public ModelTarget Target { get; }

    /// <summary>What the confidence in this model's answers is taken from.</summary>
    public ConfidenceEvidence Evidence { get; }

    /// <summary>The parameters of a request as a JSON object, for the record.</summary>
    /// <param name="masked">Personal data was masked.</param>
    /// <param name="sent">The request; the one that would be sent now by default.</param>
    public string DescribeParameters(bool masked, ChatOptions? sent = null) =>
        _capabilities.Describe(sent ?? _capabilities.For(_taxonomy, temperature: 0), Evidence, masked);

    /// <summary>Asks, and asks again as long as that may help.</summary>
    /// <param name="messages">The whole conversation.</param>
    /// <param name="temperature">Zero, or more for a second sample.</param>
    /// <param name="calls">Gets a record of each call that failed; that of a completion comes with the reply.</param>
    /// <param name="budget">The time there is.</param>
    public async Task<(ModelReply Reply, ChatOptions Sent)> AskAsync(IReadOnlyList<ChatMessage> messages, float temperature, List<CallRecord> calls, CallBudget budget)
    {
        _retryBudget.Earn();
        var question = new Question(_endpoints.Length, budget);
        var context = ResilienceContextPool.Shared.Get(budget.Token);
        context.Properties.Set(Question.Key, question);
        var sent = _capabilities.For(_taxonomy, temperature);
        try
        {
            var reply = await _retry.ExecuteAsync(
                async _ =>
                {
                    while (true)
                    {
                        sent = _capabilities.For(_taxonomy, temperature);
                        var reply = await CallAnyAsync(messages, sent, question);
                        if (reply.Fault is { } fault)
                        {
                            if (fault.WasCalled)
                            {
                                calls.Add(reply.Record);
                                Log.Failed(_logger, Target.Name, fault.Outcome, fault.Reason);
                            }

                            // A request refused for its form was not worked on: in another form it is the same question.
                            if (fault.Rejects is { } part && question.Forms++ < 4 && _capabilities.TryDropRejected(part, sent))
                            {
                                continue;
                            }
                        }

                        return reply;
                    }
                },
                context);
            return (reply, sent);
        }
        catch (OperationCanceledException) when (!budget.Stopping.IsCancellationRequested)
        {
            // The budget ended in a wait between two calls.
            return (ModelReply.Without(Target, ModelFault.TimedOut), sent);
        }
        finally
        {
            ResilienceContextPool.Shared.Return(context);
        }
    }

    /// <summary>Learns from the first answer to a ticket whether the server keeps to the format.</summary>
    public void NoteAnswer(CallOutcome outcome, ChatOptions sent) => _capabilities.NoteAnswer(outcome, sent);

    /// <summary>Calls the address with the least work, the next one where an address is out of order.</summary>
    private async Task<ModelReply> CallAnyAsync(IReadOnlyList<ChatMessage> messages, ChatOptions options, Question question)
    {
        while (true)
        {
            var soonest = _endpoints.Min(endpoint => endpoint.CoolsFor);
            if (soonest > TimeSpan.Zero)
            {
                if (soonest >= question.Budget.Remaining)
                {
                    return ModelReply.Without(Target, ModelFault.NotCalled(soonest));
                }

                await Task.Delay(soonest, _time, question.Budget.Token);
            }

            var turn = Interlocked.Increment(ref _turn) & int.MaxValue;
            var candidates = Enumerable.Range(0, _endpoints.Length)
                .Select(i => (i + turn) % _endpoints.Length)
                .OrderBy(i => question.Tried[i])
                .ThenBy(i => _endpoints[i].Load)
                .Where(i => _endpoints[i].CoolsFor < ModelEndpoint.Earliness)
                .ToList();
            ModelReply? broken = null;
            foreach (var i in candidates)
            {
                var reply = await _endpoints[i].CallAsync(messages, options, question.Budget);
                if (reply.Fault is not { WasCalled: false } fault)
                {
                    question.Tried[i] = true;
                    return reply;
                }

                broken = broken is null || fault.RetryAfter < broken.Fault!.RetryAfter ? reply : broken;
            }

            // All were told meanwhile to wait: then we do, if there is time.
            if (broken is not null && _endpoints.Any(endpoint => endpoint.CoolsFor < ModelEndpoint.Earliness))
            {
                return broken;
            }
        }
    }

    /// <summary>One question on its way through retries and addresses.</summary>
    private sealed class Question(int endpoints, CallBudget budget)
    {
        public static readonly ResiliencePropertyKey<Question> Key = new(nameof(Question));

        public CallBudget Budget => budget;

        public bool[] Tried { get; } = new bool[endpoints];

        public int Forms { get; set; }

        public static Question Of(ResilienceContext context) => context.Properties.GetValue(Key, null!);

        /// <summary>What lies beyond the budget is not waited for: the ticket comes back later.</summary>
        public bool MayRepeat(ModelReply? reply) =>
            reply?.Fault is { IsTransient: true } fault
            && budget.Remaining > (Tried.Contains(false) ? TimeSpan.Zero : fault.RetryAfter ?? TimeSpan.Zero) + TimeSpan.FromSeconds(1);

        /// <summary>No wait for another address, else the jittered backoff; what the server asks for is waited for before each call.</summary>
        public TimeSpan? FindDelay() => Tried.Contains(false) ? TimeSpan.Zero : null;
    }

    private static partial class Log
    {
        [LoggerMessage(Level = LogLevel.Information, Message = "Model {Model}: {Outcome}, {Reason}")]
        public static partial void Failed(ILogger logger, string model, CallOutcome outcome, string reason);
    }
}

/// <summary>Keeps retries to a share of all questions, so that an outage is not answered with a storm. One for the process.</summary>
/// <remarks>As gRPC throttles them: https://github.com/grpc/proposal/blob/master/A6-client-retries.md#throttling-retry-attempts-and-hedged-rpcs</remarks>
internal sealed class RetryBudget
{
    /// <summary>Retries per question in the long run.</summary>
    public const double Share = 0.2;

    /// <summary>Retries that may come at once after a quiet time.</summary>
    public const int Burst = 10;

    private readonly Lock _lock = new();
    private double _tokens = Burst;

    public void Earn()
    {
        lock (_lock)
        {
            _tokens = Math.Min(Burst, _tokens + Share);
        }
    }

    public bool TrySpend()
    {
        lock (_lock)
        {
            if (_tokens < 1)
            {
                return false;
            }

            _tokens--;
            return true;
        }
    }
}
