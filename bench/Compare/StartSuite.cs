using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Text;

namespace TicketFunctions.Compare;

/// <summary>From the start of a process to its first answer, and the memory it then takes. Who is started in vain starts slowly, so here all are.</summary>
internal sealed class StartSuite(Bench bench, Contestants contestants)
{
    private const int Requests = 1000;
    private const int Connections = 8;

    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(60);

    public async Task RunAsync(CancellationToken cancellationToken)
    {
        var chosen = await bench.ChooseAsync(contestants.Http, cancellationToken);
        for (var round = 1; round <= bench.Options.Rounds; round++)
        {
            foreach (var contestant in chosen)
            {
                await bench.MeasureAsync(
                    $"start, round {round}, {contestant.Name}", new Cell { Suite = "start", Contestant = contestant.Name, Round = round },
                    cell => bench.OnCopyAsync(bench.Template, database => MeasureAsync(contestant, cell, database, cancellationToken), cancellationToken),
                    cancellationToken);
            }
        }
    }

    private async Task<Cell> MeasureAsync(Contestant contestant, Cell cell, string database, CancellationToken cancellationToken)
    {
        var canary = await bench.MeasureCanaryAsync(cancellationToken);
        await bench.Stub.SetAsync(TimeSpan.Zero, cancellationToken);
        var place = new Place(bench.Postgres.ConnectionTo(database), bench.Stub.Endpoint, Machine.FindFreePort(), Connections, Requests);
        var watch = Stopwatch.StartNew();
        await using var child = Child.Start(contestant.Launch(place), bench.Options.Log($"start-{contestant.Name}"));
        while (!await TryAskAsync(place.Port, Body(1), cancellationToken))
        {
            if (child.HasExited || watch.Elapsed > Limit)
            {
                throw child.Failed("it did not answer");
            }

            await Task.Delay(TimeSpan.FromMilliseconds(2), cancellationToken);
        }

        var first = watch.Elapsed.TotalMilliseconds;
        var cpu = Machine.CpuOfTree(child.Pid) * 1000;
        var firstMemory = Machine.MemoryOfTree(child.Pid);
        var next = 1;
        var errors = 0;
        using var http = new HttpClient { BaseAddress = new Uri($"http://127.0.0.1:{place.Port}") };
        await Task.WhenAll(Enumerable.Range(0, Connections).Select(async _ =>
        {
            for (int number; (number = Interlocked.Increment(ref next)) <= Requests + 1;)
            {
                using var content = new StringContent(Body(number), Encoding.UTF8, "application/json");
                using var answer = await http.PostAsync("/process-ticket", content, cancellationToken);
                if (!answer.IsSuccessStatusCode)
                {
                    Interlocked.Increment(ref errors);
                }
            }
        }));
        var memory = Machine.MemoryOfTree(child.Pid);
        var (rows, ledger) = await bench.SettleAsync(database, cancellationToken);
        return cell with
        {
            Rate = first,
            Rss = memory.Rss,
            Pss = memory.Pss,
            Requests = Requests + 1,
            Errors = errors,
            Rows = rows,
            Calls = ledger.Calls,
            More = new Dictionary<string, double> { ["cpu"] = cpu, ["firstRss"] = firstMemory.Rss, ["firstPss"] = firstMemory.Pss },
            Canary = canary,
            Invalid = errors > 0 ? $"{errors} answers were not 200" : rows != Requests + 1 ? $"{rows} rows were processed for {Requests + 1} answers" : null,
        };
    }

    /// <summary>Asks on a new connection, without a client that would look at proxies or wait before it tries again.</summary>
    private static async Task<bool> TryAskAsync(int port, string body, CancellationToken cancellationToken)
    {
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        try
        {
            await socket.ConnectAsync(IPAddress.Loopback, port, cancellationToken);
            await socket.SendAsync(Encoding.UTF8.GetBytes(
                $"POST /process-ticket HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {Encoding.UTF8.GetByteCount(body)}\r\n\r\n{body}"), cancellationToken);
            var answer = new byte[16];
            var length = await socket.ReceiveAsync(answer, cancellationToken);
            return Encoding.ASCII.GetString(answer, 0, length).StartsWith("HTTP/1.1 200", StringComparison.Ordinal);
        }
        catch (SocketException)
        {
            return false;
        }
    }

    /// <summary>As Load/tickets.lua writes it.</summary>
    private static string Body(long number) => $$"""
        {"id":"{{number * 2246822519 % 4294967296:x8}}-0000-4000-8000-{{number:x12}}","description":"No puedo entrar en mi cuenta desde ayer: cambio la clave, la acepta y al volver me dice que no es válida. Caso {{number}}"}
        """;
}
