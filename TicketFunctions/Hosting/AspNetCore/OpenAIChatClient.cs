using System.Text.Json;
using Microsoft.Extensions.AI;
using OpenAI.Chat;
using ChatFinishReason = Microsoft.Extensions.AI.ChatFinishReason;
using ChatMessage = Microsoft.Extensions.AI.ChatMessage;
using OpenAIChatMessage = OpenAI.Chat.ChatMessage;

namespace TicketFunctions.Hosting.AspNetCore;

/// <summary>The official OpenAI SDK behind <see cref="IChatClient"/>, for any address that speaks its protocol.</summary>
public sealed class OpenAIChatClient(ChatClient chat) : IChatClient
{
    public async Task<ChatResponse> GetResponseAsync(
        IEnumerable<ChatMessage> messages, ChatOptions? options = null, CancellationToken cancellationToken = default)
    {
        ChatCompletion completion = await chat.CompleteChatAsync(messages.Select(Convert), Convert(options), cancellationToken);
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

    public async IAsyncEnumerable<ChatResponseUpdate> GetStreamingResponseAsync(
        IEnumerable<ChatMessage> messages,
        ChatOptions? options = null,
        [System.Runtime.CompilerServices.EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        foreach (var update in (await GetResponseAsync(messages, options, cancellationToken)).ToChatResponseUpdates())
        {
            yield return update;
        }
    }

    public object? GetService(Type serviceType, object? serviceKey = null) =>
        serviceType.IsInstanceOfType(this) ? this : serviceType.IsInstanceOfType(chat) ? chat : null;

    public void Dispose()
    {
    }

    private static OpenAIChatMessage Convert(ChatMessage message) =>
        message.Role == ChatRole.System ? new SystemChatMessage(message.Text)
        : message.Role == ChatRole.Assistant ? new AssistantChatMessage(message.Text)
        : new UserChatMessage(message.Text);

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
}
