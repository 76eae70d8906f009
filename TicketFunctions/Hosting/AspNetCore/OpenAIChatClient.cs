using System.Buffers;
using System.ClientModel;
using System.ClientModel.Primitives;
using System.Net;
using System.Runtime.CompilerServices;
using System.Text.Encodings.Web;
using System.Text.Json;
using Microsoft.Extensions.AI;
using OpenAI.Chat;
using TicketFunctions.Classification;
using ChatFinishReason = Microsoft.Extensions.AI.ChatFinishReason;
using ChatMessage = Microsoft.Extensions.AI.ChatMessage;

namespace TicketFunctions.Hosting.AspNetCore;

/// <summary>
/// An address that speaks OpenAI's protocol behind <see cref="IChatClient"/>. The ordinary request and the ordinary answer are
/// written and read here; what is unusual in either, and every error, is the official SDK's.
/// </summary>
/// <remarks>The options of a request are read once: they must not be changed after their first use.</remarks>
/// <param name="target">The model.</param>
/// <param name="address">Its address.</param>
public sealed class OpenAIChatClient(ModelTarget target, Uri address) : IChatClient
{
    private static readonly JsonWriterOptions Unchecked = new() { SkipValidation = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping };

    private static readonly string UserAgent = $"TicketFunctions/{typeof(OpenAIChatClient).Assembly.GetName().Version?.ToString(3)}";

    private readonly Uri _completions = new($"{address.AbsoluteUri.TrimEnd('/')}/chat/completions");
    private readonly (string Name, string Value)? _key = ModelConnection.FindKeyHeader(target);
    private readonly ConditionalWeakTable<ChatOptions, RequestStart> _starts = [];

    public async Task<ChatResponse> GetResponseAsync(
        IEnumerable<ChatMessage> messages, ChatOptions? options = null, CancellationToken cancellationToken = default)
    {
        using var request = new HttpRequestMessage(HttpMethod.Post, _completions) { Content = WriteRequest(messages, options) };
        var (name, value) = _key ?? ("Authorization", $"Bearer {await ModelConnection.GetTokenAsync(cancellationToken)}");
        request.Headers.TryAddWithoutValidation(name, value);
        request.Headers.TryAddWithoutValidation("Accept", "application/json");
        request.Headers.TryAddWithoutValidation("User-Agent", UserAgent);

        var response = await ModelConnection.Invoker.SendAsync(request, cancellationToken);
        if (response.StatusCode != HttpStatusCode.OK)
        {
            throw await RefuseAsync(response, cancellationToken);
        }

        using (response)
        {
            var answer = ((ModelConnection.WholeAnswer)response.Content).Bytes;
            return ReadOrdinary(answer) ?? Convert(ModelReaderWriter.Read<ChatCompletion>(BinaryData.FromBytes(answer))!);
        }
    }

    public async IAsyncEnumerable<ChatResponseUpdate> GetStreamingResponseAsync(
        IEnumerable<ChatMessage> messages, ChatOptions? options = null, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        foreach (var update in (await GetResponseAsync(messages, options, cancellationToken)).ToChatResponseUpdates())
        {
            yield return update;
        }
    }

    public object? GetService(Type serviceType, object? serviceKey = null) => serviceKey is null && serviceType.IsInstanceOfType(this) ? this : null;

    public void Dispose()
    {
        // The sockets are the process's.
    }

    private ReadOnlyMemoryContent WriteRequest(IEnumerable<ChatMessage> messages, ChatOptions? options)
    {
        using var all = messages.GetEnumerator();
        var hasMore = all.MoveNext();
        var instructions = hasMore && all.Current.Role == ChatRole.System ? all.Current.Text : null;

        // Of the tickets of one classifier all but the text is the same.
        if (options is null || !_starts.TryGetValue(options, out var start) || start.Instructions != instructions)
        {
            start = WriteStart(options, instructions);
            if (options is not null)
            {
                _starts.AddOrUpdate(options, start);
            }
        }

        hasMore = hasMore && (instructions is null || all.MoveNext());
        var body = new ArrayBufferWriter<byte>(start.Bytes.Length + (hasMore ? (2 * all.Current.Text.Length) + 256 : 0));
        body.Write(start.Bytes);
        using var writer = new Utf8JsonWriter(body, Unchecked);
        for (var isFirst = instructions is null; hasMore; hasMore = all.MoveNext(), isFirst = false)
        {
            WriteMessage(body, writer, all.Current, isFirst);
        }

        body.Write("]}"u8);
        var content = new ReadOnlyMemoryContent(body.WrittenMemory);
        content.Headers.TryAddWithoutValidation("Content-Type", "application/json");
        return content;
    }

