using System.Net;
using Microsoft.AspNetCore.Builder;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Options;
using TicketFunctions.Hosting.AspNetCore;
using TicketFunctions.Tests.Support;
using TicketFunctions.Triggers;

namespace TicketFunctions.Tests.Hosting;

/// <summary>A host with both keys.</summary>
public sealed class GuardedApp : IAsyncLifetime
{
    public TicketApp App { get; private set; } = null!;

    public async Task InitializeAsync() => App = await TicketApp.StartAsync(("Keys__Function", "fZ+/9=="), ("Keys__Admin", "admin-key"));

    public Task DisposeAsync() => ((IAsyncLifetime)App).DisposeAsync();
}

public sealed class KeysTests(GuardedApp guarded) : IClassFixture<GuardedApp>
{
    private const string Function = "fZ+/9==";

    [Theory]
    [InlineData("http://localhost:7071", null, true)]
    [InlineData("http://0.0.0.0:7071", null, false)]
    [InlineData("http://localhost:7071;http://*:7072", null, false)]
    [InlineData("http://0.0.0.0:7071", "true", true)]
    [InlineData("http://localhost:7071", "false", false)]
    public async Task The_interactive_page_is_there_by_itself_only_where_no_other_machine_can_reach_it(string urls, string? setting, bool isThere)
    {
        await using var host = PlainHost.Build(
            new Dictionary<string, string?> { ["urls"] = urls, ["Keys:Function"] = "key", ["Docs:Enabled"] = setting, ["ConnectionStrings:Tickets"] = "Host=localhost" });

        Assert.Equal(isThere, host.Services.GetRequiredService<IOptions<DocsOptions>>().Value.Enabled);
    }

    [Theory]
    [InlineData(null, null, false, false)]
    [InlineData("", "", false, false)]
    [InlineData("wrong", null, false, false)]
    [InlineData(null, "wrong", false, false)]
    [InlineData("fZ+/9", null, false, false)]
    [InlineData("FZ+/9==", null, false, false)]
    [InlineData(Function, null, true, false)]
    [InlineData(null, Function, true, false)]
    [InlineData(Function, "wrong", true, false)]
    [InlineData("wrong", Function, false, false)]
    [InlineData("", Function, false, false)]
    [InlineData("admin-key", null, true, true)]
    [InlineData(null, "admin-key", true, true)]
    [InlineData("admin-key", "wrong", true, true)]
    [InlineData(Function, "admin-key", true, false)]
    [InlineData("wrong", "admin-key", false, false)]
    public async Task The_function_key_opens_functions_the_admin_key_opens_all_and_the_header_wins_over_the_query(
        string? header, string? code, bool opensFunctions, bool opensAdministration)
    {
        using var unknown = await SendAsync(HttpMethod.Post, "/process-ticket", header, code, $$"""{"id":"{{Guid.NewGuid()}}"}""");
        using var broken = await SendAsync(HttpMethod.Post, "/process-ticket", header, code, "{");
        using var backlog = await SendAsync(HttpMethod.Get, "/backlog", header, code);
        using var models = await SendAsync(HttpMethod.Get, "/models", header, code);
        using var sweep = await SendAsync(HttpMethod.Post, "/admin/functions/SweepTickets", header, code, "{}");
        using var nothing = await SendAsync(HttpMethod.Post, "/admin/functions/Nothing", header, code, "{}");

        if (opensFunctions)
        {
            await unknown.AssertProblemAsync(404, "ticket-not-found");
            await broken.AssertProblemAsync(400, "malformed-json");
            Assert.Equal(HttpStatusCode.OK, backlog.StatusCode);
            Assert.Equal(HttpStatusCode.OK, models.StatusCode);
        }
        else
        {
            await unknown.AssertProblemAsync(401, "unauthorized");
            await broken.AssertProblemAsync(401, "unauthorized");
            await backlog.AssertProblemAsync(401, "unauthorized");
            await models.AssertProblemAsync(401, "unauthorized");
        }

        if (opensAdministration)
        {
            Assert.Equal(HttpStatusCode.Accepted, sweep.StatusCode);
            await nothing.AssertProblemAsync(404, "not-found");
        }
        else
        {
            await sweep.AssertProblemAsync(401, "unauthorized");
            await nothing.AssertProblemAsync(401, "unauthorized");
        }
    }

    [Theory]
    [InlineData("/health/live")]
    [InlineData("/health/ready")]
    public async Task Probes_need_no_key_and_a_wrong_one_does_not_shut_them(string path)
    {
        Assert.Equal(HttpStatusCode.OK, (await SendAsync(HttpMethod.Get, path, null, null)).StatusCode);
        Assert.Equal(HttpStatusCode.OK, (await SendAsync(HttpMethod.Get, path, "wrong", null)).StatusCode);
    }

