using Microsoft.Azure.Functions.Worker;
using TicketFunctions.Triggers;

namespace TicketFunctions.Hosting.AspNetCore;

/// <summary>Serves the functions with an HTTP trigger as the Functions host does.</summary>
public static class Functions
{
    public static void AddFunctions(this IServiceCollection services)
    {
        foreach (var type in TriggerFunctions.Find<HttpTriggerAttribute>().Concat(TriggerFunctions.Find<TimerTriggerAttribute>())
            .Select(function => function.Method.DeclaringType!).Distinct())
        {
            services.AddTransient(type);
        }

        services.AddSingleton<FunctionKeys>();
        services.AddSingleton<TimerFunctions>();
        services.AddHostedService(provider => provider.GetRequiredService<TimerFunctions>());
    }

    public static void MapFunctions(this WebApplication app)
    {
        var keys = app.Services.GetRequiredService<FunctionKeys>();
        foreach (var function in TriggerFunctions.FindHttp())
        {
            var run = RequestDelegateFactory.Create(
                function.Method, context => context.RequestServices.GetRequiredService(function.Method.DeclaringType!)).RequestDelegate;
            RequestDelegate guarded = context =>
                keys.Allows(context.Request, function.Level) ? run(context) : Problem.Unauthorized().ExecuteAsync(context);
            if (function.Verbs.Count > 0)
            {
                app.MapMethods(function.Path, function.Verbs, guarded);
            }
            else
            {
                app.Map(function.Path, guarded);
            }
        }
    }
}
