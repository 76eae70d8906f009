using System.Net;
using System.Text;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Triggers;

public sealed class AddressTests(TicketApp app) : IClassFixture<TicketApp>
{
    [Theory]
    [InlineData("GET", "/")]
    [InlineData("GET", "/CANARY")]
    [InlineData("POST", "/api/process-ticket")]
    [InlineData("POST", "/process-tickets")]
    [InlineData("POST", "/process-ticket/CANARY")]
    [InlineData("POST", "/process-ticket%2FCANARY")]
    [InlineData("POST", "/process-ticket%0d%0aCANARY:1")]
    [InlineData("GET", "/health")]
    [InlineData("GET", "/health/CANARY")]
    [InlineData("GET", "/../../etc/passwd")]
    [InlineData("POST", "/admin/functions/CANARY")]
    [InlineData("GET", "/host.json")]
    public async Task An_unknown_address_is_a_404_problem(string method, string path)
    {
        var response = await app.Http.SendAsync(new HttpRequestMessage(new HttpMethod(method), path));

        var problem = await response.AssertProblemAsync(404, "not-found");
        Assert.DoesNotContain("CANARY", problem.ToJsonString(), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("/process-ticket", "POST", "GET PUT PATCH DELETE OPTIONS TRACE PROPFIND HEAD")]
    [InlineData("/health/live", "GET, HEAD", "POST PUT PATCH DELETE OPTIONS")]
    [InlineData("/health/ready", "GET, HEAD", "POST PUT PATCH DELETE OPTIONS")]
    [InlineData("/backlog", "GET", "POST PUT PATCH DELETE OPTIONS")]
    [InlineData("/models", "GET", "POST PUT PATCH DELETE OPTIONS")]
    public async Task A_wrong_verb_is_405_and_Allow_names_the_right_one(string path, string allowed, string verbs)
    {
        foreach (var verb in verbs.Split(' '))
        {
            using var request = new HttpRequestMessage(new HttpMethod(verb), path);
            if (verb is not ("GET" or "HEAD" or "TRACE"))
            {
                request.Content = new StringContent("""{"id":"CANARY"}""", Encoding.UTF8, "application/json");
            }

            var response = await app.Http.SendAsync(request);

            Assert.Equal(HttpStatusCode.MethodNotAllowed, response.StatusCode);
            Assert.Equal(allowed.Split(", "), response.Content.Headers.Allow);
            if (verb != "HEAD")
            {
                await response.AssertProblemAsync(405, "method-not-allowed");
            }
        }

        Assert.Empty(app.Model.Calls);
    }
}
