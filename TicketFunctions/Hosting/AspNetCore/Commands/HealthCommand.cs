using System.CommandLine;
using System.Net;
using System.Net.Sockets;
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
        var listens = FunctionKeys.Parse(FunctionKeys.FindAddresses(configuration).FirstOrDefault() ?? PlainHost.DefaultUrl);
        var ready = FindReadyAddress(listens);
        using var http = new HttpClient(CreateHandler(listens)) { Timeout = Timeout };
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

        Console.WriteLine($"{(listens.IsUnixPipe ? listens.UnixPipePath : ready.Authority)}: {state}");
        return state == "ready" ? CommandLine.Success : CommandLine.Failure;
    }

    /// <summary>It is on this machine: no proxy knows it.</summary>
    private static SocketsHttpHandler CreateHandler(BindingAddress listens)
    {
        var handler = new SocketsHttpHandler { UseProxy = false };
        if (listens.IsUnixPipe)
        {
            handler.ConnectCallback = async (_, cancellationToken) =>
            {
                var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
                try
                {
                    await socket.ConnectAsync(new UnixDomainSocketEndPoint(listens.UnixPipePath), cancellationToken);
                    return new NetworkStream(socket, ownsSocket: true);
                }
                catch
                {
                    socket.Dispose();
                    throw;
                }
            };
        }

        return handler;
    }

    private static Uri FindReadyAddress(BindingAddress listens)
    {
        var isAny = listens.IsUnixPipe || listens.Host is "*" or "+"
            || (IPAddress.TryParse(listens.Host.Trim('[', ']'), out var ip) && (ip.Equals(IPAddress.Any) || ip.Equals(IPAddress.IPv6Any)));
        return new UriBuilder(listens.Scheme, isAny ? "localhost" : listens.Host, listens.Port, $"{TriggerFunctions.ReadRoutePrefix()}/health/ready").Uri;
    }
}
