using System.Collections;
using System.ComponentModel;
using System.ComponentModel.DataAnnotations;
using System.Globalization;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection.Extensions;
using Microsoft.Extensions.Options;
using Npgsql;
using TicketFunctions.Classification;
using TicketFunctions.Hosting;
using TicketFunctions.Storage;
using TicketFunctions.Tickets;
using TicketFunctions.Triggers;

namespace TicketFunctions;

/// <summary>The only wiring: every host, command, test and benchmark calls it. The host adds a <see cref="ChatClientFactory"/>.</summary>
public static partial class TicketFunctionsSetup
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
        AddOptions<StorageOptions>(services, configuration, "Storage");
        AddOptions<WebhookOptions>(services, configuration, "Webhooks");
        AddOptions<DocsOptions>(services, configuration, "Docs");
        AddOptions<ModelOptions>(services, configuration, "Model")
            .PostConfigure<IOptions<TriageOptions>>((model, triage) => model.ApplyDefaults(triage.Value.Lease, configuration))
            .Services.AddSingleton<IValidateOptions<ModelOptions>, ModelValidator>();
        AddOptions<TaxonomyOptions>(services, configuration, "Taxonomy")
            .Services.AddSingleton<IValidateOptions<TaxonomyOptions>, TaxonomyValidator>();

        services.AddSingleton(provider => new Taxonomy(provider.GetRequiredService<IOptions<TaxonomyOptions>>().Value));
        services.AddSingleton(provider => CreateDataSource(configuration, provider.GetRequiredService<ILogger<TicketStore>>()));
        services.AddSingleton<Migrations>();
        services.AddSingleton<Diagnosis>();
        services.AddSingleton<TicketStore>();
        services.AddSingleton<Spending>();
        services.AddSingleton<BacklogWatch>();
        services.AddSingleton<TicketTriage>();
        services.AddSingleton<TicketSweep>();
        services.AddSingleton<TicketReprocess>();
        services.AddSingleton<WorkDrain>();
        services.AddHostedService(provider => provider.GetRequiredService<WorkDrain>());
        services.AddSingleton<ProblemAnswers>();
        services.AddHostedService<TelemetryExport>();
        services.AddSingleton<RequestLimit>();
        services.AddSingleton<WebhookSignatures>();
        services.AddSingleton<OpenApiDescription>();
        services.AddSingleton<DocsPage>();
        services.AddSingleton<ModelCatalog>();
        services.AddHostedService<ModelAnnouncement>();
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
    /// <exception cref="FormatException">The connection string or the schedule cannot be read.</exception>
    public static void Validate(IServiceProvider services)
    {
        services.GetRequiredService<IStartupValidator>().Validate();
        _ = TriggerFunctions.FindTimers(services.GetRequiredService<IConfiguration>()).ToList();
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

    internal static OptionsBuilder<T> AddOptions<T>(IServiceCollection services, IConfiguration configuration, string section)
        where T : class
    {
        services.AddSingleton<IValidateOptions<T>>(new RangeValidator<T>(section));
        return services.AddOptions<T>().Configure(options => Bind(configuration.GetSection(section), options)).ValidateOnStart();
    }

    private static void Bind<T>(IConfigurationSection section, T options)
        where T : class
    {
        var errors = FindUnreadable(section, section.Key, typeof(T)).ToList();
        if (errors.Count > 0)
        {
            throw new OptionsValidationException(section.Key, typeof(T), errors);
        }

        section.Bind(options);
    }

    /// <summary>
    /// Says of every value that is not of its type how to write it; the binder would stop at the first and name only the type.
    /// What belongs to no property the binder passes over.
    /// </summary>
    private static IEnumerable<string> FindUnreadable(IConfigurationSection section, string setting, Type options)
    {
        foreach (var error in FindUnknown(section, setting, NamesOf(options)))
        {
            yield return error;
        }

        foreach (var property in options.GetProperties().Where(property => property.CanWrite))
        {
            var nullable = Nullable.GetUnderlyingType(property.PropertyType);
            var type = nullable ?? property.PropertyType;
            var name = $"{setting}__{property.Name}";
            var value = section.GetSection(property.Name);
            if (type.IsValueType && value.Value is { } text && !(text.Length == 0 && nullable is not null) && !IsReadable(type, text))
            {
                yield return $"{name} cannot be read; write {DescribeValues(type)}.";
            }

            if (ElementOf(type) is not { } element)
            {
                if (value.GetChildren().Any())
                {
                    yield return $"{name} is one value; write nothing behind its name.";
                }

                continue;
            }

            var entries = value.GetChildren().ToList();
            if (!string.IsNullOrWhiteSpace(value.Value) || entries.Exists(entry => !int.TryParse(entry.Key, NumberStyles.None, CultureInfo.InvariantCulture, out _)))
            {
                yield return $"{name} is a list; write its first entry as {name}__0{(element == typeof(string) ? "" : "__" + NamesOf(element)[0])}.";
                continue;
            }

            foreach (var entry in element == typeof(string) ? [] : entries)
            {
                if (!string.IsNullOrWhiteSpace(entry.Value))
                {
                    yield return $"{name}__{entry.Key} has several members; write {name}__{entry.Key}__ and then {JoinByOr(NamesOf(element))}.";
                }

                foreach (var error in FindUnreadable(entry, $"{name}__{entry.Key}", element))
                {
                    yield return error;
                }
            }
        }
    }

    /// <summary>Says of every name in a section that is not one of these how it may be.</summary>
    internal static IEnumerable<string> FindUnknown(IConfigurationSection section, string setting, string[] names) =>
        from child in section.GetChildren()
        where !names.Contains(child.Key, StringComparer.OrdinalIgnoreCase)
        select $"{setting}__{child.Key} is no setting; write {setting}__ and then {JoinByOr(names)}.";

    private static string[] NamesOf(Type options) => [.. options.GetProperties().Where(property => property.CanWrite).Select(property => property.Name)];

    private static string JoinByOr(string[] names) => names.Length == 1 ? names[0] : $"{string.Join(", ", names[..^1])} or {names[^1]}";

    private static Type? ElementOf(Type type) =>
        type.IsGenericType && type.GetGenericTypeDefinition() == typeof(List<>) ? type.GetGenericArguments()[0] : null;

    private static bool IsReadable(Type type, string text) => type.IsEnum
        // By itself the converter takes numbers, which say nothing to a reader.
        ? Enum.GetNames(type).Contains(text.Trim(), StringComparer.OrdinalIgnoreCase)
        : TypeDescriptor.GetConverter(type).IsValid(text);

    private static string DescribeValues(Type type) =>
        type == typeof(TimeSpan) ? "a duration like 00:00:30 (hh:mm:ss)"
        : type == typeof(bool) ? "true or false"
        : type.IsEnum ? JoinByOr(Enum.GetNames(type))
        : type == typeof(decimal) || type == typeof(float) ? "a number like 0.5"
        : "a whole number";

    private static NpgsqlDataSource CreateDataSource(IConfiguration configuration, ILogger logger)
    {
        var text = FindConnectionString(configuration) ?? throw new OptionsValidationException(
            "Tickets", typeof(string), ["ConnectionStrings__Tickets is missing; set it (or SUPABASE_DB_URL) to the database's connection string."]);
        var settings = ConnectionStrings.Parse(text, out var adjusted);
        if (adjusted.Count > 0)
        {
            Log.Adjusted(logger, settings.Host!, settings.Port, ConnectionStrings.Describe(ConnectionStrings.FindAddress(settings)), string.Join("; ", adjusted));
        }

        // Nothing is kept in a session, so there is nothing to reset: it would be seven statements before each of ours.
        settings.NoResetOnClose = true;

        // The full builder sets up each type that Postgres knows; these are what the statements use, and what a connection may need.
        var builder = new NpgsqlSlimDataSourceBuilder(settings.ConnectionString);
        builder.EnableArrays();
        builder.EnableTransportSecurity();
        builder.EnableIntegratedSecurity();
        return builder.Build();
    }

    /// <summary>Checks the attributes, also of the entries of lists, and says what they say without a frame around it.</summary>
    private sealed class RangeValidator<T>(string section) : IValidateOptions<T>
        where T : class
    {
        public ValidateOptionsResult Validate(string? name, T options)
        {
            var errors = FindErrors(section, options).ToList();
            return errors.Count == 0 ? ValidateOptionsResult.Success : ValidateOptionsResult.Fail(errors);
        }

        private IEnumerable<string> FindErrors(string setting, object options)
        {
            var errors = new List<ValidationResult>();
            Validator.TryValidateObject(options, new ValidationContext(options), errors, validateAllProperties: true);

            // Every message begins with its section; of an entry in a list that is where the entry stands.
            return errors.Select(error => setting + error.ErrorMessage![section.Length..]).Concat(
                from property in options.GetType().GetProperties()
                where ElementOf(property.PropertyType) is { } element && element != typeof(string)
                from entry in ((IEnumerable)property.GetValue(options)!).Cast<object>().Index()
                from error in FindErrors($"{setting}__{property.Name}__{entry.Index}", entry.Item)
                select error);
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

    private static partial class Log
    {
        [LoggerMessage(Level = LogLevel.Information, Message = "Database: {Host}:{Port} is {Address}, so it is used with {Settings}")]
        public static partial void Adjusted(ILogger logger, string host, int port, string address, string settings);
    }
}
