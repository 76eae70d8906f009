using System.Buffers;
using System.IO.Pipelines;
using System.Text;
using System.Text.Json;
using System.Text.Unicode;
using Microsoft.Net.Http.Headers;

namespace TicketFunctions.Triggers;

/// <summary>A request's body as it came, in the web server's own memory: it goes back there when this is disposed.</summary>
public readonly struct RequestBody : IDisposable
{
    /// <summary>The longest body, in bytes.</summary>
    public const int MaxBytes = 64 * 1024;

    private const int MaxDepth = 32;

    /// <summary>What nearly every client sends.</summary>
    private const string Json = "application/json";

    private readonly PipeReader? _reader;
    private readonly SequencePosition _end;

    private RequestBody(PipeReader reader, ReadOnlySequence<byte> buffer)
    {
        _reader = reader;
        _end = buffer.End;
        Bytes = buffer.IsSingleSegment ? buffer.First : buffer.ToArray();
    }

    public ReadOnlyMemory<byte> Bytes { get; }

    /// <returns>The body, which the caller disposes, or the problem to answer with.</returns>
    public static async ValueTask<(RequestBody Body, Problem? Problem)> ReadAsync(HttpRequest request, CancellationToken cancellationToken)
    {
        if (!IsJson(request))
        {
            return (default, Problem.UnsupportedMediaType());
        }

        if (request.ContentLength > MaxBytes)
        {
            return (default, Problem.PayloadTooLarge());
        }

        var reader = request.BodyReader;
        while (true)
        {
            ReadResult read;
            try
            {
                read = await reader.ReadAsync(cancellationToken);
            }
            catch (BadHttpRequestException e) when (e.StatusCode == StatusCodes.Status413PayloadTooLarge)
            {
                return (default, Problem.PayloadTooLarge());
            }
            catch (IOException e)
            {
                // Caught here, where it is the client's: further out it would be taken for the database's.
                // Either way the server must look for no further request behind this one: it would complain of the reading that was not finished.
                if (e is BadHttpRequestException)
                {
                    // Badly framed, or ended too early.
                    request.HttpContext.Response.Headers.Connection = "close";
                }
                else
                {
                    // Reset.
                    request.HttpContext.Abort();
                }

                return (default, Problem.MalformedJson("The body could not be read to its end."));
            }

            var isTooLarge = read.Buffer.Length > MaxBytes;
            if (read.IsCompleted && !isTooLarge)
            {
                return (new RequestBody(reader, read.Buffer), null);
            }

            reader.AdvanceTo(read.Buffer.Start, read.Buffer.End);
            if (isTooLarge)
            {
                return (default, Problem.PayloadTooLarge());
            }
        }
    }

    public void Dispose() => _reader?.AdvanceTo(_end);

    /// <summary>The body's JSON must fit into this.</summary>
    internal static JsonReaderOptions ReaderOptions => new() { MaxDepth = MaxDepth };

    /// <summary>Reads exactly one JSON document, strictly by RFC 8259.</summary>
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
        var reader = new Utf8JsonReader(utf8, ReaderOptions);
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
        request.Headers.ContentEncoding.Count == 0 && (request.ContentType == Json || IsJson(request.ContentType));

    private static bool IsJson(string? contentType) =>
        MediaTypeHeaderValue.TryParse(contentType, out var type)
        && type.MediaType.Equals(Json, StringComparison.OrdinalIgnoreCase)
        && (!type.Charset.HasValue || type.Charset.Value.Trim('"').Equals("utf-8", StringComparison.OrdinalIgnoreCase));
}
