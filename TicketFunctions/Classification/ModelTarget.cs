using System.Net;
using System.Net.Sockets;

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

    internal static bool IsProvider(string provider) => Providers.ContainsKey(provider);

    /// <summary>Where the key of a model comes from: its setting, and the variables that fill in for it.</summary>
    internal static string KeySetting(string setting, string provider) => Named($"{setting}__ApiKey", Providers[provider].KeyVariables);

    /// <summary>Where the address of a model comes from.</summary>
    internal static string EndpointSetting(string setting, string provider) => Named($"{setting}__Endpoint", Providers[provider].EndpointVariables);

    /// <summary>A variable that is set, and the provider that would use it.</summary>
    internal static (string Variable, string Provider)? FindVariable(IConfiguration environment) => (
        from provider in Providers
        from variable in provider.Value.KeyVariables.Concat(provider.Value.EndpointVariables)
        where !string.IsNullOrWhiteSpace(environment[variable])
        select ((string, string)?)(variable, provider.Key)).FirstOrDefault();

    /// <summary>The variables fill in for a provider that was chosen; they never choose one, since then tickets would leave the machine unasked.</summary>
    internal static void ApplyDefaults(ModelTargetOptions options, IConfiguration environment)
    {
        var provider = ProviderOf(options);
        if (!Providers.TryGetValue(provider, out var defaults))
        {
            return;
        }

        // A key in a variable was made for the provider's own address. It is sent to no other.
        var own = FirstSet([.. defaults.EndpointVariables.Select(name => environment[name]), defaults.Endpoint]);
        options.Provider = provider;
        options.Endpoint = FirstSet([options.Endpoint, own]);
        options.Name = FirstSet([options.Name, defaults.Name]);
        options.ApiKey = FirstSet(
            [options.ApiKey, .. own is null || AreAt(provider, options.Endpoint!, own) ? defaults.KeyVariables.Select(name => environment[name]) : []]);
    }

    internal static ModelTarget From(ModelTargetOptions options)
    {
        var provider = ProviderOf(options);
        return new(
            provider,
            options.Name?.Trim() ?? "",
            [.. Split(options.Endpoint).Select(address => ReadAddress(provider, address)).OfType<Uri>()],
            options.ApiKey,
            options.Output,
            options.MaxOutputTokens ?? options.DefaultMaxOutputTokens,
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

        var addresses = Split(options.Endpoint);
        if (addresses.Length == 0)
        {
            yield return $"{setting}__Endpoint is missing; set {(provider == "azure-openai" ? "it (or AZURE_OPENAI_ENDPOINT) to the resource's" : "it to the server's")} address, "
                + $"for instance {ExampleOf(provider)}.";
        }

        foreach (var address in addresses)
        {
            if (FindAddressError(provider, address, string.IsNullOrWhiteSpace(options.ApiKey), setting) is { } error)
            {
                yield return $"{EndpointSetting(setting, provider)} {error}";
            }
        }

        if (options.ApiKey?.Any(c => c is < '!' or > '~') == true)
        {
            yield return $"{KeySetting(setting, provider)} holds a blank, a line break or a character that no header can carry; copy the key again.";
        }

        if (defaults.NeedsKey && string.IsNullOrWhiteSpace(options.ApiKey))
        {
            var variables = string.Join(" or ", defaults.KeyVariables);
            yield return AreAt(provider, options.Endpoint ?? "", defaults.Endpoint!)
                ? $"{setting}__ApiKey is missing; set it (or {variables}) to the provider's key, "
                    + $"or choose a server that needs none, for instance with {setting}__Provider=ollama."
                : $"{setting}__ApiKey is missing; set it to the key of {setting}__Endpoint ({variables} is sent to the provider's own address only), "
                    + $"or set {setting}__Provider=compatible if that server needs none.";
        }
    }

    private static string? FindAddressError(string provider, string address, bool isKeyless, string setting)
    {
        if (ReadAddress(provider, address) is not { } uri)
        {
            return $"is not an http or https address; write it like {ExampleOf(provider)}, several with commas between.";
        }

        // What the portals offer to copy is the address of one operation.
        if (provider == "azure-openai" && uri.AbsolutePath.Split("/deployments/") is [var root, var rest, ..])
        {
            return $"is the address of one deployment; write {setting}__Endpoint={uri.GetLeftPart(UriPartial.Authority)}"
                + $"{(root is "/openai" ? "" : root)} and {setting}__Name={rest.Split('/')[0]}.";
        }

        if (uri.AbsolutePath.Split("/chat/completions") is [var server, _, ..])
        {
            return $"is the address of one operation; write {setting}__Endpoint={uri.GetLeftPart(UriPartial.Authority)}{server}.";
        }

        if (uri.UserInfo.Length > 0 || uri.Query.Length > 0)
        {
            return $"carries a user or a query; write the bare address, and the key in {setting}__ApiKey.";
        }

        return provider == "azure-openai" && isKeyless && uri.Scheme != Uri.UriSchemeHttps
            ? $"is not https, and the managed identity is shown over https only; write https://, or set {setting}__ApiKey."
            : null;
    }

    private static string ExampleOf(string provider) => provider switch
    {
        "azure-openai" => "https://<resource>.openai.azure.com",
        "ollama" => "http://localhost:11434",
        "compatible" => "http://localhost:8000/v1",
        _ => Providers[provider].Endpoint!,
    };

    private static string Named(string setting, string[] variables) =>
        variables.Length == 0 ? setting : $"{setting} (or {string.Join(" or ", variables)})";

    private static string? FirstSet(IEnumerable<string?> values) => values.FirstOrDefault(value => !string.IsNullOrWhiteSpace(value))?.Trim();

    private static string[] Split(string? addresses) =>
        (addresses ?? "").Split(',', StringSplitOptions.TrimEntries | StringSplitOptions.RemoveEmptyEntries);

    /// <summary>Whether all these addresses are of the servers of those.</summary>
    private static bool AreAt(string provider, string addresses, string own)
    {
        var servers = Split(own).Select(ServerOf).ToHashSet();
        return Split(addresses).All(address => ServerOf(address) is { } server && servers.Contains(server));

        string? ServerOf(string address) => ReadAddress(provider, address)?.GetLeftPart(UriPartial.Authority);
    }

    /// <summary>The address as it is called, or null when it is none.</summary>
    private static Uri? ReadAddress(string provider, string address)
    {
        if (provider == "ollama" && !address.Contains("://", StringComparison.Ordinal))
        {
            address = "http://" + CompleteOllamaHost(address);
        }

        if (!Uri.TryCreate(address, UriKind.Absolute, out var uri) || uri.Scheme is not ("http" or "https"))
        {
            return null;
        }

        var path = uri.AbsolutePath.TrimEnd('/');
        path = provider switch
        {
            "azure-openai" when path.EndsWith("/openai", StringComparison.Ordinal) => path + "/v1",
            "azure-openai" when !path.EndsWith("/v1", StringComparison.Ordinal) && !path.Contains("/openai/", StringComparison.Ordinal) => path + "/openai/v1",
            "ollama" when !path.EndsWith("/v1", StringComparison.Ordinal) => path + "/v1",
            _ when path.Length == 0 => "/v1",
            _ => path,
        };
        var listensEverywhere = IPAddress.TryParse(uri.Host.Trim('[', ']'), out var ip) && (ip.Equals(IPAddress.Any) || ip.Equals(IPAddress.IPv6Any));
        return new UriBuilder(uri) { Host = listensEverywhere ? "localhost" : uri.Host, Path = path }.Uri;
    }

    /// <summary>OLLAMA_HOST may be a host, a port alone, or the address to listen on. https://github.com/ollama/ollama/blob/main/envconfig/config.go</summary>
    private static string CompleteOllamaHost(string address)
    {
        var slash = address.IndexOf('/', StringComparison.Ordinal);
        var (host, path) = slash < 0 ? (address, "") : (address[..slash], address[slash..]);
        host = host.StartsWith('[') || !IPAddress.TryParse(host, out var ip) || ip.AddressFamily != AddressFamily.InterNetworkV6 ? host : $"[{host}]";
        var hasPort = host.LastIndexOf(':') > host.LastIndexOf(']');
        return $"{(host.StartsWith(':') ? "localhost" : "")}{host}{(hasPort ? "" : ":11434")}{path}";
    }
}
