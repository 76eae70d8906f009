using System.Net;
using System.Text;
using System.Text.Json.Nodes;
using Microsoft.AspNetCore.Http;
using Microsoft.Extensions.Options;
using TicketFunctions.Tests.Support;
using TicketFunctions.Triggers;

namespace TicketFunctions.Tests.Triggers;

/// <summary>An app that asks for a key and a signature, in the middle of a rotation.</summary>
public sealed class SignedApp : IAsyncLifetime
{
    public const string Key = "function-key";
    public const string Secret = "whsec_bmV3IG5ldyBuZXcgbmV3IG5ldyBuZXcgbmV3";
    public const string PreviousSecret = "whsec_b2xkIG9sZCBvbGQgb2xkIG9sZCBvbGQgb2xkIG9sZA==";

    public TicketApp App { get; private set; } = null!;

    public async Task InitializeAsync()
    {
        App = await TicketApp.StartAsync(
            ("Keys__Function", Key), ("Keys__Admin", "admin-key"), ("Webhooks__Secret", Secret), ("Webhooks__PreviousSecret", PreviousSecret));
        App.Http.DefaultRequestHeaders.Add("x-functions-key", Key);
    }

    public Task DisposeAsync() => ((IAsyncLifetime)App).DisposeAsync();
}

public sealed class SignatureTests(SignedApp fixture) : IClassFixture<SignedApp>
{
    private const string Stranger = "whsec_c3RyYW5nZXIgc3RyYW5nZXIgc3RyYW5nZXI=";

    private readonly TicketApp _app = fixture.App;

    [Theory]
    [InlineData(SignedApp.Secret)]
    [InlineData(SignedApp.PreviousSecret)]
    public async Task A_body_signed_with_either_secret_is_taken(string secret)
    {
        var id = await _app.AddTicketAsync($"Firmado. {secret}");

        Assert.Equal("model", await ReadSourceAsync(await SendAsync(Direct(id), secret)));
        Assert.Equal("stored", await ReadSourceAsync(await SendAsync(Webhook(id), secret)));
    }

    [Theory]
    [InlineData("""{"id":"@id","description":"¡Ñandú! 🦜 \"comillas\" \\ \u00e9 e\u0301"}""", "¡Ñandú! 🦜 \"comillas\" \\ é e\u0301")]
    [InlineData("  {\r\n\t\"description\" : \"Blancos por todas partes\" ,\n \"id\":\"@id\"}\n\n", "Blancos por todas partes")]
    [InlineData("\ufeff{\"id\":\"@id\"}", "Con marca de orden de bytes")]
    public async Task What_is_signed_is_the_bytes_and_not_what_they_mean(string body, string text)
    {
        var id = await _app.AddTicketAsync(text);

        Assert.Equal("model", await ReadSourceAsync(await SendAsync(body.Replace("@id", id.ToString(), StringComparison.Ordinal))));
    }

    [Fact]
    public async Task A_body_of_60_KiB_is_taken_and_one_wrong_byte_of_it_is_not()
    {
        var id = await _app.AddTicketAsync("Largo.");
        var body = Encoding.UTF8.GetBytes(
            new JsonObject
            {
                ["type"] = "INSERT",
                ["schema"] = "public",
                ["table"] = "tickets",
                ["old_record"] = null,
                ["record"] = new JsonObject { ["id"] = id.ToString(), ["description"] = string.Concat(Enumerable.Repeat("Ñ🦜\"\\\n", 3_100)) },
            }.ToJsonString(new() { Encoder = System.Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping }));
        Assert.InRange(body.Length, 50_000, RequestBody.MaxBytes);
        var timestamp = SignedRequest.Timestamp();
        var signature = SignedRequest.Sign(SignedApp.Secret, "msg_1", timestamp, body);
        var changed = body.ToArray();
        changed[^3] ^= 1;

        await AssertRefusedAsync(SignedRequest.Create(changed, "msg_1", timestamp, signature));
        Assert.Equal("model", await ReadSourceAsync(await _app.Http.SendAsync(SignedRequest.Create(body, "msg_1", timestamp, signature))));
    }

