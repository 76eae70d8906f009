using Microsoft.Extensions.AI;
using OpenAI.Chat;

namespace TicketFunctions.Classification;

/// <summary>What a model's server takes of a request: what is configured, else the most, less what it turned out not to take.</summary>
internal sealed partial class ModelCapabilities(ModelTarget target, bool logprobs, ILogger logger)
{
    private readonly Lock _lock = new();
    private OutputMode _output = target.Output ?? OutputMode.Schema;
    private bool _strict = true;
    private bool _temperature = true;
    private bool _logprobs = logprobs;

    // OpenAI's new name for the longest answer is ignored by some servers (Ollama) and refused by others (Mistral).
    private bool _newLimitName = target.Provider is "openai" or "azure-openai";
    private bool _renamed;
    private bool _kept;
    private int _broken;
    private ChatOptions? _deciding;
    private ChatOptions? _sampling;

    /// <summary>The parameters of a request as a JSON object, for the record.</summary>
    public string Describe(ChatOptions sent, ConfidenceEvidence evidence, bool masked)
    {
        var output = sent.ResponseFormat is not ChatResponseFormatJson format ? "prompt"
            : format.Schema is null ? "json"
            : sent.AdditionalProperties is null ? "schema"
            : "strict_schema";
        return $$"""{"temperature":{{(sent.Temperature is null ? "null" : "0")}},"max_output_tokens":{{target.MaxOutputTokens}},"output":"{{output}}","confidence":"{{evidence.ToString().ToLowerInvariant()}}","masked":{{(masked ? "true" : "false")}}}""";
    }

    /// <summary>The options of a request: the same ones, never changed, until the server turns out not to take them.</summary>
    /// <param name="taxonomy">Whose schema it is.</param>
    /// <param name="temperature">Zero, or more for a second sample.</param>
    public ChatOptions For(Taxonomy taxonomy, float temperature)
    {
        lock (_lock)
        {
            return temperature == 0 ? _deciding ??= Build(taxonomy, temperature) : _sampling ??= Build(taxonomy, temperature);
        }
    }

    private ChatOptions Build(Taxonomy taxonomy, float temperature)
    {
        var options = new ChatOptions
        {
            ModelId = target.Name,
            Temperature = _temperature ? temperature : null,
            ResponseFormat = _output switch
            {
                OutputMode.Schema => Microsoft.Extensions.AI.ChatResponseFormat.ForJsonSchema(taxonomy.Schema, "ticket_labels"),
                OutputMode.Json => Microsoft.Extensions.AI.ChatResponseFormat.Json,
                _ => null,
            },
        };
        if (_output == OutputMode.Schema && _strict)
        {
            options.AdditionalProperties = new() { ["strict"] = true };
        }

        var askLogprobs = _logprobs;
        var newLimitName = _newLimitName;
        options.MaxOutputTokens = newLimitName ? target.MaxOutputTokens : null;
        options.RawRepresentationFactory = _ =>
        {
            var raw = new ChatCompletionOptions();
            if (askLogprobs)
            {
                raw.IncludeLogProbabilities = true;
            }

            if (!newLimitName)
            {
#pragma warning disable SCME0001 // Experimental in System.ClientModel: members the SDK has no property for.
                raw.Patch.Set("$.max_tokens"u8, target.MaxOutputTokens);
#pragma warning restore SCME0001
            }

            return raw;
        };
        return options;
    }

    /// <summary>Asks for less from now on, after the server refused a part of the request.</summary>
    /// <returns>Whether the same question may now be asked in another form.</returns>
    public bool TryDropRejected(RequestPart part, ChatOptions sent)
    {
        lock (_lock)
        {
            // Others may have met the same refusal at the same time: what this request had and later ones have not is dropped already.
            switch (part)
            {
                case RequestPart.Logprobs when sent.RawRepresentationFactory?.Invoke(null!) is ChatCompletionOptions { IncludeLogProbabilities: true }:
                    return Drop(ref _logprobs, "log-probabilities");
                case RequestPart.Temperature when sent.Temperature is not null:
                    return Drop(ref _temperature, "a temperature");
                case RequestPart.Strict when sent.AdditionalProperties is not null:
                    return Drop(ref _strict, "a strict schema");
                case RequestPart.LimitName when (sent.MaxOutputTokens is not null) != _newLimitName:
                    return true;
                case RequestPart.LimitName when !_renamed:
                    (_newLimitName, _renamed) = (!_newLimitName, true);
                    _deciding = _sampling = null;
                    Log.Renamed(logger, target.Name, target.Provider, _newLimitName ? "max_completion_tokens" : "max_tokens");
                    return true;
                case RequestPart.Format when target.Output is null && sent.ResponseFormat is ChatResponseFormatJson format:
                    StepDown(format.Schema is not null ? OutputMode.Schema : OutputMode.Json);
                    return true;
                default:
                    return false;
            }
        }

        bool Drop(ref bool capability, string name)
        {
            if (capability)
            {
                capability = false;
                _deciding = _sampling = null;
                Log.Dropped(logger, target.Name, target.Provider, name);
            }

            return true;
        }
    }

    /// <summary>Learns from a first answer whether the server keeps to the format it was given.</summary>
    /// <remarks>
    /// Once it did, it is believed for good: what breaks the format later is a ticket, and no ticket may change how the others are asked.
    /// Until then two tickets in a row that broke it show that nobody holds the model to it.
    /// </remarks>
    public void NoteAnswer(CallOutcome outcome, ChatOptions sent)
    {
        if (target.Output is not null || sent.ResponseFormat is not ChatResponseFormatJson format)
        {
            return;
        }

        var form = format.Schema is not null ? OutputMode.Schema : OutputMode.Json;
        lock (_lock)
        {
            if (form != _output || _kept)
            {
                return;
            }

            if (outcome is CallOutcome.Labelled || (outcome is CallOutcome.OffTaxonomy && form == OutputMode.Json))
            {
                _kept = true;
            }
            else if (outcome is CallOutcome.Unparseable or CallOutcome.OffTaxonomy && ++_broken == 2)
            {
                StepDown(form);
            }
        }
    }

    private void StepDown(OutputMode from)
    {
        if (_output == from)
        {
            _output = from + 1;
            _broken = 0;
            _deciding = _sampling = null;
            Log.Dropped(logger, target.Name, target.Provider, from == OutputMode.Schema ? "a JSON schema" : "JSON mode");
        }
    }

    private static partial class Log
    {
        [LoggerMessage(Level = LogLevel.Information, Message = "Model {Model} ({Provider}) wants the longest answer as {Name}; it is told so from now on")]
        public static partial void Renamed(ILogger logger, string model, string provider, string name);

        [LoggerMessage(Level = LogLevel.Warning, Message = "Model {Model} ({Provider}) does not take {Capability}; it is asked without from now on")]
        public static partial void Dropped(ILogger logger, string model, string provider, string capability);
    }
}
