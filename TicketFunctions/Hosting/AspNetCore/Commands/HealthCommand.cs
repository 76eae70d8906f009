using System.CommandLine;
using System.Net;
using TicketFunctions.Triggers;

namespace TicketFunctions.Hosting.AspNetCore.Commands;

/// <summary><c>health</c>: what a container asks itself, where there is no shell and no curl.</summary>
internal static class HealthCommand
{
    private static readonly TimeSpan Timeout = TimeSpan.FromSeconds(4);

    public static Command Create()
    {
        var command = new Command("health", "Ask the service that runs on this machine, by the address in the settings, whether it is ready. Exit code 0 if it is, else 1.");
        command.SetAction((_, cancellationToken) => CommandLine.Guarded(RunAsync, cancellationToken));
        return command;
    }

    private static async Task<int> RunAsync(CancellationToken cancellationToken)
    {
        var configuration = new ConfigurationManager();
        ((IConfigurationBuilder)configuration).AddEnvironmentVariables("ASPNETCORE_").AddEnvironmentVariables();
        configuration.AddLocalSettings();
        var ready = FindReadyAddress(FunctionKeys.FindAddresses(configuration).FirstOrDefault() ?? PlainHost.DefaultUrl);
        using var http = new HttpClient { Timeout = Timeout };
        string state;
        try
        {
            using var answer = await http.GetAsync(ready, cancellationToken);
            state = answer.StatusCode switch
            {
                HttpStatusCode.OK => "ready",
                HttpStatusCode.ServiceUnavailable => "not ready: the database takes no writes, or its migrations were not applied",
                var other => $"not ready: HTTP {(int)other}",
            };
        }
        catch (Exception e) when (e is HttpRequestException || (e is OperationCanceledException && !cancellationToken.IsCancellationRequested))
        {
            state = "does not answer";
        }

        Console.WriteLine($"{ready.Authority}: {state}");
        return state == "ready" ? CommandLine.Success : CommandLine.Failure;
    }

    /// <exception cref="FormatException">It is not an address.</exception>
    private static Uri FindReadyAddress(string address)
    {
        var listens = FunctionKeys.Parse(address);
        var any = listens.Host is "*" or "+" || (IPAddress.TryParse(listens.Host.Trim('[', ']'), out var ip) && (ip.Equals(IPAddress.Any) || ip.Equals(IPAddress.IPv6Any)));
        return new UriBuilder(listens.Scheme, any ? "localhost" : listens.Host, listens.Port, $"{listens.PathBase}{TriggerFunctions.ReadRoutePrefix()}/health/ready").Uri;
    }
}
