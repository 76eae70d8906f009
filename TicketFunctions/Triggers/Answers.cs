using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Text.Json;
using System.Text.Json.Serialization;
using System.Text.Json.Serialization.Metadata;
using TicketFunctions.Classification;
using TicketFunctions.Tickets;

namespace TicketFunctions.Triggers;

/// <summary>The ticket with its labels.</summary>
public sealed record TicketAnswer(
    Guid Id,
    [property: Description("One of the configured labels. A ticket labelled by a person, or before the labels changed, is answered with the text its row holds.")]
    string Category,
    [property: Description("As the category, one of the configured labels, or the text its row holds.")]
    string Sentiment,
    bool Processed,
    [property: Description("model: decided now. stored: the row had the labels. reused: the same text was decided before. baseline: the embedded classifier decided.")]
    [property: AllowedValues("model", "stored", "reused", "baseline")]
    string Source,
    [property: Description("The model that decided, where it is known.")] string? Model,
    [property: Description("How sure the model was, where it is known."), Range(0.0, 1.0)] float? Confidence);

/// <summary>The ticket will be classified; nobody waits for it.</summary>
public sealed record AcceptedAnswer(Guid Id, bool Accepted);

/// <summary>A webhook that asks for nothing, and why.</summary>
public sealed record IgnoredAnswer([property: Description("Why.")] string Ignored);

/// <summary>What is left to do, and what the current UTC day took, saved and has left.</summary>
public sealed record BacklogAnswer(
    [property: Description("Tickets without labels.")] long Unprocessed,
    [property: Description("Tickets that somebody is classifying.")] long InFlight,
    [property: Description("Tickets whose attempts are used up.")] long Parked,
    [property: Description("The age of the oldest ticket that waits, in seconds.")] double OldestSeconds,
    [property: Description("What model calls took since midnight UTC.")] Spent SpentToday,
    [property: Description("What reuse saved since midnight UTC.")] Spent SavedToday,
    [property: Description("What is left of the daily budget; null where there is no cap.")] Budget LeftToday);

/// <summary>The state of a probe, and what is missing when it is not <c>ok</c>.</summary>
public sealed record HealthAnswer(
    [property: AllowedValues("ok", "unavailable")] string Status, [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] string? Reason = null);

/// <summary>The models on offer, and what is wrong with the servers that offer none.</summary>
public sealed record ModelsAnswer(
    IReadOnlyList<ModelListing> Models, [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] IReadOnlyList<string>? Faults);

/// <summary>An answer in JSON, written in one piece and with its length: the framework's own come in chunks, and each asks for a logger.</summary>
internal sealed class JsonAnswer<T>(T value, JsonTypeInfo<T> contract, int status = StatusCodes.Status200OK, string mediaType = "application/json") : IResult
{
    public Task ExecuteAsync(HttpContext httpContext)
    {
        var json = JsonSerializer.SerializeToUtf8Bytes(value, contract);
        var response = httpContext.Response;
        response.StatusCode = status;
        response.ContentType = mediaType + "; charset=utf-8";
        response.ContentLength = json.Length;
        return response.Body.WriteAsync(json).AsTask();
    }
}

/// <summary>Writes the answers, each in one piece; it can do nothing else. Descriptions of their members are left out: the first answer of each process would wait for them.</summary>
[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase, GenerationMode = JsonSourceGenerationMode.Serialization)]
[JsonSerializable(typeof(TicketAnswer))]
[JsonSerializable(typeof(AcceptedAnswer))]
[JsonSerializable(typeof(IgnoredAnswer))]
[JsonSerializable(typeof(HealthAnswer))]
[JsonSerializable(typeof(BacklogAnswer))]
[JsonSerializable(typeof(ModelsAnswer))]
[JsonSerializable(typeof(Problem.Body))]
internal sealed partial class AnswerJson : JsonSerializerContext;
