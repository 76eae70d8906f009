using Microsoft.Extensions.AI;
using Polly;
using Polly.CircuitBreaker;

namespace TicketFunctions.Classification;

/// <summary>What came of one call: a chat completion to be judged, or a fault.</summary>
/// <param name="Record">The call for the record; of a completion its outcome is still open.</param>
/// <param name="Response">The completion.</param>
/// <param name="Fault">Else why there is none.</param>
internal sealed record ModelReply(CallRecord Record, ChatResponse? Response, ModelFault? Fault)
{
    /// <summary>A fault for which nobody was called.</summary>
    public static ModelReply Without(ModelTarget target, ModelFault fault) =>
        new(new CallRecord(target.Provider, target.Name, null, fault.Outcome, null, null, null, null, 0), null, fault);
}

/// <summary>One address of a model: how many calls it takes at once, and whether it is left alone for now.</summary>
internal sealed class ModelEndpoint
{
    /// <summary>Nobody is left alone for longer because he asked for it: some ask for a day.</summary>
    private static readonly TimeSpan MaxCooldown = TimeSpan.FromMinutes(1);

    /// <summary>Timers may be a little early.</summary>
    public static readonly TimeSpan Earliness = TimeSpan.FromMilliseconds(50);

    private readonly IChatClient _chat;
    private readonly ModelTarget _target;
    private readonly Uri _address;
    private readonly TimeSpan _attemptTimeout;
    private readonly TimeProvider _time;
    private readonly AdaptiveLimit _limit;
    private readonly ResiliencePipeline<ModelReply> _breaker;
    private long _coolUntil;

    public ModelEndpoint(IChatClient chat, ModelTarget target, Uri address, ModelOptions options, TimeProvider time)
    {
        _chat = chat;
        _target = target;
        _address = address;
        _attemptTimeout = options.AttemptTimeout!.Value;
        _time = time;
        _limit = new AdaptiveLimit(options.MaxConcurrency);
        _coolUntil = time.GetTimestamp();
        _breaker = options.BreakDuration == TimeSpan.Zero
            ? ResiliencePipeline<ModelReply>.Empty
            : new ResiliencePipelineBuilder<ModelReply> { TimeProvider = time }
                .AddCircuitBreaker(new CircuitBreakerStrategyOptions<ModelReply>
                {
                    // Polly's own minimum of 100 calls would never be reached by a team's tickets. And one ticket that the server
                    // fails at, with its retries among few others, is no outage.
                    MinimumThroughput = 5,
                    FailureRatio = 0.8,
                    // So long that five calls one after the other that time out by default fit into it.
                    SamplingDuration = TimeSpan.FromSeconds(60),
                    BreakDuration = options.BreakDuration,
                    ShouldHandle = args => ValueTask.FromResult(args.Outcome.Result?.Fault?.IsOfServer == true),
                })
                .Build();
    }

    /// <summary>Calls under way and waiting.</summary>
    public int Load => _limit.Load;

    /// <summary>For how long it asked to be left alone.</summary>
    public TimeSpan CoolsFor
    {
        get
        {
            var left = _time.GetElapsedTime(_time.GetTimestamp(), Volatile.Read(ref _coolUntil));
            return left > TimeSpan.Zero ? left : TimeSpan.Zero;
        }
    }