    [Fact]
    public async Task What_is_missing_wrong_or_stale_is_401_by_one_and_the_same_answer()
    {
        var id = await _app.AddTicketAsync("Nadie lo firma.");
        var body = Encoding.UTF8.GetBytes(Direct(id));
        var now = SignedRequest.Timestamp();
        var right = SignedRequest.Sign(SignedApp.Secret, "msg_1", now, body);
        var before = await _app.ReadEverythingAsync();
        HttpRequestMessage[] requests =
        [
            // Missing.
            SignedRequest.Create(body, null, null, null),
            SignedRequest.Create(body, null, now, right),
            SignedRequest.Create(body, "msg_1", null, right),
            SignedRequest.Create(body, "msg_1", now, null),
            SignedRequest.Create(body, "", now, SignedRequest.Sign(SignedApp.Secret, "", now, body)),
            SignedRequest.Create(body, "msg_1", "", right),
            SignedRequest.Create(body, "msg_1", now, ""),

            // For another message, instant or body, or by somebody else.
            SignedRequest.Create(body, "msg_2", now, right),
            SignedRequest.Create(body, "msg_1", SignedRequest.Timestamp(-1), right),
            SignedRequest.Create([.. body, (byte)' '], "msg_1", now, right),
            SignedRequest.Create(Encoding.UTF8.GetBytes(Direct(Guid.NewGuid())), "msg_1", now, right),
            SignedRequest.Create([], "msg_1", now, right),
            SignedRequest.Create(body, "msg_1", now, SignedRequest.Sign(Stranger, "msg_1", now, body)),

            // Not as the scheme writes it.
            SignedRequest.Create(body, "msg_1", now, right["v1,".Length..]),
            SignedRequest.Create(body, "msg_1", now, right.Replace("v1,", "v2,", StringComparison.Ordinal)),
            SignedRequest.Create(body, "msg_1", now, right.Replace("v1,", "V1,", StringComparison.Ordinal)),
            SignedRequest.Create(body, "msg_1", now, right + "AAAA"),
            SignedRequest.Create(body, "msg_1", now, right[..^4]),
            SignedRequest.Create(body, "msg_1", now, "v1,"),
            SignedRequest.Create(body, "msg_1", now, "v1,%%%"),
            SignedRequest.Create(body, "msg_1", now, "v1," + new string('A', 20_000)),
            SignedRequest.Create(body, "msg_1", now, $"{right},{right}"),

            // Stale, early, or no instant at all.
            Sign("msg_1", SignedRequest.Timestamp(-302)),
            Sign("msg_1", SignedRequest.Timestamp(302)),
            Sign("msg_1", "0"),
            Sign("msg_1", $"-{now}"),
            Sign("msg_1", $"+{now}"),
            Sign("msg_1", $"{now}.0"),
            Sign("msg_1", $"{now}000"),
            Sign("msg_1", "9223372036854775807"),
            Sign("msg_1", "9223372036854775808"),
            Sign("msg_1", "2026-11-20T17:00:00Z"),
        ];

        var answers = new List<string>();
        foreach (var request in requests)
        {
            answers.Add(await AssertRefusedAsync(request));
        }

        using var twice = SignedRequest.Create(body, "msg_1", now, right);
        twice.Headers.Add("webhook-id", "msg_1");
        answers.Add(await AssertRefusedAsync(twice));

        // Nor does a key that is wrong get another one.
        using var other = SignedRequest.Create(body, "msg_1", now, right);
        other.Headers.Add("x-functions-key", "wrong");
        using var http = new HttpClient { BaseAddress = _app.Http.BaseAddress };
        answers.Add(WithoutTrace(await (await http.SendAsync(other)).AssertProblemAsync(401, "unauthorized")));
        Assert.Single(answers.Distinct());
        Assert.Equal(before, await _app.ReadEverythingAsync());
        Assert.Empty(_app.Model.CallsFor("Nadie lo firma."));

        // Only the log tells them apart.
        Assert.All(
            ["headers webhook-id", "webhook-timestamp is not a number", "it was signed 30", "it was signed -30", "no signature fits"],
            why => Assert.Contains(_app.Log, entry => entry.Message.StartsWith("A signed request was refused", StringComparison.Ordinal)
                && entry.Message.Contains(why, StringComparison.Ordinal)));

        HttpRequestMessage Sign(string id, string timestamp) =>
            SignedRequest.Create(body, id, timestamp, SignedRequest.Sign(SignedApp.Secret, id, timestamp, body));
    }

    [Fact]
    public async Task One_good_signature_among_several_is_enough()
    {
        var id = await _app.AddTicketAsync("Firmado por varios.");
        var body = Encoding.UTF8.GetBytes(Direct(id));
        var now = SignedRequest.Timestamp();
        var signatures = string.Join(
            ' ', "v1a,ZWQyNTUxOQ==", SignedRequest.Sign(Stranger, "msg_1", now, body), "", SignedRequest.Sign(SignedApp.PreviousSecret, "msg_1", now, body), "v1,x");

        Assert.Equal("model", await ReadSourceAsync(await _app.Http.SendAsync(SignedRequest.Create(body, "msg_1", now, signatures))));
    }

