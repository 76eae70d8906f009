using Microsoft.OpenApi;

namespace TicketFunctions.Triggers;

// What the framework's own attributes (ProducesResponseType, EndpointSummary, EndpointDescription, Tags) cannot say of a function.

/// <summary>The problems a function may answer, by the names of their makers in <see cref="Problem"/>. What its level asks for need not be named.</summary>
[AttributeUsage(AttributeTargets.Method)]
public sealed class ProducesProblemAttribute(params string[] makers) : Attribute
{
    public IReadOnlyList<string> Makers => makers;
}

/// <summary>A header of the answers with one status.</summary>
[AttributeUsage(AttributeTargets.Method, AllowMultiple = true)]
public sealed class ProducesHeaderAttribute(int statusCode, string name, string description) : Attribute
{
    public int StatusCode => statusCode;

    public string Name => name;

    public string Description => description;
}

/// <summary>A JSON body that a function takes; with several of them it takes any one.</summary>
[AttributeUsage(AttributeTargets.Method, AllowMultiple = true)]
public sealed class ApiBodyAttribute(Type type) : Attribute
{
    public Type Type => type;
}

/// <summary>What a function reads besides the body.</summary>
[AttributeUsage(AttributeTargets.Method, AllowMultiple = true)]
public sealed class ApiParameterAttribute(ParameterLocation location, string name, string description) : Attribute
{
    public ParameterLocation Location => location;

    public string Name => name;

    public string Description => description;

    public Type Type { get; set; } = typeof(string);

    public string? Example { get; set; }

    /// <summary>Whether it is part of a signature, which is required where the operator has set a secret.</summary>
    public bool IsSignature { get; set; }
}
