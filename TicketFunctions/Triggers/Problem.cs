using System.ComponentModel;
using System.Diagnostics;
using System.Globalization;
using System.Text.Json.Serialization;
using TicketFunctions.Storage;

namespace TicketFunctions.Triggers;

/// <summary>One thing wrong with a request. <paramref name="Pointer"/> is a JSON pointer (RFC 6901) into the body.</summary>
public sealed record ProblemError(
    [property: Description("A JSON pointer (RFC 6901) into the body.")] string Pointer, string Detail);

/// <summary>An error answer: RFC 9457 problem details. It never repeats anything of the request.</summary>
/// <param name="Status">The HTTP status.</param>
/// <param name="Type">The stable name of the cause.</param>
/// <param name="Title">The cause in a few words; to be read, not compared.</param>
/// <param name="Detail">What to do about it.</param>
/// <param name="Errors">The members that are wrong.</param>
/// <param name="RetryAfter">When to try again, at least a second.</param>
public sealed record Problem(
    int Status,
    string Type,
    string Title,
    string Detail,
    IReadOnlyList<ProblemError>? Errors = null,
    TimeSpan? RetryAfter = null) : IResult
{
    public const string MediaType = "application/problem+json";

    public static Problem MalformedJson(string detail) => new(400, "malformed-json", "The body is not one JSON document", detail);

    public static Problem InvalidShape(IReadOnlyList<ProblemError> errors) =>
        new(400, "invalid-shape", "The JSON document has the wrong shape", "Mend the members named in errors.", errors);

    public static Problem InvalidValue(IReadOnlyList<ProblemError> errors) =>
        new(422, "invalid-value", "A value cannot be used", "Mend the members named in errors.", errors);

    public static Problem PayloadTooLarge() =>
        new(413, "payload-too-large", "The body is too large", $"Send at most {RequestBody.MaxBytes} bytes.");

    public static Problem UnsupportedMediaType() =>
        new(415, "unsupported-media-type", "The media type is not supported", "Send application/json in UTF-8, without Content-Encoding.");

    public static Problem Unauthorized() =>
        new(401, "unauthorized", "The request does not prove who sent it", "Send the function's key in the header x-functions-key and, where the operator asks for it, a fresh signature.");

    public static Problem NotFound() =>
        new(404, "not-found", "There is nothing at this address", "The addresses are in the README.");

    public static Problem MethodNotAllowed() =>
        new(405, "method-not-allowed", "The method is not allowed here", "The header Allow names the methods.");

    public static Problem TicketNotFound() =>
        new(404, "ticket-not-found", "No ticket has this id", "Insert the ticket first; the row is what gets classified.");

    public static Problem DescriptionMismatch() =>
        new(409, "description-mismatch", "The text is not the ticket's", "Leave description out, or send the text as it is stored.");

    public static Problem TicketInProgress(TimeSpan retryAfter) =>
        new(409, "ticket-in-progress", "The ticket is being classified", "Somebody else is at it; ask again later.", RetryAfter: retryAfter);

    public static Problem RateLimited(TimeSpan retryAfter) =>
        new(429, "rate-limited", "Too many requests", "Send the request again later.", RetryAfter: retryAfter);

    public static Problem UpstreamInvalid(string detail) =>
        new(502, "upstream-invalid", "The model's answer cannot be used", detail);

    public static Problem UpstreamUnavailable(string detail, TimeSpan? retryAfter) =>
        new(503, "upstream-unavailable", "The model is unavailable", detail, RetryAfter: retryAfter);

    public static Problem UpstreamTimeout(string detail) =>
        new(504, "upstream-timeout", "The model took too long", detail);

    public static Problem StorageUnavailable() =>
        new(503, "storage-unavailable", "The database is unavailable", "Nothing is lost; try again later.", RetryAfter: TimeSpan.FromSeconds(5));

    public static Problem StorageRefused(string detail, TimeSpan retryAfter) =>
        new(503, "storage-unavailable", "The database does not take the labels", detail, RetryAfter: retryAfter);

    public static Problem Stopping() =>
        new(503, "upstream-unavailable", "The service is stopping", "The ticket was given back; try again.", RetryAfter: TimeSpan.FromSeconds(5));

    public static Problem InternalError() =>
        new(500, "internal-error", "Something is wrong on our side", "The log has the details under this traceId.");

    /// <summary>The one place where exceptions become answers, in both hosts.</summary>
    public static Problem From(Exception exception) => exception switch
    {
        OperationCanceledException => Stopping(),
        _ when StorageFaults.IsUnavailable(exception) => StorageUnavailable(),
        _ => InternalError(),
    };

    /// <summary>The name of a request in its answer and in the log.</summary>
    public static string TraceIdOf(HttpContext context) => Activity.Current?.TraceId.ToHexString() ?? context.TraceIdentifier;

    public Task ExecuteAsync(HttpContext httpContext)
    {
        if (RetryAfter is { } wait)
        {
            httpContext.Response.Headers.RetryAfter = Math.Max(1, Math.Ceiling(wait.TotalSeconds)).ToString(CultureInfo.InvariantCulture);
        }

        return new JsonAnswer<Body>(ToBody(TraceIdOf(httpContext)), AnswerJson.Default.Body, Status, MediaType).ExecuteAsync(httpContext);
    }

    internal Body ToBody(string traceId) => new(Type, Title, Status, Detail, traceId, Errors);

    internal sealed record Body(
        [property: Description("The stable name of the cause.")] string Type,
        [property: Description("The cause in a few words; to be read, not compared.")] string Title,
        [property: Description("The HTTP status.")] int Status,
        [property: Description("What to do about it.")] string Detail,
        [property: Description("The name of the request in the log.")] string TraceId,
        [property: Description("The members that are wrong.")]
        [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)]
        IReadOnlyList<ProblemError>? Errors);
}
