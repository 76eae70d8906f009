using System.Globalization;
using System.Net.Http.Headers;
using System.Security.Cryptography;
using System.Text;

namespace TicketFunctions.Tests.Support;

/// <summary>Requests signed as https://www.standardwebhooks.com says, by other code than the product's.</summary>
public static class SignedRequest
{
    /// <summary>The instant of the scheme's clock so long after now.</summary>
    public static string Timestamp(int seconds = 0) => (DateTimeOffset.UtcNow.ToUnixTimeSeconds() + seconds).ToString(CultureInfo.InvariantCulture);

    public static string Sign(string secret, string id, string timestamp, byte[] body) => "v1," + Convert.ToBase64String(
        HMACSHA256.HashData(Convert.FromBase64String(secret["whsec_".Length..]), (byte[])[.. Encoding.UTF8.GetBytes($"{id}.{timestamp}."), .. body]));

    /// <summary>A POST to <c>/process-ticket</c>; a header that is null is left out.</summary>
    public static HttpRequestMessage Create(byte[] body, string? id, string? timestamp, string? signature, string path = "/process-ticket")
    {
        var request = new HttpRequestMessage(HttpMethod.Post, path) { Content = new ByteArrayContent(body) };
        request.Content.Headers.ContentType = new MediaTypeHeaderValue("application/json");
        foreach (var (name, value) in new[] { ("webhook-id", id), ("webhook-timestamp", timestamp), ("webhook-signature", signature) })
        {
            if (value is not null)
            {
                request.Headers.TryAddWithoutValidation(name, value);
            }
        }

        return request;
    }
}
