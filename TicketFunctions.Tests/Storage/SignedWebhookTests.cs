using System.Globalization;
using System.Net;
using System.Net.Http.Headers;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json.Nodes;
using Dapper;
using Npgsql;
using TicketFunctions.Tests.Support;
using TicketFunctions.Tests.Triggers;

namespace TicketFunctions.Tests.Storage;

/// <summary>One request as pg_net would send it.</summary>
public sealed record QueuedRequest(long Id, string Method, string Url, string Headers, byte[] Body, int TimeoutMilliseconds);

/// <summary>
/// The triggers that sign and send, with stand-ins for Vault and pg_net: what pg_net would send the tests take from its queue and send.
/// </summary>
public sealed class SignedWebhookTests : IAsyncLifetime
{
    internal const string Vault =
        """
        create schema vault;
        create table vault.secrets (name text primary key, secret text not null);
        create view vault.decrypted_secrets as select name, secret as decrypted_secret from vault.secrets;
        """;

    /// <summary>As https://github.com/supabase/pg_net has it, but that nobody sends what is in the queue.</summary>
    internal const string Net =
        """
        create schema net;
        create table net.http_request_queue (
          id bigserial,
          method text not null,
          url text not null,
          headers jsonb not null,
          body bytea,
          timeout_milliseconds int not null
        );
        create function net.http_post(
          url text,
          body jsonb default '{}'::jsonb,
          params jsonb default '{}'::jsonb,
          headers jsonb default '{"Content-Type": "application/json"}'::jsonb,
          timeout_milliseconds int default 5000
        )
        returns bigint
        language sql
        as $$
          insert into net.http_request_queue (method, url, headers, body, timeout_milliseconds)
          values ('POST', url, headers, convert_to(body::text, 'UTF8'), timeout_milliseconds)
          returning id
        $$;
        """;

    private TicketApp _app = null!;

    public async Task InitializeAsync() => _app = await TicketApp.StartAsync(
        ("Keys__Function", SignedApp.Key), ("Webhooks__Secret", SignedApp.Secret), ("Webhooks__PreviousSecret", SignedApp.PreviousSecret));

    public Task DisposeAsync() => ((IAsyncLifetime)_app).DisposeAsync();

    [Fact]
    public async Task An_inserted_ticket_is_told_of_by_a_signed_request_that_the_app_takes_and_the_labels_start_no_loop()
    {
        await SetUpAsync();

        var id = await _app.AddTicketAsync("Llega por webhook.");

        var request = Assert.Single(await ReadQueueAsync());
        Assert.Equal(("POST", new Uri(_app.Http.BaseAddress!, "/process-ticket").AbsoluteUri, 5000), (request.Method, request.Url, request.TimeoutMilliseconds));
        Assert.Equal(
            $$"""{"type": "INSERT", "table": "tickets", "record": {"id": "{{id}}", "processed": false}, "schema": "public", "old_record": null}""",
            Encoding.UTF8.GetString(request.Body));
        var headers = JsonNode.Parse(request.Headers)!.AsObject();
        Assert.Equal(["Content-Type", "webhook-id", "webhook-signature", "webhook-timestamp", "x-functions-key"], headers.Select(header => header.Key).Order());
        Assert.Matches("^msg_[0-9a-f-]{36}$", (string?)headers["webhook-id"]);
        Assert.InRange(
            long.Parse((string)headers["webhook-timestamp"]!, CultureInfo.InvariantCulture),
            DateTimeOffset.UtcNow.ToUnixTimeSeconds() - 60,
            DateTimeOffset.UtcNow.ToUnixTimeSeconds() + 60);

        Assert.Equal("model", await ReadSourceAsync(await SendAsync(request)));
        Assert.Equal(new TicketRow(id, "Llega por webhook.", "Tecnico", "Negativo", true), await _app.ReadTicketAsync(id));

        // What the app wrote was told to nobody.
        Assert.Single(await ReadQueueAsync());
    }

    [Fact]
    public async Task Any_text_gets_there_and_none_of_it_is_sent()
    {
        await SetUpAsync();
        string[] texts =
        [
            "¡Ñandú! 🦜 e\u0301 \u202e مرحبا",
            """Él dijo "no" y 'nunca'; \ y \u0000 $$ {"id":null} ${x} %s drop table tickets; --""",
            "líneas\r\ny\ttabuladores\u0001\u007f",
            string.Concat(Enumerable.Repeat("60 KiB de ñ, 🦜 y \"comillas\". ", 1_900)),
        ];
        foreach (var text in texts)
        {
            var id = await _app.AddTicketAsync(text);
            var request = (await ReadQueueAsync())[^1];

            Assert.Equal("model", await ReadSourceAsync(await SendAsync(request)));

            Assert.Equal(text, (await _app.ReadTicketAsync(id)).Description);
            Assert.InRange(request.Body.Length, 100, 300);
        }

        Assert.True(Encoding.UTF8.GetByteCount(texts[^1]) > 60 * 1024);
        Assert.Equal(texts.Length, (await ReadQueueAsync()).Count);
    }

