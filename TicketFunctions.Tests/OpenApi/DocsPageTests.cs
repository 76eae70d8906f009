using System.Net;
using System.Text.RegularExpressions;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.OpenApi;

/// <summary><c>GET /docs</c>.</summary>
public sealed class DocsPageTests(TicketApp app) : IClassFixture<TicketApp>
{
    [Fact]
    public async Task The_page_and_its_files_come_from_here_alone_and_the_browser_is_told_to_ask_nobody_else()
    {
        var page = await app.Http.GetAsync("/docs");
        var address = page.RequestMessage!.RequestUri!;
        Assert.Equal("/docs/index.html", address.AbsolutePath);
        var links = Regex.Matches(await page.Content.ReadAsStringAsync(), """(?:src|href)=["']([^"']*)["']""").Select(link => link.Groups[1].Value).ToList();
        Assert.Contains("./swagger-ui-bundle.js", links);

        foreach (var file in links.Append(""))
        {
            var target = new Uri(address, file);
            Assert.Equal(address.Authority, target.Authority);
            var answer = await app.Http.GetAsync(target);
            Assert.True(answer.IsSuccessStatusCode, $"{file} is {answer.StatusCode}.");
            Assert.Equal(
                "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; "
                    + "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
                Assert.Single(answer.Headers.GetValues("Content-Security-Policy")));
            if (answer.Content.Headers.ContentType!.MediaType is "text/html" or "text/css")
            {
                Assert.DoesNotMatch("""(?:src|href)\s*=\s*["']?(?:\w+:)?//|url\(\s*["']?(?:https?:)?//|@import""", await answer.Content.ReadAsStringAsync());
            }
        }

        Assert.Matches("\"url\":\\s*\"\\.\\./openapi\\.json\"", await app.Http.GetStringAsync("/docs/index.js"));
        Assert.Contains("validatorUrl = null", await app.Http.GetStringAsync("/docs/index.js"), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("/docs/nothing.js")]
    [InlineData("/docs/..%2Fhost.json")]
    [InlineData("/docs/a/b")]
    public async Task What_is_no_file_of_the_page_is_not_found(string path) =>
        await (await app.Http.GetAsync(path)).AssertProblemAsync(404, "not-found");

    [Fact]
    public async Task It_can_be_turned_off_and_the_document_stays()
    {
        await using var off = await TicketApp.StartAsync(("Docs__Enabled", "false"));

        foreach (var path in new[] { "/docs", "/docs/index.html", "/docs/swagger-ui-bundle.js" })
        {
            await (await off.Http.GetAsync(path)).AssertProblemAsync(404, "not-found");
        }

        Assert.Equal(HttpStatusCode.OK, (await off.Http.GetAsync("/openapi.json")).StatusCode);
        Assert.Equal(HttpStatusCode.OK, (await app.Http.GetAsync("/docs")).StatusCode);
    }
}
