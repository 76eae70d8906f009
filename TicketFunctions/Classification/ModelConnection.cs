using System.Buffers;
using System.ClientModel;
using System.ClientModel.Primitives;
using System.Diagnostics;
using System.Net;
using System.Net.Http.Headers;
using System.Runtime.CompilerServices;
using System.Text.Json;
using Azure.Core;
using Azure.Identity;
using Microsoft.Extensions.AI;
using OpenAI;

namespace TicketFunctions.Classification;

/// <summary>Puts a chat client in front of one address of a model; each host has its own way.</summary>
/// <param name="target">The model.</param>
/// <param name="address">The address.</param>
public delegate IChatClient ChatClientFactory(ModelTarget target, Uri address);

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
    private static readonly WholeAnswers Handler = new(new SocketsHttpHandler
    {
        // A redirect would carry the ticket, and perhaps the key, to where nobody configured.
        AllowAutoRedirect = false,
        UseCookies = false,
        PooledConnectionLifetime = TimeSpan.FromMinutes(5),
        ConnectTimeout = TimeSpan.FromSeconds(5),
        EnableMultipleHttp2Connections = true,

        // A call that is given up takes its connection with it in HTTP/1.1, and not in HTTP/2: there a dead one would be used on and on.
        KeepAlivePingDelay = TimeSpan.FromSeconds(5),
        KeepAlivePingTimeout = TimeSpan.FromSeconds(3),
        KeepAlivePingPolicy = HttpKeepAlivePingPolicy.WithActiveRequests,

        // Ours adds them, and only where somebody records the trace.
        ActivityHeadersPropagator = null,
    });

    private static readonly HttpClient Http = new(Handler) { Timeout = Timeout.InfiniteTimeSpan };

    /// <summary>One for the process: it keeps the token. Made only when an Azure model has no key.</summary>
    private static readonly Lazy<TokenCredential> Identity = new(() => new DefaultAzureCredential());

    private static StrongBox<AccessToken>? _token;

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

    /// <summary>The way to the sockets without an <see cref="HttpClient"/>, which adds a time-out and a buffer that nobody needs here.</summary>
    internal static HttpMessageInvoker Invoker { get; } = new(Handler, disposeHandler: false);

    /// <summary>The header that carries the key; null where a token of the identity does.</summary>
    internal static (string Name, string Value)? FindKeyHeader(ModelTarget target) => (target.Provider, string.IsNullOrWhiteSpace(target.ApiKey)) switch
    {
        ("azure-openai", true) => null,
        ("azure-openai", false) => ("api-key", target.ApiKey!),
        (_, var none) => ("Authorization", $"Bearer {(none ? "none" : target.ApiKey)}"),
    };

    /// <summary>A token of the identity, kept until it is time for another: some identities start a program for each.</summary>
    internal static async ValueTask<string> GetTokenAsync(CancellationToken cancellationToken)
    {
        var token = _token;
        if (token is null || (token.Value.RefreshOn ?? token.Value.ExpiresOn.AddMinutes(-5)) <= TimeProvider.System.GetUtcNow())
        {
            _token = token = new(await Identity.Value.GetTokenAsync(new TokenRequestContext([AzureScope]), cancellationToken));
        }

        return token.Value.Token;
    }

    /// <summary>An answer that was read already.</summary>
    internal sealed class WholeAnswer(byte[] bytes) : ByteArrayContent(bytes)
    {
        public byte[] Bytes { get; } = bytes;
    }

    /// <summary>Content that knows whether it was sent: only then somebody may have been paid for what did not come back.</summary>
    private sealed class NotedContent : HttpContent
    {
        private readonly HttpContent _content;

        public NotedContent(HttpContent content)
        {
            _content = content;
            foreach (var header in content.Headers.NonValidated)
            {
                Headers.TryAddWithoutValidation(header.Key, header.Value);
            }
        }

        public bool WasSent { get; private set; }

        protected override Task SerializeToStreamAsync(Stream stream, TransportContext? context) =>
            SerializeToStreamAsync(stream, context, CancellationToken.None);

        protected override Task SerializeToStreamAsync(Stream stream, TransportContext? context, CancellationToken cancellationToken)
        {
            WasSent = true;
            return _content.CopyToAsync(stream, context, cancellationToken);
        }

        protected override bool TryComputeLength(out long length)
        {
            length = _content.Headers.ContentLength ?? 0;
            return _content.Headers.ContentLength is not null;
        }

        protected override void Dispose(bool disposing)
        {
            if (disposing)
            {
                _content.Dispose();
            }

            base.Dispose(disposing);
        }
    }

    /// <summary>
    /// Asks by HTTP/2 where the server speaks it, reads the answer whole or not at all (an endless one ends at the limit), and says
    /// <c>stop</c> where a server says it in another way: Together <c>eos</c>, Text Generation Inference <c>eos_token</c>, others
    /// <c>null</c>. The SDK throws such answers away. https://github.com/openai/openai-dotnet/pull/267, https://github.com/ollama/ollama/issues/7547
    /// </summary>
    private sealed class WholeAnswers(HttpMessageHandler inner) : DelegatingHandler(inner)
    {
        private const int FirstBuffer = 16 * 1024;

        protected override async Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellationToken)
        {
            // Over TLS the two agree on it. Without TLS it stays HTTP/1.1, since the server cannot be asked.
            request.Version = HttpVersion.Version20;
            request.VersionPolicy = HttpVersionPolicy.RequestVersionOrLower;
            if (Activity.Current is { Recorded: true } span)
            {
                DistributedContextPropagator.Current.Inject(
                    span, request.Headers, static (headers, name, value) => ((HttpRequestHeaders)headers!).TryAddWithoutValidation(name, value));
            }

            var content = request.Content is { } whole ? new NotedContent(whole) : null;
            request.Content = content;
            HttpResponseMessage response;
            try
            {
                response = await base.SendAsync(request, cancellationToken);
            }
            catch (OperationCanceledException e) when (content is { WasSent: false })
            {
                // The reason that ModelFault looks for.
                var reason = new HttpRequestException(HttpRequestError.ConnectionError, "No connection came about in time.", e);
                throw new OperationCanceledException(reason.Message, reason, cancellationToken);
            }

            try
            {
                var answer = await ReadAsync(response.Content, request.Method == HttpMethod.Get ? MaxListBytes : MaxAnswerBytes, cancellationToken);
                response.Content = new WholeAnswer(response.StatusCode == HttpStatusCode.OK ? Translate(answer) : answer);
                return response;
            }
            catch
            {
                response.Dispose();
                throw;
            }
        }

        private static async ValueTask<byte[]> ReadAsync(HttpContent content, int limit, CancellationToken cancellationToken)
        {
            // What a server says of the length is a hint: chunks may follow all the same.
            var length = content.Headers.ContentLength ?? FirstBuffer;
            var buffer = length < limit ? ArrayPool<byte>.Shared.Rent((int)length + 1) : throw TooLong();
            try
            {
                var stream = await content.ReadAsStreamAsync(cancellationToken);
                for (var read = 0; ;)
                {
                    // In small pieces also where there is room for more: the faster it is taken, the more the system receives ahead of us.
                    var more = await stream.ReadAsync(buffer.AsMemory(read, Math.Min(buffer.Length - read, FirstBuffer)), cancellationToken);
                    read += more;
                    if (read >= limit)
                    {
                        throw TooLong();
                    }

                    if (more == 0)
                    {
                        return buffer.AsSpan(0, read).ToArray();
                    }

                    if (read == buffer.Length)
                    {
                        var larger = ArrayPool<byte>.Shared.Rent(Math.Min(read * 4, limit));
                        buffer.CopyTo(larger, 0);
                        ArrayPool<byte>.Shared.Return(buffer);
                        buffer = larger;
                    }
                }
            }
            finally
            {
                ArrayPool<byte>.Shared.Return(buffer);
            }

            HttpRequestException TooLong() => new(HttpRequestError.ConfigurationLimitExceeded, $"The answer has {limit} bytes or more.");
        }

        /// <returns>The same where there is nothing to translate.</returns>
        private static byte[] Translate(byte[] answer)
        {
            var rest = answer.AsSpan();
            while (rest.IndexOf("\"finish_reason\""u8) is >= 0 and var at)
            {
                rest = rest[(at + "\"finish_reason\""u8.Length)..];
                if (!rest.TrimStart(" :"u8).StartsWith("\"stop\""u8))
                {
                    return TranslateReason(answer);
                }
            }

            return answer;
        }

        private static byte[] TranslateReason(byte[] answer)
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
                            ? [.. answer.AsSpan(0, (int)reader.TokenStartIndex), .. "\"stop\""u8, .. answer.AsSpan((int)reader.BytesConsumed)]
                            : answer;
                    }
                }
            }
            catch (JsonException)
            {
                // The SDK will say so.
            }

            return answer;
        }
    }
}
