using System.Buffers.Text;
using System.Globalization;
using System.Runtime.InteropServices;
using System.Text;

namespace TicketFunctions.Compare;

/// <summary>What the stub answers, and when.</summary>
/// <param name="Latency">From the end of a request to its answer.</param>
/// <param name="Dialect">Whose way of answering: <c>openai</c>, <c>logprobs</c>, <c>ollama</c>, <c>tgi</c> or <c>bare</c>.</param>
/// <param name="Faults">The share of the calls that fails, by kind: <c>429</c>, <c>500</c>, <c>503</c>, <c>timeout</c>, <c>badjson</c>.</param>
/// <param name="Seed">The same seed fails the same calls.</param>
internal sealed record StubBehaviour(TimeSpan Latency, string Dialect, IReadOnlyDictionary<string, double> Faults, int Seed)
{
    public static readonly string[] Dialects = ["openai", "logprobs", "ollama", "tgi", "bare"];
    public static readonly string[] FaultKinds = ["429", "500", "503", "timeout", "badjson"];

    public static readonly StubBehaviour Default = new(TimeSpan.Zero, "openai", new Dictionary<string, double>(), 1);

    /// <summary>Reads <c>429:0.05,timeout:0.01</c>.</summary>
    /// <exception cref="FormatException">A kind is unknown, or a share is none.</exception>
    public static IReadOnlyDictionary<string, double> ParseFaults(string text)
    {
        var faults = new Dictionary<string, double>();
        foreach (var part in text.Split(',', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries))
        {
            var pair = part.Split(':');
            if (pair.Length != 2 || !FaultKinds.Contains(pair[0])
                || !double.TryParse(pair[1], NumberStyles.Float, CultureInfo.InvariantCulture, out var share) || share is < 0 or > 1)
            {
                throw new FormatException($"'{part}' is no fault; write a kind ({string.Join(", ", FaultKinds)}) and its share of the calls, like 429:0.05.");
            }

            faults[pair[0]] = share;
        }

        return faults;
    }
}

/// <summary>
/// An OpenAI-compatible model that costs next to nothing: one thread over epoll, HTTP/1.1 with keep-alive and pipelining, answers that are
/// written out beforehand. It must not be what a benchmark measures. Linux only. It counts its calls by the second; <c>/admin</c> tells and sets.
/// </summary>
internal sealed unsafe partial class ModelStub
{
    private const int MaxConnections = 65_536;
    private const int Events = 512;

    private static readonly byte[] EndOfHead = "\r\n\r\n"u8.ToArray();

    private readonly Connection?[] _connections = new Connection?[MaxConnections];
    private readonly PriorityQueue<(Connection Connection, byte[] Answer), long> _waiting = new();
    private readonly List<int> _callsBySecond = [];
    private readonly int _epoll = Check(epoll_create1(0));
    private readonly int _timer = Check(timerfd_create(1, NonBlocking));

    private StubBehaviour _behaviour;
    private Dictionary<string, byte[]> _answers = [];
    private (double UpTo, string Kind)[] _faults = [];
    private long _armed;
    private long _calls, _faulty, _bad, _firstCall, _lastAnswer;

    public ModelStub(StubBehaviour behaviour)
    {
        _behaviour = behaviour;
        Behave(behaviour);
    }

