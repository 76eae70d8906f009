using System.ComponentModel.DataAnnotations;

namespace TicketFunctions.Classification;

/// <summary>How the model is made to answer in JSON.</summary>
public enum OutputMode
{
    /// <summary>The provider holds the model to a JSON schema.</summary>
    Schema,

    /// <summary>The provider holds the model to JSON of any shape.</summary>
    Json,

    /// <summary>Only the prompt asks for JSON.</summary>
    Prompt,
}

/// <summary>What the confidence of a decision is taken from.</summary>
public enum ConfidenceEvidence
{
    /// <summary>The probabilities of the label's tokens, where the provider gives them.</summary>
    Logprobs,

    /// <summary>A second answer to the same question: it costs a second call.</summary>
    Samples,

    /// <summary>Nothing: the confidence stays null.</summary>
    None,
}

/// <summary>One model: who serves it, where, by what name and at what price.</summary>
public class ModelTargetOptions
{
    /// <summary><c>openai</c>, <c>azure-openai</c>, <c>huggingface</c>, <c>ollama</c>, <c>compatible</c> or <c>baseline</c>; by default what the other members say.</summary>
    public string? Provider { get; set; }

    /// <summary>The server's address; several, separated by commas, serve the same model and share the work.</summary>
    public string? Endpoint { get; set; }

    /// <summary>The model's name as the server knows it; with Azure the deployment's.</summary>
    public string? Name { get; set; }

    /// <summary>The provider's key. Local servers need none; without one Azure is asked by the managed identity.</summary>
    public string? ApiKey { get; set; }

    /// <summary>How answers are made JSON; by default the most the provider turns out to take.</summary>
    public OutputMode? Output { get; set; }

    /// <summary>The longest answer. Two labels are about 20 tokens; models that think before they answer need many more.</summary>
    [Range(16, 32_768, ErrorMessage = "Model__MaxOutputTokens must be between 16 and 32768.")]
    public int? MaxOutputTokens { get; set; }

    /// <summary>The longest answer where <see cref="MaxOutputTokens"/> is not set.</summary>
    internal int DefaultMaxOutputTokens { get; set; } = 64;

    /// <summary>The price of a million tokens read, in any currency.</summary>
    [Range(0.0, 1_000_000.0, ErrorMessage = "Model__InputPricePerMillion must be between 0 and 1000000.")]
    public decimal? InputPricePerMillion { get; set; }

    /// <summary>The price of a million tokens written, in the same currency.</summary>
    [Range(0.0, 1_000_000.0, ErrorMessage = "Model__OutputPricePerMillion must be between 0 and 1000000.")]
    public decimal? OutputPricePerMillion { get; set; }
}

/// <summary>The section <c>Model</c>: what stands behind the classifier. When none of its members is set, the embedded baseline does.</summary>
public sealed class ModelOptions : ModelTargetOptions
{
    /// <summary>How to get a model, where nobody chose the baseline.</summary>
    private string _hint = "";

    /// <summary>The models asked when the one before gave no labels, in this order.</summary>
    public List<ModelTargetOptions> Fallbacks { get; set; } = [];

    /// <summary>The longest one call may take: 10 s, or as long as all calls where that is less.</summary>
    [Range(typeof(TimeSpan), "00:00:00.1", "00:03:00", ErrorMessage = "Model__AttemptTimeout must be between 00:00:00.1 and 00:03:00.")]
    public TimeSpan? AttemptTimeout { get; set; }

    /// <summary>The longest all calls of one attempt at a ticket may take: 25 s, or four fifths of the lease where that is less.</summary>
    [Range(typeof(TimeSpan), "00:00:00.1", "00:03:30", ErrorMessage = "Model__TotalTimeout must be between 00:00:00.1 and 00:03:30.")]
    public TimeSpan? TotalTimeout { get; set; }

    /// <summary>How often one question is sent again after a passing fault.</summary>
    [Range(0, 5, ErrorMessage = "Model__MaxRetries must be between 0 and 5.")]
    public int MaxRetries { get; set; } = 2;

    /// <summary>How long an address that keeps failing is left alone; zero to go on calling it.</summary>
    [Range(typeof(TimeSpan), "00:00:00", "01:00:00", ErrorMessage = "Model__BreakDuration must be between 00:00:00 and 01:00:00.")]
    public TimeSpan BreakDuration { get; set; } = TimeSpan.FromSeconds(15);

    /// <summary>The most calls at once at one address; fewer after it said 429.</summary>
    [Range(1, 10_000, ErrorMessage = "Model__MaxConcurrency must be between 1 and 10000.")]
    public int MaxConcurrency { get; set; } = 1000;

    /// <summary>Label by the embedded baseline while no model can be reached.</summary>
    public bool BaselineStandsIn { get; set; }

    /// <summary>Put [email], [phone] and the like in their place before a model reads the text.</summary>
    public bool MaskPersonalData { get; set; }

    /// <summary>What the confidence of a decision is taken from; by default log-probabilities where the provider is known to give them.</summary>
    public ConfidenceEvidence? Confidence { get; set; }

    /// <summary>A decision with less confidence asks for a review; by default none does.</summary>
    [Range(0.0, 1.0, ErrorMessage = "Model__ReviewBelow must be between 0 and 1.")]
    public float? ReviewBelow { get; set; }

    /// <summary>Tokens read and written in one UTC day, after which tickets wait for the next.</summary>
    [Range(1, long.MaxValue, ErrorMessage = "Model__TokensPerDay must be at least 1.")]
    public long? TokensPerDay { get; set; }

    /// <summary>Money spent in one UTC day, in the currency of the prices, after which tickets wait for the next.</summary>
    [Range(0.000001, 1_000_000_000, ErrorMessage = "Model__CostPerDay must be more than 0.")]
    public decimal? CostPerDay { get; set; }

