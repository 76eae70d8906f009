using System.ClientModel;
using System.ClientModel.Primitives;
using System.Globalization;
using System.Text.Json;
using Azure.Identity;
using Microsoft.Extensions.Options;
using TicketFunctions.Classification.Baseline;

namespace TicketFunctions.Classification;

/// <summary>One model on offer. What its server does not say is null.</summary>
/// <param name="Provider">Who serves it.</param>
/// <param name="Endpoint">The server's host and port.</param>
/// <param name="Name">Its name, as for <c>Model__Name</c>.</param>
/// <param name="SizeBytes">Its size on the server's disk.</param>
/// <param name="Parameters">How many parameters it has, like <c>3.2B</c>.</param>
/// <param name="Quantization">How they are stored, like <c>Q4_K_M</c>.</param>
/// <param name="ContextLength">The tokens it can read at most.</param>
/// <param name="StructuredOutput">Whether it can be held to a JSON schema.</param>
/// <param name="InputPricePerMillion">The price of a million tokens read; the lowest, where several serve it.</param>
/// <param name="OutputPricePerMillion">The price of a million tokens written.</param>
/// <param name="Configured">Whether it is this one, or one of these, that answers.</param>
public sealed record ModelListing(
    string Provider,
    string? Endpoint,
    string Name,
    long? SizeBytes,
    string? Parameters,
    string? Quantization,
    long? ContextLength,
    bool? StructuredOutput,
    decimal? InputPricePerMillion,
    decimal? OutputPricePerMillion,
    bool Configured);

/// <summary>Why one server has no list, in our own words, with the way to mend it.</summary>
public sealed record ModelOfferFault(FailureKind Kind, string Reason, TimeSpan? RetryAfter);

/// <summary>What the configured servers offer.</summary>
/// <param name="Models">The models, the configured ones first.</param>
/// <param name="Faults">What is wrong with the servers that gave no list.</param>
/// <param name="Missing">A sentence for each configured model that its server does not offer.</param>
/// <param name="Answered">False when none of the servers gave a list.</param>
public sealed record ModelOffer(
    IReadOnlyList<ModelListing> Models, IReadOnlyList<ModelOfferFault> Faults, IReadOnlyList<string> Missing, bool Answered);

/// <summary>Asks the configured servers what they offer. They may answer anything: what cannot be read is left out.</summary>
public sealed class ModelCatalog(IOptions<ModelOptions> options, BaselineTicketClassifier baseline, TimeProvider time)
{
    /// <summary>More than these of one server nobody reads.</summary>
    private const int MaxModels = 1000;

    /// <summary>Ollama tells a model's limits by one request each.</summary>
    private const int MaxDetailed = 50;

    private const int ConcurrentDetails = 4;

    /// <summary>For all of them: a list without limits now is better than one with them later.</summary>
    private static readonly TimeSpan DetailsTimeout = TimeSpan.FromSeconds(2);

    /// <summary>Never throws for what a server or a network can do; only for cancellation.</summary>
    public async Task<ModelOffer> ListAsync(CancellationToken cancellationToken)
    {
        var servers = options.Value.Targets.Index()
            .SelectMany(model => model.Item.Endpoints.Select(endpoint => (
                Address: (model.Item.Provider, endpoint, model.Item.ApiKey),
                Setting: model.Index == 0 ? "Model" : $"Model__Fallbacks__{model.Index - 1}",
                Target: model.Item)))
            .GroupBy(model => model.Address, (address, models) => new Server(address.endpoint, [.. models.Select(model => (model.Setting, model.Target))]));
        var lists = await Task.WhenAll(servers.Select(server => ListAsync(server, cancellationToken)));
        var answered = lists.Length == 0 || lists.Any(list => list.Fault is null);
        return new ModelOffer(
            [
                .. lists.SelectMany(list => list.Models).OrderByDescending(model => model.Configured),
                .. lists.Length == 0 || options.Value.BaselineStandsIn ? [Baseline()] : Array.Empty<ModelListing>(),
            ],
            [.. lists.Select(list => list.Fault).OfType<ModelOfferFault>()],
            [.. lists.SelectMany(list => list.Missing)],
            answered);
    }