    /// <summary>Makes one call. Everything that can go wrong in it is a fault; only the process's end is an exception.</summary>
    public async ValueTask<ModelReply> CallAsync(IEnumerable<ChatMessage> messages, ChatOptions options, CallBudget budget)
    {
        if (budget.UntilLastCall < TimeSpan.Zero)
        {
            return ModelReply.Without(_target, ModelFault.NoTime);
        }

        int stamp;
        try
        {
            stamp = await _limit.EnterAsync(budget.Token);
        }
        catch (OperationCanceledException) when (!budget.Stopping.IsCancellationRequested)
        {
            return ModelReply.Without(_target, ModelFault.NoPlace);
        }

        bool? refused = null;
        try
        {
            // Else, where more is asked than the server can do, every call would begin just before its end, and none would bring anything.
            if (budget.UntilLastCall < TimeSpan.Zero)
            {
                return ModelReply.Without(_target, ModelFault.NoPlace);
            }

            // Those in line before us may have been told so meanwhile.
            if (CoolsFor >= Earliness)
            {
                return NotCalled(CoolsFor);
            }

            var context = ResilienceContextPool.Shared.Get(CancellationToken.None);
            var outcome = await _breaker.ExecuteOutcomeAsync(
                static (_, call) => call.Endpoint.SendAsync(call), context, new Call(this, messages, options, budget));
            ResilienceContextPool.Shared.Return(context);
            if (outcome.Exception is BrokenCircuitException broken)
            {
                return NotCalled(broken.RetryAfter ?? TimeSpan.FromSeconds(1));
            }

            outcome.ThrowIfException();
            var reply = outcome.Result!;
            refused = reply.Fault is null ? false : reply.Fault.Outcome == CallOutcome.RateLimited ? true : null;
            return reply;
        }
        finally
        {
            _limit.Leave(stamp, refused);
        }
    }

    private async ValueTask<Outcome<ModelReply>> SendAsync(Call call)
    {
        var budget = call.Budget;
        using var attempt = new CallBudget(_attemptTimeout, _time, budget.Token);
        using var activity = Telemetry.StartCall(_target, _address);
        var started = _time.GetTimestamp();
        ChatResponse? response = null;
        ModelFault? fault = null;
        try
        {
            response = await _chat.GetResponseAsync(call.Messages, call.Options, attempt.Token);
        }
        catch (OperationCanceledException e) when (budget.Stopping.IsCancellationRequested)
        {
            return Outcome.FromException<ModelReply>(e);
        }
        catch (Exception e)
        {
            // Client libraries throw whatever a broken answer breaks in them; none of it may reach the triage.
            fault = attempt.Token.IsCancellationRequested && !ModelFault.WasNeverSent(e)
                ? ModelFault.TimedOut with { WasCutShort = _time.GetElapsedTime(started) < _attemptTimeout * 0.9 }
                : ModelFault.From(e, _time.GetUtcNow());
            if (fault.RetryAfter is { } wait)
            {
                LeaveAlone(wait);
            }
        }

        var elapsed = _time.GetElapsedTime(started);
        var (tokensIn, tokensOut) = (ReadCount(response?.Usage?.InputTokenCount), ReadCount(response?.Usage?.OutputTokenCount));
        var servedModel = ServerText.Clean(response?.ModelId);
        var cost = _target.PriceOf(tokensIn, tokensOut);
        Telemetry.EndCall(
            activity, _target, _address, elapsed, servedModel, ServerText.Clean(response?.FinishReason?.Value), tokensIn, tokensOut, cost,
            fault is null ? null : fault.Status?.ToString(System.Globalization.CultureInfo.InvariantCulture) ?? fault.Outcome.ToString());
        return Outcome.FromResult(new ModelReply(
            new CallRecord(
                _target.Provider, _target.Name, servedModel, fault?.Outcome ?? CallOutcome.Labelled, fault?.Status,
                tokensIn, tokensOut, cost, (int)elapsed.TotalMilliseconds),
            response,
            fault));
    }

    /// <summary>What no model can have read or written would spoil the day's sum.</summary>
    private static int? ReadCount(long? tokens) => tokens is >= 0 and < 100_000_000 ? (int)tokens : null;

    private void LeaveAlone(TimeSpan wait)
    {
        var until = _time.GetTimestamp() + (long)((wait < MaxCooldown ? wait : MaxCooldown).TotalSeconds * _time.TimestampFrequency);
        Volatile.Write(ref _coolUntil, Math.Max(Volatile.Read(ref _coolUntil), until));
    }

    private readonly record struct Call(ModelEndpoint Endpoint, IEnumerable<ChatMessage> Messages, ChatOptions Options, CallBudget Budget);

    private ModelReply NotCalled(TimeSpan retryAfter) => ModelReply.Without(_target, ModelFault.NotCalled(retryAfter));
}