    [Fact]
    public async Task Only_a_new_text_is_told_of()
    {
        await SetUpAsync();
        var id = await _app.AddTicketAsync("Antes.");
        Assert.Equal("model", await ReadSourceAsync(await SendAsync((await ReadQueueAsync()).Single())));

        await _app.ExecuteAsync("update tickets set description = 'Después.' where id = @id", new { id });
        var edited = (await ReadQueueAsync())[^1];
        Assert.Equal("UPDATE", (string?)JsonNode.Parse(edited.Body)!["type"]);
        Assert.Equal("model", await ReadSourceAsync(await SendAsync(edited)));
        Assert.Single(_app.Model.CallsFor("Después."));

        // The same text, other columns, a person's labels, a deletion.
        await _app.ExecuteAsync("update tickets set description = 'Después.' where id = @id", new { id });
        await _app.ExecuteAsync("update tickets set category = 'Otro', created_at = now() where id = @id", new { id });
        await _app.ExecuteAsync("update tickets set description = 'A mano.', category = 'Comercial', sentiment = 'Neutral' where id = @id", new { id });
        await _app.ExecuteAsync("insert into tickets (description, category, sentiment, processed) values ('Hecho.', 'Otro', 'Neutral', true)");
        await _app.ExecuteAsync("delete from tickets");
        Assert.Equal(2, (await ReadQueueAsync()).Count);

        // Each row of a statement is told of.
        await _app.ExecuteAsync("insert into tickets (description) select 'Ticket ' || n from generate_series(1, 20) as n");
        var requests = (await ReadQueueAsync()).Skip(2).ToList();
        Assert.Equal(20, requests.Select(request => (string?)JsonNode.Parse(request.Headers)!["webhook-id"]).Distinct().Count());
        Assert.Equal(20, requests.Select(request => (string?)JsonNode.Parse(request.Body)!["record"]!["id"]).Distinct().Count());

        // What is rolled back was never there.
        await using var connection = new NpgsqlConnection(_app.ConnectionString);
        await connection.OpenAsync();
        await using (var transaction = await connection.BeginTransactionAsync())
        {
            await connection.ExecuteAsync("insert into tickets (description) values ('No llega a existir.')", transaction: transaction);
        }

        Assert.Equal(22, (await ReadQueueAsync()).Count);
    }

    [Fact]
    public async Task What_is_changed_on_the_way_or_comes_too_late_is_refused()
    {
        await SetUpAsync();
        await _app.AddTicketAsync("Alguien está en medio.");
        var request = (await ReadQueueAsync()).Single();
        var headers = JsonNode.Parse(request.Headers)!.AsObject();
        var body = Encoding.UTF8.GetString(request.Body);

        await RefuseAsync(request with { Body = Encoding.UTF8.GetBytes(body.Replace("INSERT", "UPDATE", StringComparison.Ordinal)) });
        await RefuseAsync(request with { Body = Encoding.UTF8.GetBytes(body.Replace(": ", ":", StringComparison.Ordinal)) });
        await RefuseAsync(request with { Headers = With("webhook-id", $"msg_{Guid.NewGuid()}") });
        await RefuseAsync(request with { Headers = With("webhook-timestamp", SignedRequest.Timestamp(1)) });
        await RefuseAsync(request with { Headers = With("webhook-signature", null) });
        await RefuseAsync(request with { Headers = With("x-functions-key", "wrong") });

        // Recorded, and sent again 301 seconds later: so it looks to the app.
        var id = (string)headers["webhook-id"]!;
        var then = SignedRequest.Timestamp(-301);
        headers["webhook-timestamp"] = then;
        headers["webhook-signature"] = SignedRequest.Sign(SignedApp.Secret, id, then, request.Body);
        await RefuseAsync(request with { Headers = headers.ToJsonString() });

        Assert.Empty(_app.Model.Calls);
        Assert.Equal("model", await ReadSourceAsync(await SendAsync(request)));

        string With(string name, string? value)
        {
            var changed = JsonNode.Parse(request.Headers)!.AsObject();
            changed[name] = value;
            return changed.ToJsonString();
        }

        async Task RefuseAsync(QueuedRequest refused) => await (await SendAsync(refused)).AssertProblemAsync(401, "unauthorized");
    }

