using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;
using System.Text;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Faults;

/// <summary>Which bytes of a connection.</summary>
public enum Way
{
    ToServer,
    ToClient,
}

/// <summary>A server's other address, on which a test breaks connections while they live.</summary>
public sealed class TcpProxy : IAsyncDisposable
{
    private readonly TcpListener _listener = new(IPAddress.Loopback, 0);
    private readonly CancellationTokenSource _ending = new();
    private readonly ConcurrentDictionary<TcpLink, Task> _links = new();
    private readonly ConcurrentDictionary<Trigger, bool> _triggers = new();
    private readonly Task _accepting;

    /// <param name="target">The server's port on this machine.</param>
    public TcpProxy(int target)
    {
        Target = target;
        _listener.Start();
        _accepting = AcceptAsync();
    }

    /// <summary>Where clients connect to.</summary>
    public int Port => ((IPEndPoint)_listener.LocalEndpoint).Port;

    /// <summary>Where connections lead that are made from now on.</summary>
    public int Target { get; set; }

    /// <summary>How long each piece of data takes longer.</summary>
    public TimeSpan Delay { get; set; }

    /// <summary>How much passes each way of each connection; null for all.</summary>
    public int? BytesPerSecond { get; set; }

    /// <summary>The connections that are open, or that one side believes to be.</summary>
    public IEnumerable<TcpLink> Links => _links.Keys;

    /// <summary>One before the server that all tests share.</summary>
    public static async Task<TcpProxy> ToTestPostgresAsync() => new((await TestPostgres.FindServerAsync()).Port);

    /// <summary>Acts on the first connection that carries this text, before the piece of data that completes it goes on.</summary>
    /// <returns>Completes with that connection when it was acted on; fails when none came in 30 s.</returns>
    public Task<TcpLink> WhenSeen(Way way, string text, Action<TcpLink> act) =>
        Add(new Trigger(way, Encoding.UTF8.GetBytes(text), null, act));

    /// <summary>Acts on the first connection that has carried so many bytes one way, after exactly those.</summary>
    /// <inheritdoc cref="WhenSeen"/>
    public Task<TcpLink> WhenPassed(Way way, long bytes, Action<TcpLink> act) => Add(new Trigger(way, [], bytes, act));

    public async ValueTask DisposeAsync()
    {
        await _ending.CancelAsync();
        _listener.Dispose();
        await _accepting;
        foreach (var link in Links)
        {
            link.Reset();
        }

        await Task.WhenAll(_links.Values);
        _ending.Dispose();
    }

    private Task<TcpLink> Add(Trigger trigger)
    {
        _triggers.TryAdd(trigger, true);
        return trigger.Link.Task.WaitAsync(TimeSpan.FromSeconds(30));
    }

    private async Task AcceptAsync()
    {
        try
        {
            while (true)
            {
                var client = await _listener.AcceptSocketAsync(_ending.Token);
                var server = new Socket(SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
                client.NoDelay = true;
                try
                {
                    await server.ConnectAsync(IPAddress.Loopback, Target, _ending.Token);
                }
                catch (SocketException)
                {
                    // Nobody is there: the client learns it a moment later than it would directly.
                    client.Close(0);
                    continue;
                }

                var link = new TcpLink(client, server);
                _links[link] = RunAsync(link);
            }
        }
        catch (Exception e) when (e is OperationCanceledException or SocketException or ObjectDisposedException)
        {
            // The test is over.
        }
    }

    private async Task RunAsync(TcpLink link)
    {
        await Task.WhenAll(PumpAsync(link, Way.ToServer), PumpAsync(link, Way.ToClient));
        link.Reset();
        _links.TryRemove(link, out _);
    }

    private async Task PumpAsync(TcpLink link, Way way)
    {
        var (from, to) = way == Way.ToServer ? (link.Client, link.Server) : (link.Server, link.Client);
        var buffer = new byte[16 * 1024];
        var seen = new List<byte>();
        long passed = 0;
        try
        {
            while (await from.ReceiveAsync(buffer, _ending.Token) is > 0 and var read)
            {
                var data = buffer.AsMemory(0, read);
                await SlowDownAsync(read);
                foreach (var trigger in _triggers.Keys.Where(trigger => trigger.Way == way && trigger.Text.Length > 0))
                {
                    byte[] all = [.. seen, .. data.Span];
                    if (all.AsSpan().IndexOf(trigger.Text) >= 0)
                    {
                        Act(trigger);
                    }
                }

                seen.AddRange(data.Span);
                seen.RemoveRange(0, Math.Max(0, seen.Count - 1024));
                while (_triggers.Keys.FirstOrDefault(trigger => trigger.Way == way && trigger.Bytes < passed + data.Length) is { Bytes: { } bytes } trigger)
                {
                    var before = (int)Math.Max(0, bytes - passed);
                    await PassAsync(data[..before]);
                    data = data[before..];
                    Act(trigger);
                }

                await PassAsync(data);
            }

            if (!link.IsBlackHole(way))
            {
                to.Shutdown(SocketShutdown.Send);
            }
        }
        catch (OperationCanceledException)
        {
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException)
        {
            // A side that broke off is not told to the other one through a black hole.
            if (!link.IsBlackHole(way))
            {
                link.Reset();
            }
        }

        async Task PassAsync(ReadOnlyMemory<byte> data)
        {
            passed += data.Length;
            while (data.Length > 0 && !link.IsBlackHole(way))
            {
                data = data[await to.SendAsync(data, _ending.Token)..];
            }
        }

        void Act(Trigger trigger)
        {
            if (_triggers.TryRemove(trigger, out _))
            {
                trigger.Act(link);
                trigger.Link.SetResult(link);
            }
        }
    }

    private async Task SlowDownAsync(int bytes)
    {
        var wait = Delay + (BytesPerSecond is { } rate ? TimeSpan.FromSeconds((double)bytes / rate) : TimeSpan.Zero);
        if (wait > TimeSpan.Zero)
        {
            await Task.Delay(wait, _ending.Token);
        }
    }

    private sealed record Trigger(Way Way, byte[] Text, long? Bytes, Action<TcpLink> Act)
    {
        public TaskCompletionSource<TcpLink> Link { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);
    }
}

/// <summary>One connection through a <see cref="TcpProxy"/>.</summary>
public sealed class TcpLink(Socket client, Socket server)
{
    private readonly bool[] _blackHoles = new bool[2];

    internal Socket Client => client;

    internal Socket Server => server;

    internal bool IsBlackHole(Way way) => Volatile.Read(ref _blackHoles[(int)way]);

    /// <summary>From now on nothing passes, while the sender is told that all is well; not even an end of the connection.</summary>
    public void BlackHole(params Way[] ways)
    {
        foreach (var way in ways)
        {
            Volatile.Write(ref _blackHoles[(int)way], true);
        }
    }

    /// <summary>One side is told that the other one sends no more, as if it had said so itself.</summary>
    public void HalfClose(Way way)
    {
        (way == Way.ToServer ? server : client).Shutdown(SocketShutdown.Send);
        BlackHole(way);
    }

    /// <summary>Both sides are told that the connection is gone.</summary>
    public void Reset()
    {
        // Zero: RST instead of FIN.
        client.Close(0);
        server.Close(0);
    }
}
