using Microsoft.Extensions.AI;
using Polly;
using Polly.Retry;

namespace TicketFunctions.Classification;

/// <summary>One model: its addresses share the work, passing faults are tried again, and requests are put in the form its server takes.</summary>
internal sealed partial class ModelClient
{
    /// <summary>Each part may be refused once, and the format twice.</summary>
    private const int MaxForms = 6;

    private static readonly int[] Only = [0];

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
                new ModelEndpoint(connect(target, address), target, address, options, time)),
        ];

        Evidence = options.EvidenceOf(target.Provider);
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

    /// <summary>The options of the next request.</summary>
    public ChatOptions Options => _capabilities.For(_taxonomy, temperature: 0);

    /// <summary>The parameters of a request as a JSON object, for the record.</summary>
    /// <param name="sent">The request.</param>
    /// <param name="masked">Personal data was masked.</param>
    public string DescribeParameters(ChatOptions sent, bool masked) => _capabilities.Describe(sent, Evidence, masked);

    /// <summary>Asks, and asks again as long as that may help.</summary>
    /// <param name="messages">The whole conversation.</param>
    /// <param name="temperature">Zero, or more for a second sample.</param>
    /// <param name="calls">Gets a record of each call that failed; that of a completion comes with the reply.</param>
    /// <param name="budget">The time there is.</param>
    public async Task<(ModelReply Reply, ChatOptions Sent)> AskAsync(IReadOnlyList<ChatMessage> messages, float temperature, List<CallRecord> calls, CallBudget budget)
    {
        _retryBudget.Earn();
        var question = new Question(this, messages, temperature, calls, budget);
        try
        {
            var first = await AskInAnyFormAsync(question);
            return (first.Fault is { IsTransient: true } ? await RepeatAsync(question, first) : first, question.Sent);
        }
        catch (OperationCanceledException) when (!budget.Stopping.IsCancellationRequested)
        {
            // The budget ended in a wait between two calls: what counts is how the last one ended.
            return (question.Last ?? ModelReply.Without(Target, ModelFault.NoTime), question.Sent);
        }
    }

    /// <summary>Learns from the first answer to a ticket whether the server keeps to the format.</summary>
    public void NoteAnswer(CallOutcome outcome, ChatOptions sent) => _capabilities.NoteAnswer(outcome, sent);

    /// <summary>Asks again what failed for a moment. Apart from the first try, since most questions need no more than that.</summary>
    private async ValueTask<ModelReply> RepeatAsync(Question question, ModelReply first)
    {
        question.First = first;
        var context = ResilienceContextPool.Shared.Get(question.Budget.Token);
        context.Properties.Set(Question.Key, question);
        try
        {
            return await _retry.ExecuteAsync(static (_, question) => question.AskAsync(), context, question);
        }
        finally
        {
            ResilienceContextPool.Shared.Return(context);
        }
    }

    private async ValueTask<ModelReply> AskInAnyFormAsync(Question question)
    {
        while (true)
        {
            question.Sent = _capabilities.For(_taxonomy, question.Temperature);
            var reply = await CallAnyAsync(question);
            if (reply.Fault is { } fault)
            {
                if (fault.WasCalled)
                {
                    question.Last = reply;
                    question.Calls.Add(reply.Record);
                    Log.Failed(_logger, Target.Name, fault.Outcome, fault.Reason);
                }
                else if (fault == ModelFault.NoTime && question.Last is { } last)
                {
                    return last;
                }

                // A request refused for its form was not worked on: in another form it is the same question.
                if (fault.Rejects is { } part && question.Forms++ < MaxForms && _capabilities.TryDropRejected(part, question.Sent))
                {
                    continue;
                }
            }

            return reply;
        }
    }

    /// <summary>Calls the address with the least work, the next one where an address is out of order.</summary>
    private async ValueTask<ModelReply> CallAnyAsync(Question question)
    {
        while (true)
        {
            var soonest = _endpoints.Length == 1 ? _endpoints[0].CoolsFor : _endpoints.Min(endpoint => endpoint.CoolsFor);
            if (soonest > TimeSpan.Zero)
            {
                if (soonest >= question.Budget.UntilLastCall)
                {
                    return ModelReply.Without(Target, ModelFault.NotCalled(soonest));
                }

                await Task.Delay(soonest, _time, question.Budget.Token);
            }

            ModelReply? broken = null;
            foreach (var i in _endpoints.Length == 1 ? Only : FindCandidates(question))
            {
                var reply = await _endpoints[i].CallAsync(question.Messages, question.Sent, question.Budget);
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

    /// <summary>The addresses in the order in which they are to be asked: untried ones first, then those with less work.</summary>
    private int[] FindCandidates(Question question)
    {
        var turn = Interlocked.Increment(ref _turn) & int.MaxValue;
        return
        [
            .. Enumerable.Range(0, _endpoints.Length)
                .Select(i => (i + turn) % _endpoints.Length)
                .OrderBy(i => question.Tried[i])
                .ThenBy(i => _endpoints[i].Load)
                .Where(i => _endpoints[i].CoolsFor < ModelEndpoint.Earliness),
        ];
    }

    /// <summary>One question on its way through retries and addresses.</summary>
    private sealed class Question(ModelClient model, IReadOnlyList<ChatMessage> messages, float temperature, List<CallRecord> calls, CallBudget budget)
    {
        public static readonly ResiliencePropertyKey<Question> Key = new(nameof(Question));

        public ModelClient Model => model;

        public IReadOnlyList<ChatMessage> Messages => messages;

        public float Temperature => temperature;

        public List<CallRecord> Calls => calls;

        public CallBudget Budget => budget;

        public bool[] Tried { get; } = new bool[model._endpoints.Length];

        /// <summary>What came of the first try, until it is looked at.</summary>
        public ModelReply? First { get; set; }

        /// <summary>The last call that failed.</summary>
        public ModelReply? Last { get; set; }

        /// <summary>The options it was last asked with.</summary>
        public ChatOptions Sent { get; set; } = model._capabilities.For(model._taxonomy, temperature);

        public int Forms { get; set; }

        /// <summary>What came of the first try, and then what comes of the next ones.</summary>
        public ValueTask<ModelReply> AskAsync()
        {
            if (First is not { } first)
            {
                return model.AskInAnyFormAsync(this);
            }

            First = null;
            return ValueTask.FromResult(first);
        }

        public static Question Of(ResilienceContext context) => context.Properties.GetValue(Key, null!);

        /// <summary>What lies beyond the budget is not waited for: the ticket comes back later.</summary>
        public bool MayRepeat(ModelReply? reply) =>
            reply?.Fault is { IsTransient: true } fault
            && budget.UntilLastCall > (Tried.Contains(false) ? TimeSpan.Zero : fault.RetryAfter ?? TimeSpan.Zero) + TimeSpan.FromSeconds(1);

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