    [Fact]
    public async Task A_signature_is_asked_for_besides_the_key_and_before_the_body_is_looked_at()
    {
        var id = await _app.AddTicketAsync("Dos pruebas.");
        using var http = new HttpClient { BaseAddress = _app.Http.BaseAddress };
        var body = Encoding.UTF8.GetBytes(Direct(id));
        var now = SignedRequest.Timestamp();
        var signature = SignedRequest.Sign(SignedApp.Secret, "msg_1", now, body);

        // The signature does not stand for the key, nor the key of an administrator for the signature.
        await (await http.SendAsync(SignedRequest.Create(body, "msg_1", now, signature))).AssertProblemAsync(401, "unauthorized");
        await (await http.SendAsync(SignedRequest.Create(body, null, null, null, "/process-ticket?code=admin-key"))).AssertProblemAsync(401, "unauthorized");

        // What nobody signed is not parsed, and what somebody did is.
        await (await _app.PostAsync("{")).AssertProblemAsync(401, "unauthorized");
        await (await _app.PostAsync(Direct(id), "/process-ticket?force=maybe")).AssertProblemAsync(401, "unauthorized");
        await (await SendAsync("{")).AssertProblemAsync(400, "malformed-json");
        await (await SendAsync("""{"type":"DELETE"}""")).AssertProblemAsync(400, "invalid-shape");
        Assert.Equal(HttpStatusCode.OK, (await SendAsync("""{"type":"DELETE","schema":"public","table":"tickets","record":null}""")).StatusCode);

        // The limit is checked first: nobody makes us hash without end.
        await (await SendAsync(new string(' ', RequestBody.MaxBytes + 1))).AssertProblemAsync(413, "payload-too-large");

        // Only where tickets are taken in.
        Assert.Equal(HttpStatusCode.OK, (await _app.Http.GetAsync("/backlog")).StatusCode);
        Assert.Equal(HttpStatusCode.OK, (await _app.Http.GetAsync("/health/live")).StatusCode);
    }

    [Fact]
    public async Task A_message_that_comes_again_within_its_time_finds_the_ticket_done()
    {
        var id = await _app.AddTicketAsync("Llega dos veces.");
        var body = Encoding.UTF8.GetBytes(Webhook(id));
        var now = SignedRequest.Timestamp();
        var signature = SignedRequest.Sign(SignedApp.Secret, "msg_1", now, body);

        Assert.Equal("model", await ReadSourceAsync(await _app.Http.SendAsync(SignedRequest.Create(body, "msg_1", now, signature))));
        Assert.Equal("stored", await ReadSourceAsync(await _app.Http.SendAsync(SignedRequest.Create(body, "msg_1", now, signature))));
        Assert.Single(_app.Model.CallsFor("Llega dos veces."));
    }

    [Theory]
    [InlineData(-301, false)]
    [InlineData(-300, true)]
    [InlineData(0, true)]
    [InlineData(300, true)]
    [InlineData(301, false)]
    public void The_schemes_own_example_is_good_for_five_minutes_both_ways(int seconds, bool allowed)
    {
        var signatures = new WebhookSignatures(
            Options.Create(new WebhookOptions { Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw" }), new Clock(DateTimeOffset.FromUnixTimeSeconds(1614265330 + seconds)));
        var headers = new HeaderDictionary
        {
            ["webhook-id"] = "msg_p5jXN8AQM9LWM0D4loKWxJek",
            ["webhook-timestamp"] = "1614265330",
            ["webhook-signature"] = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        };

        Assert.Equal(allowed, signatures.FindFault(headers, """{"test": 2432232314}"""u8) is null);
        Assert.NotNull(signatures.FindFault(headers, """{"test":2432232314}"""u8));
    }

    [Fact]
    public async Task No_secret_or_signature_gets_into_an_answer_or_the_log()
    {
        using var refused = await _app.Http.SendAsync(SignedRequest.Create("{"u8.ToArray(), "canary-id", SignedRequest.Timestamp(), "v1,canary"));
        using var allowed = await SendAsync("{");

        var said = string.Join('\n', _app.Log.Select(entry => entry.Message))
            + await refused.Content.ReadAsStringAsync() + refused.Headers + await allowed.Content.ReadAsStringAsync() + allowed.Headers;
        Assert.DoesNotContain("canary", said, StringComparison.Ordinal);
        Assert.DoesNotContain(SignedApp.Secret["whsec_".Length..], said, StringComparison.Ordinal);
        Assert.DoesNotContain(SignedApp.PreviousSecret["whsec_".Length..], said, StringComparison.Ordinal);
    }

    private static string Direct(Guid id) => $$"""{"id":"{{id}}"}""";

    private static string Webhook(Guid id) =>
        $$"""{"type": "INSERT", "schema": "public", "table": "tickets", "record": {"id": "{{id}}"}, "old_record": null}""";

    private Task<HttpResponseMessage> SendAsync(string text, string secret = SignedApp.Secret)
    {
        var body = Encoding.UTF8.GetBytes(text);
        var now = SignedRequest.Timestamp();
        return _app.Http.SendAsync(SignedRequest.Create(body, "msg_1", now, SignedRequest.Sign(secret, "msg_1", now, body)));
    }

    private async Task<string> AssertRefusedAsync(HttpRequestMessage request)
    {
        using (request)
        {
            return WithoutTrace(await (await _app.Http.SendAsync(request)).AssertProblemAsync(401, "unauthorized"));
        }
    }

    private static string WithoutTrace(JsonNode problem)
    {
        problem.AsObject().Remove("traceId");
        return problem.ToJsonString();
    }

    private static async Task<string?> ReadSourceAsync(HttpResponseMessage response)
    {
        Assert.True(response.IsSuccessStatusCode, await response.Content.ReadAsStringAsync());
        return (string?)(await response.ReadJsonAsync())["source"];
    }

    private sealed class Clock(DateTimeOffset now) : TimeProvider
    {
        public override DateTimeOffset GetUtcNow() => now;
    }
}
