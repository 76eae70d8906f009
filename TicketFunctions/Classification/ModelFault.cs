using System.ClientModel;
using System.ClientModel.Primitives;
using System.Globalization;
using System.Net.Http.Headers;
using System.Text;
using System.Text.Json;
using System.Text.RegularExpressions;

namespace TicketFunctions.Classification;

/// <summary>A part of a request that not every server takes.</summary>
internal enum RequestPart
{
    Logprobs,
    Temperature,
    Strict,
    Format,

    /// <summary>Not a part, but its name: the longest answer has an old one and a new one.</summary>
    LimitName,
}

/// <summary>Why a call gave no chat completion, in our own words: what servers and libraries say may quote the ticket, the answer or the key.</summary>
/// <param name="Outcome">How the call ended.</param>
/// <param name="Reason">A sentence for the operator.</param>
/// <param name="Status">The HTTP status, where there was one.</param>
/// <param name="RetryAfter">What the server asked for.</param>
/// <param name="Rejects">The part of the request the server does not take, where it says so.</param>
/// <param name="WasCalled">False when no call was made: the address is known to be out of order, or full.</param>
/// <param name="WasCutShort">It ended because the time of the whole attempt did, before that of a call.</param>
internal sealed partial record ModelFault(
    CallOutcome Outcome,
    string Reason,
    int? Status = null,
    TimeSpan? RetryAfter = null,
    RequestPart? Rejects = null,
    bool WasCalled = true,
    bool WasCutShort = false)
{
    /// <summary>Whether the same request may succeed in a moment. A time-out is not: the first answer may have been paid.</summary>
    public bool IsTransient => WasCalled && Outcome is CallOutcome.RateLimited or CallOutcome.Unavailable;

    /// <summary>Whether it is the server that is out of order, or the account, whatever the ticket.</summary>
    public bool IsOfServer => !WasCutShort
        && (Outcome is CallOutcome.Unavailable or CallOutcome.TimedOut or CallOutcome.QuotaSpent
            || this is { Outcome: CallOutcome.Rejected, Status: 401 or 403 or 404, Rejects: null });

    public FailureKind Kind => Outcome switch
    {
        _ when this == NoPlace => FailureKind.UpstreamBusy,
        CallOutcome.TimedOut => FailureKind.UpstreamTimeout,
        CallOutcome.Rejected or CallOutcome.RateLimited or CallOutcome.QuotaSpent or CallOutcome.Unavailable => FailureKind.UpstreamUnavailable,
        _ => FailureKind.UpstreamInvalid,
    };

    public static ModelFault TimedOut { get; } = new(CallOutcome.TimedOut, "timeout: the model did not answer in time");

    /// <summary>The server is well; others were before us for too long.</summary>
    public static ModelFault NoPlace { get; } = new(
        CallOutcome.Unavailable,
        "busy: no place for a call became free in time; see Model__MaxConcurrency and Sweep__Concurrency",
        RetryAfter: TimeSpan.FromSeconds(5),
        WasCalled: false);

    /// <summary>Models that were asked before took the time.</summary>
    public static ModelFault NoTime { get; } = new(CallOutcome.TimedOut, "timeout: too little time was left to ask the model", WasCalled: false);

    private static ModelFault CannotBeReached { get; } = new(CallOutcome.Unavailable, "unavailable: the model's server cannot be reached, or broke off");

    public static ModelFault NotCalled(TimeSpan retryAfter) =>
        new(CallOutcome.Unavailable, "unavailable: the model's server failed a moment ago and is left alone", RetryAfter: retryAfter, WasCalled: false);

    /// <summary>Whether no connection came about: nobody was asked, so nothing can have been paid.</summary>
    public static bool WasNeverSent(Exception exception)
    {
        for (var e = exception; e is not null; e = e.InnerException)
        {
            if (e is HttpRequestException { HttpRequestError: HttpRequestError.ConnectionError })
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>What an exception of a chat client means.</summary>
    public static ModelFault From(Exception exception, DateTimeOffset now) => exception switch
    {
        _ when WasNeverSent(exception) => CannotBeReached,
        AggregateException { InnerException: { } inner } => From(inner, now),
        ClientResultException { Status: > 0 } refused => FromStatus(refused.Status, refused.GetRawResponse(), now),
        ClientResultException { InnerException: { } inner } => From(inner, now),
        HttpRequestException { HttpRequestError: HttpRequestError.ConfigurationLimitExceeded } => new(
            CallOutcome.Malformed, "invalid: the model's server answered without end"),
        ClientResultException or HttpRequestException or IOException => CannotBeReached,
        Azure.Identity.AuthenticationFailedException => new(
            CallOutcome.Unavailable, "unavailable: Azure gave no token for the model; check the managed identity, or set Model__ApiKey"),
        // The handler's own time for a connection.
        OperationCanceledException { InnerException: TimeoutException } => CannotBeReached,

        // So Semantic Kernel passes it on.
        OperationCanceledException { InnerException: OperationCanceledException inner } => From(inner, now),
        OperationCanceledException or TimeoutException => TimedOut,
        _ => new(CallOutcome.Malformed, "invalid: the model's server answered something that is not a chat completion"),
    };

    private static ModelFault FromStatus(int status, PipelineResponse? response, DateTimeOffset now)
    {
        var said = ReadText(response);
        return status switch
        {
            >= 200 and < 300 => new(CallOutcome.Malformed, "invalid: the model's server answered something that is not a chat completion", status),
            < 400 => new(CallOutcome.Rejected, $"unavailable: the model's server redirects (HTTP {status}); set the endpoint to the final address", status),
            _ when Says("content_filter", "content_policy", "content management policy", "responsibleaipolicy", "violating our usage policy")
                // OpenRouter's word for it.
                || (status == 403 && Says("flagged", "moderation")) => new(
                CallOutcome.Filtered, "filtered: the provider's content filter refused the ticket", status),
            402 => QuotaSpent(),
            // Not by "billing" alone: accounts without a card, and Groq's, are pointed to that page when they only come too fast.
            // And Gemini says so to whoever comes too fast, in OpenAI's words for an empty account.
            429 when Says("insufficient_quota", "billing hard limit", "billing_hard_limit", "exceeded your current quota", "credit")
                && !Says("RESOURCE_EXHAUSTED", "retry in") => QuotaSpent(),
            429 => new(CallOutcome.RateLimited, "unavailable: the model's server answered HTTP 429, too many requests", status, ReadRetryAfter(response, said, now)),
            408 or 504 => TimedOut with { Status = status },
            // 424 is Text Generation Inference's word for a generation that failed.
            409 or 424 or 425 or >= 500 => new(
                CallOutcome.Unavailable, $"unavailable: the model's server answered HTTP {status}", status, ReadRetryAfter(response, said, now)),
            // OpenAI's newest models are not allowed to give log-probabilities.
            403 when Says("logprobs") => DoesNotTake(RequestPart.Logprobs),
            401 or 403 => new(CallOutcome.Rejected, $"unavailable: the model's server does not take the key (HTTP {status})", status),
            404 => new(CallOutcome.Rejected, "unavailable: the model's server does not know the address or the model (HTTP 404)", status),
            _ => DoesNotTake(status is 400 or 422 ? FindRejected() : null),
        };

        ModelFault DoesNotTake(RequestPart? part) =>
            new(CallOutcome.Rejected, $"unavailable: the model's server does not take the request (HTTP {status})", status, Rejects: part);

        ModelFault QuotaSpent() => new(CallOutcome.QuotaSpent, $"unavailable: the provider's quota is used up (HTTP {status})", status, ReadRetryAfter(response, said, now));

        bool Says(params ReadOnlySpan<string> words)
        {
            foreach (var word in words)
            {
                if (said.Contains(word, StringComparison.OrdinalIgnoreCase))
                {
                    return true;
                }
            }

            return false;
        }

        // There is no common code for it; the names of the request's members occur in every dialect's message.
        RequestPart? FindRejected() =>
            Says("logprobs") ? RequestPart.Logprobs
            // Whoever does not take the old name names the new one, and so does who does not take that.
            : Says("max_completion_tokens") ? RequestPart.LimitName
            : Names("strict") ? RequestPart.Strict
            : Says("response_format", "json_schema", "json_object", "structured output") || Names("guided") || Names("grammar") ? RequestPart.Format
            : Names("temperature") ? RequestPart.Temperature
            : null;

        // An account may be restricted.
        bool Names(string word) => Regex.IsMatch(said, $@"(?<![\p{{L}}\p{{N}}]){word}(?![\p{{L}}\p{{N}}])", RegexOptions.IgnoreCase | RegexOptions.CultureInvariant);
    }

    /// <summary>What the server says of the fault, without what it repeats of the request: no ticket may talk us into anything.</summary>
    private static string ReadText(PipelineResponse? response)
    {
        string text;
        try
        {
            text = response?.Content.ToString() ?? "";
        }
        catch (InvalidOperationException)
        {
            // Its body was not read.
            return "";
        }

        try
        {
            using var document = JsonDocument.Parse(text);
            var said = new StringBuilder();
            Append(document.RootElement, said);
            return said.ToString();
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            return WithoutRequest(text.Length > 1024 ? text[..1024] : text);
        }

        static void Append(JsonElement element, StringBuilder said)
        {
            switch (element.ValueKind)
            {
                case JsonValueKind.String:
                    said.Append(WithoutRequest(element.GetString()!)).Append('\n');
                    break;
                case JsonValueKind.Array:
                    foreach (var item in element.EnumerateArray())
                    {
                        Append(item, said);
                    }

                    break;
                case JsonValueKind.Object:
                    // FastAPI, under many of these servers, shows the input that it refused.
                    foreach (var member in element.EnumerateObject().Where(member => member.Name is not ("input" or "ctx" or "body" or "request" or "messages")))
                    {
                        Append(member.Value, said);
                    }

                    break;
            }
        }
    }

    /// <summary>Servers in Python show what they refused as Python writes it, in the middle of a sentence.</summary>
    private static string WithoutRequest(string text) => RepeatedRequest().Match(text) is { Success: true } repeated ? text[..repeated.Index] : text;

    [GeneratedRegex(@"['""](input|body|request|messages)['""]\s*:", RegexOptions.CultureInvariant)]
    private static partial Regex RepeatedRequest();

    [GeneratedRegex(@"(?:retry|try again) in (?<number>\d{1,6}(?:\.\d{1,9})?) ?(?<unit>ms|s)\b", RegexOptions.IgnoreCase | RegexOptions.CultureInvariant)]
    private static partial Regex RetryIn();

    /// <summary>
    /// Seconds or a date (RFC 9110, section 10.2.3), or the milliseconds that OpenAI and Azure add; else what the text says, as Gemini's does.
    /// </summary>
    private static TimeSpan? ReadRetryAfter(PipelineResponse? response, string said, DateTimeOffset now)
    {
        if (response is null)
        {
            return null;
        }

        if (response.Headers.TryGetValue("retry-after-ms", out var precise) && ReadNumber(precise) is { } milliseconds)
        {
            return TimeSpan.FromMilliseconds(milliseconds);
        }

        if (!response.Headers.TryGetValue("Retry-After", out var value))
        {
            return RetryIn().Match(said) is { Success: true } told && ReadNumber(told.Groups["number"].Value) is { } wait
                ? told.Groups["unit"].ValueSpan.Equals("ms", StringComparison.OrdinalIgnoreCase) ? TimeSpan.FromMilliseconds(wait) : TimeSpan.FromSeconds(wait)
                : null;
        }

        // Two servers on the way may each have said it.
        var seconds = value!.Split(',').Select(part => ReadNumber(part.Trim())).ToArray();
        if (seconds.All(one => one is not null))
        {
            return TimeSpan.FromSeconds(seconds.Max()!.Value);
        }

        return RetryConditionHeaderValue.TryParse(value, out var condition) && condition.Date is { } date && date > now ? date - now : null;

        // More than ten years is no answer.
        static double? ReadNumber(string? text) =>
            double.TryParse(text, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var number) && number < 315_360_000_000 ? number : null;
    }
}
