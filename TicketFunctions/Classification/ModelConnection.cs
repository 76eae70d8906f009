using System.ClientModel;
using System.ClientModel.Primitives;
using System.Net;
using System.Text.Json;
using Azure.Core;
using Azure.Identity;
using Microsoft.Extensions.AI;
using OpenAI;

namespace TicketFunctions.Classification;

/// <summary>Puts a chat client in front of a connection; each host has its own way.</summary>
/// <param name="client">The connection: address, key, limits.</param>
/// <param name="model">The model's name.</param>
public delegate IChatClient ChatClientFactory(OpenAIClient client, string model);

/// <summary>The connection to one address of a model, the same under both hosts: its key, and what bounds it.</summary>
public static class ModelConnection
{
    /// <summary>A chat completion with two labels has a kilobyte; with log-probabilities a few.</summary>
    internal const int MaxAnswerBytes = 1024 * 1024;

    /// <summary>A list of models with prices and limits has half a megabyte where hundreds are offered.</summary>
    internal const int MaxListBytes = 4 * MaxAnswerBytes;

    /// <summary>The scope of Azure's models. https://learn.microsoft.com/azure/ai-foundry/openai/how-to/managed-identity</summary>
    private const string AzureScope = "https://cognitiveservices.azure.com/.default";

    /// <summary>One for the process: it holds the sockets.</summary>
    internal static HttpClient Http { get; } = new(new KnownFinishReasons(new BoundedAnswers(new SocketsHttpHandler
    {
        // A redirect would carry the ticket, and perhaps the key, to where nobody configured.
        AllowAutoRedirect = false,
        UseCookies = false,
        PooledConnectionLifetime = TimeSpan.FromMinutes(5),
        ConnectTimeout = TimeSpan.FromSeconds(5),
    })))
    { Timeout = Timeout.InfiniteTimeSpan };

    /// <summary>One for the process: it keeps the token. Made only when an Azure model has no key.</summary>
    private static readonly Lazy<TokenCredential> Identity = new(() => new DefaultAzureCredential());

    public static OpenAIClient Open(ModelTarget target, Uri endpoint)
    {
        var options = new OpenAIClientOptions
        {
            Endpoint = endpoint,
            // Attempts and time are the classifier's to count: no policy is added underneath.
            RetryPolicy = new ClientRetryPolicy(maxRetries: 0),
            NetworkTimeout = Timeout.InfiniteTimeSpan,
            Transport = new HttpClientPipelineTransport(Http),
        };
        return (target.Provider, string.IsNullOrWhiteSpace(target.ApiKey)) switch
        {
#pragma warning disable OPENAI001 // Experimental in the SDK: the constructor that takes any way to authenticate.
            ("azure-openai", true) => new OpenAIClient(new BearerTokenPolicy(Identity.Value, AzureScope), options),
            ("azure-openai", false) => new OpenAIClient(
                ApiKeyAuthenticationPolicy.CreateHeaderApiKeyPolicy(new ApiKeyCredential(target.ApiKey!), "api-key"), options),
#pragma warning restore OPENAI001
            // Local servers take any key, but the SDK wants one.
            (_, var none) => new OpenAIClient(new ApiKeyCredential(none ? "none" : target.ApiKey!), options),
        };
    }

    /// <summary>Reads an answer whole or not at all: an endless one ends at the limit.</summary>
    private sealed class BoundedAnswers(HttpMessageHandler inner) : DelegatingHandler(inner)
    {
        protected override async Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellationToken)
        {
            var response = await base.SendAsync(request, cancellationToken);
            try
            {
                await response.Content.LoadIntoBufferAsync(request.Method == HttpMethod.Get ? MaxListBytes : MaxAnswerBytes, cancellationToken);
                return response;
            }
            catch
            {
                response.Dispose();
                throw;
            }
        }
    }

    /// <summary>
    /// Says <c>stop</c> where a server says it in another way: Together <c>eos</c>, Text Generation Inference <c>eos_token</c>, others
    /// <c>null</c>. The SDK throws such answers away. https://github.com/openai/openai-dotnet/pull/267, https://github.com/ollama/ollama/issues/7547
    /// </summary>
    private sealed class KnownFinishReasons(HttpMessageHandler inner) : DelegatingHandler(inner)
    {
        protected override async Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellationToken)
        {
            var response = await base.SendAsync(request, cancellationToken);
            if (response.StatusCode == HttpStatusCode.OK && Translate(await response.Content.ReadAsByteArrayAsync(cancellationToken)) is { } answer)
            {
                var headers = response.Content.Headers;
                response.Content = new ByteArrayContent(answer);
                response.Content.Headers.ContentType = headers.ContentType;
            }

            return response;
        }

        /// <returns>Null when there is nothing to translate.</returns>
        private static byte[]? Translate(ReadOnlySpan<byte> answer)
        {
            try
            {
                var reader = new Utf8JsonReader(answer);
                while (reader.Read())
                {
                    // Of one of the choices; we ask for one.
                    if (reader.CurrentDepth == 3 && reader.TokenType == JsonTokenType.PropertyName && reader.ValueTextEquals("finish_reason"u8) && reader.Read())
                    {
                        return reader.TokenType == JsonTokenType.Null
                            || (reader.TokenType == JsonTokenType.String
                                && (reader.ValueTextEquals("eos"u8) || reader.ValueTextEquals("eos_token"u8) || reader.ValueTextEquals("stop_sequence"u8)))
                            ? [.. answer[..(int)reader.TokenStartIndex], .. "\"stop\""u8, .. answer[(int)reader.BytesConsumed..]]
                            : null;
                    }
                }
            }
            catch (JsonException)
            {
                // The SDK will say so.
            }

            return null;
        }
    }
}
