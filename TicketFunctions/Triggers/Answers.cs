using System.Text.Json.Serialization;
using TicketFunctions.Classification;
using TicketFunctions.Tickets;

namespace TicketFunctions.Triggers;

/// <summary>The ticket with its labels. <c>source</c>: model, stored, reused or baseline.</summary>
public sealed record TicketAnswer(
    Guid Id, string Category, string Sentiment, bool Processed, string Source, string? Model, float? Confidence);

/// <summary>The ticket will be classified; nobody waits for it.</summary>
public sealed record AcceptedAnswer(Guid Id, bool Accepted = true);

/// <summary>A webhook that asks for nothing, and why.</summary>
public sealed record IgnoredAnswer(string Ignored);

/// <summary>What is left to do, and what the current UTC day took, saved and has left.</summary>
public sealed record BacklogAnswer(
    long Unprocessed, long InFlight, long Parked, double OldestSeconds, Spent SpentToday, Spent SavedToday, Budget LeftToday);

/// <summary>The state of a probe, and what is missing when it is not <c>ok</c>.</summary>
public sealed record HealthAnswer(
    string Status, [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] string? Reason = null);

/// <summary>The models on offer, and what is wrong with the servers that offer none.</summary>
public sealed record ModelsAnswer(
    IReadOnlyList<ModelListing> Models, [property: JsonIgnore(Condition = JsonIgnoreCondition.WhenWritingNull)] IReadOnlyList<string>? Faults);

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
[JsonSerializable(typeof(TicketAnswer))]
[JsonSerializable(typeof(AcceptedAnswer))]
[JsonSerializable(typeof(IgnoredAnswer))]
[JsonSerializable(typeof(HealthAnswer))]
[JsonSerializable(typeof(BacklogAnswer))]
[JsonSerializable(typeof(ModelsAnswer))]
[JsonSerializable(typeof(Problem.Body))]
internal sealed partial class AnswerJson : JsonSerializerContext;
