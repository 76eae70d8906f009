using System.Runtime.CompilerServices;
using System.Text;
using Microsoft.Extensions.AI;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.SemanticKernel;
using OpenAI;

namespace TicketFunctions.Hosting.AzureFunctions;

/// <summary>
/// Semantic Kernel behind <see cref="IChatClient"/>: a kernel holds the connector to one address of a model, and every call runs
/// the prompt function <c>Tickets.Classify</c>, so that the registered filters and the kernel's telemetry apply.
/// </summary>
internal sealed class KernelChatClient : IChatClient
{
    /// <summary>The function's one argument: the messages, as a list that filters may read and replace.</summary>
    private const string MessagesArgument = "messages";

    private readonly Kernel _kernel;
    private readonly IChatClient _connector;
    private readonly KernelFunction _classify;

    /// <param name="client">The connection.</param>
    /// <param name="model">The model's name.</param>
    /// <param name="services">Where the filters and the log come from.</param>
    public KernelChatClient(OpenAIClient client, string model, IServiceProvider services)
    {
        var loggers = new LogWithoutQuotes(services.GetRequiredService<ILoggerFactory>());
        var builder = Kernel.CreateBuilder();
        builder.Services.AddSingleton<ILoggerFactory>(loggers);
        builder.AddOpenAIChatClient(model, client);
        _kernel = builder.Build();
        foreach (var filter in services.GetServices<IFunctionInvocationFilter>())
        {
            _kernel.FunctionInvocationFilters.Add(filter);
        }

        foreach (var filter in services.GetServices<IPromptRenderFilter>())
        {
            _kernel.PromptRenderFilters.Add(filter);
        }

        foreach (var filter in services.GetServices<IAutoFunctionInvocationFilter>())
        {
            _kernel.AutoFunctionInvocationFilters.Add(filter);
        }

        _connector = _kernel.GetRequiredService<IChatClient>();

        // Else the connector asks again, up to 128 times, when a model calls a tool that nobody offered it.
        _connector.GetService<FunctionInvokingChatClient>()!.TerminateOnUnknownCalls = true;

        var function = KernelFunctionFactory.CreateFromPrompt(
            new MessagesTemplate(), new PromptTemplateConfig { Name = "Classify", Description = "Asks for the labels of a ticket" }, loggers);
        _classify = KernelPluginFactory.CreateFromFunctions("Tickets", [function])["Classify"];
    }

    public async Task<ChatResponse> GetResponseAsync(
        IEnumerable<ChatMessage> messages, ChatOptions? options = null, CancellationToken cancellationToken = default)
    {
        var arguments = new KernelArguments(new ChatSettings(options ?? new ChatOptions())) { [MessagesArgument] = messages.ToList() };
        var result = await _classify.InvokeAsync(_kernel, arguments, cancellationToken);

        if (result.GetValue<object>() is not ChatResponse response)
        {
            // A filter answered in the model's place.
            return new ChatResponse(new ChatMessage(ChatRole.Assistant, result.ToString()));
        }

        // The connector takes "refusal": "" for a refusal.
        foreach (var message in response.Messages)
        {
            message.Contents = [.. message.Contents.Where(content => content is not ErrorContent { Message: "" })];
        }

        return response;
    }

    public async IAsyncEnumerable<ChatResponseUpdate> GetStreamingResponseAsync(
        IEnumerable<ChatMessage> messages, ChatOptions? options = null, [EnumeratorCancellation] CancellationToken cancellationToken = default)
    {
        foreach (var update in (await GetResponseAsync(messages, options, cancellationToken)).ToChatResponseUpdates())
        {
            yield return update;
        }
    }

    public object? GetService(Type serviceType, object? serviceKey = null) =>
        serviceKey is null && serviceType.IsInstanceOfType(this) ? this : _connector.GetService(serviceType, serviceKey);

    public void Dispose() => _connector.Dispose();

    /// <summary>Puts the options in place that the kernel's own settings lose: what an OpenAI request carries besides, and whether a schema is strict.</summary>
    private sealed class ChatSettings(ChatOptions given) : PromptExecutionSettings
    {
        protected override void PrepareChatOptionsForRequest(ChatOptions options)
        {
            options.ModelId = given.ModelId;
            options.Temperature = given.Temperature;
            options.MaxOutputTokens = given.MaxOutputTokens;
            options.ResponseFormat = given.ResponseFormat;
            options.AdditionalProperties = given.AdditionalProperties?.Clone();
            options.RawRepresentationFactory = given.RawRepresentationFactory;
        }
    }

    /// <summary>Writes the messages in the kernel's notation such that it reads out of it exactly what was written.</summary>
    private sealed class MessagesTemplate : IPromptTemplate
    {
        public Task<string> RenderAsync(Kernel kernel, KernelArguments? arguments = null, CancellationToken cancellationToken = default)
        {
            var prompt = new StringBuilder();
            foreach (var message in (IEnumerable<ChatMessage>)arguments![MessagesArgument]!)
            {
                prompt.Append("<message role=\"").Append(message.Role.Value).Append("\"><![CDATA[");
                AppendEncoded(prompt, message.Text);
                prompt.Append("]]></message>\n");
            }

            return Task.FromResult(prompt.ToString());
        }

        // The kernel reads XML, trims the content and then decodes HTML. Its own encoding of variables loses the line break at the
        // end of our instructions, turns \r\n into \n, and has characters that XML forbids, which make it send the whole prompt,
        // encoded, as one user message. Encoded twice over, by references within CDATA, nothing is lost.
        // Half a surrogate pair becomes U+FFFD, as it would in JSON.
        private static void AppendEncoded(StringBuilder prompt, string text)
        {
            var start = text.Length - text.TrimStart().Length;
            var end = text.TrimEnd().Length;
            var at = 0;
            foreach (var rune in text.EnumerateRunes())
            {
                var isTrimmed = at < start || at >= end;
                var isLost = rune.Value is '&' or '<' or '>' or 0xFFFE or 0xFFFF || (Rune.IsControl(rune) && rune.Value != '\n');
                prompt.Append(isTrimmed || isLost ? $"&#{rune.Value};" : rune.ToString());
                at += rune.Utf16SequenceLength;
            }
        }
    }

    /// <summary>
    /// Leaves out what quotes others: what is logged with an exception, as the kernel and its connector do for every failed call, whose
    /// text may hold the ticket, the answer or the key; and the names of tools that a model made up. The classifier tells of the
    /// failure in its own words.
    /// </summary>
    private sealed class LogWithoutQuotes(ILoggerFactory inner) : ILoggerFactory
    {
        public ILogger CreateLogger(string categoryName) =>
            categoryName == typeof(FunctionInvokingChatClient).FullName ? NullLogger.Instance : new Logger(inner.CreateLogger(categoryName));

        public void AddProvider(ILoggerProvider provider) => inner.AddProvider(provider);

        public void Dispose()
        {
            // The application's.
        }

        private sealed class Logger(ILogger inner) : ILogger
        {
            public IDisposable? BeginScope<TState>(TState state)
                where TState : notnull => inner.BeginScope(state);

            public bool IsEnabled(LogLevel logLevel) => inner.IsEnabled(logLevel);

            public void Log<TState>(LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
            {
                if (exception is null)
                {
                    inner.Log(logLevel, eventId, state, exception, formatter);
                }
            }
        }
    }
}
