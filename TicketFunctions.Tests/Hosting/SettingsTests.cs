using Microsoft.AspNetCore.Builder;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Options;
using TicketFunctions.Classification;
using TicketFunctions.Hosting.AspNetCore;
using TicketFunctions.Tickets;

namespace TicketFunctions.Tests.Hosting;

/// <summary>Every wrong setting stops the start with a sentence that names it and says how to mend it.</summary>
public sealed class SettingsTests
{
    private const string Duration = "cannot be read; write a duration like 00:00:30 (hh:mm:ss).";
    private const string Number = "cannot be read; write a whole number.";
    private const string Model = "Model__Endpoint=http://localhost:1|Model__Name=m|";

    [Theory]
    [InlineData("Triage__Lease=soon", "Triage__Lease " + Duration)]
    [InlineData("Triage__Lease=", "Triage__Lease " + Duration)]
    [InlineData("Triage__Lease=90", "Triage__Lease must be between 00:00:01 and 01:00:00.")]
    [InlineData("Triage__Lease=00:00:00.9", "Triage__Lease must be between 00:00:01 and 01:00:00.")]
    [InlineData("Triage__Lease=-00:01:30", "Triage__Lease must be between 00:00:01 and 01:00:00.")]
    [InlineData("Triage__MaxAttempts=many", "Triage__MaxAttempts " + Number)]
    [InlineData("Triage__MaxAttempts=2.5", "Triage__MaxAttempts " + Number)]
    [InlineData("Triage__MaxAttempts=0", "Triage__MaxAttempts must be between 1 and 100.")]
    [InlineData("Triage__MaxAttempts=101", "Triage__MaxAttempts must be between 1 and 100.")]
    [InlineData("Triage__MaxConcurrentRequests=0", "Triage__MaxConcurrentRequests must be between 1 and 100000.")]
    [InlineData("Sweep__BatchSize=0", "Sweep__BatchSize must be between 1 and 1000.")]
    [InlineData("Sweep__BatchSize=1001", "Sweep__BatchSize must be between 1 and 1000.")]
    [InlineData("Sweep__Concurrency=x", "Sweep__Concurrency " + Number)]
    [InlineData("Sweep__Concurrency=0", "Sweep__Concurrency must be between 1 and 256.")]
    [InlineData("Sweep__TimeBudget=1 minute", "Sweep__TimeBudget " + Duration)]
    [InlineData("Sweep__TimeBudget=00:00:00", "Sweep__TimeBudget must be between 00:00:01 and 00:09:00, below the functionTimeout of host.json.")]
    [InlineData("Model__AttemptTimeout=x", "Model__AttemptTimeout " + Duration)]
    [InlineData("Model__AttemptTimeout=00:00:00", "Model__AttemptTimeout must be between 00:00:00.1 and 00:03:00.")]
    [InlineData("Model__TotalTimeout=x", "Model__TotalTimeout " + Duration)]
    [InlineData("Model__TotalTimeout=00:03:31|Triage__Lease=00:10:00", "Model__TotalTimeout must be between 00:00:00.1 and 00:03:30.")]
    [InlineData(
        "Model__AttemptTimeout=00:00:11|Model__TotalTimeout=00:00:10",
        "Model__AttemptTimeout (00:00:11) is longer than Model__TotalTimeout (00:00:10); make it at most as long.")]
    [InlineData(
        "Triage__Lease=00:00:25|Model__TotalTimeout=00:00:25",
        "Triage__Lease (00:00:25) must be longer than Model__TotalTimeout (00:00:25), "
        + "else a ticket is given to somebody else while its model still thinks; make the lease at least twice as long.")]
    [InlineData("Model__Provider=magic|" + Model, "Model__Provider is 'magic'; it must be openai, compatible or baseline.")]
    [InlineData("Model__Endpoint=localhost:11434|Model__Name=m", "Model__Endpoint is not an http or https address; write it like http://localhost:11434/v1.")]
    [InlineData("Model__Endpoint=//x|Model__Name=m", "Model__Endpoint is not an http or https address; write it like http://localhost:11434/v1.")]
    [InlineData("Model__Endpoint=http://localhost:1", "Model__Name is missing; name the model, for instance Model__Name=gpt-4o-mini.")]
    [InlineData("Model__ApiKey=canary-key", "Model__Name is missing; name the model, for instance Model__Name=gpt-4o-mini.")]
    [InlineData("Model__Name=m", "Model__ApiKey is missing; set it to the provider's key, or set Model__Endpoint to a server that needs none.")]
    [InlineData("Model__Provider=compatible|Model__Name=m", "Model__Endpoint is missing; set it to the server's address, for instance http://localhost:11434/v1.")]
    [InlineData(Model + "Taxonomy__Categories__0__Label=Una", "Taxonomy__Categories has one label; give at least two, or none for the default list.")]
    [InlineData(
        Model + "Taxonomy__Sentiments__0__Label=Bien|Taxonomy__Sentiments__1__Description=sin nombre",
        "Taxonomy__Sentiments__1__Label is empty; name the label, or remove the entry.")]
    [InlineData(
        Model + "Taxonomy__Categories__0__Label=Avería|Taxonomy__Categories__1__Label=Otra|Taxonomy__Categories__1__Synonyms__0= AVERIA",
        "Taxonomy__Categories: ' AVERIA' means both 'Avería' and 'Otra'; keep it in one of them.")]
    [InlineData(
        "Taxonomy__Sentiments__0__Label=Positivo|Taxonomy__Sentiments__1__Label=Negativo",
        "Taxonomy has no label that means 'Neutral', which the embedded baseline answers; "
        + "add it as a synonym of one of yours, or configure a model with Model__Endpoint and Model__Name.")]
    [InlineData("urls=nope", "The address 'nope' to listen on cannot be read; write ASPNETCORE_URLS like http://localhost:7071, several with semicolons.")]
    public void A_wrong_setting_stops_the_start(string settings, string sentence) => Assert.Equal([sentence], FindErrors(settings));