    /// <summary>The request up to what differs from ticket to ticket.</summary>
    private RequestStart WriteStart(ChatOptions? options, string? instructions)
    {
        var body = new ArrayBufferWriter<byte>();
        using var writer = new Utf8JsonWriter(body, Unchecked);
        writer.WriteStartObject();
        writer.WriteString("model"u8, target.Name);

        // The SDK knows how the options are written. It adds a model and messages of its own, which are none.
        using var written = JsonDocument.Parse(ModelReaderWriter.Write(Convert(options)));
        foreach (var member in written.RootElement.EnumerateObject().Where(member => member.Name is not ("model" or "messages")))
        {
            member.WriteTo(writer);
        }

        writer.WriteStartArray("messages"u8);
        writer.Flush();
        if (instructions is not null)
        {
            writer.Reset();
            WriteMessage(body, writer, new ChatMessage(ChatRole.System, instructions), isFirst: true);
        }

        return new RequestStart(instructions, body.WrittenSpan.ToArray());
    }

    private static void WriteMessage(ArrayBufferWriter<byte> body, Utf8JsonWriter writer, ChatMessage message, bool isFirst)
    {
        body.Write(isFirst ? "{\"role\":"u8 : ",{\"role\":"u8);
        body.Write(message.Role == ChatRole.System ? "\"system\""u8 : message.Role == ChatRole.Assistant ? "\"assistant\""u8 : "\"user\""u8);
        body.Write(",\"content\":"u8);
        writer.Reset();
        writer.WriteStringValue(message.Text);
        writer.Flush();
        body.Write("}"u8);
    }

    private ChatCompletionOptions Convert(ChatOptions? options)
    {
        var converted = options?.RawRepresentationFactory?.Invoke(this) as ChatCompletionOptions ?? new ChatCompletionOptions();
        converted.Temperature ??= options?.Temperature;
        converted.MaxOutputTokenCount ??= options?.MaxOutputTokens;
        converted.ResponseFormat ??= options?.ResponseFormat switch
        {
            ChatResponseFormatJson { Schema: JsonElement schema } format => OpenAI.Chat.ChatResponseFormat.CreateJsonSchemaFormat(
                format.SchemaName ?? "answer",
                BinaryData.FromString(schema.GetRawText()),
                jsonSchemaIsStrict: options.AdditionalProperties?.TryGetValue("strict", out bool strict) == true ? strict : null),
            ChatResponseFormatJson => OpenAI.Chat.ChatResponseFormat.CreateJsonObjectFormat(),
            _ => null,
        };
        return converted;
    }