    /// <summary>Serves on a port of this machine until the process ends.</summary>
    public void Run(int port)
    {
        var listener = Check(socket(2, 1 | NonBlocking | CloseOnExec, 0));
        var one = 1;
        Check(setsockopt(listener, 1, 2, &one, sizeof(int)));
        var address = stackalloc byte[16];
        new Span<byte>(address, 16).Clear();
        MemoryMarshal.Write(new Span<byte>(address, 2), (ushort)2);
        address[2] = (byte)(port >> 8);
        address[3] = (byte)port;
        address[4] = 127;
        address[7] = 1;
        Check(bind(listener, address, 16));
        Check(listen(listener, 4096));
        Watch(listener);
        Watch(_timer);
        Console.WriteLine($"The stub listens on http://127.0.0.1:{port}/v1.");

        var events = stackalloc byte[Events * EventSize];
        while (true)
        {
            var count = epoll_wait(_epoll, events, Events, -1);
            for (var i = 0; i < count; i++)
            {
                var descriptor = *(int*)(events + (i * EventSize) + EventData);
                if (descriptor == listener)
                {
                    Accept(listener);
                }
                else if (descriptor == _timer)
                {
                    AnswerDue();
                }
                else if (_connections[descriptor] is { } connection)
                {
                    Receive(connection);
                }
            }
        }
    }

    private void Accept(int listener)
    {
        int descriptor;
        while ((descriptor = accept4(listener, null, null, NonBlocking | CloseOnExec)) >= 0)
        {
            if (descriptor >= MaxConnections)
            {
                _ = close(descriptor);
                continue;
            }

            var one = 1;
            _ = setsockopt(descriptor, 6, 1, &one, sizeof(int));
            _connections[descriptor] = new Connection(descriptor);
            Watch(descriptor);
        }
    }

    private void Receive(Connection connection)
    {
        if (connection.Length == connection.Buffer.Length)
        {
            Array.Resize(ref connection.Buffer, connection.Length * 2);
        }

        nint read;
        fixed (byte* at = &connection.Buffer[connection.Length])
        {
            read = recv(connection.Descriptor, at, connection.Buffer.Length - connection.Length, 0);
        }

        if (read > 0)
        {
            connection.Length += (int)read;
            Work(connection);
        }
        else if (read == 0 || Marshal.GetLastPInvokeError() is not (11 or 4))
        {
            Drop(connection);
        }
    }

    /// <summary>Answers what has arrived whole, in its order: a call that waits holds up those behind it on its connection.</summary>
    private void Work(Connection connection)
    {
        while (connection is { IsOpen: true, IsBusy: false, Length: > 0 })
        {
            var received = connection.Buffer.AsSpan(0, connection.Length);
            var length = FindEnd(received, connection, out var body);
            if (length == 0)
            {
                return;
            }

            if (length < 0)
            {
                Drop(connection);
                return;
            }

            var request = received[..length];
            if (!request.StartsWith("POST "u8))
            {
                Answer(connection, Administer(request));
            }
            else if (request[body..].IndexOf("\"messages\""u8) < 0)
            {
                _bad++;
                Answer(connection, _answers["400"]);
            }
            else
            {
                Call(connection);
            }

            connection.Length -= length;
            received[length..].CopyTo(connection.Buffer);
            connection.HasContinued = false;
        }
    }

    private void Call(Connection connection)
    {
        var now = Now();
        if (_calls++ == 0)
        {
            _firstCall = now;
        }

        var second = (int)((now - _firstCall) / 1_000_000_000);
        while (_callsBySecond.Count <= second)
        {
            _callsBySecond.Add(0);
        }

        _callsBySecond[second]++;
        var kind = Choose();
        if (kind == "timeout")
        {
            // The client gives up and closes.
            connection.IsBusy = true;
            return;
        }

        var answer = _answers[kind];
        var latency = _behaviour.Latency.Ticks * 100;
        if (latency == 0)
        {
            Answer(connection, answer);
            _lastAnswer = now;
            return;
        }

        connection.IsBusy = true;
        _waiting.Enqueue((connection, answer), now + latency);
        Arm();
    }

    private string Choose()
    {
        if (_faults.Length == 0)
        {
            return "ok";
        }

        // The call's number alone decides, so that a seed gives the same faults whatever the timing.
        var mixed = (ulong)_calls * 0x9E3779B97F4A7C15 + ((ulong)_behaviour.Seed * 0xD1B54A32D192ED03);
        mixed = (mixed ^ (mixed >> 31)) * 0xBF58476D1CE4E5B9;
        var share = (mixed >> 11) * (1.0 / (1UL << 53));
        foreach (var (upTo, kind) in _faults)
        {
            if (share < upTo)
            {
                _faulty++;
                return kind;
            }
        }

        return "ok";
    }

