using Microsoft.AspNetCore.Mvc;
using Microsoft.Azure.Functions.Worker;
using Microsoft.OpenApi;
using TicketFunctions.Classification;
using TicketFunctions.Tickets;

namespace TicketFunctions.Triggers;

/// <summary><c>POST /process-ticket</c>: classifies one ticket, asked for by a client or by a database webhook.</summary>
public sealed partial class ProcessTicket(
    TicketTriage triage, WorkDrain drain, RequestLimit limit, WebhookSignatures signatures, ProblemAnswers problems, ILogger<ProcessTicket> logger)
{
    private const string Force = "force";
    private const string Prefer = "Prefer";
    private const string PreferenceApplied = "Preference-Applied";
    private const string RespondAsync = "respond-async";

    [Function(nameof(ProcessTicket))]
    [Tags("Tickets")]
    [EndpointSummary("Classify one ticket")]
    [EndpointDescription(
        "Takes the id of a row, or a Supabase database webhook as it is sent. Answers the labels of the row: those it has, or those that a model gives it now. "
        + "After a 502, 503 or 504 the ticket stays unprocessed and the sweep tries again.")]
    [ApiBody(typeof(TicketBody))]
    [ApiBody(typeof(WebhookBody))]
    [ApiParameter(ParameterLocation.Query, Force, "true decides again, also for a processed or parked ticket.", Type = typeof(bool))]
    [ApiParameter(ParameterLocation.Header, Prefer, "respond-async answers 202 at once, and the work goes on (RFC 7240).", Example = RespondAsync)]
    [ApiParameter(ParameterLocation.Header, WebhookSignatures.IdHeader, "The sender's name of this message, by Standard Webhooks.", IsSignature = true)]
    [ApiParameter(ParameterLocation.Header, WebhookSignatures.TimestampHeader, "When it was signed, in seconds since 1970, at most five minutes ago.", IsSignature = true)]
    [ApiParameter(ParameterLocation.Header, WebhookSignatures.SignatureHeader, "v1, and the Base64 of the HMAC-SHA256 over id.timestamp.body; several with blanks between.", IsSignature = true)]
    [ProducesResponseType<TicketAnswer>(StatusCodes.Status200OK, Description = "The labels, or why a webhook asks for nothing.")]
    [ProducesResponseType<IgnoredAnswer>(StatusCodes.Status200OK)]
    [ProducesResponseType<AcceptedAnswer>(StatusCodes.Status202Accepted, Description = "The ticket will be classified; what comes of it is in the row.")]
    [ProducesHeader(StatusCodes.Status202Accepted, PreferenceApplied, "respond-async")]
    [ProducesProblem(
        nameof(Problem.MalformedJson), nameof(Problem.InvalidShape), nameof(Problem.TicketNotFound), nameof(Problem.DescriptionMismatch),
        nameof(Problem.TicketInProgress), nameof(Problem.PayloadTooLarge), nameof(Problem.UnsupportedMediaType), nameof(Problem.InvalidValue),
        nameof(Problem.RateLimited), nameof(Problem.InternalError), nameof(Problem.UpstreamInvalid), nameof(Problem.UpstreamUnavailable),
        nameof(Problem.StorageUnavailable), nameof(Problem.StorageRefused), nameof(Problem.Stopping), nameof(Problem.UpstreamTimeout))]
    public async Task<IResult> RunAsync(
        [HttpTrigger(AuthorizationLevel.Function, "post", Route = "process-ticket")] HttpRequest request,
        CancellationToken cancellationToken)
    {
        var (body, problem) = await RequestBody.ReadAsync(request, cancellationToken);
        if (problem is not null)
        {
            return problem;
        }

        TicketRequest? ticket;
        using (body)
        {
            if (signatures.FindFault(request.Headers, body.Bytes.Span) is { } fault)
            {
                Log.NotSigned(logger, fault);
                return Problem.Unauthorized();
            }

            (ticket, problem) = TicketRequest.Read(body.Bytes);
        }

        if (problem is not null)
        {
            return problem;
        }

        if (ticket!.Ignored is { } why)
        {
            return new JsonAnswer<IgnoredAnswer>(new IgnoredAnswer(why), AnswerJson.Default.IgnoredAnswer);
        }

        if (!TryReadForce(request, out var force))
        {
            return Problem.InvalidValue([new ProblemError("", "The query's force must be true or false.")]);
        }

        (var place, problem) = limit.Enter(request);
        if (problem is not null)
        {
            return problem;
        }

        if (PrefersNotToWait(request))
        {
            var traceId = Problem.TraceIdOf(request.HttpContext);
            drain.Start(() => ProcessUnwatchedAsync(ticket, force, place!, traceId));
            request.HttpContext.Response.Headers[PreferenceApplied] = RespondAsync;
            return new JsonAnswer<AcceptedAnswer>(new AcceptedAnswer(ticket.Id, true), AnswerJson.Default.AcceptedAnswer, StatusCodes.Status202Accepted);
        }

        using (place)
        {
            return Map(await triage.ProcessAsync(ticket.Id, ticket.Description, force, cancellationToken, drain.Token));
        }
    }

    /// <summary>Does the work after the answer, in the place that the request was admitted to.</summary>
    private async Task ProcessUnwatchedAsync(TicketRequest ticket, bool force, IDisposable place, string traceId)
    {
        using (place)
        {
            try
            {
                var result = await triage.ProcessAsync(ticket.Id, ticket.Description, force, drain.Token, drain.Token);
                Log.Ended(logger, ticket.Id, result.GetType().Name);
            }
            catch (Exception e)
            {
                Log.Failed(logger, ticket.Id, problems.Explain(e, traceId).Type);
            }
        }
    }

    /// <remarks>https://www.rfc-editor.org/rfc/rfc7240</remarks>
    private static bool PrefersNotToWait(HttpRequest request) =>
        request.Headers.GetCommaSeparatedValues(Prefer).Any(
            preference => preference.Split(';')[0].Trim().Equals(RespondAsync, StringComparison.OrdinalIgnoreCase));

    private static bool TryReadForce(HttpRequest request, out bool force)
    {
        // Not bool.TryParse: it takes blanks and NULs around the word.
        var value = request.QueryString.HasValue ? (string?)request.Query[Force] : null;
        force = string.Equals(value, "true", StringComparison.OrdinalIgnoreCase);
        return value is null || force || value.Equals("false", StringComparison.OrdinalIgnoreCase);
    }

    private static IResult Map(TriageResult result) => result switch
    {
        TriageResult.Labelled labelled => new JsonAnswer<TicketAnswer>(
            new TicketAnswer(
                labelled.Id, labelled.Labels.Category, labelled.Labels.Sentiment, true, labelled.Source, labelled.Model, labelled.Confidence),
            AnswerJson.Default.TicketAnswer),
        TriageResult.NotFound => Problem.TicketNotFound(),
        TriageResult.DescriptionMismatch => Problem.DescriptionMismatch(),
        TriageResult.BlankText => Problem.InvalidValue([new ProblemError("/id", "The text of this ticket's row has nothing visible in it.")]),
        TriageResult.InProgress(var retryAfter) => Problem.TicketInProgress(retryAfter),
        TriageResult.RetryLater(var kind, var retryAfter) => MapFailure(kind, "The ticket stays unprocessed and is tried again later.", retryAfter),
        TriageResult.NotForced(var kind, var retryAfter) => MapFailure(kind, "The ticket keeps the labels it had.", retryAfter),
        TriageResult.Parked(var kind) => MapFailure(kind, "The ticket is parked: its attempts are used up. ?force=true tries again.", null),
        _ => throw new InvalidOperationException($"No arm for {result.GetType().Name}."),
    };

    /// <summary>A 503 must say when; where nobody tries again by himself, this is when a person may have mended the cause.</summary>
    private static readonly TimeSpan Unscheduled = TimeSpan.FromHours(1);

    private static Problem MapFailure(FailureKind kind, string detail, TimeSpan? retryAfter) => kind switch
    {
        FailureKind.UpstreamInvalid => Problem.UpstreamInvalid(detail),
        FailureKind.UpstreamTimeout => Problem.UpstreamTimeout(detail),
        FailureKind.BudgetSpent => Problem.UpstreamUnavailable("The daily budget for model calls is used up. " + detail, retryAfter ?? Unscheduled),
        FailureKind.UpstreamBusy => Problem.UpstreamUnavailable("All places for calls are taken. " + detail, retryAfter ?? Unscheduled),
        FailureKind.StorageRefused => Problem.StorageRefused(detail, retryAfter ?? Unscheduled),
        _ => Problem.UpstreamUnavailable(detail, retryAfter ?? Unscheduled),
    };

    private static partial class Log
    {
        [LoggerMessage(Level = LogLevel.Warning, Message = "A signed request was refused: {Fault}")]
        public static partial void NotSigned(ILogger logger, string fault);

        [LoggerMessage(Level = LogLevel.Information, Message = "Ticket {Id}: asked for without waiting, ended as {Result}")]
        public static partial void Ended(ILogger logger, Guid id, string result);

        [LoggerMessage(Level = LogLevel.Information, Message = "Ticket {Id}: asked for without waiting, ended by {Problem}; the sweep finds it")]
        public static partial void Failed(ILogger logger, Guid id, string problem);
    }
}
