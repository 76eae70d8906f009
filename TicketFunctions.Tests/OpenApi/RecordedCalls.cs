using System.Collections.Concurrent;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.OpenApi;

/// <summary>One call as it went over the wire.</summary>
public sealed record RecordedCall(HttpMethod Method, string Path, HttpResponseMessage Response, string Body);

/// <summary>Calls a host and keeps every answer, to be held to the document.</summary>
public sealed class RecordedCalls
{
    private readonly ConcurrentQueue<RecordedCall> _calls = new();

    /// <summary>A client that follows no redirect.</summary>
    public HttpClient CreateClient(TicketApp app, string? key = null)
    {
        var client = new HttpClient(new Recorder(_calls)) { BaseAddress = app.Http.BaseAddress };
        if (key is not null)
        {
            client.DefaultRequestHeaders.Add("x-functions-key", key);
        }

        return client;
    }

    /// <summary>
    /// Asserts of every answer that its status, its media type, its required headers and its body are documented, and of everything
    /// documented (every operation, status and type of problem) that some answer was it.
    /// </summary>
    public void AssertMatches(JsonNode document)
    {
        var cases = new List<(string Schema, bool IsOpen, JsonNode? Value)>();
        var seen = new SortedSet<string>(StringComparer.Ordinal);
        foreach (var call in _calls)
        {
            var status = (int)call.Response.StatusCode;
            var (path, item) = document["paths"]!.AsObject().Single(path => Matches(path.Key, call.Path));
            var verb = call.Method.Method.ToLowerInvariant();
            var line = $"{call.Method} {path} {status}";
            var response = item![verb]?["responses"]?[$"{status}"];
            Assert.True(response is not null, $"{line} is not documented: {call.Body}");
            foreach (var (name, header) in response["headers"]?.AsObject() ?? [])
            {
                var isThere = call.Response.Headers.TryGetValues(name, out var values);
                Assert.True(isThere || (bool?)header!["required"] != true, $"{line} has no {name}.");
                var isNumber = (string?)header!["schema"]!["type"] == "integer";
                cases.AddRange((values ?? []).Select(value =>
                    ($"/paths/{Escape(path)}/{verb}/responses/{status}/headers/{name}/schema", false, isNumber ? JsonNode.Parse(value) : (JsonNode)value)));
            }

            var mediaType = call.Response.Content.Headers.ContentType?.MediaType;
            Assert.True(
                mediaType is null ? call.Body.Length == 0 && response["content"] is null : response["content"]?[mediaType] is not null,
                $"{line} is not documented to be {mediaType}.");
            var body = mediaType?.EndsWith("json", StringComparison.Ordinal) == true ? JsonNode.Parse(call.Body) : null;
            if (body is not null)
            {
                cases.Add(($"/paths/{Escape(path)}/{verb}/responses/{status}/content/{Escape(mediaType!)}/schema", false, body));
            }

            seen.Add(mediaType == "application/problem+json" ? $"{line} {body!["type"]}" : line);
        }

        foreach (var (error, item) in OpenApiTools.Validate(document, cases).Zip(cases))
        {
            Assert.True(error is null, $"{item.Value?.ToJsonString()} is not {item.Schema}: {error}");
        }

        Assert.Empty(ReadDocumented(document).Except(seen));
        Assert.Empty(seen.Except(ReadDocumented(document)));
    }

    private static SortedSet<string> ReadDocumented(JsonNode document)
    {
        var lines = new SortedSet<string>(StringComparer.Ordinal);
        foreach (var (path, item) in document["paths"]!.AsObject())
        {
            foreach (var (verb, operation) in item!.AsObject())
            {
                foreach (var (status, response) in operation!["responses"]!.AsObject())
                {
                    var line = $"{verb.ToUpperInvariant()} {path} {status}";
                    var mediaTypes = response!["content"]?.AsObject().Select(content => content.Key).ToList() ?? [];
                    if (mediaTypes.Count == 0 || mediaTypes.Any(mediaType => mediaType != "application/problem+json"))
                    {
                        lines.Add(line);
                    }

                    foreach (var (_, example) in response["content"]?["application/problem+json"]?["examples"]?.AsObject() ?? [])
                    {
                        lines.Add($"{line} {example!["value"]!["type"]}");
                    }
                }
            }
        }

        return lines;
    }

    private static bool Matches(string template, string path) =>
        Regex.IsMatch(path, $"^{Regex.Replace(template.Replace(".", "\\.", StringComparison.Ordinal), "{[^}]+}", "[^/]+")}$");

    private static string Escape(string segment) =>
        segment.Replace("~", "~0", StringComparison.Ordinal).Replace("/", "~1", StringComparison.Ordinal);

    private sealed class Recorder(ConcurrentQueue<RecordedCall> calls) : DelegatingHandler(new SocketsHttpHandler { AllowAutoRedirect = false })
    {
        protected override async Task<HttpResponseMessage> SendAsync(HttpRequestMessage request, CancellationToken cancellationToken)
        {
            var response = await base.SendAsync(request, cancellationToken);
            await response.Content.LoadIntoBufferAsync(cancellationToken);
            calls.Enqueue(new RecordedCall(request.Method, request.RequestUri!.AbsolutePath, response, await response.Content.ReadAsStringAsync(cancellationToken)));
            return response;
        }
    }
}