    private void AnswerDue()
    {
        long expirations;
        _ = read(_timer, &expirations, sizeof(long));
        _armed = 0;
        var now = Now();
        while (_waiting.TryPeek(out var item, out var due) && due <= now)
        {
            _waiting.Dequeue();
            if (item.Connection.IsOpen)
            {
                item.Connection.IsBusy = false;
                Answer(item.Connection, item.Answer);
                _lastAnswer = now;
                Work(item.Connection);
            }
        }

        Arm();
    }

    private void Arm()
    {
        if (!_waiting.TryPeek(out _, out var due) || due == _armed)
        {
            return;
        }

        _armed = due;
        var time = stackalloc long[4] { 0, 0, due / 1_000_000_000, due % 1_000_000_000 };
        _ = timerfd_settime(_timer, 1, time, null);
    }

    private void Answer(Connection connection, byte[] answer)
    {
        fixed (byte* bytes = answer)
        {
            for (nint sent = 0; sent < answer.Length;)
            {
                // Answers are short; a client that does not read them is none of ours.
                var written = send(connection.Descriptor, bytes + sent, answer.Length - sent, 0x4000);
                if (written < 0 && Marshal.GetLastPInvokeError() is not (11 or 4))
                {
                    Drop(connection);
                    return;
                }

                sent += Math.Max(written, 0);
            }
        }
    }

    private void Drop(Connection connection)
    {
        if (connection.IsOpen)
        {
            connection.IsOpen = false;
            _connections[connection.Descriptor] = null;
            _ = close(connection.Descriptor);
        }
    }

    /// <returns>The length of the first whole request, 0 when more must come, -1 when it is none.</returns>
    private int FindEnd(ReadOnlySpan<byte> received, Connection connection, out int body)
    {
        var head = received.IndexOf(EndOfHead);
        body = head + EndOfHead.Length;
        if (head < 0)
        {
            return received.Length > 65_536 ? -1 : 0;
        }

        var contentLength = 0;
        var isChunked = false;
        var fields = received[..(head + 2)];
        for (var end = fields.IndexOf("\r\n"u8); end >= 0; end = fields.IndexOf("\r\n"u8))
        {
            var line = fields[..end];
            fields = fields[(end + 2)..];
            switch (line.Length > 8 ? line[0] | 0x20 : 0)
            {
                case 'c' when Ascii.EqualsIgnoreCase(line[..Math.Min(15, line.Length)], "content-length:"u8):
                    if (!Utf8Parser.TryParse(line[15..].TrimStart((byte)' '), out contentLength, out _))
                    {
                        return -1;
                    }

                    break;
                case 't' when Ascii.EqualsIgnoreCase(line[..Math.Min(18, line.Length)], "transfer-encoding:"u8):
                    isChunked = true;
                    break;
                case 'e' when Ascii.EqualsIgnoreCase(line[..7], "expect:"u8) && !connection.HasContinued:
                    connection.HasContinued = true;
                    Answer(connection, "HTTP/1.1 100 Continue\r\n\r\n"u8.ToArray());
                    break;
            }
        }

        if (!isChunked)
        {
            return received.Length >= body + contentLength ? body + contentLength : 0;
        }

        for (var at = body; ;)
        {
            var line = received[at..].IndexOf("\r\n"u8);
            if (line < 0)
            {
                return 0;
            }

            if (!Utf8Parser.TryParse(received.Slice(at, line), out int size, out _, 'x') || size < 0)
            {
                return -1;
            }

            at += line + 2 + size + 2;
            if (at > received.Length)
            {
                return 0;
            }

            if (size == 0)
            {
                return at;
            }
        }
    }

