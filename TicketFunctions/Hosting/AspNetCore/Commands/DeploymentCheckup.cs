using System.Globalization;
using System.Net;
using System.Net.Http.Headers;
using System.Security.Authentication;
using System.Text;
using System.Text.Json;
using TicketFunctions.Triggers;

namespace TicketFunctions.Hosting.AspNetCore.Commands;

/// <summary>Checks a service from outside, as a client meets it. The one ticket it asks for does not exist.</summary>
internal sealed class DeploymentCheckup(IServiceProvider services, Uri url, string? key, Report report)
{
    /// <summary>An app that has scaled to nothing needs so long to start.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(60);

    private readonly byte[] _body = Encoding.UTF8.GetBytes($$"""{"id":"{{Guid.NewGuid()}}"}""");

    public async Task RunAsync(CancellationToken cancellationToken)
    {
        // A proxy would not know this machine's own addresses, and would read the key on the way.
        using var http = new HttpClient(new HttpClientHandler { AllowAutoRedirect = false, UseProxy = !url.IsLoopback })
        {
            BaseAddress = new Uri(url.AbsoluteUri.TrimEnd('/') + "/"),
            Timeout = Patience,
        };
        if (url.Scheme == Uri.UriSchemeHttps || url.IsLoopback)
        {
            report(Verdict.Ok, "https", url.Scheme == Uri.UriSchemeHttps ? "Requests are encrypted." : "Not encrypted, and on this machine.");
        }
        else
        {
            report(Verdict.Fail, "https", "Keys and tickets travel in the clear; serve HTTPS (in Azure: HTTPS Only) and give --url so.");
        }

        if (!await CheckLiveAsync(http, cancellationToken))
        {
            foreach (var what in new[] { "ready", "no key", "key" })
            {
                report(Verdict.Skip, what, "skipped: the service cannot be reached.");
            }

            return;
        }

        await CheckReadyAsync(http, cancellationToken);
        await CheckWithoutKeyAsync(http, cancellationToken);
        await CheckWithKeyAsync(http, cancellationToken);
    }

    private async Task<bool> CheckLiveAsync(HttpClient http, CancellationToken cancellationToken)
    {
        const string What = "live";
        var time = services.GetRequiredService<TimeProvider>();
        DateTimeOffset? date = null;
        var sentAt = time.GetUtcNow();
        var isAlive = await SendAsync(http, new HttpRequestMessage(HttpMethod.Get, "health/live"), What, response =>
        {
            date = response.Headers.Date;
            var isAlive = response.StatusCode == HttpStatusCode.OK;
            report(
                isAlive ? Verdict.Ok : Verdict.Fail,
                What,
                isAlive ? $"{url.Authority} answers." : $"/health/live answered HTTP {(int)response.StatusCode}, not 200; check --url, and that the app is deployed with an empty route prefix.");
            return isAlive;
        }, cancellationToken);
        if (isAlive && date is { } theirs)
        {
            // The header has whole seconds, and an app that had to start answers late: half of each is in doubt.
            ClockCheck.Report(report, "service's clock", theirs + TimeSpan.FromSeconds(0.5), sentAt, time.GetUtcNow());
        }

        return isAlive;
    }

    private Task<bool> CheckReadyAsync(HttpClient http, CancellationToken cancellationToken) =>
        SendAsync(http, new HttpRequestMessage(HttpMethod.Get, "health/ready"), "ready", response =>
        {
            var isReady = response.StatusCode == HttpStatusCode.OK;
            report(
                isReady ? Verdict.Ok : Verdict.Fail,
                "ready",
                isReady ? "Its database takes writes."
                    : $"/health/ready answered HTTP {(int)response.StatusCode}: its database takes no writes, or lacks migrations or grants. Run `doctor` with its ConnectionStrings__Tickets.");
            return isReady;
        }, cancellationToken);

    private Task<bool> CheckWithoutKeyAsync(HttpClient http, CancellationToken cancellationToken) =>
        SendAsync(http, Post(), "no key", response =>
        {
            var isRefused = response.StatusCode == HttpStatusCode.Unauthorized;
            report(
                isRefused ? Verdict.Ok : url.IsLoopback ? Verdict.Warn : Verdict.Fail,
                "no key",
                isRefused ? "POST /process-ticket without a key is refused (HTTP 401)."
                    : $"POST /process-ticket without a key answered HTTP {(int)response.StatusCode}, not 401: anybody may spend your model's money. Set Keys__Function; in Azure keep AuthorizationLevel Function.");
            return isRefused;
        }, cancellationToken);

