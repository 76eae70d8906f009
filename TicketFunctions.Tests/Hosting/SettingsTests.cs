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
    private const string SigningSecret = "is no signing secret; write whsec_ and 24 to 64 random bytes in Base64, as `openssl rand -base64 32` makes them.";
    private const string UnknownInModel =
        "is no setting; write Model__ and then Fallbacks, AttemptTimeout, TotalTimeout, MaxRetries, BreakDuration, MaxConcurrency, BaselineStandsIn, MaskPersonalData, "
        + "Confidence, ReviewBelow, TokensPerDay, CostPerDay, Provider, Endpoint, Name, ApiKey, Output, MaxOutputTokens, InputPricePerMillion or OutputPricePerMillion.";
    private const string Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
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
    [InlineData("Triage__RequestsPerMinute=few", "Triage__RequestsPerMinute " + Number)]
    [InlineData("Triage__RequestsPerMinute=0", "Triage__RequestsPerMinute must be between 1 and 1000000.")]
    [InlineData("Sweep__BatchSize=0", "Sweep__BatchSize must be between 1 and 1000.")]
    [InlineData("Sweep__BatchSize=1001", "Sweep__BatchSize must be between 1 and 1000.")]
    [InlineData("Sweep__Concurrency=x", "Sweep__Concurrency " + Number)]
    [InlineData("Sweep__Concurrency=0", "Sweep__Concurrency must be between 1 and 256.")]
    [InlineData("Sweep__TimeBudget=1 minute", "Sweep__TimeBudget " + Duration)]
    [InlineData("Sweep__TimeBudget=00:00:00", "Sweep__TimeBudget must be between 00:00:01 and 00:09:00, below the functionTimeout of host.json.")]
    [InlineData("Webhooks__Secret=canary", "Webhooks__Secret " + SigningSecret)]
    [InlineData("Webhooks__Secret=whsec_", "Webhooks__Secret " + SigningSecret)]
    [InlineData("Webhooks__Secret=whsec_not base64 at all, not base64 at all", "Webhooks__Secret " + SigningSecret)]
    [InlineData("Webhooks__Secret=whsec_MjMgYnl0ZXMsIG9uZSB0b28gZmV3IQ", "Webhooks__Secret " + SigningSecret)]
    [InlineData("Webhooks__Secret=WHSEC_bmV3IG5ldyBuZXcgbmV3IG5ldyBuZXcgbmV3", "Webhooks__Secret " + SigningSecret)]
    [InlineData("Webhooks__Secret=" + Secret + "|Webhooks__PreviousSecret=old", "Webhooks__PreviousSecret " + SigningSecret)]
    [InlineData(
        "Webhooks__PreviousSecret=" + Secret,
        "Webhooks__PreviousSecret is set and Webhooks__Secret is not; set Webhooks__Secret to the new secret, or remove both.")]
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
    [InlineData("Model__Provider=magic|" + Model, "Model__Provider is 'magic'; it must be openai, azure-openai, huggingface, ollama, compatible or baseline.")]
    [InlineData("Model__Endpoint=localhost:11434|Model__Name=m", "Model__Endpoint is not an http or https address; write it like http://localhost:8000/v1, several with commas between.")]
    [InlineData("Model__Endpoint=//x|Model__Name=m", "Model__Endpoint is not an http or https address; write it like http://localhost:8000/v1, several with commas between.")]
    [InlineData("Model__Endpoint=http://localhost:1", "Model__Name is missing; name the model, for instance Model__Name=gpt-4.1-mini.")]
    [InlineData(
        "Model__Name=m",
        "Model__ApiKey is missing; set it (or OPENAI_API_KEY) to the provider's key, or choose a server that needs none, for instance with Model__Provider=ollama.")]
    [InlineData("Model__Provider=compatible|Model__Name=m", "Model__Endpoint is missing; set it to the server's address, for instance http://localhost:8000/v1.")]
    [InlineData("Model__Output=foo", "Model__Output cannot be read; write Schema, Json or Prompt.")]
    [InlineData("Model__Output=1", "Model__Output cannot be read; write Schema, Json or Prompt.")]
    [InlineData("Model__Confidence=high", "Model__Confidence cannot be read; write Logprobs, Samples or None.")]
    [InlineData("Model__ReviewBelow=abc", "Model__ReviewBelow cannot be read; write a number like 0.5.")]
    [InlineData("Model__ReviewBelow=0,5", "Model__ReviewBelow cannot be read; write a number like 0.5.")]
    [InlineData("Model__ReviewBelow=1.1", "Model__ReviewBelow must be between 0 and 1.")]
    [InlineData("Model__ReviewBelow=NaN", "Model__ReviewBelow must be between 0 and 1.")]
    [InlineData("Model__BaselineStandsIn=maybe", "Model__BaselineStandsIn cannot be read; write true or false.")]
    [InlineData("Model__MaskPersonalData=", "Model__MaskPersonalData cannot be read; write true or false.")]
    [InlineData("Model__MaxOutputTokens=15", "Model__MaxOutputTokens must be between 16 and 32768.")]
    [InlineData("Model__MaxRetries=6", "Model__MaxRetries must be between 0 and 5.")]
    [InlineData("Model__MaxConcurrency=0", "Model__MaxConcurrency must be between 1 and 10000.")]
    [InlineData("Model__BreakDuration=01:00:01", "Model__BreakDuration must be between 00:00:00 and 01:00:00.")]
    [InlineData("Model__BreakDuration=00:00:00.4", "Model__BreakDuration (00:00:00.4000000) is too short; make it 00:00:00.5 or more, or 00:00:00 for none.")]
    [InlineData("Model__InputPricePerMillion=cheap", "Model__InputPricePerMillion cannot be read; write a number like 0.5.")]
    [InlineData("Model__InputPricePerMillion=-0.4", "Model__InputPricePerMillion must be between 0 and 1000000.")]
    [InlineData("Model__OutputPricePerMillion=1e20", "Model__OutputPricePerMillion must be between 0 and 1000000.")]
    [InlineData("Model__TokensPerDay=0", "Model__TokensPerDay must be at least 1.")]
    [InlineData("Model__CostPerDay=0", "Model__CostPerDay must be more than 0.")]
    [InlineData(
        Model + "Model__CostPerDay=5|Model__InputPricePerMillion=1",
        "Model__CostPerDay needs the prices of every model; set InputPricePerMillion and OutputPricePerMillion of each, or use Model__TokensPerDay.")]
    [InlineData(Model + "Model__Fallbacks=other", "Model__Fallbacks is a list; write its first entry as Model__Fallbacks__0__Provider.")]
    [InlineData(Model + "Model__Fallbacks__0__MaxOutputTokens=x", "Model__Fallbacks__0__MaxOutputTokens " + Number)]
    [InlineData(Model + "Model__Fallbacks__0__Name=a|Model__Fallbacks__1__Output=x", "Model__Fallbacks__1__Output cannot be read; write Schema, Json or Prompt.")]
    [InlineData(Model + "Model__Fallbacks__0__Name=a|Model__Fallbacks__0__MaxOutputTokens=1", "Model__Fallbacks__0__MaxOutputTokens must be between 16 and 32768.")]
    [InlineData("Taxonomy__Categories=Una,Otra", "Taxonomy__Categories is a list; write its first entry as Taxonomy__Categories__0__Label.")]
    [InlineData("Taxonomy__Categories__0__Synonyms=una", "Taxonomy__Categories__0__Synonyms is a list; write its first entry as Taxonomy__Categories__0__Synonyms__0.")]
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
    [InlineData("Taxonomy__Categories__0=Soporte", "Taxonomy__Categories__0 has several members; write Taxonomy__Categories__0__ and then Label, Description or Synonyms.")]
    [InlineData(
        Model + "Model__Fallbacks__0=gpt-4.1",
        "Model__Fallbacks__0 has several members; write Model__Fallbacks__0__ and then "
        + "Provider, Endpoint, Name, ApiKey, Output, MaxOutputTokens, InputPricePerMillion or OutputPricePerMillion.")]
    [InlineData(Model + "Model__Fallbacks__Name=gpt-4.1", "Model__Fallbacks is a list; write its first entry as Model__Fallbacks__0__Provider.")]
    [InlineData("Model__Endpoint__0=http://localhost:1", "Model__Endpoint is one value; write nothing behind its name.")]
    [InlineData("Model__TokensPerDays=9", "Model__TokensPerDays " + UnknownInModel)]
    [InlineData("Model__Fallback__0__Name=gpt-4.1", "Model__Fallback " + UnknownInModel)]
    [InlineData("Model__Targets__0__Name=read-only", "Model__Targets " + UnknownInModel)]
    [InlineData("Sweep__Concurency=4", "Sweep__Concurency is no setting; write Sweep__ and then BatchSize, Concurrency or TimeBudget.")]
    [InlineData("Taxonomy__Categories__0__Lable=Una", "Taxonomy__Categories__0__Lable is no setting; write Taxonomy__Categories__0__ and then Label, Description or Synonyms.")]
    [InlineData("Docs__Enable=true", "Docs__Enable is no setting; write Docs__ and then Enabled.")]
    [InlineData("Keys__Functions=k", "Keys__Functions is no setting; write Keys__ and then Function or Admin.")]
    [InlineData("urls=nope", "The address 'nope' to listen on cannot be read; write ASPNETCORE_URLS like http://localhost:7071, several with semicolons.")]
    [InlineData("urls=http://127.0.0.1:80a", "The address 'http://127.0.0.1:80a' to listen on cannot be read; write ASPNETCORE_URLS like http://localhost:7071, several with semicolons.")]
    [InlineData("urls=http://[::1]:80a", "The address 'http://[::1]:80a' to listen on cannot be read; write ASPNETCORE_URLS like http://localhost:7071, several with semicolons.")]
    [InlineData("urls=http://127.0.0.1:65536", "The address 'http://127.0.0.1:65536' to listen on cannot be read; write ASPNETCORE_URLS like http://localhost:7071, several with semicolons.")]
    [InlineData("urls=http://localhost:7071/path", "The address 'http://localhost:7071/path' to listen on cannot be read; write ASPNETCORE_URLS like http://localhost:7071, several with semicolons.")]
    [InlineData("urls=ftp://localhost:7071", "The address 'ftp://localhost:7071' to listen on cannot be read; write ASPNETCORE_URLS like http://localhost:7071, several with semicolons.")]
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
    [InlineData("Model__ApiKey=k")]
    [InlineData(Model + "MODEL__MAXRETRIES=1|Model__Fallbacks__1__Name=a|Model=others|Sweep=others|Models__Name=others|ModelName=others|Triage_Lease=others")]
    [InlineData("Model__Output=json|Model__Confidence=NONE|Model__ReviewBelow=0.5|Model__BaselineStandsIn=True|Model__MaskPersonalData=true")]
    [InlineData("Model__ReviewBelow=|Model__Output=|Model__TokensPerDay=|Model__CostPerDay=|Model__Fallbacks=")]
    [InlineData("Model__BreakDuration=00:00:00|Model__TokensPerDay=9223372036854775807|Model__InputPricePerMillion=0.15|Model__OutputPricePerMillion=1e-3")]
    [InlineData("Model__Provider=baseline|Model__Endpoint=http://localhost:1")]
    [InlineData("Webhooks__Secret=|Webhooks__PreviousSecret= |Triage__RequestsPerMinute=")]
    [InlineData("Webhooks__Secret=" + Secret + "|Webhooks__PreviousSecret=" + Secret)]
    [InlineData(Model + "Taxonomy__Categories__0__Label=Una|Taxonomy__Categories__1__Label=Otra")]
    [InlineData("Taxonomy__Sentiments__0__Label=Bien|Taxonomy__Sentiments__0__Synonyms__0=positivo|Taxonomy__Sentiments__1__Label=Mal"
        + "|Taxonomy__Sentiments__1__Synonyms__0=NEGATIVO|Taxonomy__Sentiments__1__Synonyms__1=Neutral")]
    public void Right_settings_do_not(string settings) => Assert.Empty(FindErrors(settings));

    /// <summary>Whoever runs the tests may have an account.</summary>
    private static readonly IEnumerable<KeyValuePair<string, string?>> NoVariables =
        new[] { "OPENAI_API_KEY", "OPENAI_BASE_URL" }.Select(name => KeyValuePair.Create(name, (string?)""));

    private static string[] FindErrors(string settings)
    {
        try
        {
            ((IDisposable)PlainHost.Build(NoVariables.Concat(settings.Split('|', StringSplitOptions.RemoveEmptyEntries).Select(setting => setting.Split('=', 2))
                .Select(pair => KeyValuePair.Create(pair[0].Replace("__", ":", StringComparison.Ordinal), (string?)pair[1]))))).Dispose();
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
