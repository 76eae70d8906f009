using TicketFunctions.Classification;
using TicketFunctions.Hosting.AspNetCore;

namespace TicketFunctions.Hosting;

/// <summary>How this host talks to models.</summary>
public static class ChatClients
{
    /// <summary>The OpenAI SDK as the model behind the classifier.</summary>
    public static IServiceCollection AddChatClients(this IServiceCollection services) =>
        services.AddSingleton<ChatClientFactory>((client, model) => new OpenAIChatClient(client.GetChatClient(model)));
}
