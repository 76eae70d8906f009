using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Server.Kestrel.Core;
using TicketFunctions.Tests.Commands;
using TicketFunctions.Tests.Faults;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Classification;

/// <summary>The connections to a model. The product runs as a process, since on Linux a process can be told to trust a certificate.</summary>
public sealed class ConnectionTests : IDisposable
{
    private readonly Product _product = new(("Model__Name", "m"), ("Model__MaxRetries", "0"), ("Model__BreakDuration", "00:00:00"));

    public void Dispose() => _product.Dispose();

    [Theory]
    [InlineData(HttpProtocols.Http1AndHttp2, "HTTP/2")]
    [InlineData(HttpProtocols.Http2, "HTTP/2")]
    [InlineData(HttpProtocols.Http1, "HTTP/1.1")]
    public async Task A_server_is_asked_by_HTTP_2_where_it_speaks_it_and_by_one_connection(HttpProtocols spoken, string protocol)
    {
        if (!OperatingSystem.IsLinux())
        {
            return;
        }

        var trusted = Path.Combine(_product.Folder, "trusted.pem");
        using var certificate = await TestCertificate.CreateAsync(trusted);
        await using var server = await ModelServer.StartAsync(certificate, spoken);
        server.On("POST /v1/chat/completions", ModelServer.Completion);

        var result = await _product.RunAsync("uno\ndos\ntres\n", [("Model__Endpoint", server.Root), ("SSL_CERT_FILE", trusted)], "classify", "-");

        Assert.Equal((0, "", 3), (result.ExitCode, result.Error, result.Lines.Length));
        Assert.Equal(3, server.Requests.Count);
        Assert.All(server.Requests, request => Assert.Equal(protocol, request.Protocol));
        Assert.Single(server.Requests.Select(request => request.Connection).Distinct());
    }

    [Fact]
    public async Task Without_TLS_a_server_is_asked_by_HTTP_1()
    {
        await using var server = await ModelServer.StartAsync();
        server.On("POST /v1/chat/completions", ModelServer.Completion);

        Assert.Equal(0, (await _product.RunAsync("", [("Model__Endpoint", server.Root)], "classify", "hola")).ExitCode);

        Assert.Equal("HTTP/1.1", Assert.Single(server.Requests).Protocol);
    }

    /// <summary>A call of HTTP/2 that is given up leaves its connection to the next ones.</summary>
    [Fact]
    public async Task A_connection_of_HTTP_2_that_died_in_silence_is_noticed_before_the_call_times_out_and_replaced()
    {
        if (!OperatingSystem.IsLinux())
        {
            return;
        }

        var trusted = Path.Combine(_product.Folder, "trusted.pem");
        using var certificate = await TestCertificate.CreateAsync(trusted);
        await using var server = await ModelServer.StartAsync(certificate);
        await using var proxy = new TcpProxy(new Uri(server.Root).Port);
        server.On("POST /v1/chat/completions", (context, body) => context.Response.WriteAsync(
            body.Contains("tres", StringComparison.Ordinal) ? ModelServer.Completion.Replace("Neutral", "Positivo", StringComparison.Ordinal) : ModelServer.Completion));
        await using var process = _product.Start(
            ["classify", "-"],
            ("Model__Endpoint", $"https://127.0.0.1:{proxy.Port}"), ("SSL_CERT_FILE", trusted),
            ("Model__AttemptTimeout", "00:00:40"), ("Model__TotalTimeout", "00:00:40"));
        async Task<string> AskAsync(string text, string expected)
        {
            await process.Input.WriteLineAsync(text);
            await process.Input.FlushAsync();
            return await process.ReadLineWithAsync(expected);
        }

        await AskAsync("uno", "Neutral");
        Assert.Single(proxy.Links).BlackHole(Way.ToServer, Way.ToClient);
        await AskAsync("dos", "unavailable: ");
        await AskAsync("tres", "Positivo");

        Assert.Equal(["HTTP/2", "HTTP/2"], server.Requests.Select(request => request.Protocol));
        Assert.Equal(2, server.Requests.Select(request => request.Connection).Distinct().Count());
    }
}
