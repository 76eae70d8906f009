using TicketFunctions.Classification;

namespace TicketFunctions.Tests.Classification.Providers;

/// <summary>I28: an answer without end costs so much memory and no more, and its server is left early.</summary>
[Collection(nameof(BoundTests))]
public sealed class BoundTests
{
    /// <summary>Alone in the process, for what it measures is the process's.</summary>
    [CollectionDefinition(nameof(BoundTests), DisableParallelization = true)]
    public sealed class Alone;

    private const int Mebi = 1024 * 1024;

    private const int AtOnce = 50;

    /// <summary>
    /// The answer's limit, as much again that is read to keep the connection, and what the system holds that came after: it grows
    /// a receive buffer by several times of what is read from it at once.
    /// </summary>
    private const int MostSent = 16 * Mebi;

    /// <summary>The answer, what its buffer was before it grew, and the server of this test.</summary>
    private const int MostAllocated = 3 * Mebi;

    /// <summary>Buffers that are kept for the next ones.</summary>
    private const int MostKept = 2 * Mebi;

    private static readonly byte[] Chunk = [.. "10000\r\n"u8, .. Enumerable.Repeat((byte)'x', 0x10000), .. "\r\n"u8];

    /// <summary>Answers that are too long, each with what is sent again and again after its start.</summary>
    private static readonly Dictionary<string, (string Start, byte[] Again)> Floods = new()
    {
        ["chunks without end"] = ("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n", Chunk),
        ["bytes without end"] = ("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n", Chunk),
        ["an error without end"] = ("HTTP/1.1 500 Internal Server Error\r\nTransfer-Encoding: chunked\r\n\r\n", Chunk),
        ["a label without end"] = (
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n"
            + """{"id":"1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"{\"category\":\"Tecnico""",
            Chunk[7..^2]),
        ["100 MB"] = ($"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {100 * Mebi}\r\n\r\n", Chunk),
        ["headers without end"] = ("HTTP/1.1 200 OK\r\n", [.. "x-more: "u8, .. Enumerable.Repeat((byte)'x', 1000), .. "\r\n"u8]),
    };

    public static TheoryData<string, string> FloodCells => Dialect.Cross(Floods.Keys);

    [Theory]
    [MemberData(nameof(FloodCells))]
    public async Task Fifty_answers_without_end_at_once_cost_what_fifty_of_the_longest_do(string provider, string name)
    {
        var (start, again) = Floods[name];
        await using var server = new RawModelServer(async call =>
        {
            await call.SendAsync(start);
            await call.SendWithoutEndAsync(again);
        });
        await using var harness = await ModelHarness.StartAsync(
            null,
            ("Model__Provider", provider),
            ("Model__Endpoint", server.Address),
            ("Model__ApiKey", Dialect.Key),
            ("Model__MaxRetries", "0"),
            ("Model__BreakDuration", "00:00:00"));
        var heap = GC.GetTotalMemory(forceFullCollection: true);
        var allocated = GC.GetTotalAllocatedBytes(precise: true);

        var results = await Task.WhenAll(Enumerable.Range(1, AtOnce).Select(i => harness.ClassifyAsync($"Sin fin {i}.")));

        allocated = GC.GetTotalAllocatedBytes(precise: true) - allocated;
        Assert.All(results, result => Assert.Equal(CallOutcome.Malformed, Assert.Single(result.Calls).Outcome));
        Assert.Equal(AtOnce, server.Calls.Count);
        await Task.WhenAll(server.Calls.Select(call => call.Left)).WaitAsync(TimeSpan.FromSeconds(30));
        heap = GC.GetTotalMemory(forceFullCollection: true) - heap;
        Assert.All(server.Calls, call => Assert.InRange(call.Sent, 1, MostSent));
        Assert.InRange(allocated, 0, AtOnce * MostAllocated);
        Assert.InRange(heap, long.MinValue, AtOnce * MostKept);
    }
}
