using System.Buffers;
using System.Text;
using System.Text.Json;

namespace TicketFunctions.Classification;

/// <summary>Calls as they are stored with what came of them.</summary>
/// <remarks>Written by hand: what the source generator makes of these few members, one of them an enum in words, has to be compiled at each start.</remarks>
internal static class CallRecords
{
    private static readonly string[] Outcomes = Array.ConvertAll(Enum.GetNames<CallOutcome>(), JsonNamingPolicy.SnakeCaseLower.ConvertName);

    public static string ToJson(IReadOnlyList<CallRecord> calls)
    {
        if (calls.Count == 0)
        {
            return "[]";
        }

        var buffer = new ArrayBufferWriter<byte>(256 * calls.Count);
        using (var writer = new Utf8JsonWriter(buffer))
        {
            writer.WriteStartArray();
            for (var i = 0; i < calls.Count; i++)
            {
                Write(writer, calls[i]);
            }

            writer.WriteEndArray();
        }

        return Encoding.UTF8.GetString(buffer.WrittenSpan);
    }

    private static void Write(Utf8JsonWriter writer, CallRecord call)
    {
        writer.WriteStartObject();
        writer.WriteString("provider"u8, call.Provider);
        writer.WriteString("model"u8, call.Model);
        writer.WriteString("served_model"u8, call.ServedModel);
        writer.WriteString("outcome"u8, Outcomes[(int)call.Outcome]);
        Write(writer, "status"u8, call.Status);
        Write(writer, "tokens_in"u8, call.TokensIn);
        Write(writer, "tokens_out"u8, call.TokensOut);
        Write(writer, "cost"u8, call.Cost);
        Write(writer, "latency_ms"u8, call.LatencyMs);
        writer.WriteEndObject();
    }

    private static void Write(Utf8JsonWriter writer, ReadOnlySpan<byte> name, decimal? number)
    {
        if (number is { } value)
        {
            writer.WriteNumber(name, value);
        }
        else
        {
            writer.WriteNull(name);
        }
    }
}
