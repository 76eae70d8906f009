using TicketFunctions.Classification;
using TicketFunctions.Hosting.AspNetCore;

namespace TicketFunctions.Hosting;

/// <summary>How this host talks to models.</summary>
public static class ChatClients
{
    /// <summary>The protocol of OpenAI as the way to the model behind the classifier.</summary>
    public static IServiceCollection AddChatClients(this IServiceCollection services) =>
        services.AddSingleton<ChatClientFactory>((target, address) => new OpenAIChatClient(target, address));
}
