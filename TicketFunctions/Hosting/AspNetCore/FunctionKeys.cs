using System.Net;
using System.Security.Cryptography;
using System.Text;
using Microsoft.Azure.Functions.Worker;
using Microsoft.Extensions.Options;
using TicketFunctions.Triggers;

namespace TicketFunctions.Hosting.AspNetCore;

/// <summary>The section <c>Keys</c>: what callers must show. Without any, the host serves loopback only, and anybody there.</summary>
public sealed class KeyOptions
{
    private string? _function;
    private string? _admin;

    /// <summary>Opens functions of level Function. Blanks around it are not the key's: a file that it was read from ends in a line break.</summary>
    public string? Function
    {
        get => _function;
        set => _function = value?.Trim();
    }

    /// <summary>Opens everything.</summary>
    public string? Admin
    {
        get => _admin;
        set => _admin = value?.Trim();
    }
}

/// <summary>Checks keys as the Functions host does: the header <c>x-functions-key</c> wins over <c>?code=</c>.</summary>
public sealed class FunctionKeys(IOptions<KeyOptions> options)
{
    private readonly byte[]? _function = Hash(options.Value.Function);
    private readonly byte[]? _admin = Hash(options.Value.Admin);

    public bool Allows(HttpRequest request, AuthorizationLevel level)
    {
        if (level == AuthorizationLevel.Anonymous || (_function is null && _admin is null))
        {
            return true;
        }

        Span<byte> shown = stackalloc byte[SHA256.HashSizeInBytes];
        if (!TryHash(RequestLimit.ReadKey(request), shown))
        {
            return false;
        }

        // Both are compared whatever the first one says, and hashes have one length: time tells nothing.
        var isAdmin = Matches(_admin, shown);
        var isFunction = Matches(_function, shown);
        return isAdmin | (isFunction & (level < AuthorizationLevel.System));
    }

    /// <summary>The variable whose value opens functions of level Function; null when nothing need be shown.</summary>
    public string? FindVariable() => _function is not null ? "Keys__Function" : _admin is not null ? "Keys__Admin" : null;

    /// <summary>Why the host must not start, or null: an address that others can reach needs keys.</summary>
    public static string? FindError(IConfiguration configuration, KeyOptions keys) =>
        FindOpenAddress(configuration) is not { } open || !string.IsNullOrWhiteSpace(keys.Function) ? null
            : $"The address {open} can be reached from other machines and Keys__Function is not set; "
                + "set Keys__Function (and Keys__Admin), or listen on http://localhost:7071.";

    /// <summary>The first address to listen on that other machines can reach, or null.</summary>
    /// <exception cref="FormatException">One of them is not an address.</exception>
    internal static string? FindOpenAddress(IConfiguration configuration) => FindAddresses(configuration).FirstOrDefault(address => !IsLoopback(address));

    /// <summary>What the settings say to listen on, what counts first; nothing where they say nothing.</summary>
    internal static IEnumerable<string> FindAddresses(IConfiguration configuration)
    {
        // Where there are endpoints, Kestrel takes nothing else.
        foreach (var endpoint in configuration.GetSection("Kestrel:Endpoints").GetChildren())
        {
            if (endpoint["Url"] is { } url)
            {
                yield return url;
            }
        }

        var urls = Split(configuration["urls"]);
        foreach (var url in urls)
        {
            yield return url;
        }

        foreach (var scheme in new[] { "http", "https" })
        {
            foreach (var port in urls.Length == 0 ? Split(configuration[$"{scheme}_ports"]) : [])
            {
                yield return $"{scheme}://*:{port}";
            }
        }
    }

    private static string[] Split(string? list) => (list ?? "").Split(';', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries);

    /// <exception cref="FormatException">It is not an address.</exception>
    internal static BindingAddress Parse(string address)
    {
        try
        {
            if (BindingAddress.Parse(address) is var parsed && IsUsable(parsed))
            {
                return parsed;
            }
        }
        catch (FormatException)
        {
        }

        throw new FormatException($"The address '{address}' to listen on cannot be read; write ASPNETCORE_URLS like http://localhost:7071, several with semicolons.");
    }

    /// <summary>What is read without an error, and refused or misunderstood later: a port that is no number stays with the host.</summary>
    private static bool IsUsable(BindingAddress address) =>
        (address.Scheme.Equals("http", StringComparison.OrdinalIgnoreCase) || address.Scheme.Equals("https", StringComparison.OrdinalIgnoreCase))
        && (address.IsUnixPipe || address.IsNamedPipe
            || (address.Port is >= IPEndPoint.MinPort and <= IPEndPoint.MaxPort
                && address.PathBase.Length == 0
                && (address.Host.StartsWith('[') ? address.Host.EndsWith(']') : !address.Host.Contains(':', StringComparison.Ordinal))));

    private static bool IsLoopback(string address)
    {
        var host = Parse(address).Host;
        return host.Equals("localhost", StringComparison.OrdinalIgnoreCase)
            || host.StartsWith("unix:", StringComparison.Ordinal)
            || (IPAddress.TryParse(host.Trim('[', ']'), out var ip) && IPAddress.IsLoopback(ip));
    }

    private static bool Matches(byte[]? expected, ReadOnlySpan<byte> shown) => expected is not null && CryptographicOperations.FixedTimeEquals(expected, shown);

    private static byte[]? Hash(string? key)
    {
        var hash = new byte[SHA256.HashSizeInBytes];
        return TryHash(key, hash) ? hash : null;
    }

    private static bool TryHash(string? key, Span<byte> hash)
    {
        if (string.IsNullOrWhiteSpace(key))
        {
            return false;
        }

        Span<byte> utf8 = stackalloc byte[256];
        SHA256.HashData(Encoding.UTF8.TryGetBytes(key, utf8, out var length) ? utf8[..length] : Encoding.UTF8.GetBytes(key), hash);
        return true;
    }
}
