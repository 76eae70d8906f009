using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection.Extensions;
using Microsoft.Extensions.Options;
using Npgsql;
using TicketFunctions.Classification;
using TicketFunctions.Storage;
using TicketFunctions.Tickets;
using TicketFunctions.Triggers;

namespace TicketFunctions;

/// <summary>The only wiring: every host, command, test and benchmark calls it. The host adds a <see cref="ChatClientFactory"/>.</summary>
public static class TicketFunctionsSetup
{
    /// <summary>The names under which the database may be configured, the first one first.</summary>
    private static readonly string[] ConnectionSettings = ["ConnectionStrings:Tickets", "SUPABASE_DB_URL"];

    /// <summary>The configured connection string in either form, or null.</summary>
    public static string? FindConnectionString(IConfiguration configuration) =>
        ConnectionSettings.Select(name => configuration[name]).FirstOrDefault(value => !string.IsNullOrWhiteSpace(value));

    public static IServiceCollection AddTicketFunctions(this IServiceCollection services, IConfiguration configuration)
    {
        services.TryAddSingleton(TimeProvider.System);
        AddOptions<TriageOptions>(services, configuration, "Triage");
        AddOptions<SweepOptions>(services, configuration, "Sweep");
        AddOptions<ModelOptions>(services, configuration, "Model")
            .PostConfigure<IOptions<TriageOptions>>((model, triage) => model.ApplyDefaults(triage.Value.Lease, configuration))
            .Services.AddSingleton<IValidateOptions<ModelOptions>, ModelValidator>();
        AddOptions<TaxonomyOptions>(services, configuration, "Taxonomy")
            .Services.AddSingleton<IValidateOptions<TaxonomyOptions>, TaxonomyValidator>();

        services.AddSingleton(provider => new Taxonomy(provider.GetRequiredService<IOptions<TaxonomyOptions>>().Value));
        services.AddSingleton(_ => CreateDataSource(configuration));
        services.AddSingleton<Migrations>();
        services.AddSingleton<TicketStore>();
        services.AddSingleton<Spending>();
        services.AddSingleton<TicketTriage>();
        services.AddSingleton<TicketSweep>();
        services.AddSingleton<WorkDrain>();
        services.AddSingleton<ProblemAnswers>();
        services.AddSingleton<RequestLimit>();
        services.AddSingleton<LlmTicketClassifier>();
        services.AddSingleton<BaselineTicketClassifier>();
        services.AddSingleton<ITicketClassifier>(provider =>
            provider.GetRequiredService<IOptions<ModelOptions>>().Value.EffectiveProvider == "baseline"
                ? provider.GetRequiredService<BaselineTicketClassifier>()
                : provider.GetRequiredService<LlmTicketClassifier>());
        return services;
    }

    /// <summary>Checks every setting before anything is done with it.</summary>
    /// <exception cref="OptionsValidationException">Settings are wrong; each failure is a sentence that says how to mend it. May come as an AggregateException of several.</exception>
    /// <exception cref="FormatException">The connection string cannot be read.</exception>
    public static void Validate(IServiceProvider services)
    {
        services.GetRequiredService<IStartupValidator>().Validate();
        services.GetRequiredService<NpgsqlDataSource>();
    }

    /// <summary>The sentences of an exception that <see cref="Validate"/> throws, or null when it is another one.</summary>
    public static IEnumerable<string>? FindSentences(Exception exception) => exception switch
    {
        OptionsValidationException e => e.Failures,
        // Several sections are wrong, or one that others depend on, which then repeat its errors.
        AggregateException e when e.InnerExceptions.All(inner => inner is OptionsValidationException) =>
            e.InnerExceptions.Cast<OptionsValidationException>().SelectMany(inner => inner.Failures).Distinct(),
        FormatException e => [e.Message],
        _ => null,
    };

    private static OptionsBuilder<T> AddOptions<T>(IServiceCollection services, IConfiguration configuration, string section)
        where T : class
    {
        services.AddSingleton<IValidateOptions<T>>(new RangeValidator<T>());
        return services.AddOptions<T>().Configure(options => Bind(configuration.GetSection(section), options)).ValidateOnStart();
    }

    /// <summary>Says of every value that is not of its type how to write it; the binder would stop at the first and name only the type.</summary>
    private static void Bind<T>(IConfigurationSection section, T options)
        where T : class
    {
        var errors = (
            from property in typeof(T).GetProperties()
            let nullable = Nullable.GetUnderlyingType(property.PropertyType)
            let type = nullable ?? property.PropertyType
            where type.IsValueType && section[property.Name] is { } text
                && !(text.Length == 0 && nullable is not null)
                && !TypeDescriptor.GetConverter(type).IsValid(text)
            select $"{section.Key}__{property.Name} cannot be read; write {(type == typeof(TimeSpan) ? "a duration like 00:00:30 (hh:mm:ss)" : "a whole number")}.")
            .ToList();
        if (errors.Count > 0)
        {
            throw new OptionsValidationException(section.Key, typeof(T), errors);
        }

        section.Bind(options);
    }

    private static NpgsqlDataSource CreateDataSource(IConfiguration configuration)
    {
        var text = FindConnectionString(configuration) ?? throw new OptionsValidationException(
            "Tickets", typeof(string), ["ConnectionStrings__Tickets is missing; set it (or SUPABASE_DB_URL) to the database's connection string."]);
        return NpgsqlDataSource.Create(ConnectionStrings.Parse(text));
    }

    /// <summary>Checks the attributes, and says what they say without a frame around it.</summary>
    private sealed class RangeValidator<T> : IValidateOptions<T>
        where T : class
    {
        public ValidateOptionsResult Validate(string? name, T options)
        {
            var errors = new List<ValidationResult>();
            return Validator.TryValidateObject(options, new ValidationContext(options), errors, validateAllProperties: true)
                ? ValidateOptionsResult.Success
                : ValidateOptionsResult.Fail(errors.Select(error => error.ErrorMessage!));
        }
    }

    private sealed class ModelValidator(IOptions<TriageOptions> triage) : IValidateOptions<ModelOptions>
    {
        public ValidateOptionsResult Validate(string? name, ModelOptions options)
        {
            List<string> errors = [.. options.FindErrors()];
            if (options.TotalTimeout >= triage.Value.Lease)
            {
                errors.Add($"Triage__Lease ({triage.Value.Lease}) must be longer than Model__TotalTimeout ({options.TotalTimeout}), "
                    + "else a ticket is given to somebody else while its model still thinks; make the lease at least twice as long.");
            }

            return errors.Count > 0 ? ValidateOptionsResult.Fail(errors) : ValidateOptionsResult.Success;
        }
    }

    private sealed class TaxonomyValidator(IOptions<ModelOptions> model) : IValidateOptions<TaxonomyOptions>
    {
        public ValidateOptionsResult Validate(string? name, TaxonomyOptions options)
        {
            try
            {
                var taxonomy = new Taxonomy(options);
                return model.Value.EffectiveProvider == "baseline" && BaselineTicketClassifier.FindMissing(taxonomy) is { } missing
                    ? ValidateOptionsResult.Fail($"Taxonomy has no label that means '{missing}', which the embedded baseline answers; "
                        + "add it as a synonym of one of yours, or configure a model with Model__Endpoint and Model__Name.")
                    : ValidateOptionsResult.Success;
            }
            catch (FormatException e)
            {
                return ValidateOptionsResult.Fail(e.Message);
            }
        }
    }
}
