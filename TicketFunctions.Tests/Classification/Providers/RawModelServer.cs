using System.Collections.Concurrent;
using System.Net;
using System.Net.Sockets;
using System.Text;
using System.Text.Json.Nodes;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Classification.Providers;

/// <summary>A model's server down to its bytes: what a web server would not send, nor leave unsent. One call a connection.</summary>
public sealed class RawModelServer : IAsyncDisposable
{
    private readonly TcpListener _listener = new(IPAddress.Loopback, 0);
    private readonly CancellationTokenSource _stop = new();
    private readonly ConcurrentQueue<RawCall> _calls = new();
    private readonly ConcurrentDictionary<string, Func<RawCall, Task>> _scripts = new();
    private readonly Func<RawCall, Task> _default;
    private readonly Task _accepting;

    /// <param name="script">What is done with a call for a ticket without a script.</param>
    public RawModelServer(Func<RawCall, Task> script)
    {
        _default = script;
        // Else the system holds megabytes that nobody has read, more when it is busy; accepted sockets inherit it.
        _listener.Server.SendBufferSize = 64 * 1024;
        _listener.Start();
        _accepting = AcceptAsync();
    }

    /// <summary>The address without a path.</summary>
    public string Address => $"http://{_listener.LocalEndpoint}";

    /// <summary>Every call that came, whatever became of it.</summary>
    public IReadOnlyCollection<RawCall> Calls => _calls;

    /// <summary>The calls made for one ticket's text.</summary>
    public IReadOnlyList<RawCall> CallsFor(string ticket) => [.. _calls.Where(call => call.Ticket == ticket)];

    /// <summary>Treats calls for this ticket's text by a script. When it ends, the connection is closed.</summary>
    public void On(string ticket, Func<RawCall, Task> script) => _scripts[ticket] = script;

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        await _accepting;
        _listener.Dispose();
        _stop.Dispose();
    }

    private async Task AcceptAsync()
    {
        var connections = new List<Task>();
        try
        {
            while (true)
            {
                connections.Add(ServeAsync(await _listener.AcceptSocketAsync(_stop.Token)));
            }
        }
        catch (OperationCanceledException)
        {
            await Task.WhenAll(connections);
        }
    }

    private async Task ServeAsync(Socket socket)
    {
        using (socket)
        {
            // What was sent is then what was read, but for little.
            socket.SendBufferSize = 64 * 1024;
            using var call = new RawCall(socket, _stop.Token);
            try
            {
                if (await call.ReadAsync())
                {
                    _calls.Enqueue(call);
                    await (_scripts.TryGetValue(call.Ticket, out var script) ? script : _default)(call);
                    call.HalfClose();
                }
            }
            catch (Exception e) when (e is SocketException or OperationCanceledException or ObjectDisposedException)
            {
                // The caller has gone, we have hung up, or the test is over.
            }
            finally
            {
                await call.EndAsync();
            }
        }
    }
}

/// <summary>One call as it came over the wire, and what is sent back.</summary>
public sealed class RawCall : IDisposable
{
    private readonly Socket _socket;
    private readonly CancellationTokenSource _over;
    private readonly TaskCompletionSource _left = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource _slow = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private Task _watching = Task.CompletedTask;
    private long _sent;

    internal RawCall(Socket socket, CancellationToken stopping)
    {
        _socket = socket;
        _over = CancellationTokenSource.CreateLinkedTokenSource(stopping);
    }

    /// <summary>The request line and the headers.</summary>
    public string Head { get; private set; } = "";

    public string Ticket { get; private set; } = "";

    /// <summary>Bytes that the system took from us: those the caller read, and what fits between.</summary>
    public long Sent => Volatile.Read(ref _sent);

    /// <summary>Completes when nothing more comes from us, or has come byte by byte for a while.</summary>
    public Task Slow => _slow.Task;

    /// <summary>Completes when the caller closed the connection.</summary>
    public Task Left => _left.Task;

    public Task SendAsync(string text) => SendAsync(Encoding.Latin1.GetBytes(text));

    public async Task SendAsync(ReadOnlyMemory<byte> bytes)
    {
        while (!bytes.IsEmpty)
        {
            try
            {
                var sent = await _socket.SendAsync(bytes, _over.Token);
                Interlocked.Add(ref _sent, sent);
                bytes = bytes[sent..];
            }
            catch (SocketException)
            {
                _left.TrySetResult();
                throw;
            }
        }
    }

    /// <summary>One byte after the other, until the caller leaves.</summary>
    public async Task DripAsync(ReadOnlyMemory<byte> bytes, TimeSpan pause)
    {
        using var timer = new PeriodicTimer(pause);
        for (var i = 0; i < bytes.Length && await timer.WaitForNextTickAsync(_over.Token); i++)
        {
            await SendAsync(bytes.Slice(i, 1));
            if (i == 60)
            {
                _slow.TrySetResult();
            }
        }
    }

    /// <summary>The same again and again, until the caller leaves.</summary>
    public async Task SendWithoutEndAsync(ReadOnlyMemory<byte> bytes)
    {
        while (true)
        {
            await SendAsync(bytes);
        }
    }

    /// <summary>Says nothing more until the caller leaves.</summary>
    public Task HangAsync()
    {
        _slow.TrySetResult();
        return new TaskCompletionSource().Task.WaitAsync(_over.Token);
    }

    /// <summary>Ends the connection by a reset.</summary>
    public void Reset()
    {
        _socket.LingerState = new LingerOption(true, 0);
        _socket.Close();
    }

    /// <summary>Closes our side only.</summary>
    public void HalfClose() => _socket.Shutdown(SocketShutdown.Send);

    public void Dispose() => _over.Dispose();

    /// <summary>Reads the request; false when the caller closed the connection without one.</summary>
    internal async Task<bool> ReadAsync()
    {
        var buffer = new byte[256 * 1024];
        var length = 0;
        while (true)
        {
            var read = await _socket.ReceiveAsync(buffer.AsMemory(length), _over.Token);
            if (read == 0)
            {
                return false;
            }

            length += read;
            var end = buffer.AsSpan(0, length).IndexOf("\r\n\r\n"u8);
            if (end < 0)
            {
                continue;
            }

            Head = Encoding.Latin1.GetString(buffer, 0, end);
            var contentLength = int.Parse(
                Head.Split("\r\n").Single(line => line.StartsWith("Content-Length:", StringComparison.OrdinalIgnoreCase)).Split(':')[1],
                System.Globalization.CultureInfo.InvariantCulture);
            if (length == end + 4 + contentLength)
            {
                Ticket = ModelStub.ReadTicket(JsonNode.Parse(buffer.AsSpan(end + 4, contentLength))!);
                _watching = WatchAsync();
                return true;
            }
        }
    }

    internal async Task EndAsync()
    {
        await _over.CancelAsync();
        await _watching;
    }

    private async Task WatchAsync()
    {
        try
        {
            // A second request on this connection would get no answer: it counts as gone.
            await _socket.ReceiveAsync(new byte[1], _over.Token);
        }
        catch (SocketException)
        {
            // Gone by a reset.
        }
        catch (Exception e) when (e is OperationCanceledException or ObjectDisposedException)
        {
            return;
        }

        _left.TrySetResult();
        await _over.CancelAsync();
    }
}