    private async Task CheckWithKeyAsync(HttpClient http, CancellationToken cancellationToken)
    {
        const string What = "key";
        if (string.IsNullOrWhiteSpace(key))
        {
            report(Verdict.Skip, What, "skipped: give the function key with --key.");
            return;
        }

        if (url.Scheme != Uri.UriSchemeHttps && !url.IsLoopback)
        {
            report(Verdict.Skip, What, "skipped: the key is not sent unencrypted.");
            return;
        }

        if (!Ascii.IsValid(key) || key.Any(char.IsControl))
        {
            report(Verdict.Fail, What, "The key has characters that no header carries; make it of ASCII letters and digits.");
            return;
        }

        var request = Post();
        request.Headers.TryAddWithoutValidation("x-functions-key", key);
        var signature = services.GetRequiredService<WebhookSignatures>().Sign(_body);
        foreach (var (name, value) in signature)
        {
            request.Headers.Add(name, value);
        }

        await SendAsync(http, request, What, response =>
        {
            // The host in Azure answers 404 of its own, without a problem, where nothing is deployed.
            var isTaken = response.StatusCode == HttpStatusCode.NotFound && response.Content.Headers.ContentType?.MediaType == "application/problem+json";
            report(
                isTaken ? Verdict.Ok : Verdict.Fail,
                What,
                isTaken ? "With the key a ticket that does not exist is looked for, and not found (HTTP 404)."
                    : response.StatusCode == HttpStatusCode.Unauthorized
                        ? "POST /process-ticket with the key answered HTTP 401: another key is wanted, or "
                            + (signature.Count > 0 ? "its Webhooks__Secret is not the one set here." : "a signature; set Webhooks__Secret here as the service has it.")
                    : $"POST /process-ticket with the key answered HTTP {(int)response.StatusCode}, not 404 ticket-not-found; its log says why.");
            return isTaken;
        }, cancellationToken);
    }

    private HttpRequestMessage Post() => new(HttpMethod.Post, "process-ticket")
    {
        Content = new ByteArrayContent(_body) { Headers = { ContentType = new MediaTypeHeaderValue("application/json") } },
    };

    private async Task<bool> SendAsync(HttpClient http, HttpRequestMessage request, string what, Func<HttpResponseMessage, bool> judge, CancellationToken cancellationToken)
    {
        using (request)
        {
            try
            {
                using var response = await http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, cancellationToken);
                return judge(response);
            }
            catch (HttpRequestException e)
            {
                report(Verdict.Fail, what, e.InnerException is AuthenticationException refused
                    ? $"{url.Authority} serves no HTTPS that this machine trusts; check --url, and its certificate. {refused.Message}"
                    : $"{url.Authority} cannot be reached ({e.HttpRequestError}); check --url, and that the app runs.");
            }
            catch (OperationCanceledException) when (!cancellationToken.IsCancellationRequested)
            {
                report(Verdict.Fail, what, string.Create(CultureInfo.InvariantCulture, $"{url.Authority} did not answer within {Patience.TotalSeconds:0} s; look at the app's log."));
            }

            return false;
        }
    }
}

/// <summary>Compares a clock with ours.</summary>
internal static class ClockCheck
{
    private static readonly TimeSpan Good = TimeSpan.FromSeconds(30);

    /// <summary>Signatures with another time are refused.</summary>
    private static readonly TimeSpan Bearable = TimeSpan.FromMinutes(5);

    /// <param name="report">Gets the verdict.</param>
    /// <param name="whose">Whose clock it is.</param>
    /// <param name="read">What it said.</param>
    /// <param name="askedAt">When it was asked, by ours.</param>
    /// <param name="answeredAt">When the answer was here.</param>
    public static void Report(Report report, string whose, DateTimeOffset read, DateTimeOffset askedAt, DateTimeOffset answeredAt)
    {
        // Only what the wait for the answer does not explain.
        var off = read > answeredAt ? read - answeredAt : read < askedAt ? askedAt - read : TimeSpan.Zero;
        var seconds = off.TotalSeconds.ToString("0.0", CultureInfo.InvariantCulture);
        if (off > Bearable)
        {
            report(Verdict.Fail, "clock", $"The {whose} is {seconds} s from this machine's: signatures are refused beyond five minutes. Set both by NTP.");
        }
        else if (off > Good)
        {
            report(Verdict.Warn, "clock", $"The {whose} is {seconds} s from this machine's; beyond five minutes signatures are refused. Set both by NTP.");
        }
        else
        {
            report(Verdict.Ok, "clock", $"The {whose} agrees with this machine's within {Math.Ceiling(Math.Max(off.TotalSeconds, 1)).ToString(CultureInfo.InvariantCulture)} s.");
        }
    }
}