    /// <summary><c>GET /admin/ledger</c>, <c>/admin/reset</c>, <c>/admin/set?latency=200&amp;dialect=…&amp;faults=…&amp;seed=…</c>, and the list of models.</summary>
    private byte[] Administer(ReadOnlySpan<byte> request)
    {
        var line = Encoding.ASCII.GetString(request[..request.IndexOf((byte)'\r')]).Split(' ');
        var uri = new Uri("http://stub" + (line.Length > 1 ? line[1] : "/"));
        switch (uri.AbsolutePath)
        {
            case "/v1/models":
                return Http(200, """{"object":"list","data":[{"id":"stub","object":"model"}]}""");
            case "/admin/ledger":
                return Http(200, string.Create(CultureInfo.InvariantCulture,
                    $$"""{"calls":{{_calls}},"faulty":{{_faulty}},"bad":{{_bad}},"milliseconds":{{Math.Max(0, _lastAnswer - _firstCall) / 1e6}},"bySecond":[{{string.Join(',', _callsBySecond)}}]}"""));
            case "/admin/reset":
                _calls = _faulty = _bad = _firstCall = _lastAnswer = 0;
                _callsBySecond.Clear();
                return Http(200, "{}");
            case "/admin/set":
                return TrySet(uri.Query) ? Http(200, "{}") : Http(400, "{}");
            default:
                return Http(404, "{}");
        }
    }

    private bool TrySet(string query)
    {
        try
        {
            var behaviour = _behaviour;
            foreach (var pair in query.TrimStart('?').Split('&', StringSplitOptions.RemoveEmptyEntries).Select(part => part.Split('=')))
            {
                var value = Uri.UnescapeDataString(pair[1]);
                behaviour = pair[0] switch
                {
                    "latency" => behaviour with { Latency = TimeSpan.FromMilliseconds(double.Parse(value, CultureInfo.InvariantCulture)) },
                    "dialect" when StubBehaviour.Dialects.Contains(value) => behaviour with { Dialect = value },
                    "faults" => behaviour with { Faults = StubBehaviour.ParseFaults(value) },
                    "seed" => behaviour with { Seed = int.Parse(value, CultureInfo.InvariantCulture) },
                    _ => throw new FormatException(pair[0]),
                };
            }

            Behave(behaviour);
            return true;
        }
        catch (Exception e) when (e is FormatException or OverflowException or IndexOutOfRangeException)
        {
            return false;
        }
    }

    private void Behave(StubBehaviour behaviour)
    {
        _behaviour = behaviour;
        var sum = 0.0;
        _faults = [.. behaviour.Faults.Select(fault => (sum += fault.Value, fault.Key))];
        _answers = StubAnswers.For(behaviour.Dialect).ToDictionary(
            answer => answer.Key, answer => Http(answer.Value.Status, answer.Value.Body, answer.Key is "429" or "503" ? "Retry-After: 1\r\n" : ""));
    }

    private static byte[] Http(int status, string body, string fields = "") => Encoding.UTF8.GetBytes(
        $"HTTP/1.1 {status} {(status == 200 ? "OK" : "Fault")}\r\nContent-Type: application/json\r\n{fields}Content-Length: {Encoding.UTF8.GetByteCount(body)}\r\n\r\n{body}");

    private void Watch(int descriptor)
    {
        var watched = stackalloc byte[EventSize];
        *(uint*)watched = 1;
        *(long*)(watched + EventData) = descriptor;
        Check(epoll_ctl(_epoll, 1, descriptor, watched));
    }

    private static long Now()
    {
        // The timer's clock is CLOCK_MONOTONIC, which is also the stopwatch's.
        return System.Diagnostics.Stopwatch.GetTimestamp() * (1_000_000_000 / System.Diagnostics.Stopwatch.Frequency);
    }

    private static int Check(int result) =>
        result >= 0 ? result : throw new System.ComponentModel.Win32Exception(Marshal.GetLastPInvokeError());

