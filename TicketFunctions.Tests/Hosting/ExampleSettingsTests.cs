using System.ComponentModel;
using System.Reflection;
using System.Text.Json;
using System.Text.RegularExpressions;
using Microsoft.AspNetCore.Builder;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using TicketFunctions.Classification;
using TicketFunctions.Hosting.AspNetCore;
using TicketFunctions.Storage;
using TicketFunctions.Tests.Support;
using TicketFunctions.Tickets;
using TicketFunctions.Triggers;

namespace TicketFunctions.Tests.Hosting;

/// <summary><c>local.settings.example.json</c> shows every setting, at its default, and no secret.</summary>
public sealed partial class ExampleSettingsTests
{
    private static readonly Dictionary<string, string> Example =
        JsonDocument.Parse(File.ReadAllText(Path.Combine(TestPostgres.SolutionFolder, "local.settings.example.json")))
            .RootElement.GetProperty("Values").Deserialize<Dictionary<string, string>>()!;

    private static readonly Dictionary<string, Type> Sections = new()
    {
        ["Storage"] = typeof(StorageOptions),
        ["Sweep"] = typeof(SweepOptions),
        ["Triage"] = typeof(TriageOptions),
        ["Model"] = typeof(ModelOptions),
        ["Taxonomy"] = typeof(TaxonomyOptions),
        ["Webhooks"] = typeof(WebhookOptions),
        ["Docs"] = typeof(DocsOptions),
        ["Keys"] = typeof(KeyOptions),
    };

    /// <summary>The Functions host's own, and what is read without a class of options.</summary>
    private static readonly string[] Others =
    [
        "FUNCTIONS_WORKER_RUNTIME", "AzureWebJobsStorage", "ConnectionStrings__Tickets", "SweepSchedule", "OTEL_EXPORTER_OTLP_ENDPOINT",
        "EmbeddedPostgres__Folder", "EmbeddedPostgres__BinFolder",
    ];

    [Fact]
    public void It_has_every_setting_and_no_other()
    {
        var expected = Sections.SelectMany(section => NamesOf(section.Key, section.Value)).Concat(Others);

        Assert.Equal(expected.Order(StringComparer.Ordinal), Example.Keys.Select(InFirstEntry).Distinct().Order(StringComparer.Ordinal));
    }

    [Fact]
    public void Every_class_of_options_is_compared()
    {
        var compared = Sections.Values.SelectMany(type => ElementsOf(type).Append(type).Append(type.BaseType!)).Append(typeof(EmbeddedPostgresOptions));

        Assert.Empty(typeof(TicketFunctionsSetup).Assembly.GetTypes().Where(type => type.Name.EndsWith("Options", StringComparison.Ordinal)).Except(compared));
    }

    [Fact]
    public void The_service_starts_on_it_with_the_defaults()
    {
        using var app = (IDisposable)PlainHost.Build(Example.Select(
            setting => KeyValuePair.Create(setting.Key.Replace("__", ":", StringComparison.Ordinal), (string?)setting.Value)));

        Assert.Equal(new Taxonomy(new TaxonomyOptions()).Version, ((WebApplication)app).Services.GetRequiredService<Taxonomy>().Version);
        Assert.All(
            from section in Sections
            from property in section.Value.GetProperties()
            where property is { CanWrite: true, PropertyType.IsValueType: true }
            let value = property.GetValue(Activator.CreateInstance(section.Value))
            where value is not null
            select (Name: $"{section.Key}__{property.Name}", property.PropertyType, Value: value),
            setting => Assert.Equal(setting.Value, TypeDescriptor.GetConverter(setting.PropertyType).ConvertFromInvariantString(Example[setting.Name])));
    }

    [Fact]
    public void It_holds_no_secret()
    {
        Assert.All(
            Example.Where(setting => Regex.IsMatch(setting.Key, "ApiKey$|Secret$|^Keys__")),
            setting => Assert.Equal("", setting.Value));
        Assert.Equal("postgresql://user:password@localhost:5432/postgres", Example["ConnectionStrings__Tickets"]);
    }

    private static IEnumerable<string> NamesOf(string section, Type type) =>
        from property in type.GetProperties()
        where property.CanWrite
        let name = $"{section}__{property.Name}"
        from found in ElementOf(property) switch
        {
            null => [name],
            { } element when element == typeof(string) => [$"{name}__0"],
            { } element => NamesOf($"{name}__0", element),
        }
        select found;

    private static IEnumerable<Type> ElementsOf(Type type) => type.GetProperties().Select(ElementOf).OfType<Type>();

    private static Type? ElementOf(PropertyInfo property) =>
        property.PropertyType is { IsGenericType: true } list && list.GetGenericTypeDefinition() == typeof(List<>) ? list.GetGenericArguments()[0] : null;

    private static string InFirstEntry(string name) => Entry().Replace(name, "__0");

    [GeneratedRegex(@"__\d+")]
    private static partial Regex Entry();
}
