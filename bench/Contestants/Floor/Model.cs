using System.Net.Http.Headers;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace TicketFunctions.Floor;

/// <summary>One call for one text.</summary>
internal sealed class Model(string endpoint) : IDisposable
{
    private const string Prompt =
        """
        Clasifica el ticket de soporte. Responde solo con un objeto JSON con dos claves: "category" (Técnico, Facturación o Comercial)
        y "sentiment" (Positivo, Neutral o Negativo), sin texto alrededor.

        Ticket:

        """;

    private static readonly string[] Categories = ["Técnico", "Facturación", "Comercial"];
    private static readonly string[] Sentiments = ["Positivo", "Neutral", "Negativo"];

    private readonly HttpClient _http = new(new SocketsHttpHandler { UseCookies = false, AllowAutoRedirect = false, ActivityHeadersPropagator = null })
    {
        DefaultRequestHeaders = { Authorization = new AuthenticationHeaderValue("Bearer", "none") },
        Timeout = TimeSpan.FromSeconds(30),
    };

    private readonly Uri _address = new($"{endpoint}/chat/completions");

    public async Task<Labels> ClassifyAsync(string text)
    {
        using var content = new ByteArrayContent(JsonSerializer.SerializeToUtf8Bytes(
            new ChatRequest("stub", 0, 64, new AnswerFormat("json_object"), [new ChatMessage("user", Prompt + text)]), FloorJson.Snake.ChatRequest));
        content.Headers.ContentType = new MediaTypeHeaderValue("application/json");
        using var request = new HttpRequestMessage(HttpMethod.Post, _address) { Content = content };
        using var answer = await _http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead);
        answer.EnsureSuccessStatusCode();
        var completion = await JsonSerializer.DeserializeAsync(await answer.Content.ReadAsStreamAsync(), FloorJson.Snake.ChatCompletion);
        var labels = JsonSerializer.Deserialize(completion!.Choices[0].Message.Content, FloorJson.Snake.Labels)!;
        return Categories.Contains(labels.Category) && Sentiments.Contains(labels.Sentiment)
            ? labels
            : throw new InvalidOperationException("The model answered no label.");
    }

    public void Dispose() => _http.Dispose();
}

internal sealed record TicketBody([property: JsonRequired] Guid Id, [property: JsonRequired] string Description);

internal sealed record TicketAnswer(Guid Id, string Category, string Sentiment, bool Processed);

internal sealed record Labels(string Category, string Sentiment);

internal sealed record ChatMessage(string Role, string Content);

internal sealed record AnswerFormat(string Type);

internal sealed record ChatRequest(string Model, int Temperature, int MaxTokens, AnswerFormat ResponseFormat, ChatMessage[] Messages);

internal sealed record ChatChoice(ChatMessage Message);

internal sealed record ChatCompletion(ChatChoice[] Choices);

[JsonSourceGenerationOptions(PropertyNamingPolicy = JsonKnownNamingPolicy.CamelCase)]
[JsonSerializable(typeof(TicketBody))]
[JsonSerializable(typeof(TicketAnswer))]
[JsonSerializable(typeof(ChatRequest))]
[JsonSerializable(typeof(ChatCompletion))]
[JsonSerializable(typeof(Labels))]
internal sealed partial class FloorJson : JsonSerializerContext
{
    /// <summary>As models write.</summary>
    public static FloorJson Snake { get; } = new(new JsonSerializerOptions { PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower });
}
