using System.ClientModel;
using System.ClientModel.Primitives;
using System.Globalization;

namespace TicketFunctions.Classification;

/// <summary>Says what an exception of a chat client means. No message of the exception is kept: it may quote the ticket, the answer or the key.</summary>
public static class ChatFaults
{
    public static ClassificationResult.Failed Describe(Exception exception, DateTimeOffset now) => exception switch
    {
        AggregateException { InnerException: { } inner } => Describe(inner, now),
        ClientResultException { Status: > 0 } refused => new(
            refused.Status is 408 or 504 ? FailureKind.UpstreamTimeout : FailureKind.UpstreamUnavailable,
            $"unavailable: the model's server answered HTTP {refused.Status}",
            ReadRetryAfter(refused.GetRawResponse(), now),
            []),
        ClientResultException or HttpRequestException or IOException => new(
            FailureKind.UpstreamUnavailable, "unavailable: the model's server cannot be reached, or broke off", null, []),
        OperationCanceledException or TimeoutException => new(
            FailureKind.UpstreamTimeout, "timeout: the model did not answer in time", null, []),
        _ => new(FailureKind.UpstreamInvalid, "invalid: the model's server answered something that is not a chat completion", null, []),
    };

    /// <summary>Seconds or a date: RFC 9110, section 10.2.3.</summary>
    private static TimeSpan? ReadRetryAfter(PipelineResponse? response, DateTimeOffset now)
    {
        if (response is null || !response.Headers.TryGetValue("Retry-After", out var value))
        {
            return null;
        }

        if (double.TryParse(value, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out var seconds) && seconds < TimeSpan.MaxValue.TotalSeconds)
        {
            return TimeSpan.FromSeconds(seconds);
        }

        return DateTimeOffset.TryParse(value, CultureInfo.InvariantCulture, DateTimeStyles.AssumeUniversal, out var date) && date > now
            ? date - now
            : null;
    }
}
