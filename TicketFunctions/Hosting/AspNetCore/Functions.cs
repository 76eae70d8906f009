using System.Reflection;
using System.Text.Json;
using Microsoft.AspNetCore.Routing;
using Microsoft.Azure.Functions.Worker;
using TicketFunctions.Triggers;

namespace TicketFunctions.Hosting.AspNetCore;

/// <summary>Reads the functions of this assembly from their attributes, and serves those with an HTTP trigger as the Functions host does.</summary>
public static class Functions
{
    /// <summary>The functions with a parameter that carries <typeparamref name="TTrigger"/>.</summary>
    public static IEnumerable<(string Name, MethodInfo Method, ParameterInfo Trigger)> Find<TTrigger>()
        where TTrigger : Attribute =>
        from type in typeof(Functions).Assembly.GetTypes()
        from method in type.GetMethods(BindingFlags.Public | BindingFlags.Instance | BindingFlags.DeclaredOnly)
        let function = method.GetCustomAttribute<FunctionAttribute>()
        where function is not null
        from parameter in method.GetParameters()
        where parameter.IsDefined(typeof(TTrigger))
        select (function.Name, method, parameter);

    public static void AddFunctions(this IServiceCollection services)
    {
        foreach (var type in Find<HttpTriggerAttribute>().Concat(Find<TimerTriggerAttribute>()).Select(function => function.Method.DeclaringType!).Distinct())
        {
            services.AddTransient(type);
        }

        services.AddSingleton<FunctionKeys>();
        services.AddSingleton<TimerFunctions>();
        services.AddHostedService(provider => provider.GetRequiredService<TimerFunctions>());
    }

    public static void MapFunctions(this WebApplication app)
    {
        var prefix = ReadRoutePrefix();
        var keys = app.Services.GetRequiredService<FunctionKeys>();
        foreach (var (name, method, parameter) in Find<HttpTriggerAttribute>())
        {
            var trigger = parameter.GetCustomAttribute<HttpTriggerAttribute>()!;
            var run = RequestDelegateFactory.Create(
                method, context => context.RequestServices.GetRequiredService(method.DeclaringType!)).RequestDelegate;
            var route = $"{prefix}/{trigger.Route ?? name}";
            if (trigger.Methods is { Length: > 0 } methods)
            {
                app.MapMethods(route, methods.Select(verb => verb.ToUpperInvariant()), Guarded(run, trigger.AuthLevel));
            }
            else
            {
                app.Map(route, Guarded(run, trigger.AuthLevel));
            }
        }

        // As the Functions host does: https://learn.microsoft.com/azure/azure-functions/functions-manually-run-non-http
        var timers = app.Services.GetRequiredService<TimerFunctions>();
        app.MapPost("/admin/functions/{name}", Guarded(
            context => (timers.TryStart((string)context.Request.RouteValues["name"]!)
                ? Results.Accepted()
                : Problem.NotFound()).ExecuteAsync(context),
            AuthorizationLevel.Admin));

        RequestDelegate Guarded(RequestDelegate run, AuthorizationLevel level) => context =>
            keys.Allows(context.Request, level) ? run(context) : Problem.Unauthorized().ExecuteAsync(context);
    }

    /// <summary>The prefix of all routes, from the same host.json that the Functions host reads; its default is <c>api</c>.</summary>
    internal static string ReadRoutePrefix()
    {
        using var hostJson = JsonDocument.Parse(
            File.ReadAllBytes(Path.Combine(AppContext.BaseDirectory, "host.json")),
            new JsonDocumentOptions { CommentHandling = JsonCommentHandling.Skip });
        var prefix = hostJson.RootElement.TryGetProperty("extensions", out var extensions)
            && extensions.TryGetProperty("http", out var http)
            && http.TryGetProperty("routePrefix", out var value)
                ? value.GetString()!
                : "api";
        return prefix.Length == 0 ? "" : "/" + prefix.Trim('/');
    }
}
