using System.ComponentModel.DataAnnotations;

namespace TicketFunctions.Classification;

/// <summary>The section <c>Model</c>: what stands behind the classifier. When none of its members is set, the embedded baseline does.</summary>
public sealed class ModelOptions
{
    /// <summary><c>openai</c>, <c>compatible</c> or <c>baseline</c>; by default what the other members say.</summary>
    public string? Provider { get; set; }

    /// <summary>The address of an OpenAI-compatible server, to which <c>/chat/completions</c> is appended; without a path <c>/v1</c> is assumed.</summary>
    public string? Endpoint { get; set; }

    /// <summary>The model's name as the server knows it.</summary>
    public string? Name { get; set; }

    /// <summary>The bearer token; local servers take any.</summary>
    public string? ApiKey { get; set; }

    /// <summary>The longest one call may take: 10 s, or as long as all calls where that is less.</summary>
    [Range(typeof(TimeSpan), "00:00:00.1", "00:03:00", ErrorMessage = "Model__AttemptTimeout must be between 00:00:00.1 and 00:03:00.")]
    public TimeSpan? AttemptTimeout { get; set; }

    /// <summary>The longest all calls of one attempt at a ticket may take: 25 s, or four fifths of the lease where that is less.</summary>
    [Range(typeof(TimeSpan), "00:00:00.1", "00:03:30", ErrorMessage = "Model__TotalTimeout must be between 00:00:00.1 and 00:03:30.")]
    public TimeSpan? TotalTimeout { get; set; }

    /// <summary>Fills in the time-outs nobody set.</summary>
    internal void ApplyDefaults(TimeSpan lease)
    {
        TotalTimeout ??= Min(TimeSpan.FromSeconds(25), lease * 0.8);
        AttemptTimeout ??= Min(TimeSpan.FromSeconds(10), TotalTimeout.Value);

        static TimeSpan Min(TimeSpan left, TimeSpan right) => left < right ? left : right;
    }

    internal string EffectiveProvider => !string.IsNullOrWhiteSpace(Provider)
        ? Provider.Trim().ToLowerInvariant()
        : !string.IsNullOrWhiteSpace(Endpoint) ? "compatible"
        : !string.IsNullOrWhiteSpace(Name) || !string.IsNullOrWhiteSpace(ApiKey) ? "openai"
        : "baseline";

    internal Uri? EndpointUri
    {
        get
        {
            if (string.IsNullOrWhiteSpace(Endpoint))
            {
                return null;
            }

            var uri = new Uri(Endpoint.Trim(), UriKind.Absolute);
            return uri.AbsolutePath == "/" ? new Uri(uri, "v1") : uri;
        }
    }

    /// <summary>What is wrong with the section as a whole, each sentence with the way to mend it.</summary>
    internal IEnumerable<string> FindErrors()
    {
        if (!string.IsNullOrWhiteSpace(Endpoint)
            && !(Uri.TryCreate(Endpoint.Trim(), UriKind.Absolute, out var uri) && uri.Scheme is "http" or "https"))
        {
            yield return "Model__Endpoint is not an http or https address; write it like http://localhost:11434/v1.";
        }
        else if (EndpointUri is { } endpoint && (endpoint.UserInfo.Length > 0 || endpoint.Query.Length > 0))
        {
            yield return "Model__Endpoint carries a user or a query; write the bare address, and the key in Model__ApiKey.";
        }

        if (ApiKey?.Any(c => c is < '!' or > '~') == true)
        {
            yield return "Model__ApiKey holds a blank, a line break or a character that no header can carry; copy the key again.";
        }

        switch (EffectiveProvider)
        {
            case "baseline":
                break;
            case "openai" or "compatible":
                if (string.IsNullOrWhiteSpace(Name))
                {
                    yield return "Model__Name is missing; name the model, for instance Model__Name=gpt-4o-mini.";
                }

                if (EffectiveProvider == "openai" && string.IsNullOrWhiteSpace(ApiKey))
                {
                    yield return "Model__ApiKey is missing; set it to the provider's key, or set Model__Endpoint to a server that needs none.";
                }

                if (EffectiveProvider == "compatible" && string.IsNullOrWhiteSpace(Endpoint))
                {
                    yield return "Model__Endpoint is missing; set it to the server's address, for instance http://localhost:11434/v1.";
                }

                break;
            default:
                yield return $"Model__Provider is '{Provider}'; it must be openai, compatible or baseline.";
                break;
        }

        if (AttemptTimeout > TotalTimeout)
        {
            yield return $"Model__AttemptTimeout ({AttemptTimeout}) is longer than Model__TotalTimeout ({TotalTimeout}); make it at most as long.";
        }
    }
}
