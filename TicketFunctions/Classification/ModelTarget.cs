using System.Net;

namespace TicketFunctions.Classification;

/// <summary>One configured model, its settings read and checked.</summary>
/// <param name="Provider">Who serves it.</param>
/// <param name="Name">Its name as the server knows it.</param>
/// <param name="Endpoints">The addresses that serve it, to which <c>/chat/completions</c> is appended.</param>
/// <param name="ApiKey">The key, or null where none is sent.</param>
/// <param name="Output">How answers are made JSON; null to find out.</param>
/// <param name="MaxOutputTokens">The longest answer.</param>
/// <param name="InputPricePerMillion">The price of a million tokens read, where it is known.</param>
/// <param name="OutputPricePerMillion">The price of a million tokens written, where it is known.</param>
public sealed record ModelTarget(
    string Provider,
    string Name,
    IReadOnlyList<Uri> Endpoints,
    string? ApiKey,
    OutputMode? Output,
    int MaxOutputTokens,
    decimal? InputPricePerMillion,
    decimal? OutputPricePerMillion)
{
    /// <summary>What each provider is by default, and the variables its users have already.</summary>
    private sealed record ProviderDefaults(
        string? Endpoint, string? Name, string[] EndpointVariables, string[] KeyVariables, bool NeedsKey);

    private static readonly Dictionary<string, ProviderDefaults> Providers = new(StringComparer.Ordinal)
    {
        ["openai"] = new("https://api.openai.com/v1", "gpt-4.1-mini", ["OPENAI_BASE_URL"], ["OPENAI_API_KEY"], NeedsKey: true),
        ["azure-openai"] = new(null, "gpt-4.1-mini", ["AZURE_OPENAI_ENDPOINT"], ["AZURE_OPENAI_API_KEY"], NeedsKey: false),
        ["huggingface"] = new("https://router.huggingface.co/v1", "meta-llama/Llama-3.3-70B-Instruct", [], ["HUGGINGFACEHUB_API_TOKEN", "HF_TOKEN"], NeedsKey: true),
        ["ollama"] = new("http://localhost:11434", "llama3.2", ["OLLAMA_HOST"], [], NeedsKey: false),
        ["compatible"] = new(null, null, [], [], NeedsKey: false),
        ["baseline"] = new(null, null, [], [], NeedsKey: false),
    };

    /// <summary>The price of so many tokens, or null when it is not known.</summary>
    public decimal? PriceOf(int? tokensIn, int? tokensOut) =>
        (InputPricePerMillion is null && OutputPricePerMillion is null) || (tokensIn is null && tokensOut is null)
            ? null
            : (((tokensIn ?? 0) * (InputPricePerMillion ?? 0)) + ((tokensOut ?? 0) * (OutputPricePerMillion ?? 0))) / 1_000_000;

    internal static string ProviderOf(ModelTargetOptions options) => !string.IsNullOrWhiteSpace(options.Provider)
        ? options.Provider.Trim().ToLowerInvariant()
        : !string.IsNullOrWhiteSpace(options.Endpoint) ? "compatible"
        : !string.IsNullOrWhiteSpace(options.Name) || !string.IsNullOrWhiteSpace(options.ApiKey) ? "openai"
        : "baseline";

    /// <summary>The variables fill in for a provider that was chosen; they never choose one, since then tickets would leave the machine unasked.</summary>
    internal static void ApplyDefaults(ModelTargetOptions options, IConfiguration environment)
    {
        var provider = ProviderOf(options);
        if (!Providers.TryGetValue(provider, out var defaults))
        {
            return;
        }

        options.Provider = provider;

        // A key belongs to the address it was made for: given another address, the provider's own key is not sent there.
        var ownAddress = string.IsNullOrWhiteSpace(options.Endpoint) || provider == "azure-openai";
        options.Endpoint = FirstSet([options.Endpoint, .. defaults.EndpointVariables.Select(name => environment[name]), defaults.Endpoint]);
        options.ApiKey = FirstSet([options.ApiKey, .. ownAddress ? defaults.KeyVariables.Select(name => environment[name]) : []]);
        options.Name = FirstSet([options.Name, defaults.Name]);
    }

    internal static ModelTarget From(ModelTargetOptions options)
    {
        var provider = ProviderOf(options);
        return new(
            provider,
            options.Name!.Trim(),
            [.. Split(options.Endpoint!).Select(address => ReadAddress(provider, address)!)],
            options.ApiKey,
            options.Output,
            options.MaxOutputTokens,
            options.InputPricePerMillion,
            options.OutputPricePerMillion);
    }

    /// <summary>What is wrong with one model's settings, each sentence with the way to mend it.</summary>
    internal static IEnumerable<string> FindErrors(string setting, ModelTargetOptions options)
    {
        var provider = ProviderOf(options);
        if (!Providers.TryGetValue(provider, out var defaults))
        {
            yield return $"{setting}__Provider is '{options.Provider}'; it must be {string.Join(", ", Providers.Keys.SkipLast(1))} or {Providers.Keys.Last()}.";
            yield break;
        }

        if (provider == "baseline")
        {
            yield break;
        }

        if (string.IsNullOrWhiteSpace(options.Name))
        {
            yield return $"{setting}__Name is missing; name the model, for instance {setting}__Name=gpt-4.1-mini.";
        }

        if (string.IsNullOrWhiteSpace(options.Endpoint))
        {
            yield return provider == "azure-openai"
                ? $"{setting}__Endpoint is missing; set it (or AZURE_OPENAI_ENDPOINT) to the resource's address, like https://<resource>.openai.azure.com."
                : $"{setting}__Endpoint is missing; set it to the server's address, for instance http://localhost:11434/v1.";
        }

        foreach (var address in Split(options.Endpoint ?? ""))
        {
            if (ReadAddress(provider, address) is not { } uri)
            {
                yield return $"{setting}__Endpoint is not an http or https address; write it like http://localhost:11434/v1, several with commas between.";
            }
            else if (uri.UserInfo.Length > 0 || uri.Query.Length > 0)
            {
                yield return $"{setting}__Endpoint carries a user or a query; write the bare address, and the key in {setting}__ApiKey.";
            }
        }

        if (options.ApiKey?.Any(c => c is < '!' or > '~') == true)
        {
            yield return $"{setting}__ApiKey holds a blank, a line break or a character that no header can carry; copy the key again.";
        }

        if (defaults.NeedsKey && string.IsNullOrWhiteSpace(options.ApiKey))
        {
            yield return $"{setting}__ApiKey is missing; set it (or {string.Join(" or ", defaults.KeyVariables)}) to the provider's key, "
                + "or choose a server that needs none with Model__Provider=compatible and Model__Endpoint.";
        }
    }

    private static string? FirstSet(IEnumerable<string?> values) => values.FirstOrDefault(value => !string.IsNullOrWhiteSpace(value))?.Trim();

    private static string[] Split(string addresses) => addresses.Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries);

    /// <summary>The address as it is called, or null when it is none.</summary>
    private static Uri? ReadAddress(string provider, string address)
    {
        // OLLAMA_HOST may be a bare host, a port alone, or the address to listen on.
        if (provider == "ollama" && !address.Contains("://", StringComparison.Ordinal))
        {
            address = "http://" + (address.StartsWith(':') ? "localhost" + address : address);
            if (Uri.TryCreate(address, UriKind.Absolute, out var bare) && bare.IsDefaultPort && !address.EndsWith(":80", StringComparison.Ordinal))
            {
                address = new UriBuilder(bare) { Port = 11434 }.Uri.AbsoluteUri;
            }
        }

        if (!Uri.TryCreate(address, UriKind.Absolute, out var uri) || uri.Scheme is not ("http" or "https"))
        {
            return null;
        }

        if (IPAddress.TryParse(uri.Host.Trim('[', ']'), out var ip) && (ip.Equals(IPAddress.Any) || ip.Equals(IPAddress.IPv6Any)))
        {
            uri = new UriBuilder(uri) { Host = "localhost" }.Uri;
        }

        return uri.AbsolutePath != "/" ? uri : new Uri(uri, provider == "azure-openai" ? "openai/v1" : "v1");
    }
}
