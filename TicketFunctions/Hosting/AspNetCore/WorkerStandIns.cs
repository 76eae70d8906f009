// Stand-ins for the types that the triggers use of the Azure Functions worker, so that the default build needs none of its
// packages. Names, namespaces, constructors and properties are those of the real ones:
// https://github.com/Azure/azure-functions-dotnet-worker
namespace Microsoft.Azure.Functions.Worker;

/// <summary>Names a function.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class FunctionAttribute(string name) : Attribute
{
    public string Name { get; } = name;
}

/// <summary>What a caller must prove; the numbers are those of the Functions host.</summary>
public enum AuthorizationLevel
{
    Anonymous = 0,
    User = 1,
    Function = 2,
    System = 3,
    Admin = 4,
}

/// <summary>Makes a function answer HTTP requests.</summary>
[AttributeUsage(AttributeTargets.Parameter)]
public sealed class HttpTriggerAttribute(AuthorizationLevel authLevel, params string[] methods) : Attribute
{
    public HttpTriggerAttribute()
        : this(AuthorizationLevel.Function)
    {
    }

    public HttpTriggerAttribute(AuthorizationLevel authLevel)
        : this(authLevel, [])
    {
    }

    /// <summary>As in the real one, naming only methods makes the function anonymous.</summary>
    public HttpTriggerAttribute(params string[] methods)
        : this(AuthorizationLevel.Anonymous, methods)
    {
    }

    public string? Route { get; set; }

    public string[]? Methods { get; } = methods;

    public AuthorizationLevel AuthLevel { get; } = authLevel;
}

/// <summary>Makes a function run on a schedule: six-field NCRONTAB in UTC, or <c>%Setting%</c>.</summary>
[AttributeUsage(AttributeTargets.Parameter)]
public sealed class TimerTriggerAttribute(string schedule) : Attribute
{
    public string Schedule { get; } = schedule;

    public bool RunOnStartup { get; set; }

    public bool UseMonitor { get; set; } = true;
}

/// <summary>What a timer function is told about its run.</summary>
public sealed class TimerInfo
{
    public ScheduleStatus? ScheduleStatus { get; set; }

    public bool IsPastDue { get; set; }
}

/// <summary>The runs before and after this one, in UTC.</summary>
public sealed class ScheduleStatus
{
    public DateTime Last { get; set; }

    public DateTime Next { get; set; }

    public DateTime LastUpdated { get; set; }
}