    /// <summary>The models in the order they are asked, the baseline not among them.</summary>
    public IReadOnlyList<ModelTarget> Targets =>
        EffectiveProvider == "baseline" ? [] : [ModelTarget.From(this), .. Fallbacks.Select(ModelTarget.From)];

    internal string EffectiveProvider => ModelTarget.ProviderOf(this);

    /// <summary>
    /// What the confidence in the answers of a provider's models is taken from. Log-probabilities where they are asked for, or known to be
    /// understood: a server that does not know the member may refuse the whole request.
    /// </summary>
    internal ConfidenceEvidence EvidenceOf(string provider) =>
        Confidence ?? (provider is "openai" or "azure-openai" or "ollama" ? ConfidenceEvidence.Logprobs : ConfidenceEvidence.None);

    /// <summary>One line that says which model answers, from where, and what stands behind it. No key is in it.</summary>
    public string Describe() => EffectiveProvider == "baseline"
        ? $"embedded baseline{_hint}"
        : string.Join(", then ", [.. Targets.Select(Describe), .. BaselineStandsIn ? ["the embedded baseline"] : Array.Empty<string>()]);

    private static string Describe(ModelTarget target) =>
        $"{target.Name} ({target.Provider} at {string.Join(", ", target.Endpoints.Select(endpoint => endpoint.Authority))}"
        + $"{(target is { Provider: "azure-openai", ApiKey: null } ? ", by managed identity" : "")})";

    /// <summary>Fills in what nobody set: the time-outs, and each provider's usual variables and defaults.</summary>
    internal void ApplyDefaults(TimeSpan lease, IConfiguration environment)
    {
        TotalTimeout ??= Min(TimeSpan.FromSeconds(25), lease * 0.8);
        AttemptTimeout ??= Min(TimeSpan.FromSeconds(10), TotalTimeout.Value);
        if (string.IsNullOrWhiteSpace(Provider) && EffectiveProvider == "baseline")
        {
            _hint = ModelTarget.FindVariable(environment) is var (variable, provider)
                ? $" ({variable} is set: Model__Provider={provider} would use it)"
                : " (set Model__Provider to use a language model)";
        }

        ModelTarget.ApplyDefaults(this, environment);
        foreach (var fallback in Fallbacks)
        {
            // Another model of the same server needs no more than its name.
            if (string.IsNullOrWhiteSpace(fallback.Provider) && string.IsNullOrWhiteSpace(fallback.Endpoint))
            {
                (fallback.Provider, fallback.Endpoint) = (EffectiveProvider, Endpoint);
                fallback.ApiKey = string.IsNullOrWhiteSpace(fallback.ApiKey) ? ApiKey : fallback.ApiKey;
                fallback.Output ??= Output;
                fallback.DefaultMaxOutputTokens = MaxOutputTokens ?? DefaultMaxOutputTokens;
            }

            ModelTarget.ApplyDefaults(fallback, environment);
        }

        static TimeSpan Min(TimeSpan left, TimeSpan right) => left < right ? left : right;
    }

    /// <summary>What is wrong with the section as a whole, each sentence with the way to mend it.</summary>
    internal IEnumerable<string> FindErrors()
    {
        var errors = ModelTarget.FindErrors("Model", this).ToList();
        foreach (var error in errors)
        {
            yield return error;
        }

        if (!ModelTarget.IsProvider(EffectiveProvider))
        {
            yield break;
        }

        for (var i = 0; i < Fallbacks.Count; i++)
        {
            var setting = $"Model__Fallbacks__{i}";
            if (EffectiveProvider == "baseline")
            {
                yield return $"{setting} stands behind no model; configure the first one with Model__Provider, or remove it.";
            }
            else if (ModelTarget.ProviderOf(Fallbacks[i]) == "baseline")
            {
                yield return $"{setting}__Provider is baseline, which is no model; set Model__BaselineStandsIn=true to have it label while no model can be reached.";
            }

            // What a fallback has from the first model is said once.
            var inherits = Fallbacks[i].Provider == Provider && Fallbacks[i].Endpoint == Endpoint;
            foreach (var error in ModelTarget.FindErrors(setting, Fallbacks[i])
                .Where(error => !inherits || !errors.Contains(error.Replace(setting, "Model", StringComparison.Ordinal))))
            {
                yield return error;
            }
        }

        if (AttemptTimeout > TotalTimeout)
        {
            yield return $"Model__AttemptTimeout ({AttemptTimeout}) is longer than Model__TotalTimeout ({TotalTimeout}); make it at most as long.";
        }

        if (BreakDuration > TimeSpan.Zero && BreakDuration < TimeSpan.FromSeconds(0.5))
        {
            yield return $"Model__BreakDuration ({BreakDuration}) is too short; make it 00:00:00.5 or more, or 00:00:00 for none.";
        }

        if (ReviewBelow is not null && EffectiveProvider != "baseline" && EvidenceOf(EffectiveProvider) == ConfidenceEvidence.None)
        {
            yield return "Model__ReviewBelow asks for a confidence, and nothing is set to take it from; "
                + "set Model__Confidence=Samples (a second call), or Logprobs if the server gives them.";
        }

        if (CostPerDay is not null && EffectiveProvider != "baseline"
            && new ModelTargetOptions[] { this }.Concat(Fallbacks).Any(model => model.InputPricePerMillion is null || model.OutputPricePerMillion is null))
        {
            yield return "Model__CostPerDay needs the prices of every model; set InputPricePerMillion and OutputPricePerMillion of each, or use Model__TokensPerDay.";
        }
    }
}
