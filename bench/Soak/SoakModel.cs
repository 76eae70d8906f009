using System.Buffers.Binary;
using System.Collections.Concurrent;
using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Soak;

/// <summary>Answers every text by labels that follow from the text alone, and before that by the faults the seed gives to it.</summary>
internal sealed class SoakModel
{
    /// <summary>What the workers are told; a fault takes longer than that.</summary>
    public static readonly TimeSpan AttemptTimeout = TimeSpan.FromSeconds(1);

    private static readonly string[] Categories = ["Tecnico", "Facturacion", "Comercial", "Otro"];
    private static readonly string[] Sentiments = ["Positivo", "Neutral", "Negativo"];

    private static readonly Func<ModelCall, HttpContext, Task>[] Faults =
    [
        Fault(429),
        Fault(429, ("Retry-After", "1")),
        Fault(500),
        Fault(503),
        ModelStub.Abort,
        LateAsync,
        InvalidAsync("no lo sé"),
        InvalidAsync("{\"category\":"),
        ModelStub.Content("{\"category\":\"Tecn", "length"),
        InvalidAsync("""{"category":"Mascotas","sentiment":"Neutral"}"""),
    ];

    private readonly int _seed;
    private readonly ConcurrentDictionary<string, TextLedger> _ledgers = new();
    private readonly ConcurrentDictionary<(string Worker, string Text), int> _underWay = new();
    private int _calls;

    public SoakModel(ModelStub stub, int seed)
    {
        _seed = seed;
        stub.Default = AnswerAsync;
    }

    /// <summary>Set when the faults stop.</summary>
    public bool IsHealthy { get; set; }

    public int Calls => Volatile.Read(ref _calls);

    /// <summary>Calls that got a completion, good or bad: these are paid.</summary>
    public int Answered => _ledgers.Values.Sum(ledger => ledger.Answered);

    /// <summary>Faults given.</summary>
    public int FaultsGiven => _ledgers.Values.Sum(ledger => ledger.Faults);

    /// <summary>The labels that belong to a text.</summary>
    public static (string Category, string Sentiment) LabelsOf(string text)
    {
        var hash = SHA256.HashData(Encoding.UTF8.GetBytes(text));
        return (Categories[hash[0] % Categories.Length], Sentiments[hash[1] % Sentiments.Length]);
    }

    /// <summary>The completions a text got.</summary>
    public int AnsweredFor(string text) => _ledgers.TryGetValue(text, out var ledger) ? ledger.Answered : 0;

    /// <summary>Whether the text has met a fault, or will.</summary>
    public bool IsFaulty(string text) => PlanFor(text).Length > 0;

    /// <summary>The texts a worker waits for.</summary>
    public string[] UnderWayFor(string worker) => [.. _underWay.Where(entry => entry.Key.Worker == worker && entry.Value > 0).Select(entry => entry.Key.Text)];

    private async Task AnswerAsync(ModelCall call, HttpContext context)
    {
        // Each worker has a key of its own.
        var worker = call.Headers.Authorization.ToString()["Bearer ".Length..];
        var ledger = _ledgers.GetOrAdd(call.Ticket, _ => new TextLedger());
        Interlocked.Increment(ref _calls);
        _underWay.AddOrUpdate((worker, call.Ticket), 1, (_, n) => n + 1);
        try
        {
            var plan = PlanFor(call.Ticket);
            var turn = Interlocked.Increment(ref ledger.Calls) - 1;
            var isFault = !IsHealthy && turn < plan.Length;
            await Task.Delay(20 + (BitConverter.ToUInt16(Hash(call.Ticket), 8) % 180), context.RequestAborted);
            var (category, sentiment) = LabelsOf(call.Ticket);
            if (isFault)
            {
                Interlocked.Increment(ref ledger.Faults);
            }

            await (isFault ? Faults[plan[turn]] : ModelStub.Labels(category, sentiment))(call, context);
            if (context.Response is { StatusCode: 200, HasStarted: true } && !context.RequestAborted.IsCancellationRequested)
            {
                Interlocked.Increment(ref ledger.Answered);
            }
        }
        finally
        {
            _underWay.AddOrUpdate((worker, call.Ticket), 0, (_, n) => n - 1);
        }
    }

    /// <summary>Good answers mostly; else a few faults, and good answers after them.</summary>
    private int[] PlanFor(string text)
    {
        var hash = Hash(text);
        return hash[4] % 4 > 0 ? [] : [.. Enumerable.Range(0, 1 + (hash[5] % 3)).Select(n => hash[10 + n] % Faults.Length)];
    }

    private byte[] Hash(string text)
    {
        var salted = new byte[4 + Encoding.UTF8.GetByteCount(text)];
        BinaryPrimitives.WriteInt32LittleEndian(salted, _seed);
        Encoding.UTF8.GetBytes(text, salted.AsSpan(4));
        return SHA256.HashData(salted);
    }

    private static Func<ModelCall, HttpContext, Task> Fault(int status, params (string Name, string Value)[] headers) => ModelStub.Json(
        status, new JsonObject { ["error"] = new JsonObject { ["message"] = string.Create(CultureInfo.InvariantCulture, $"fault {status}") } }, headers);

    private static Func<ModelCall, HttpContext, Task> InvalidAsync(string content) => ModelStub.Content(content);

    /// <summary>The right answer, when nobody waits for it any more.</summary>
    private static async Task LateAsync(ModelCall call, HttpContext context)
    {
        await Task.Delay(AttemptTimeout * 1.5);
        var (category, sentiment) = LabelsOf(call.Ticket);
        await ModelStub.Labels(category, sentiment)(call, context);
    }

    private sealed class TextLedger
    {
        public int Calls;
        public int Answered;
        public int Faults;
    }
}
