using TicketFunctions.Classification;
using TicketFunctions.Hosting.AzureFunctions;

namespace TicketFunctions.Hosting;

/// <summary>How this host talks to models.</summary>
public static class ChatClients
{
    /// <summary>Semantic Kernel as the model behind the classifier. The kernel's filters are the ones registered in these services.</summary>
    public static IServiceCollection AddChatClients(this IServiceCollection services) =>
        services.AddSingleton<ChatClientFactory>(provider => (target, address) =>
            new KernelChatClient(ModelConnection.Open(target, address), target.Name, provider));
}
