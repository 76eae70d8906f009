using System.Text.Json;
using System.Text.Json.Serialization;

namespace TicketFunctions.Classification;

/// <summary>Calls as they are stored with what came of them.</summary>
internal static partial class CallRecords
{
    public static string ToJson(IReadOnlyList<CallRecord> calls) => JsonSerializer.Serialize(calls, CallRecordJson.Default.IReadOnlyListCallRecord);

    private sealed class OutcomeConverter() : JsonStringEnumConverter<CallOutcome>(JsonNamingPolicy.SnakeCaseLower);

    [JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.SnakeCaseLower, Converters = [typeof(OutcomeConverter)])]
    [JsonSerializable(typeof(IReadOnlyList<CallRecord>))]
    private sealed partial class CallRecordJson : JsonSerializerContext;
}