    /// <summary>An answer as nearly all are: a text, its end, and the tokens.</summary>
    /// <returns>Null when there is more to it, or it is none: the SDK will say.</returns>
    private static ChatResponse? ReadOrdinary(ReadOnlySpan<byte> answer)
    {
        var (isOrdinary, choices, text, model, usage) = (true, 0, (string?)null, (string?)null, (UsageDetails?)null);
        try
        {
            // By depth: of all members that hold others only the choices, the message in each, and the usage are entered.
            var reader = new Utf8JsonReader(answer);
            while (isOrdinary && reader.Read())
            {
                switch (reader.TokenType, reader.CurrentDepth)
                {
                    case (JsonTokenType.StartArray, 0):
                        isOrdinary = false;
                        break;
                    case (JsonTokenType.StartObject, 1):
                        usage = new UsageDetails { InputTokenCount = 0, OutputTokenCount = 0 };
                        break;
                    case (JsonTokenType.StartObject, 2) when ++choices > 1:
                        reader.Skip();
                        break;
                    case (JsonTokenType.PropertyName, 1) when reader.ValueTextEquals("choices"u8):
                        isOrdinary = choices == 0;
                        break;
                    case (JsonTokenType.PropertyName, 1) when reader.ValueTextEquals("usage"u8):
                    case (JsonTokenType.PropertyName, 3) when reader.ValueTextEquals("message"u8):
                        break;
                    case (JsonTokenType.PropertyName, 1) when reader.ValueTextEquals("model"u8):
                        reader.Read();
                        model = reader.GetString();
                        break;
                    case (JsonTokenType.PropertyName, 2) when reader.ValueTextEquals("prompt_tokens"u8):
                        reader.Read();
                        usage!.InputTokenCount = reader.GetInt32();
                        break;
                    case (JsonTokenType.PropertyName, 2) when reader.ValueTextEquals("completion_tokens"u8):
                        reader.Read();
                        usage!.OutputTokenCount = reader.GetInt32();
                        break;
                    case (JsonTokenType.PropertyName, 3) when reader.ValueTextEquals("finish_reason"u8):
                        reader.Read();
                        isOrdinary = reader.ValueTextEquals("stop"u8);
                        break;
                    case (JsonTokenType.PropertyName, 3) when reader.ValueTextEquals("logprobs"u8):
                        reader.Read();
                        isOrdinary = reader.TokenType == JsonTokenType.Null;
                        break;
                    case (JsonTokenType.PropertyName, 4) when reader.ValueTextEquals("role"u8):
                        reader.Read();
                        isOrdinary = reader.ValueTextEquals("assistant"u8);
                        break;
                    case (JsonTokenType.PropertyName, 4) when reader.ValueTextEquals("content"u8):
                        reader.Read();
                        text = reader.GetString();
                        break;
                    case (JsonTokenType.PropertyName, 4) when reader.ValueTextEquals("refusal"u8):
                        reader.Read();
                        isOrdinary = reader.TokenType == JsonTokenType.Null || reader.ValueTextEquals(""u8);
                        break;
                    case (JsonTokenType.PropertyName, _):
                        reader.Skip();
                        break;
                }
            }
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or FormatException)
        {
            return null;
        }

        return isOrdinary && text is not null
            ? new ChatResponse(new ChatMessage(ChatRole.Assistant, text)) { ModelId = model, FinishReason = ChatFinishReason.Stop, Usage = usage }
            : null;
    }

    private static ChatResponse Convert(ChatCompletion completion)
    {
        var message = new ChatMessage(ChatRole.Assistant, [.. completion.Content.Select(part => new TextContent(part.Text))]);
        if (!string.IsNullOrEmpty(completion.Refusal))
        {
            message.Contents.Add(new ErrorContent(completion.Refusal) { ErrorCode = "Refusal" });
        }

        return new ChatResponse(message)
        {
            RawRepresentation = completion,
            ModelId = completion.Model,
            FinishReason = completion.FinishReason switch
            {
                OpenAI.Chat.ChatFinishReason.Length => ChatFinishReason.Length,
                OpenAI.Chat.ChatFinishReason.ContentFilter => ChatFinishReason.ContentFilter,
                OpenAI.Chat.ChatFinishReason.Stop => ChatFinishReason.Stop,
                _ => ChatFinishReason.ToolCalls,
            },
            Usage = completion.Usage is { } usage
                ? new UsageDetails { InputTokenCount = usage.InputTokenCount, OutputTokenCount = usage.OutputTokenCount }
                : null,
        };
    }

    /// <summary>The SDK's exception, so that faults are read in one way whatever stands behind the classifier.</summary>
    private static async Task<ClientResultException> RefuseAsync(HttpResponseMessage response, CancellationToken cancellationToken)
    {
        using var answered = new HttpClient(new Answered(response));
        var transport = new HttpClientPipelineTransport(answered);
        using var message = transport.CreateMessage();
        message.Request.Method = "POST";
        message.Request.Uri = response.RequestMessage!.RequestUri;
        message.Apply(new RequestOptions { CancellationToken = cancellationToken });
        await transport.ProcessAsync(message);
        return new ClientResultException(message.Response!);
    }

    /// <summary>Gives back what was received already.</summary>
    private sealed class Answered(HttpResponseMessage response) : HttpMessageHandler
    {
        protected override Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellationToken) => Task.FromResult(response);
    }

    private sealed record RequestStart(string? Instructions, byte[] Bytes);
}