    [Fact]
    public async Task No_key_shown_or_expected_gets_into_an_answer_or_the_log()
    {
        using var refused = await SendAsync(HttpMethod.Post, "/process-ticket", "canary-header", "canary-query", "{}");
        using var allowed = await SendAsync(HttpMethod.Post, "/process-ticket", "admin-key", null, "{");

        var said = string.Join('\n', guarded.App.Log.Select(entry => entry.Message))
            + await refused.Content.ReadAsStringAsync() + refused.Headers + await allowed.Content.ReadAsStringAsync() + allowed.Headers;
        Assert.DoesNotContain("canary", said, StringComparison.Ordinal);
        Assert.DoesNotContain("admin-key", said, StringComparison.Ordinal);
        Assert.DoesNotContain("fZ+/9==", said, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Without_keys_loopback_is_open_and_with_one_only_that_one_opens()
    {
        await using var open = await TicketApp.StartAsync();
        Assert.Equal(HttpStatusCode.OK, (await open.Http.GetAsync("/backlog")).StatusCode);
        Assert.Equal(HttpStatusCode.Accepted, (await open.PostAsync("{}", "/admin/functions/SweepTickets")).StatusCode);

        await using var functionOnly = await TicketApp.StartAsync(("Keys__Function", "f\n"));
        Assert.Equal(HttpStatusCode.OK, (await functionOnly.Http.GetAsync("/backlog?code=f")).StatusCode);
        await (await functionOnly.PostAsync("{}", "/admin/functions/SweepTickets?code=f")).AssertProblemAsync(401, "unauthorized");

        await using var adminOnly = await TicketApp.StartAsync(("Keys__Admin", "a"));
        await (await adminOnly.Http.GetAsync("/backlog")).AssertProblemAsync(401, "unauthorized");
        Assert.Equal(HttpStatusCode.OK, (await adminOnly.Http.GetAsync("/backlog?code=a")).StatusCode);
    }

    [Theory]
    [InlineData("urls", "http://0.0.0.0:0")]
    [InlineData("urls", "http://*:0")]
    [InlineData("urls", "http://+:0")]
    [InlineData("urls", "http://[::]:0")]
    [InlineData("urls", "http://192.0.2.1:7071")]
    [InlineData("urls", "http://localhost.example.com:7071")]
    [InlineData("urls", "http://127.0.0.1:0; http://0.0.0.0:0")]
    [InlineData("http_ports", "8080")]
    [InlineData("http_ports", "8080;8081")]
    [InlineData("https_ports", "7193")]
    [InlineData("Kestrel:Endpoints:Http:Url", "http://0.0.0.0:0")]
    public void An_address_that_others_reach_needs_keys(string setting, string address)
    {
        var error = Assert.Throws<FormatException>(() => Build((setting, address)));
        Assert.Contains("Keys__Function", error.Message, StringComparison.Ordinal);
        Assert.Contains("can be reached from other machines", error.Message, StringComparison.Ordinal);

        Assert.Throws<FormatException>(() => Build((setting, address), ("Keys:Function", " ")));
        Build((setting, address), ("Keys:Function", "f"));
    }

    [Theory]
    [InlineData("http://localhost:7071")]
    [InlineData("http://127.0.0.1:0")]
    [InlineData("http://127.8.9.1:7071")]
    [InlineData("http://[::1]:0;http://LOCALHOST:7071")]
    [InlineData("http://unix:/tmp/tickets.sock")]
    public void Loopback_needs_none(string address) => Build(("urls", address));

    [Theory]
    [InlineData("urls", "", PlainHost.DefaultUrl)]
    [InlineData("urls", " ;", PlainHost.DefaultUrl)]
    [InlineData("http_ports", " ", PlainHost.DefaultUrl)]
    [InlineData("https_ports", "7193", "")]
    [InlineData("Kestrel:Endpoints:A:Url", "http://localhost:7193", "")]
    public void Without_an_address_it_is_the_default_one(string setting, string value, string urls)
    {
        using IDisposable app = PlainHost.Build([new(setting, value), new("Keys:Function", "f")]);

        Assert.Equal(urls, ((WebApplication)app).Configuration["urls"]);
    }

    [Fact]
    public async Task With_keys_it_serves_an_address_that_others_reach()
    {
        await using var app = await TicketApp.StartAsync(("urls", "http://0.0.0.0:0"), ("Keys__Function", "f"));
        using var http = new HttpClient { BaseAddress = new UriBuilder(app.Http.BaseAddress!) { Host = "127.0.0.1" }.Uri };

        await (await http.GetAsync("/backlog")).AssertProblemAsync(401, "unauthorized");
        Assert.Equal(HttpStatusCode.OK, (await http.GetAsync("/backlog?code=f")).StatusCode);
    }

    private static void Build(params (string Name, string Value)[] settings) =>
        ((IDisposable)PlainHost.Build(settings.Select(setting => KeyValuePair.Create(setting.Name, (string?)setting.Value)))).Dispose();

    private async Task<HttpResponseMessage> SendAsync(HttpMethod method, string path, string? header, string? code, string? body = null)
    {
        using var request = new HttpRequestMessage(method, code is null ? path : $"{path}?code={Uri.EscapeDataString(code)}");
        if (header is not null)
        {
            request.Headers.TryAddWithoutValidation("x-functions-key", header);
        }

        if (body is not null)
        {
            request.Content = new StringContent(body, System.Text.Encoding.UTF8, "application/json");
        }

        return await guarded.App.Http.SendAsync(request);
    }
}
