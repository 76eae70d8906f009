using Microsoft.Extensions.AI;
using Microsoft.SemanticKernel;
using OpenAI;
using TicketFunctions.Classification;

namespace TicketFunctions.Hosting.AzureFunctions;

/// <summary>Semantic Kernel as the model behind the classifier.</summary>
internal static class KernelChatClient
{
    public static IServiceCollection AddKernelChatClient(this IServiceCollection services) =>
        services.AddSingleton<ChatClientFactory>(Create);

    /// <summary>The kernel owns the connector and hands out its chat client.</summary>
    private static IChatClient Create(OpenAIClient client, string model)
    {
        var builder = Kernel.CreateBuilder();
        builder.AddOpenAIChatClient(model, client);
        return builder.Build().GetRequiredService<IChatClient>();
    }
}
