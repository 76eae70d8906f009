using System.Globalization;
using System.Net.Sockets;
using System.Text;
using System.Text.Json.Nodes;

namespace TicketFunctions.Tests.Support;

/// <summary>An answer as it came over the socket.</summary>
public sealed record RawAnswer(int Status, IReadOnlyDictionary<string, string> Headers, string Body)
{
    public JsonNode Json => JsonNode.Parse(Body)!;
}

/// <summary>A connection on which a test writes what no HTTP client would send.</summary>
public sealed class RawHttp : IDisposable
{
    private readonly TcpClient _client = new();
    private NetworkStream _stream = null!;

    public static async Task<RawHttp> ConnectAsync(Uri address)
    {
        var raw = new RawHttp();
        await raw._client.ConnectAsync(address.Host, address.Port);
        raw._stream = raw._client.GetStream();
        return raw;
    }

    public Task SendAsync(string text) => SendAsync(Encoding.UTF8.GetBytes(text));

    public async Task SendAsync(byte[] bytes) => await _stream.WriteAsync(bytes);

    /// <summary>Says that nothing more will come, and goes on listening.</summary>
    public void EndSending() => _client.Client.Shutdown(SocketShutdown.Send);

    /// <summary>Ends the connection as a client does that crashed.</summary>
    public void Reset() => _client.Client.Close(0);

    /// <summary>Reads one whole answer, by its length or its chunks.</summary>
    public async Task<RawAnswer> ReadAnswerAsync()
    {
        using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(30));
        var received = new MemoryStream();
        var buffer = new byte[4096];
        while (true)
        {
            if (TryParse(Encoding.UTF8.GetString(received.ToArray())) is { } answer)
            {
                return answer;
            }

            var read = await _stream.ReadAsync(buffer, patience.Token);
            Assert.True(read > 0, $"The connection ended within the answer: {Encoding.UTF8.GetString(received.ToArray())}");
            received.Write(buffer, 0, read);
        }
    }

    /// <summary>Reads until the server closes or resets the connection.</summary>
    public async Task<string> ReadToEndAsync()
    {
        using var patience = new CancellationTokenSource(TimeSpan.FromSeconds(30));
        var received = new MemoryStream();
        try
        {
            await _stream.CopyToAsync(received, patience.Token);
        }
        catch (IOException)
        {
        }

        return Encoding.UTF8.GetString(received.ToArray());
    }

    public void Dispose() => _client.Dispose();

    private static RawAnswer? TryParse(string text)
    {
        var end = text.IndexOf("\r\n\r\n", StringComparison.Ordinal);
        if (end < 0)
        {
            return null;
        }

        var lines = text[..end].Split("\r\n");
        var headers = lines.Skip(1).Select(line => line.Split(": ", 2))
            .ToDictionary(parts => parts[0], parts => parts[1], StringComparer.OrdinalIgnoreCase);
        var rest = text[(end + 4)..];
        string? body = headers.ContainsKey("Transfer-Encoding") ? Unchunk(rest)
            : Encoding.UTF8.GetByteCount(rest) >= int.Parse(headers["Content-Length"], CultureInfo.InvariantCulture) ? rest
            : null;
        return body is null ? null : new RawAnswer(int.Parse(lines[0].Split(' ')[1], CultureInfo.InvariantCulture), headers, body);
    }

    /// <summary>Good for answers in ASCII, which all of ours to broken requests are.</summary>
    private static string? Unchunk(string text)
    {
        var body = new StringBuilder();
        for (var at = 0; ;)
        {
            var line = text.IndexOf("\r\n", at, StringComparison.Ordinal);
            if (line < 0)
            {
                return null;
            }

            var length = int.Parse(text[at..line], NumberStyles.HexNumber, CultureInfo.InvariantCulture);
            at = line + 2 + length + 2;
            if (at > text.Length)
            {
                return null;
            }

            if (length == 0)
            {
                return body.ToString();
            }

            body.Append(text, line + 2, length);
        }
    }
}
