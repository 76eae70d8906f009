using System.Net;
using System.Text;
using System.Text.Json.Nodes;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Triggers;

/// <summary><c>Prefer: respond-async</c>: the answer comes at once, the work goes on.</summary>
public sealed class RespondAsyncTests(TicketApp app) : IClassFixture<TicketApp>
{
    [Theory]
    [InlineData("respond-async")]
    [InlineData("Respond-Async")]
    [InlineData("return=minimal, respond-async")]
    [InlineData("respond-async; wait-for=\"x, y\" , wait=10")]
    [InlineData("foo=\"a, b\",,respond-async")]
    public async Task Who_prefers_not_to_wait_is_answered_202_while_the_model_thinks(string prefer)
    {
        var text = $"Nadie espera la respuesta ({prefer}).";
        var id = await app.AddTicketAsync(text);
        var hold = app.Model.Hold(text);

        using var response = await SendAsync(app, id, prefer);

        Assert.Equal(HttpStatusCode.Accepted, response.StatusCode);
        Assert.Equal(["respond-async"], response.Headers.GetValues("Preference-Applied"));
        Assert.Equal("application/json", response.Content.Headers.ContentType?.MediaType);
        Assert.Equal($$"""{"id":"{{id}}","accepted":true}""", await response.Content.ReadAsStringAsync());
        await hold.Arrived;
        Assert.False((await app.ReadTicketAsync(id)).Processed);
        hold.Release();
        await Eventually.TrueAsync(async () => (await app.ReadTicketAsync(id)).Processed, "the ticket is labelled");
        Assert.Single(app.Model.CallsFor(text));
        Assert.Equal(0, await app.QuerySingleAsync<int>("select count(*) from ticket_work where ticket_id = @id", new { id }));
        Assert.DoesNotContain(app.Log, entry => entry.Level >= LogLevel.Warning && entry.Message.Contains(id.ToString(), StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("wait=10")]
    [InlineData("respond-asynchronously")]
    [InlineData("respond async")]
    [InlineData("foo=\"a, respond-async, b\"")]
    [InlineData("foo; respond-async")]
    [InlineData("")]
    public async Task Who_prefers_something_else_gets_the_labels(string prefer)
    {
        var id = await app.AddTicketAsync($"Espera la respuesta ({prefer}).");

        using var response = await SendAsync(app, id, prefer);

        Assert.Equal(HttpStatusCode.OK, response.StatusCode);
        Assert.False(response.Headers.Contains("Preference-Applied"));
        Assert.Equal("model", (string?)(await response.ReadJsonAsync())["source"]);
    }

    [Fact]
    public async Task What_is_wrong_or_asks_for_nothing_is_told_at_once()
    {
        await (await SendAsync(app, "{")).AssertProblemAsync(400, "malformed-json");
        await (await SendAsync(app, """{"id":5}""")).AssertProblemAsync(400, "invalid-shape");
        await (await SendAsync(app, """{"id":"5"}""")).AssertProblemAsync(422, "invalid-value");
        await (await SendAsync(app, $$"""{"id":"{{Guid.NewGuid()}}"}""", query: "?force=maybe")).AssertProblemAsync(422, "invalid-value");
        using var ignored = await SendAsync(app, """{"type":"DELETE","schema":"public","table":"tickets","record":null}""");
        Assert.Equal((HttpStatusCode.OK, """{"ignored":"deleted"}"""), (ignored.StatusCode, await ignored.Content.ReadAsStringAsync()));
    }

    [Fact]
    public async Task What_only_the_database_knows_is_logged_and_changes_nothing()
    {
        var mine = await app.AddTicketAsync("El texto de la fila.");
        var unknown = Guid.NewGuid();
        var before = await app.ReadEverythingAsync();

        using var notFound = await SendAsync(app, unknown);
        using var mismatch = await SendAsync(app, $$"""{"id":"{{mine}}","description":"Otro texto."}""");

        Assert.Equal((HttpStatusCode.Accepted, HttpStatusCode.Accepted), (notFound.StatusCode, mismatch.StatusCode));
        await LoggedAsync(app, $"Ticket {unknown}: asked for without waiting, ended as NotFound");
        await LoggedAsync(app, $"Ticket {mine}: asked for without waiting, ended as DescriptionMismatch");
        Assert.Equal(before, await app.ReadEverythingAsync());
    }

    [Fact]
    public async Task Force_decides_again_without_anybody_waiting()
    {
        const string Text = "Otra vez, sin prisa.";
        app.Model.On(Text, ModelStub.Sequence(ModelStub.Labels("Otro", "Neutral"), ModelStub.Labels("Comercial", "Positivo")));
        var id = await app.AddTicketAsync(Text);
        await app.ProcessAsync(id);

        using var response = await SendAsync(app, $$"""{"id":"{{id}}"}""", query: "?force=true");

        Assert.Equal(HttpStatusCode.Accepted, response.StatusCode);
        await Eventually.TrueAsync(async () => (await app.ReadTicketAsync(id)).Category == "Comercial", "the new decision is stored");
    }

    [Fact]
    public async Task A_client_that_leaves_without_reading_the_answer_loses_nothing()
    {
        const string Text = "El remitente ya se fue.";
        var id = await app.AddTicketAsync(Text);
        var hold = app.Model.Hold(Text);
        var body = $$"""{"type":"INSERT","schema":"public","table":"tickets","record":{"id":"{{id}}"},"old_record":null}""";
        using (var raw = await RawHttp.ConnectAsync(app.Http.BaseAddress!))
        {
            await raw.SendAsync($"POST /process-ticket HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nPrefer: respond-async\r\nContent-Length: {body.Length}\r\n\r\n{body}");
            await hold.Arrived;
        }

        hold.Release();
        await Eventually.TrueAsync(async () => (await app.ReadTicketAsync(id)).Processed, "the ticket is labelled");
        Assert.Single(app.Model.CallsFor(Text));
    }

    [Fact]
    public async Task The_place_is_taken_until_the_work_is_done_and_not_until_the_answer()
    {
        await using var small = await TicketApp.StartAsync(("Triage__MaxConcurrentRequests", "1"));
        var first = await small.AddTicketAsync("Ocupa el único sitio.");
        var second = await small.AddTicketAsync("No cabe.");
        var hold = small.Model.Hold("Ocupa el único sitio.");
        Assert.Equal(HttpStatusCode.Accepted, (await SendAsync(small, first)).StatusCode);
        await hold.Arrived;

        await (await SendAsync(small, second)).AssertProblemAsync(429, "rate-limited");
        await (await small.ProcessAsync(second)).AssertProblemAsync(429, "rate-limited");

        hold.Release();
        await Eventually.TrueAsync(async () => (await SendAsync(small, second)).StatusCode == HttpStatusCode.Accepted, "the place is free again");
        await Eventually.TrueAsync(async () => (await small.ReadTicketAsync(second)).Processed, "the second one is labelled");
    }

    [Fact]
    public async Task A_failure_leaves_the_ticket_to_the_sweep_and_its_place_to_others()
    {
        await using var small = await TicketApp.StartAsync(("Triage__MaxConcurrentRequests", "1"));
        const string Text = "Falla y nadie lo ve.";
        var id = await small.AddTicketAsync(Text);
        small.Model.On(Text, ModelStub.Sequence(ModelStub.Json(500, new JsonObject()), ModelStub.Labels("Tecnico", "Negativo")));
        Assert.Equal(HttpStatusCode.Accepted, (await SendAsync(small, id)).StatusCode);
        await LoggedAsync(small, $"Ticket {id}: asked for without waiting, ended as RetryLater");

        // The database refuses to be read: no answer could say so any more.
        await small.ExecuteAsync("alter table ticket_work rename to elsewhere");
        await Eventually.TrueAsync(async () => (await SendAsync(small, id)).StatusCode == HttpStatusCode.Accepted, "the place is free again");
        await LoggedAsync(small, $"Ticket {id}: asked for without waiting, ended by storage-unavailable; the sweep finds it");
        Assert.Contains(small.Log, entry => entry.Level == LogLevel.Warning && entry.Message.StartsWith("The database is unavailable", StringComparison.Ordinal));
        Assert.DoesNotContain(small.Log, entry => entry.Level > LogLevel.Warning);

        await small.ExecuteAsync("alter table elsewhere rename to ticket_work");
        await small.LetTimePassAsync();
        Assert.Equal(1, (await small.SweepAsync()).Labelled);
    }

    [Fact]
    public async Task A_stop_waits_for_what_is_short_and_gives_back_what_is_long()
    {
        await using var stopping = await TicketApp.StartAsync(("Model__AttemptTimeout", "00:01:00"), ("Model__TotalTimeout", "00:01:00"));
        string[] texts = ["corta, sin espera", "larga, sin espera"];
        var holds = texts.Select(text => stopping.Model.Hold(text)).ToList();
        foreach (var text in texts)
        {
            Assert.Equal(HttpStatusCode.Accepted, (await SendAsync(stopping, await stopping.AddTicketAsync(text))).StatusCode);
        }

        await Task.WhenAll(holds.Select(hold => hold.Arrived));
        var stopped = stopping.Services.GetRequiredService<IHost>().StopAsync();
        holds[0].Release();
        await stopped;

        Assert.Equal("corta, sin espera", await stopping.QuerySingleAsync<string>("select description from tickets where processed"));
        Assert.Equal(0, await stopping.QuerySingleAsync<int>("select attempts from ticket_work where lease_token is null and due_at <= now()"));
        Assert.DoesNotContain(stopping.Log, entry => entry.Level >= LogLevel.Warning);
    }

    private static Task LoggedAsync(TicketApp app, string message) =>
        Eventually.TrueAsync(() => Task.FromResult(app.Log.Any(entry => entry.Message == message)), $"'{message}' is logged");

    private static Task<HttpResponseMessage> SendAsync(TicketApp app, Guid id, string prefer = "respond-async") =>
        SendAsync(app, $$"""{"id":"{{id}}"}""", prefer);

    private static Task<HttpResponseMessage> SendAsync(TicketApp app, string body, string prefer = "respond-async", string query = "")
    {
        var request = new HttpRequestMessage(HttpMethod.Post, "/process-ticket" + query) { Content = new StringContent(body, Encoding.UTF8, "application/json") };
        request.Headers.TryAddWithoutValidation("Prefer", prefer);
        return app.Http.SendAsync(request);
    }
}
