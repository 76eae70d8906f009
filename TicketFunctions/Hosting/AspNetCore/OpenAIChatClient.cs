using System.ClientModel;
using System.ClientModel.Primitives;
using System.Text.Json;
using Microsoft.Extensions.AI;
using OpenAI;
using OpenAI.Chat;
using TicketFunctions.Classification;
using ChatFinishReason = Microsoft.Extensions.AI.ChatFinishReason;
using ChatMessage = Microsoft.Extensions.AI.ChatMessage;
using OpenAIChatMessage = OpenAI.Chat.ChatMessage;

namespace TicketFunctions.Hosting.AspNetCore;

/// <summary>The official OpenAI SDK behind <see cref="IChatClient"/>, for any address that speaks its protocol.</summary>
public sealed class OpenAIChatClient : IChatClient
{
    private readonly ChatClient _chat;

    public OpenAIChatClient(ModelOptions options)
    {
        var clientOptions = new OpenAIClientOptions
        {
            // Attempts are counted and paid by the ticket: the policy is the classifier's, none is added underneath.
            RetryPolicy = new ClientRetryPolicy(maxRetries: 0),
            NetworkTimeout = Timeout.InfiniteTimeSpan,
        };
        if (options.EndpointUri is { } endpoint)
        {
            clientOptions.Endpoint = endpoint;
        }

        // Local servers take any key, but the SDK wants one.
        var key = string.IsNullOrWhiteSpace(options.ApiKey) ? "none" : options.ApiKey;
        _chat = new ChatClient(options.Name, new ApiKeyCredential(key), clientOptions);
    }

    public async Task<ChatResponse> GetResponseAsync(
        IEnumerable<ChatMessage> messages, ChatOptions? options = null, CancellationToken cancellationToken = default)
    {
        ChatCompletion completion = await _chat.CompleteChatAsync(messages.Select(Convert), Convert(options), cancellationToken);
        var message = new ChatMessage(ChatRole.Assistant, [.. completion.Content.Select(part => new TextContent(part.Text))]);
        if (!string.IsNullOrEmpty(completion.Refusal))
        {
            message.Contents.Add(new ErrorContent(completion.Refusal) { ErrorCode = "Refusal" });
        }

        return new ChatResponse(message)
        {
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
        serviceType.IsInstanceOfType(this) ? this : serviceType.IsInstanceOfType(_chat) ? _chat : null;

    public void Dispose()
    {
    }

    private static OpenAIChatMessage Convert(ChatMessage message) =>
        message.Role == ChatRole.System ? new SystemChatMessage(message.Text)
        : message.Role == ChatRole.Assistant ? new AssistantChatMessage(message.Text)
        : new UserChatMessage(message.Text);

    private static ChatCompletionOptions Convert(ChatOptions? options)
    {
        var converted = new ChatCompletionOptions
        {
            Temperature = options?.Temperature,
            MaxOutputTokenCount = options?.MaxOutputTokens,
        };
        if (options?.ResponseFormat is ChatResponseFormatJson { Schema: JsonElement schema } format)
        {
            converted.ResponseFormat = OpenAI.Chat.ChatResponseFormat.CreateJsonSchemaFormat(
                format.SchemaName ?? "answer",
                BinaryData.FromString(schema.GetRawText()),
                jsonSchemaIsStrict: options.AdditionalProperties?.TryGetValue("strict", out bool strict) == true ? strict : null);
        }

        return converted;
    }
}