    [Fact]
    public async Task The_secret_is_changed_in_Vault_while_the_app_takes_both_and_what_is_no_secret_of_its_is_refused()
    {
        await SetUpAsync(SignedApp.PreviousSecret);
        await _app.AddTicketAsync("Con el secreto de antes.");
        await SetSecretAsync("ticket_functions_webhook_secret", SignedApp.Secret);
        await _app.AddTicketAsync("Con el nuevo.");
        await SetSecretAsync("ticket_functions_webhook_secret", "whsec_" + Convert.ToBase64String(RandomNumberGenerator.GetBytes(64)));
        await _app.AddTicketAsync("Con uno que la aplicación no conoce.");
        await SetSecretAsync("ticket_functions_webhook_secret", SignedApp.Secret["whsec_".Length..]);
        await _app.AddTicketAsync("Sin el prefijo.");

        var requests = await ReadQueueAsync();
        Assert.Equal("model", await ReadSourceAsync(await SendAsync(requests[0])));
        Assert.Equal("model", await ReadSourceAsync(await SendAsync(requests[1])));
        await (await SendAsync(requests[2])).AssertProblemAsync(401, "unauthorized");
        Assert.Equal("model", await ReadSourceAsync(await SendAsync(requests[3])));
    }

    [Fact]
    public async Task Until_Vault_pg_net_and_the_secrets_are_there_nothing_is_sent_and_from_then_on_it_is()
    {
        // One session all along: nothing that it planned before may be in the way.
        await using var connection = new NpgsqlConnection(_app.ConnectionString);
        await connection.OpenAsync();
        var notices = new List<string>();
        connection.Notice += (_, told) => notices.Add(told.Notice.MessageText);

        await AddAsync("sin nada");
        await connection.ExecuteAsync(Net);
        await AddAsync("sin Vault");
        await connection.ExecuteAsync(Vault);
        await AddAsync("sin secretos");
        await SetSecretAsync("ticket_functions_webhook_secret", SignedApp.Secret);
        await AddAsync("sin dirección");
        await connection.ExecuteAsync("delete from vault.secrets");
        await SetSecretAsync("ticket_functions_url", "http://localhost:1/process-ticket");
        await AddAsync("sin secreto");
        Assert.Empty(await ReadQueueAsync());

        await SetSecretAsync("ticket_functions_webhook_secret", SignedApp.Secret);
        await AddAsync("con todo, menos la clave");
        Assert.DoesNotContain("x-functions-key", Assert.Single(await ReadQueueAsync()).Headers, StringComparison.Ordinal);
        await SetSecretAsync("ticket_functions_key", SignedApp.Key);
        await AddAsync("con todo");
        Assert.Contains("x-functions-key", (await ReadQueueAsync())[1].Headers, StringComparison.Ordinal);

        await connection.ExecuteAsync("drop schema net cascade");
        await AddAsync("sin pg_net");
        await connection.ExecuteAsync(Net);
        await AddAsync("con uno nuevo");
        Assert.Single(await ReadQueueAsync());
        Assert.DoesNotContain(notices, notice => notice.Contains("webhook", StringComparison.Ordinal));

        Task<int> AddAsync(string text) => connection.ExecuteAsync("insert into tickets (description) values (@text)", new { text });
    }

    [Theory]
    [InlineData("update vault.secrets set secret = 'whsec_canary!' where name = 'ticket_functions_webhook_secret'", "22023")]
    [InlineData("drop view vault.decrypted_secrets; create view vault.decrypted_secrets as select name from vault.secrets", "42703")]
    [InlineData("drop table net.http_request_queue", "42P01")]
    [InlineData("alter table net.http_request_queue add check (url = 'canary')", "23514")]
    [InlineData("drop function net.http_post; create function net.http_post(url text, body jsonb, params jsonb default null, headers jsonb default null, timeout_milliseconds int default 0) returns bigint language plpgsql as 'begin raise exception ''the canary worker must be up''; end'", "P0001")]
    [InlineData("drop function net.http_post; create function net.http_post(url text, body jsonb, params jsonb default null, headers jsonb default null, timeout_milliseconds int default 0) returns bigint language plpgsql as 'begin return 1 / 0; end'", "22012")]
    public async Task Whatever_goes_wrong_the_ticket_is_inserted_and_a_warning_says_that_nothing_was_sent(string sql, string sqlState)
    {
        await SetUpAsync();
        await _app.ExecuteAsync(sql);
        await using var connection = new NpgsqlConnection(_app.ConnectionString);
        await connection.OpenAsync();
        var notices = new List<PostgresNotice>();
        connection.Notice += (_, told) => notices.Add(told.Notice);

        var id = await connection.QuerySingleAsync<Guid>("insert into tickets (description) values ('Se guarda.') returning id");
        await connection.ExecuteAsync("update tickets set description = 'Se edita.' where id = @id", new { id });

        Assert.Equal(new TicketRow(id, "Se edita.", null, null, false), await _app.ReadTicketAsync(id));
        Assert.Equal(2, notices.Count);
        Assert.All(notices, notice =>
        {
            Assert.Equal("WARNING", notice.InvariantSeverity);
            Assert.Equal($"The webhook of ticket {id} was not sent (SQLSTATE {sqlState}); the sweep will find the ticket.", notice.MessageText);
        });
        Assert.Equal(1, (await _app.SweepAsync()).Labelled);
    }

