using System.Reflection;
using System.Text.Json;
using Microsoft.Azure.Functions.Worker;
using NCrontab;

namespace TicketFunctions.Triggers;

/// <summary>A function, and the parameter that says what starts it.</summary>
/// <remarks>No tuple: what the framework's queries need for one is compiled at every start.</remarks>
public sealed record TriggerFunction(string Name, MethodInfo Method, ParameterInfo Trigger);

/// <summary>A function that answers HTTP requests, as its attributes say.</summary>
/// <param name="Name">The function's name.</param>
/// <param name="Method">What runs.</param>
/// <param name="Path">Its address, with a leading slash; parameters stand in braces.</param>
/// <param name="Verbs">The HTTP methods in capitals; none stands for all.</param>
/// <param name="Level">What a caller must prove.</param>
public sealed record HttpFunction(string Name, MethodInfo Method, string Path, IReadOnlyList<string> Verbs, AuthorizationLevel Level);

/// <summary>A function that runs on a schedule.</summary>
public sealed record TimerFunction(string Name, MethodInfo Method, CrontabSchedule Schedule);

/// <summary>Reads the functions of this assembly from their attributes.</summary>
public static class TriggerFunctions
{
    private static readonly MethodInfo[] All =
    [
        .. from type in typeof(TriggerFunctions).Assembly.GetExportedTypes()
           where type is { IsClass: true, IsSealed: true, IsAbstract: false }
           from method in type.GetMethods(BindingFlags.Public | BindingFlags.Instance | BindingFlags.DeclaredOnly)
           where method.IsDefined(typeof(FunctionAttribute))
           select method,
    ];

    /// <summary>The functions with a parameter that carries <typeparamref name="TTrigger"/>.</summary>
    public static IEnumerable<TriggerFunction> Find<TTrigger>()
        where TTrigger : Attribute =>
        from method in All
        from parameter in method.GetParameters()
        where parameter.IsDefined(typeof(TTrigger))
        select new TriggerFunction(method.GetCustomAttribute<FunctionAttribute>()!.Name, method, parameter);

    public static IEnumerable<HttpFunction> FindHttp()
    {
        var prefix = ReadRoutePrefix();
        foreach (var (name, method, parameter) in Find<HttpTriggerAttribute>())
        {
            var trigger = parameter.GetCustomAttribute<HttpTriggerAttribute>()!;
            // What administrates the host stands beside the functions, not among them.
            var path = $"{(trigger.AuthLevel == AuthorizationLevel.Admin ? "" : prefix)}/{trigger.Route ?? name}";
            yield return new HttpFunction(name, method, path, [.. (trigger.Methods ?? []).Select(verb => verb.ToUpperInvariant())], trigger.AuthLevel);
        }
    }

    /// <exception cref="FormatException">A schedule cannot be read or never comes; the message says how to mend it.</exception>
    public static IEnumerable<TimerFunction> FindTimers(IConfiguration configuration)
    {
        foreach (var (name, method, parameter) in Find<TimerTriggerAttribute>())
        {
            var schedule = parameter.GetCustomAttribute<TimerTriggerAttribute>()!.Schedule;
            var source = $"The schedule of {name}";
            if (schedule.StartsWith('%') && schedule.EndsWith('%'))
            {
                source = schedule.Trim('%');
                schedule = configuration[source] ?? "";
            }

            var crontab = CrontabSchedule.TryParse(schedule, new CrontabSchedule.ParseOptions { IncludingSeconds = true });
            if (crontab is null || crontab.GetNextOccurrence(DateTime.UnixEpoch) == DateTime.MaxValue)
            {
                throw new FormatException(
                    $"{source} {(crontab is null ? "cannot be read" : "never comes")}; write six fields, second minute hour day month weekday, like `0 */5 * * * *`.");
            }

            yield return new TimerFunction(name, method, crontab);
        }
    }

    /// <summary>The prefix of all routes, from the same host.json that the Functions host reads; its default is <c>api</c>.</summary>
    public static string ReadRoutePrefix()
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