    [Fact]
    public void All_wrong_settings_are_told_at_once() => Assert.Equal(
        [
            "Model__AttemptTimeout " + Duration,
            "Model__TotalTimeout " + Duration,
            "Sweep__BatchSize must be between 1 and 1000.",
            "Sweep__Concurrency must be between 1 and 256.",
            "Triage__MaxAttempts " + Number,
        ],
        FindErrors("Triage__MaxAttempts=x|Sweep__BatchSize=0|Sweep__Concurrency=0|Model__AttemptTimeout=x|Model__TotalTimeout=y"));

    [Fact]
    public void Without_settings_it_runs_on_the_documented_ones()
    {
        using var app = (IDisposable)PlainHost.Build();
        var services = ((WebApplication)app).Services;
        var triage = services.GetRequiredService<IOptions<TriageOptions>>().Value;
        var model = services.GetRequiredService<IOptions<ModelOptions>>().Value;

        Assert.Equal((TimeSpan.FromSeconds(90), 5), (triage.Lease, triage.MaxAttempts));
        Assert.Equal((TimeSpan.FromSeconds(10), TimeSpan.FromSeconds(25)), (model.AttemptTimeout, model.TotalTimeout));
        Assert.Equal("baseline", services.GetRequiredService<ITicketClassifier>().Identities[0].Source);
        Assert.Equal("0 */5 * * * *", services.GetRequiredService<IConfiguration>()["SweepSchedule"]);
        Assert.Equal("http://localhost:7071", PlainHost.DefaultUrl);

        // Read once: a watcher for each process that runs would be one too many on a busy machine.
        Assert.All(
            ((IConfigurationRoot)services.GetRequiredService<IConfiguration>()).Providers.OfType<FileConfigurationProvider>(),
            file => Assert.False(file.Source.ReloadOnChange));
    }

    [Theory]
    [InlineData("")]
    [InlineData("Triage__Lease=00:00:01")]
    [InlineData("Triage__Lease=00:00:30|Model__TotalTimeout=00:00:29")]
    [InlineData("Model__AttemptTimeout=|Model__TotalTimeout=|Model__Endpoint=|Model__Name= |Model__ApiKey=")]
    [InlineData("Model__Provider=OpenAI|Model__Name=m|Model__ApiKey=k")]
    [InlineData("Model__Provider=baseline|Model__Endpoint=http://localhost:1")]
    [InlineData(Model + "Taxonomy__Categories__0__Label=Una|Taxonomy__Categories__1__Label=Otra")]
    [InlineData("Taxonomy__Sentiments__0__Label=Bien|Taxonomy__Sentiments__0__Synonyms__0=positivo|Taxonomy__Sentiments__1__Label=Mal"
        + "|Taxonomy__Sentiments__1__Synonyms__0=NEGATIVO|Taxonomy__Sentiments__1__Synonyms__1=Neutral")]
    public void Right_settings_do_not(string settings) => Assert.Empty(FindErrors(settings));

    private static string[] FindErrors(string settings)
    {
        try
        {
            ((IDisposable)PlainHost.Build(settings.Split('|', StringSplitOptions.RemoveEmptyEntries).Select(setting => setting.Split('=', 2))
                .Select(pair => KeyValuePair.Create(pair[0].Replace("__", ":", StringComparison.Ordinal), (string?)pair[1])))).Dispose();
            return [];
        }
        catch (Exception e) when (e is FormatException or OptionsValidationException or AggregateException)
        {
            return [.. Read(e).Distinct().Order(StringComparer.Ordinal)];
        }

        static IEnumerable<string> Read(Exception exception) => exception switch
        {
            AggregateException several => several.InnerExceptions.SelectMany(Read),
            OptionsValidationException wrong => wrong.Failures,
            _ => [exception.Message],
        };
    }
}