    [Fact]
    public async Task A_queue_that_somebody_has_locked_keeps_nobody_waiting()
    {
        await SetUpAsync();
        await using var other = new NpgsqlConnection(_app.ConnectionString);
        await other.OpenAsync();
        await using var transaction = await other.BeginTransactionAsync();
        await other.ExecuteAsync("lock table net.http_request_queue in access exclusive mode", transaction: transaction);
        await using var connection = new NpgsqlConnection(_app.ConnectionString);
        await connection.OpenAsync();
        var notices = new List<string>();
        connection.Notice += (_, told) => notices.Add(told.Notice.MessageText);

        await connection.ExecuteAsync("insert into tickets (description) values ('Nadie espera.')", commandTimeout: 20);

        Assert.Contains("(SQLSTATE 55P03)", Assert.Single(notices), StringComparison.Ordinal);
        Assert.Equal(1, await _app.QuerySingleAsync<int>("select count(*) from tickets"));

        // The session's own setting is what it was.
        Assert.Equal("0", await connection.QuerySingleAsync<string>("show lock_timeout"));
    }

    [Theory]
    [InlineData(0, 0)]
    [InlineData(1, 1)]
    [InlineData(20, 55)]
    [InlineData(63, 64)]
    [InlineData(64, 61_440)]
    [InlineData(65, 3)]
    [InlineData(131, 1_000)]
    public async Task Its_HMAC_is_everybodys(int keyLength, int messageLength)
    {
        var key = RandomNumberGenerator.GetBytes(keyLength);
        var message = RandomNumberGenerator.GetBytes(messageLength);

        Assert.Equal(
            HMACSHA256.HashData(key, message),
            await _app.QuerySingleAsync<byte[]>("select ticket_hmac_sha256(@key, @message)", new { key, message }));
    }

    private async Task SetUpAsync(string secret = SignedApp.Secret)
    {
        await _app.ExecuteAsync(Vault + Net);
        await SetSecretAsync("ticket_functions_url", new Uri(_app.Http.BaseAddress!, "/process-ticket").AbsoluteUri);
        await SetSecretAsync("ticket_functions_key", SignedApp.Key);
        await SetSecretAsync("ticket_functions_webhook_secret", secret);
        await SetSecretAsync("another", "canary");
    }

    private Task<int> SetSecretAsync(string name, string secret) => _app.ExecuteAsync(
        "insert into vault.secrets values (@name, @secret) on conflict (name) do update set secret = excluded.secret", new { name, secret });

    private Task<IReadOnlyList<QueuedRequest>> ReadQueueAsync() => _app.QueryAsync<QueuedRequest>(
        "select id, method, url, headers::text, body, timeout_milliseconds from net.http_request_queue order by id");

    /// <summary>Does what pg_net would.</summary>
    private async Task<HttpResponseMessage> SendAsync(QueuedRequest queued)
    {
        using var request = new HttpRequestMessage(new HttpMethod(queued.Method), queued.Url) { Content = new ByteArrayContent(queued.Body) };
        foreach (var (name, value) in JsonNode.Parse(queued.Headers)!.AsObject())
        {
            if (name == "Content-Type")
            {
                request.Content.Headers.ContentType = MediaTypeHeaderValue.Parse((string)value!);
            }
            else if (value is not null)
            {
                Assert.True(request.Headers.TryAddWithoutValidation(name, (string)value!));
            }
        }

        request.Headers.TryAddWithoutValidation("User-Agent", "pg_net/0.20.0");
        return await _app.Http.SendAsync(request);
    }

    private static async Task<string?> ReadSourceAsync(HttpResponseMessage response)
    {
        Assert.True(response.StatusCode == HttpStatusCode.OK, await response.Content.ReadAsStringAsync());
        return (string?)(await response.ReadJsonAsync())["source"];
    }
}
