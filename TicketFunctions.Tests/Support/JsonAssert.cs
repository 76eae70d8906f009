using System.Text.Encodings.Web;
using System.Text.Json;
using System.Text.Json.Nodes;

namespace TicketFunctions.Tests.Support;

/// <summary>Compares whole JSON documents; the order of members does not matter, and a difference shows as a line.</summary>
public static class JsonAssert
{
    private static readonly JsonSerializerOptions Readable = new() { WriteIndented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    public static void Equal(string expected, JsonNode? actual) =>
        Assert.Equal(Write(JsonNode.Parse(expected)), Write(actual));

    private static string Write(JsonNode? node) => JsonSerializer.Serialize(Sort(node), Readable);

    private static JsonNode? Sort(JsonNode? node) => node switch
    {
        JsonObject members => new JsonObject(members.OrderBy(member => member.Key, StringComparer.Ordinal)
            .Select(member => KeyValuePair.Create(member.Key, Sort(member.Value)))),
        JsonArray items => new JsonArray([.. items.Select(Sort)]),
        _ => node?.DeepClone(),
    };
}
