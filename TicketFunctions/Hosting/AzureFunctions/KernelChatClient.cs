using Microsoft.Extensions.AI;
using Microsoft.Extensions.Options;
using Microsoft.SemanticKernel;
using TicketFunctions.Classification;

namespace TicketFunctions.Hosting.AzureFunctions;

/// <summary>Semantic Kernel as the model behind the classifier.</summary>
internal static class KernelChatClient
{
    /// <summary>One kernel for the process; it owns the connector and hands out its chat client.</summary>
    public static IServiceCollection AddKernelChatClient(this IServiceCollection services)
    {
        services.AddSingleton(provider => Build(provider.GetRequiredService<IOptions<ModelOptions>>().Value));
        return services.AddSingleton(provider => provider.GetRequiredService<Kernel>().GetRequiredService<IChatClient>());
    }

    private static Kernel Build(ModelOptions options)
    {
        var builder = Kernel.CreateBuilder();

        // Given an HttpClient, the connector neither retries nor times out: attempts and time are the classifier's.
        var http = new HttpClient { Timeout = Timeout.InfiniteTimeSpan };
        if (options.EndpointUri is { } endpoint)
        {
            // Local servers take any key, but the SDK wants one.
            builder.AddOpenAIChatClient(options.Name!, endpoint, string.IsNullOrWhiteSpace(options.ApiKey) ? "none" : options.ApiKey, httpClient: http);
        }
        else
        {
            builder.AddOpenAIChatClient(options.Name!, options.ApiKey!, httpClient: http);
        }

        return builder.Build();
    }
}
