using System.ComponentModel.DataAnnotations;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using Microsoft.Extensions.Options;

namespace TicketFunctions.Triggers;

/// <summary>The section <c>Webhooks</c>: what requests are signed with. Without a secret no signature is asked for.</summary>
public sealed class WebhookOptions : IValidatableObject
{
    private const string Prefix = "whsec_";

    /// <summary><c>whsec_</c> and 24 to 64 bytes in Base64.</summary>
    public string? Secret { get; set; }

    /// <summary>The one before it, which stays good until it is removed: senders change over one by one.</summary>
    public string? PreviousSecret { get; set; }

    public IEnumerable<ValidationResult> Validate(ValidationContext validationContext)
    {
        foreach (var (name, value) in new[] { (nameof(Secret), Secret), (nameof(PreviousSecret), PreviousSecret) })
        {
            if (!string.IsNullOrWhiteSpace(value) && Decode(value) is null)
            {
                yield return new ValidationResult(
                    $"Webhooks__{name} is no signing secret; write whsec_ and 24 to 64 random bytes in Base64, as `openssl rand -base64 32` makes them.");
            }
        }

        if (string.IsNullOrWhiteSpace(Secret) && !string.IsNullOrWhiteSpace(PreviousSecret))
        {
            yield return new ValidationResult(
                "Webhooks__PreviousSecret is set and Webhooks__Secret is not; set Webhooks__Secret to the new secret, or remove both.");
        }
    }

    internal IReadOnlyList<byte[]> DecodeAll() => [.. new[] { Secret, PreviousSecret }.Where(secret => !string.IsNullOrWhiteSpace(secret)).Select(secret => Decode(secret!)!)];

    internal static byte[]? Decode(string secret)
    {
        var bytes = new byte[64];
        var text = secret.Trim();
        return text.StartsWith(Prefix, StringComparison.Ordinal) && Convert.TryFromBase64String(text[Prefix.Length..], bytes, out var length) && length >= 24
            ? bytes[..length]
            : null;
    }
}

/// <summary>Checks that a request was signed by somebody who has a secret, and not long ago.</summary>
/// <remarks>https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md</remarks>
public sealed class WebhookSignatures(IOptions<WebhookOptions> options, TimeProvider time)
{
    public const string IdHeader = "webhook-id";

    public const string TimestampHeader = "webhook-timestamp";

    public const string SignatureHeader = "webhook-signature";

    private const string Version = "v1,";

    private static readonly TimeSpan Tolerance = TimeSpan.FromMinutes(5);

    private readonly IReadOnlyList<byte[]> _secrets = options.Value.DecodeAll();

    /// <summary>Whether each request must be signed.</summary>
    public bool AreRequired => _secrets.Count > 0;

    /// <param name="headers">The headers of the request.</param>
    /// <param name="body">The body, byte by byte as it came.</param>
    /// <returns>What is wrong, in our own words; null when the request may pass.</returns>
    public string? FindFault(IHeaderDictionary headers, ReadOnlySpan<byte> body)
    {
        if (_secrets.Count == 0)
        {
            return null;
        }

        // Of a header that occurs twice nobody knows which one was meant.
        if (headers[IdHeader] is not [{ Length: > 0 } id]
            || headers[TimestampHeader] is not [{ } timestamp]
            || headers[SignatureHeader] is not [{ } signatures])
        {
            return $"the headers {IdHeader}, {TimestampHeader} and {SignatureHeader} are not all there once";
        }

        if (!long.TryParse(timestamp, NumberStyles.None, CultureInfo.InvariantCulture, out var signedAt))
        {
            return $"{TimestampHeader} is not a number of seconds since 1970";
        }

        var age = time.GetUtcNow().ToUnixTimeSeconds() - signedAt;
        if (Math.Abs(age) > Tolerance.TotalSeconds)
        {
            return string.Create(CultureInfo.InvariantCulture, $"it was signed {age} s ago by our clock, more than {Tolerance.TotalSeconds} s off");
        }

        // All are compared whatever the first one says: time tells nothing.
        var matches = false;
        foreach (var secret in _secrets)
        {
            var expected = Compute(secret, id, timestamp, body);
            foreach (var signature in signatures.Split(' '))
            {
                var shown = new byte[expected.Length];
                matches |= signature.StartsWith(Version, StringComparison.Ordinal)
                    && Convert.TryFromBase64String(signature[Version.Length..], shown, out var length)
                    && length == expected.Length
                    && CryptographicOperations.FixedTimeEquals(expected, shown);
            }
        }

        return matches ? null : "no signature fits the secret";
    }

    /// <summary>The headers of a request that is signed now with the present secret; none when there is no secret.</summary>
    public IReadOnlyDictionary<string, string> Sign(ReadOnlySpan<byte> body)
    {
        if (_secrets.Count == 0)
        {
            return new Dictionary<string, string>();
        }

        var id = $"msg_{Guid.NewGuid()}";
        var timestamp = time.GetUtcNow().ToUnixTimeSeconds().ToString(CultureInfo.InvariantCulture);
        return new Dictionary<string, string>
        {
            [IdHeader] = id,
            [TimestampHeader] = timestamp,
            [SignatureHeader] = Version + Convert.ToBase64String(Compute(_secrets[0], id, timestamp, body)),
        };
    }

    /// <summary>Whether another place keeps one of these secrets, with or without its prefix.</summary>
    public bool Knows(string secret) =>
        WebhookOptions.Decode(secret) is { } other && _secrets.Any(own => CryptographicOperations.FixedTimeEquals(own, other));

    private static byte[] Compute(byte[] secret, string id, string timestamp, ReadOnlySpan<byte> body)
    {
        using var hmac = IncrementalHash.CreateHMAC(HashAlgorithmName.SHA256, secret);
        hmac.AppendData(Encoding.UTF8.GetBytes($"{id}.{timestamp}."));
        hmac.AppendData(body);
        return hmac.GetHashAndReset();
    }
}
