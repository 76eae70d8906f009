using System.Reflection;
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
            services.AddSingleton(type);
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
            var run = Bind(function.Method, app.Services);
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

    /// <summary>
    /// Functions take the request, those that wait also the token of its abort, and keep no state: nothing is looked up for a request.
    /// What a function needs is set up when it is called for the first time.
    /// </summary>
    private static RequestDelegate Bind(MethodInfo method, IServiceProvider services)
    {
        object Create() => services.GetRequiredService(method.DeclaringType!);
        if (method.ReturnType == typeof(IResult))
        {
            var run = new Lazy<Func<HttpRequest, IResult>>(
                () => method.CreateDelegate<Func<HttpRequest, IResult>>(Create()), LazyThreadSafetyMode.PublicationOnly);
            return context => run.Value(context.Request).ExecuteAsync(context);
        }

        var runAsync = new Lazy<Func<HttpRequest, CancellationToken, Task<IResult>>>(
            () => method.CreateDelegate<Func<HttpRequest, CancellationToken, Task<IResult>>>(Create()), LazyThreadSafetyMode.PublicationOnly);
        return async context =>
        {
            var result = await runAsync.Value(context.Request, context.RequestAborted);
            await result.ExecuteAsync(context);
        };
    }
}
