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

/// <summary>The only wiring: every host, command, test and benchmark calls it. The host adds an <c>IChatClient</c>.</summary>
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
            .PostConfigure<IOptions<TriageOptions>>((model, triage) => model.ApplyDefaults(triage.Value.Lease))
            .Services.AddSingleton<IValidateOptions<ModelOptions>, ModelValidator>();
        AddOptions<TaxonomyOptions>(services, configuration, "Taxonomy")
            .Services.AddSingleton<IValidateOptions<TaxonomyOptions>, TaxonomyValidator>();

        services.AddSingleton(provider => new Taxonomy(provider.GetRequiredService<IOptions<TaxonomyOptions>>().Value));
        services.AddSingleton(_ => CreateDataSource(configuration));
        services.AddSingleton<Migrations>();
        services.AddSingleton<TicketStore>();
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

    private static OptionsBuilder<T> AddOptions<T>(IServiceCollection services, IConfiguration configuration, string section)
        where T : class =>
        services.AddOptions<T>().Bind(configuration.GetSection(section)).ValidateDataAnnotations().ValidateOnStart();

    private static NpgsqlDataSource CreateDataSource(IConfiguration configuration)
    {
        var text = FindConnectionString(configuration) ?? throw new OptionsValidationException(
            "Tickets", typeof(string), ["ConnectionStrings__Tickets is missing; set it (or SUPABASE_DB_URL) to the database's connection string."]);
        return NpgsqlDataSource.Create(ConnectionStrings.Parse(text));
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