    private sealed class Connection(int descriptor)
    {
        public byte[] Buffer = new byte[8192];
        public int Length;

        public int Descriptor => descriptor;

        public bool IsOpen { get; set; } = true;

        /// <summary>Waits for its answer.</summary>
        public bool IsBusy { get; set; }

        public bool HasContinued { get; set; }
    }

    private const int NonBlocking = 0x800;
    private const int CloseOnExec = 0x80000;

    /// <summary>struct epoll_event is packed on x86-64 only.</summary>
    private static readonly int EventSize = RuntimeInformation.ProcessArchitecture == Architecture.X64 ? 12 : 16;
    private static readonly int EventData = EventSize - 8;

    [LibraryImport("libc", SetLastError = true)]
    private static partial int epoll_create1(int flags);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int epoll_ctl(int epoll, int operation, int descriptor, byte* watched);

    [LibraryImport("libc")]
    private static partial int epoll_wait(int epoll, byte* events, int count, int milliseconds);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int timerfd_create(int clock, int flags);

    [LibraryImport("libc")]
    private static partial int timerfd_settime(int timer, int flags, long* time, long* old);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int socket(int domain, int type, int protocol);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int bind(int descriptor, byte* address, int length);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int listen(int descriptor, int backlog);

    [LibraryImport("libc")]
    private static partial int accept4(int descriptor, byte* address, int* length, int flags);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int setsockopt(int descriptor, int level, int name, int* value, int length);

    [LibraryImport("libc", SetLastError = true)]
    private static partial nint recv(int descriptor, byte* buffer, nint length, int flags);

    [LibraryImport("libc", SetLastError = true)]
    private static partial nint send(int descriptor, byte* buffer, nint length, int flags);

    [LibraryImport("libc")]
    private static partial nint read(int descriptor, long* buffer, nint length);

    [LibraryImport("libc")]
    private static partial int close(int descriptor);
}

/// <summary>The bodies of the stub's answers, as each kind of server writes them.</summary>
internal static class StubAnswers
{
    private const string Labels = """{\"category\":\"Técnico\",\"sentiment\":\"Negativo\"}""";

    /// <summary>By the kind of fault; <c>ok</c> is none.</summary>
    public static Dictionary<string, (int Status, string Body)> For(string dialect) => new()
    {
        ["ok"] = (200, Completion(dialect, Labels)),
        ["badjson"] = (200, Completion(dialect, """Aquí tienes: {\"category\":\"Técn""")),
        ["400"] = (400, """{"error":{"message":"no chat completion was asked for","type":"invalid_request_error"}}"""),
        ["429"] = (429, """{"error":{"message":"Rate limit reached","type":"requests","code":"rate_limit_exceeded"}}"""),
        ["500"] = (500, """{"error":{"message":"The server had an error","type":"server_error"}}"""),
        ["503"] = (503, """{"error":{"message":"The engine is overloaded","type":"server_error"}}"""),
    };

    private static string Completion(string dialect, string content)
    {
        var usage = dialect == "bare" ? "" : ",\"usage\":{\"prompt_tokens\":212,\"completion_tokens\":16,\"total_tokens\":228}";
        var logprobs = dialect switch
        {
            "logprobs" => $$""","logprobs":{"content":[{"token":"{{content}}","logprob":-0.02,"bytes":null,"top_logprobs":[]}],"refusal":null}""",
            "openai" => ",\"logprobs\":null",
            _ => "",
        };
        var reason = dialect == "tgi" ? "eos_token" : "stop";
        var kind = dialect == "tgi" ? "text_completion" : "chat.completion";
        return $$"""{"id":"chatcmpl-1","object":"{{kind}}","created":1700000000,"model":"stub","choices":[{"index":0,"message":{"role":"assistant","content":"{{content}}"}{{logprobs}},"finish_reason":"{{reason}}"}]{{usage}}}""";
    }
}
