using System.Buffers;
using System.Text;
using System.Text.Json;
using System.Text.Unicode;
using Microsoft.Net.Http.Headers;

namespace TicketFunctions.Triggers;

/// <summary>Reads a request's body as exactly one JSON document, strictly by RFC 8259.</summary>
public static class RequestBody
{
    /// <summary>The longest body, in bytes.</summary>
    public const int MaxBytes = 64 * 1024;

    private const int MaxDepth = 32;

    /// <returns>The bytes as they came, or the problem to answer with.</returns>
    public static async Task<(ReadOnlyMemory<byte> Bytes, Problem? Problem)> ReadAsync(HttpRequest request, CancellationToken cancellationToken)
    {
        if (!IsJson(request))
        {
            return (default, Problem.UnsupportedMediaType());
        }

        if (request.ContentLength > MaxBytes)
        {
            return (default, Problem.PayloadTooLarge());
        }

        // Not rented: the document goes on referring to it.
        var buffer = new byte[request.ContentLength ?? 4096];
        var length = 0;
        while (true)
        {
            if (length == buffer.Length)
            {
                if (length > MaxBytes)
                {
                    return (default, Problem.PayloadTooLarge());
                }

                Array.Resize(ref buffer, Math.Min(Math.Max(length * 2, 16), MaxBytes + 1));
            }

            int read;
            try
            {
                read = await request.Body.ReadAsync(buffer.AsMemory(length), cancellationToken);
            }
            catch (BadHttpRequestException e) when (e.StatusCode == StatusCodes.Status413PayloadTooLarge)
            {
                return (default, Problem.PayloadTooLarge());
            }
            catch (IOException)
            {
                // Badly framed or broken off. Caught here, where it is the client's: further out it would be taken for the database's.
                return (default, Problem.MalformedJson("The body could not be read to its end."));
            }

            if (read == 0)
            {
                break;
            }

            length += read;
        }

        return (buffer.AsMemory(0, length), null);
    }

    /// <param name="utf8">The body. The document goes on referring to it.</param>
    /// <returns>The document, which the caller disposes, or the problem to answer with.</returns>
    public static (JsonDocument? Document, Problem? Problem) Parse(ReadOnlyMemory<byte> utf8)
    {
        if (utf8.Span.StartsWith(Encoding.UTF8.Preamble))
        {
            utf8 = utf8[Encoding.UTF8.Preamble.Length..];
        }

        if (!Utf8.IsValid(utf8.Span))
        {
            return (null, Problem.MalformedJson("The body is not UTF-8."));
        }

        try
        {
            RejectLoneSurrogates(utf8.Span);
            return (JsonDocument.Parse(utf8, new JsonDocumentOptions { MaxDepth = MaxDepth }), null);
        }
        catch (JsonException e)
        {
            return (null, Problem.MalformedJson(utf8.Span.IsEmpty
                ? "The body is empty."
                : $"The body stops being one JSON document at line {e.LineNumber + 1}, byte {e.BytePositionInLine + 1}."));
        }
    }

    /// <summary>The parser accepts an escaped half of a surrogate pair, and fails only when the string is read.</summary>
    private static void RejectLoneSurrogates(ReadOnlySpan<byte> utf8)
    {
        var reader = new Utf8JsonReader(utf8, new JsonReaderOptions { MaxDepth = MaxDepth });
        while (reader.Read())
        {
            if (reader.TokenType is not (JsonTokenType.String or JsonTokenType.PropertyName) || !reader.ValueIsEscaped)
            {
                continue;
            }

            try
            {
                reader.GetString();
            }
            catch (InvalidOperationException e)
            {
                throw new JsonException("A string holds half of a surrogate pair.", null, 0, reader.TokenStartIndex, e);
            }
        }
    }

    private static bool IsJson(HttpRequest request) =>
        !request.Headers.ContainsKey(HeaderNames.ContentEncoding)
        && MediaTypeHeaderValue.TryParse(request.ContentType, out var type)
        && type.MediaType.Equals("application/json", StringComparison.OrdinalIgnoreCase)
        && (!type.Charset.HasValue || type.Charset.Value.Trim('"').Equals("utf-8", StringComparison.OrdinalIgnoreCase));
}