    private ModelListing Baseline() =>
        new("baseline", null, baseline.Identities[0].Model, BaselineModel.Size, null, null, null, null, null, null, Configured: true);

    private async Task<ServerList> ListAsync(Server server, CancellationToken cancellationToken)
    {
        using var attempt = new CancellationTokenSource(options.Value.AttemptTimeout!.Value, time);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, attempt.Token);
        try
        {
            var models = server.First.Provider == "ollama"
                ? await ListOllamaAsync(server, either.Token)
                : await ListOpenAIAsync(server, either.Token);
            return new ServerList([.. models.Take(MaxModels)], server.FindMissing(models), null);
        }
        catch (OperationCanceledException) when (cancellationToken.IsCancellationRequested)
        {
            throw;
        }
        catch (Exception e)
        {
            // Client libraries throw whatever a broken answer breaks in them.
            var fault = either.IsCancellationRequested ? ModelFault.TimedOut : ModelFault.From(e, time.GetUtcNow());
            return new ServerList([], [], new ModelOfferFault(fault.Kind, Describe(server, fault, e), fault.RetryAfter));
        }
    }

    private static async Task<ModelListing[]> ListOpenAIAsync(Server server, CancellationToken cancellationToken)
    {
        using var document = await SendAsync(server, "GET", new Uri($"{server.Endpoint.AbsoluteUri.TrimEnd('/')}/models"), null, cancellationToken);
        return [.. Sort(ReadArray(document.RootElement, "data").Select(model => ReadOpenAI(server, model)))];
    }

    /// <summary>OpenAI's form, with what Hugging Face, Azure, vLLM and OpenRouter add to it.</summary>
    private static ModelListing? ReadOpenAI(Server server, JsonElement model)
    {
        if (Text(Member(model, "id")) is not { } name)
        {
            return null;
        }

        var providers = Items(Member(model, "providers"));
        var parameters = Items(Member(model, "supported_parameters"));
        var structured = providers.Select(provider => Flag(Member(provider, "supports_structured_output"))).OfType<bool>().ToList();
        return server.Complete(new ModelListing(
            server.First.Provider,
            server.Endpoint.Authority,
            name,
            SizeBytes: null,
            Parameters: null,
            Quantization: null,
            Number(Member(model, "context_length")) ?? Number(Member(model, "max_model_len"))
                ?? providers.Max(provider => Number(Member(provider, "context_length"))),
            structured.Count > 0 ? structured.Contains(true)
                // A model that does not chat does not label.
                : Flag(Member(model, "capabilities", "chat_completion")) == false ? false
                : parameters.Count > 0 ? parameters.Any(parameter => Text(parameter) == "structured_outputs")
                : null,
            providers.Min(provider => Price(Member(provider, "pricing", "input"))) ?? Price(Member(model, "pricing", "prompt")) * 1_000_000,
            providers.Min(provider => Price(Member(provider, "pricing", "output"))) ?? Price(Member(model, "pricing", "completion")) * 1_000_000,
            Configured: false));
    }

    private async Task<ModelListing[]> ListOllamaAsync(Server server, CancellationToken cancellationToken)
    {
        // Ollama's own requests stand beside the ones it takes for OpenAI.
        var root = server.Endpoint.AbsoluteUri[..^"/v1".Length];
        using var document = await SendAsync(server, "GET", new Uri($"{root}/api/tags"), null, cancellationToken);
        var models = Sort(ReadArray(document.RootElement, "models").Select(model => ReadOllama(server, model))).ToArray();
        using var patience = new CancellationTokenSource(DetailsTimeout, time);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, patience.Token);
        var parallel = new ParallelOptions { MaxDegreeOfParallelism = ConcurrentDetails };
        await Parallel.ForAsync(0, Math.Min(models.Length, MaxDetailed), parallel, async (i, _) =>
            models[i] = await AddDetailsAsync(server, root, models[i], either.Token));
        return models;
    }

    private static IEnumerable<ModelListing> Sort(IEnumerable<ModelListing?> models) => models.OfType<ModelListing>()
        .OrderByDescending(model => model.Configured)
        .ThenBy(model => model.Name, StringComparer.OrdinalIgnoreCase);

    private static ModelListing? ReadOllama(Server server, JsonElement model) => Text(Member(model, "name")) is { } name
        ? server.Complete(new ModelListing(
            server.First.Provider,
            server.Endpoint.Authority,
            name,
            Number(Member(model, "size")),
            Text(Member(model, "details", "parameter_size")),
            Text(Member(model, "details", "quantization_level")),
            ContextLength: null,
            StructuredOutput: null,
            InputPricePerMillion: null,
            OutputPricePerMillion: null,
            Configured: false))
        : null;

    private static async Task<ModelListing> AddDetailsAsync(Server server, string root, ModelListing model, CancellationToken cancellationToken)
    {
        try
        {
            using var document = await SendAsync(
                server, "POST", new Uri($"{root}/api/show"), JsonSerializer.SerializeToUtf8Bytes(new { model = model.Name }), cancellationToken);
            var shown = document.RootElement;
            var context = Member(shown, "model_info") is { ValueKind: JsonValueKind.Object } info
                ? info.EnumerateObject().Where(member => member.Name.EndsWith(".context_length", StringComparison.Ordinal)).Select(member => Number(member.Value)).Max()
                : null;
            var capabilities = Items(Member(shown, "capabilities")).Select(capability => Text(capability)).ToList();
            return model with
            {
                ContextLength = context,
                // A model of Ollama's cloud may not be held to the schema that was sent.
                StructuredOutput = capabilities.Count == 0 || Text(Member(shown, "remote_host")) is not null ? null : capabilities.Contains("completion"),
            };
        }
        catch (Exception)
        {
            // Only what it would have added is missing, also where time ran out.
            return model;
        }
    }

    /// <exception cref="ClientResultException">The server answered an error.</exception>
    /// <exception cref="JsonException">The answer is not JSON.</exception>
    private static async Task<JsonDocument> SendAsync(Server server, string method, Uri address, byte[]? body, CancellationToken cancellationToken)
    {
        // The SDK's own pipeline: it knows the key, and is bounded as the classifier's calls are.
        var pipeline = ModelConnection.Open(server.First, server.Endpoint).Pipeline;
        using var message = pipeline.CreateMessage();
        message.Apply(new RequestOptions { CancellationToken = cancellationToken });
        message.Request.Method = method;
        message.Request.Uri = address;
        if (body is not null)
        {
            message.Request.Headers.Set("Content-Type", "application/json");
            message.Request.Content = BinaryContent.Create(BinaryData.FromBytes(body));
        }

        await pipeline.SendAsync(message);
        return message.Response!.Status == 200
            ? JsonDocument.Parse(message.Response.Content.ToMemory())
            : throw new ClientResultException(message.Response);
    }

    private static string Describe(Server server, ModelFault fault, Exception exception)
    {
        var (setting, target) = server.Models[0];
        var mendKey = ModelTarget.KeySetting(setting, target.Provider);
        var mendEndpoint = ModelTarget.EndpointSetting(setting, target.Provider);
        return $"{target.Provider} at {server.Endpoint.Authority} " + fault switch
        {
            { Status: 401 or 403 } when target is { Provider: "azure-openai", ApiKey: null } =>
                $"does not take the managed identity (HTTP {fault.Status}); give it the role Cognitive Services OpenAI User, or set {mendKey}.",
            { Status: 401 or 403 } => target.ApiKey is null
                ? $"wants a key (HTTP {fault.Status}); set {mendKey}."
                : $"does not take the key (HTTP {fault.Status}); mend {mendKey}.",
            { Status: 404 } => $"has no list of models there (HTTP 404); check {mendEndpoint}.",
            { Status: >= 300 and < 400 } => $"redirects (HTTP {fault.Status}), which is not followed; set {mendEndpoint} to the final address.",
            { Status: >= 400, Kind: not FailureKind.UpstreamTimeout } => $"answered HTTP {fault.Status}.",
            { Kind: FailureKind.UpstreamTimeout } => "did not answer in time; try again, or give it longer with Model__AttemptTimeout.",
            { Kind: FailureKind.UpstreamInvalid } => $"answered something that is no list of models; check {mendEndpoint}.",
            _ when exception is AuthenticationFailedException => $"cannot be asked: Azure gave no token; check the managed identity, or set {mendKey}.",
            _ => $"cannot be reached; {(target.Provider == "ollama" ? "start it with `ollama serve`, or " : "")}check {mendEndpoint}.",
        };
    }

    /// <exception cref="JsonException">There is none.</exception>
    private static List<JsonElement> ReadArray(JsonElement root, string name)
    {
        // Together answers the bare array; Ollama null where there is no model.
        var array = root.ValueKind == JsonValueKind.Array ? root : Member(root, name);
        return array is { ValueKind: JsonValueKind.Array or JsonValueKind.Null } ? Items(array) : throw new JsonException();
    }

    private static List<JsonElement> Items(JsonElement? element) =>
        element is { ValueKind: JsonValueKind.Array } array ? [.. array.EnumerateArray()] : [];

    private static JsonElement? Member(JsonElement element, params ReadOnlySpan<string> path)
    {
        foreach (var name in path)
        {
            if (element.ValueKind != JsonValueKind.Object || !element.TryGetProperty(name, out element))
            {
                return null;
            }
        }

        return element;
    }

    private static bool? Flag(JsonElement? element) => element?.ValueKind switch
    {
        JsonValueKind.True => true,
        JsonValueKind.False => false,
        _ => null,
    };

    private static long? Number(JsonElement? element) =>
        element is { ValueKind: JsonValueKind.Number } number && number.TryGetInt64(out var value) && value >= 0 ? value : null;

    /// <summary>A number, or one in quotes as OpenRouter writes it.</summary>
    private static decimal? Price(JsonElement? element)
    {
        decimal price = -1;
        var isRead = element is { ValueKind: JsonValueKind.Number } number ? number.TryGetDecimal(out price)
            : decimal.TryParse(Text(element), NumberStyles.Float, CultureInfo.InvariantCulture, out price);
        return isRead && price is >= 0 and <= 1_000_000 ? price : null;
    }

    private static string? Text(JsonElement? element)
    {
        if (element is not { ValueKind: JsonValueKind.String } text)
        {
            return null;
        }

        try
        {
            return ServerText.Clean(text.GetString());
        }
        catch (InvalidOperationException)
        {
            // Half of a surrogate pair.
            return null;
        }
    }

    private sealed record ServerList(IReadOnlyList<ModelListing> Models, IReadOnlyList<string> Missing, ModelOfferFault? Fault);

    /// <summary>One address with one key, and the models configured there.</summary>
    private sealed record Server(Uri Endpoint, IReadOnlyList<(string Setting, ModelTarget Target)> Models)
    {
        public ModelTarget First => Models[0].Target;

        /// <summary>Adds what the settings say of a listed model.</summary>
        public ModelListing Complete(ModelListing listing) => Models.Select(model => model.Target).FirstOrDefault(target => Names(target, listing)) is { } target
            ? listing with
            {
                Configured = true,
                InputPricePerMillion = target.InputPricePerMillion ?? listing.InputPricePerMillion,
                OutputPricePerMillion = target.OutputPricePerMillion ?? listing.OutputPricePerMillion,
            }
            : listing;

        public IReadOnlyList<string> FindMissing(IReadOnlyCollection<ModelListing> listings) =>
        [
            .. from model in Models
               // Azure lists what may be deployed, and takes the names of deployments.
               where model.Target.Provider != "azure-openai" && !listings.Any(listing => Names(model.Target, listing))
               select $"{model.Target.Name} is not among the models that {model.Target.Provider} at {Endpoint.Authority} offers; "
                   + (model.Target.Provider == "ollama" ? $"get it with `ollama pull {model.Target.Name}`." : $"choose one of them with {model.Setting}__Name."),
        ];

        private static bool Names(ModelTarget target, ModelListing listing) => target.Provider switch
        {
            "ollama" => Same(listing.Name, target.Name) || Same(listing.Name, $"{target.Name}:latest"),
            // After a colon stands which of those that serve it is asked.
            "huggingface" => Same(listing.Name, target.Name.Split(':')[0]),
            _ => listing.Name == target.Name,
        };

        private static bool Same(string left, string right) => left.Equals(right, StringComparison.OrdinalIgnoreCase);
    }
}
