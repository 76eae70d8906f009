using System.ClientModel;
using System.ClientModel.Primitives;
using System.Globalization;
using System.Text;
using System.Text.Json;

namespace TicketFunctions.Classification;

/// <summary>A part of a request that not every server takes.</summary>
internal enum RequestPart
{
    Logprobs,
    Temperature,
    Strict,
    Format,
}

/// <summary>Why a call gave no chat completion, in our own words: what servers and libraries say may quote the ticket, the answer or the key.</summary>
/// <param name="Outcome">How the call ended.</param>
/// <param name="Reason">A sentence for the operator.</param>
/// <param name="Status">The HTTP status, where there was one.</param>
/// <param name="RetryAfter">What the server asked for.</param>
/// <param name="Rejects">The part of the request the server does not take, where it says so.</param>
/// <param name="WasCalled">False when no call was made: the address is known to be out of order, or full.</param>
internal sealed record ModelFault(
    CallOutcome Outcome, string Reason, int? Status = null, TimeSpan? RetryAfter = null, RequestPart? Rejects = null, bool WasCalled = true)
{
    /// <summary>Whether the same request may succeed in a moment. A time-out is not: the first answer may have been paid.</summary>
    public bool IsTransient => WasCalled && Outcome is CallOutcome.RateLimited or CallOutcome.Unavailable;

    /// <summary>Whether it is the server that is out of order, or the account, whatever the ticket.</summary>
    public bool IsOfServer => Outcome is CallOutcome.Unavailable or CallOutcome.TimedOut or CallOutcome.QuotaSpent || Status is 401 or 403 or 404;

    public FailureKind Kind => Outcome switch
    {
        CallOutcome.TimedOut => FailureKind.UpstreamTimeout,
        CallOutcome.Rejected or CallOutcome.RateLimited or CallOutcome.QuotaSpent or CallOutcome.Unavailable => FailureKind.UpstreamUnavailable,
        _ => FailureKind.UpstreamInvalid,
    };

    public static ModelFault TimedOut { get; } = new(CallOutcome.TimedOut, "timeout: the model did not answer in time");

    private static ModelFault CannotBeReached { get; } = new(CallOutcome.Unavailable, "unavailable: the model's server cannot be reached, or broke off");

    public static ModelFault NotCalled(TimeSpan retryAfter) =>
        new(CallOutcome.Unavailable, "unavailable: the model's server failed a moment ago and is left alone", RetryAfter: retryAfter, WasCalled: false);

    /// <summary>What an exception of a chat client means.</summary>
    public static ModelFault From(Exception exception, DateTimeOffset now) => exception switch
    {
        AggregateException { InnerException: { } inner } => From(inner, now),
        ClientResultException { Status: > 0 } refused => FromStatus(refused.Status, refused.GetRawResponse(), now),
        ClientResultException { InnerException: { } inner } => From(inner, now),
        HttpRequestException { HttpRequestError: HttpRequestError.ConfigurationLimitExceeded } => new(
            CallOutcome.Malformed, "invalid: the model's server answered without end"),
        ClientResultException or HttpRequestException or IOException => CannotBeReached,
        Azure.Identity.AuthenticationFailedException => new(
            CallOutcome.Unavailable, "unavailable: Azure gave no token for the model; check the managed identity, or set Model__ApiKey"),
        // The handler's own time for a connection: nobody was asked, so nothing can have been paid.
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
            _ when Says("content_filter", "content_policy", "content management policy", "responsibleaipolicy", "violating our usage policy") => new(
                CallOutcome.Filtered, "filtered: the provider's content filter refused the ticket", status),
            402 => QuotaSpent(),
            // Not by "billing" alone: accounts without a card, and Groq's, are pointed to that page when they only come too fast.
            429 when Says("insufficient_quota", "billing hard limit", "billing_hard_limit", "exceeded your current quota", "credit") => QuotaSpent(),
            429 => new(CallOutcome.RateLimited, "unavailable: the model's server answered HTTP 429, too many requests", status, ReadRetryAfter(response, now)),
            408 or 504 => TimedOut with { Status = status },
            // 424 is Text Generation Inference's word for a generation that failed.
            409 or 424 or 425 or >= 500 => new(
                CallOutcome.Unavailable, $"unavailable: the model's server answered HTTP {status}", status, ReadRetryAfter(response, now)),
            401 or 403 => new(CallOutcome.Rejected, $"unavailable: the model's server does not take the key (HTTP {status})", status),
            404 => new(CallOutcome.Rejected, "unavailable: the model's server does not know the address or the model (HTTP 404)", status),
            _ => new(CallOutcome.Rejected, $"unavailable: the model's server does not take the request (HTTP {status})", status, Rejects: FindRejected()),
        };

        ModelFault QuotaSpent() => new(CallOutcome.QuotaSpent, $"unavailable: the provider's quota is used up (HTTP {status})", status, ReadRetryAfter(response, now));

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
            status is not (400 or 422) ? null
            : Says("logprobs") ? RequestPart.Logprobs
            : Says("strict") ? RequestPart.Strict
            : Says("response_format", "json_schema", "json_object", "structured output", "guided", "grammar") ? RequestPart.Format
            : Says("temperature") ? RequestPart.Temperature
            : null;
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
            return text.Length > 1024 ? text[..1024] : text;
        }

        static void Append(JsonElement element, StringBuilder said)
        {
            switch (element.ValueKind)
            {
                case JsonValueKind.String:
                    said.Append(element.GetString()).Append('\n');
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

    /// <summary>Seconds or a date (RFC 9110, section 10.2.3), or the milliseconds that OpenAI and Azure add.</summary>
    private static TimeSpan? ReadRetryAfter(PipelineResponse? response, DateTimeOffset now)
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
            return null;
        }

        if (ReadNumber(value) is { } seconds)
        {
            return TimeSpan.FromSeconds(seconds);
        }

        return DateTimeOffset.TryParse(value, CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal, out var date) && date > now
            ? date - now
            : null;

        // More than ten years is no answer.
        static double? ReadNumber(string? text) =>
            double.TryParse(text, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var number) && number < 315_360_000_000 ? number : null;
    }
}
