using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Options;
using Moq;
using TicketFunctions.Classification;

namespace TicketFunctions.Tests.Classification;

/// <summary>From settings and variables to the models that are asked: who, where, which, with what key.</summary>
public sealed class ProviderSettingsTests
{
    private const string Doubt = "Model__ReviewBelow asks for a confidence, and nothing is set to take it from; "
        + "set Model__Confidence=Samples (a second call), or Logprobs if the server gives them.";

    private const string Own = "is sent to the provider's own address only";

    [Theory]
    [InlineData("Model__Provider=openai|OPENAI_API_KEY=k", "openai https://api.openai.com/v1 gpt-4.1-mini k")]
    [InlineData("Model__Provider= OpenAI |OPENAI_API_KEY= k |Model__Name= m ", "openai https://api.openai.com/v1 m k")]
    [InlineData("Model__Provider=openai|OPENAI_API_KEY=k|OPENAI_BASE_URL=https://proxy.example", "openai https://proxy.example/v1 gpt-4.1-mini k")]
    [InlineData("Model__Provider=azure-openai|AZURE_OPENAI_ENDPOINT=https://r.openai.azure.com/|AZURE_OPENAI_API_KEY=k", "azure-openai https://r.openai.azure.com/openai/v1 gpt-4.1-mini k")]
    [InlineData("Model__Provider=azure-openai|AZURE_OPENAI_ENDPOINT=https://r.openai.azure.com|Model__Name=d", "azure-openai https://r.openai.azure.com/openai/v1 d -")]
    [InlineData("Model__Provider=huggingface|HUGGINGFACEHUB_API_TOKEN=k", "huggingface https://router.huggingface.co/v1 meta-llama/Llama-3.3-70B-Instruct k")]
    [InlineData("Model__Provider=huggingface|HF_TOKEN=k|Model__Name=a/b:groq", "huggingface https://router.huggingface.co/v1 a/b:groq k")]
    [InlineData("Model__Provider=huggingface|HF_TOKEN=second|HUGGINGFACEHUB_API_TOKEN=first", "huggingface https://router.huggingface.co/v1 meta-llama/Llama-3.3-70B-Instruct first")]
    [InlineData("Model__Provider=ollama", "ollama http://localhost:11434/v1 llama3.2 -")]
    [InlineData("Model__Provider=ollama|OPENAI_API_KEY=k|HF_TOKEN=k|AZURE_OPENAI_API_KEY=k", "ollama http://localhost:11434/v1 llama3.2 -")]
    [InlineData("Model__Provider=compatible|Model__Endpoint=http://vllm:8000|Model__Name=m", "compatible http://vllm:8000/v1 m -")]
    [InlineData("Model__Endpoint=https://h/api/v3/|Model__Name=m|Model__ApiKey=k", "compatible https://h/api/v3 m k")]
    [InlineData("Model__Name=m|OPENAI_API_KEY=k", "openai https://api.openai.com/v1 m k")]
    [InlineData("Model__ApiKey=k", "openai https://api.openai.com/v1 gpt-4.1-mini k")]
    public void Each_provider_takes_the_variables_that_people_have_for_it(string settings, string target) => Assert.Equal([target], Read(settings));

    [Theory]
    [InlineData(
        "Model__Provider=openai|Model__Name=m|Model__ApiKey=mine|Model__Endpoint=https://mine.example/v1|OPENAI_API_KEY=k|OPENAI_BASE_URL=https://proxy.example",
        "openai https://mine.example/v1 m mine")]
    [InlineData(
        "Model__Provider=azure-openai|Model__Endpoint=https://mine.openai.azure.com|Model__ApiKey=mine|AZURE_OPENAI_ENDPOINT=https://r.openai.azure.com|AZURE_OPENAI_API_KEY=k",
        "azure-openai https://mine.openai.azure.com/openai/v1 gpt-4.1-mini mine")]
    [InlineData("Model__Provider=huggingface|Model__ApiKey=mine|HF_TOKEN=k", "huggingface https://router.huggingface.co/v1 meta-llama/Llama-3.3-70B-Instruct mine")]
    [InlineData("Model__Provider=ollama|Model__Endpoint=http://mine:1|OLLAMA_HOST=other", "ollama http://mine:1/v1 llama3.2 -")]
    public void What_is_set_for_the_product_wins_over_the_variables(string settings, string target) => Assert.Equal([target], Read(settings));

    [Theory]
    [InlineData("", "embedded baseline (set Model__Provider to use a language model)")]
    [InlineData("Model__Provider=baseline|OPENAI_API_KEY=canary", "embedded baseline")]
    [InlineData("OPENAI_API_KEY=canary", "embedded baseline (OPENAI_API_KEY is set: Model__Provider=openai would use it)")]
    [InlineData("OPENAI_BASE_URL=https://canary", "embedded baseline (OPENAI_BASE_URL is set: Model__Provider=openai would use it)")]
    [InlineData("AZURE_OPENAI_ENDPOINT=https://canary", "embedded baseline (AZURE_OPENAI_ENDPOINT is set: Model__Provider=azure-openai would use it)")]
    [InlineData("AZURE_OPENAI_API_KEY=canary", "embedded baseline (AZURE_OPENAI_API_KEY is set: Model__Provider=azure-openai would use it)")]
    [InlineData("HUGGINGFACEHUB_API_TOKEN=canary", "embedded baseline (HUGGINGFACEHUB_API_TOKEN is set: Model__Provider=huggingface would use it)")]
    [InlineData("HF_TOKEN=canary", "embedded baseline (HF_TOKEN is set: Model__Provider=huggingface would use it)")]
    [InlineData("OLLAMA_HOST=canary", "embedded baseline (OLLAMA_HOST is set: Model__Provider=ollama would use it)")]
    [InlineData("OPENAI_API_KEY=|OLLAMA_HOST= ", "embedded baseline (set Model__Provider to use a language model)")]
    public void A_variable_alone_sends_no_ticket_anywhere_but_is_told(string settings, string description)
    {
        using var services = Build(settings);

        Assert.Empty(OptionsOf(services).Targets);
        Assert.Equal("baseline", services.GetRequiredService<ITicketClassifier>().Identities[0].Source);
        Assert.Equal(description, OptionsOf(services).Describe());
    }

    [Theory]
    [InlineData("localhost", "http://localhost:11434/v1")]
    [InlineData("0.0.0.0", "http://localhost:11434/v1")]
    [InlineData("0.0.0.0:1234", "http://localhost:1234/v1")]
    [InlineData(":11434", "http://localhost:11434/v1")]
    [InlineData(":1234", "http://localhost:1234/v1")]
    [InlineData("host:1234", "http://host:1234/v1")]
    [InlineData("host:80", "http://host/v1")]
    [InlineData("192.0.2.7", "http://192.0.2.7:11434/v1")]
    [InlineData("host/ollama", "http://host:11434/ollama/v1")]
    [InlineData("http://h:1", "http://h:1/v1")]
    [InlineData("http://h", "http://h/v1")]
    [InlineData("http://0.0.0.0:11434", "http://localhost:11434/v1")]
    [InlineData("https://h/ollama", "https://h/ollama/v1")]
    [InlineData("https://h/ollama/v1/", "https://h/ollama/v1")]
    [InlineData("[::1]:11434", "http://[::1]:11434/v1")]
    [InlineData("[::1]", "http://[::1]:11434/v1")]
    [InlineData("::1", "http://[::1]:11434/v1")]
    [InlineData("[::]:1234", "http://localhost:1234/v1")]
    [InlineData("::", "http://localhost:11434/v1")]
    public void Every_form_of_OLLAMA_HOST_is_an_address_to_call(string host, string address)
    {
        Assert.Equal([$"ollama {address} llama3.2 -"], Read($"Model__Provider=ollama|OLLAMA_HOST={host}"));
        Assert.Equal([$"ollama {address} llama3.2 -"], Read($"Model__Provider=ollama|Model__Endpoint={host}"));
    }

    [Theory]
    [InlineData("https://r.openai.azure.com", "https://r.openai.azure.com/openai/v1")]
    [InlineData("https://r.openai.azure.com/openai", "https://r.openai.azure.com/openai/v1")]
    [InlineData("https://r.openai.azure.com/openai/v1", "https://r.openai.azure.com/openai/v1")]
    [InlineData("https://r.openai.azure.com/openai/v1/", "https://r.openai.azure.com/openai/v1")]
    [InlineData("https://r.services.ai.azure.com/api/projects/p", "https://r.services.ai.azure.com/api/projects/p/openai/v1")]
    public void Every_form_of_an_Azure_address_is_the_one_to_call(string endpoint, string address) =>
        Assert.Equal([$"azure-openai {address} d -"], Read($"Model__Provider=azure-openai|Model__Name=d|Model__Endpoint={endpoint}"));

    [Fact]
    public void Several_addresses_serve_one_model()
    {
        Assert.Equal(["ollama http://one:11434/v1,http://two:1/v1,https://three/v1 llama3.2 -"], Read("Model__Provider=ollama|Model__Endpoint=one, two:1,,https://three ,"));
        Assert.Equal(["compatible http://one/v1,http://two/v1 m k"], Read("Model__Endpoint=http://one,http://two|Model__Name=m|Model__ApiKey=k"));
    }

    [Theory]
    [InlineData("Model__Provider=openai|Model__Endpoint=https://api.openai.com|OPENAI_API_KEY=k", "openai https://api.openai.com/v1 gpt-4.1-mini k")]
    [InlineData("Model__Provider=huggingface|Model__Endpoint=https://router.huggingface.co/v1|HF_TOKEN=k|Model__Name=m", "huggingface https://router.huggingface.co/v1 m k")]
    [InlineData("Model__Provider=azure-openai|Model__Endpoint=https://r.openai.azure.com|AZURE_OPENAI_API_KEY=k", "azure-openai https://r.openai.azure.com/openai/v1 gpt-4.1-mini k")]
    [InlineData(
        "Model__Provider=azure-openai|Model__Endpoint=https://other.openai.azure.com|AZURE_OPENAI_ENDPOINT=https://r.openai.azure.com|AZURE_OPENAI_API_KEY=k",
        "azure-openai https://other.openai.azure.com/openai/v1 gpt-4.1-mini -")]
    [InlineData("Model__Provider=compatible|Model__Endpoint=https://api.openai.com|Model__Name=m|OPENAI_API_KEY=k", "compatible https://api.openai.com/v1 m -")]
    public void A_key_in_a_variable_goes_to_the_address_it_was_made_for_and_to_no_other(string settings, string target) => Assert.Equal([target], Read(settings));

    [Theory]
    [InlineData("https://mine.example")]
    [InlineData("http://api.openai.com")]
    [InlineData("https://api.openai.com.example")]
    [InlineData("https://api.openai.com,https://mine.example")]
    public void Where_a_variables_key_is_not_sent_the_sentence_says_why(string endpoint) => Assert.Equal(
        [$"Model__ApiKey is missing; set it to the key of Model__Endpoint (OPENAI_API_KEY {Own}), or set Model__Provider=compatible if that server needs none."],
        FindErrors($"Model__Provider=openai|Model__Endpoint={endpoint}|OPENAI_API_KEY=k"));

    [Fact]
    public void A_fallback_is_another_model_of_the_same_server_or_any_other()
    {
        Assert.Equal(
            ["compatible http://one/v1,http://two/v1 m k", "compatible http://one/v1,http://two/v1 smaller k", "compatible http://one/v1,http://two/v1 m2 k2"],
            Read("Model__Endpoint=http://one,http://two|Model__Name=m|Model__ApiKey=k|Model__Fallbacks__0__Name=smaller"
                + "|Model__Fallbacks__1__Name=m2|Model__Fallbacks__1__ApiKey=k2"));

        // Another address is never shown the key of the first.
        Assert.Equal(
            ["openai https://api.openai.com/v1 gpt-4.1-mini k", "ollama http://box:11434/v1 llama3.2 -", "compatible http://three/v1 m -", "huggingface https://router.huggingface.co/v1 h hf"],
            Read("Model__Provider=openai|Model__ApiKey=k|OLLAMA_HOST=box|HF_TOKEN=hf|Model__Fallbacks__0__Provider=ollama"
                + "|Model__Fallbacks__1__Endpoint=http://three|Model__Fallbacks__1__Name=m|Model__Fallbacks__2__Provider=huggingface|Model__Fallbacks__2__Name=h"));
        Assert.Equal(
            ["azure-openai https://r/openai/v1 d -", "azure-openai https://r/openai/v1 e -"],
            Read("Model__Provider=azure-openai|Model__Endpoint=https://r|Model__Name=d|Model__Fallbacks__0__Name=e"));
    }

    [Fact]
    public void Each_model_has_its_own_prices_and_another_one_of_the_same_server_its_limits_unless_it_has_its_own()
    {
        using var services = Build("Model__Provider=ollama|Model__Output=prompt|Model__MaxOutputTokens=500|Model__InputPricePerMillion=0.15"
            + "|Model__Fallbacks__0__Name=b|Model__Fallbacks__0__OutputPricePerMillion=2.5"
            + "|Model__Fallbacks__1__Name=c|Model__Fallbacks__1__Output=json|Model__Fallbacks__1__MaxOutputTokens=100"
            + "|Model__Fallbacks__2__Endpoint=http://h|Model__Fallbacks__2__Name=d");

        Assert.Equal(
            [(OutputMode.Prompt, 500, 0.15m, null), (OutputMode.Prompt, 500, null, 2.5m), (OutputMode.Json, 100, null, null), (null, 64, null, null)],
            OptionsOf(services).Targets.Select(target => (target.Output, target.MaxOutputTokens, target.InputPricePerMillion, target.OutputPricePerMillion)));
    }

    [Theory]
    [InlineData("Model__Provider=ollama", "llama3.2 (ollama at localhost:11434)")]
    [InlineData("Model__Endpoint=http://user.example,http://two:8000|Model__Name=m|Model__ApiKey=canary", "m (compatible at user.example, two:8000)")]
    [InlineData("Model__Provider=azure-openai|Model__Endpoint=https://r.openai.azure.com|Model__ApiKey=canary", "gpt-4.1-mini (azure-openai at r.openai.azure.com)")]
    [InlineData("Model__Provider=azure-openai|Model__Endpoint=https://r.openai.azure.com|Model__Name=d", "d (azure-openai at r.openai.azure.com, by managed identity)")]
    [InlineData(
        "Model__Provider=openai|Model__ApiKey=canary|Model__Fallbacks__0__Name=b|Model__Fallbacks__1__Provider=ollama|Model__BaselineStandsIn=true",
        "gpt-4.1-mini (openai at api.openai.com), then b (openai at api.openai.com), then llama3.2 (ollama at localhost:11434), then the embedded baseline")]
    public void One_line_says_who_answers(string settings, string description)
    {
        using var services = Build(settings);

        Assert.Equal(description, OptionsOf(services).Describe());
    }

    [Fact]
    public async Task The_start_logs_that_line_once()
    {
        var logger = new Mock<ILogger>();
        logger.Setup(log => log.IsEnabled(It.IsAny<LogLevel>())).Returns(true);
        using var services = Build(
            "Model__Provider=openai|OPENAI_API_KEY=canary",
            logging => logging.AddProvider(Mock.Of<ILoggerProvider>(provider => provider.CreateLogger(It.IsAny<string>()) == logger.Object)));

        foreach (var service in services.GetServices<IHostedService>())
        {
            await service.StartAsync(default);
        }

        var line = Assert.Single(logger.Invocations, call => call.Method.Name == "Log").Arguments;
        Assert.Equal((LogLevel.Information, "Model: gpt-4.1-mini (openai at api.openai.com)"), ((LogLevel)line[0], line[2].ToString()));
    }

    [Theory]
    [InlineData(
        "Model__Provider=azure-openai|Model__Endpoint=https://r.openai.azure.com/openai/deployments/mini/chat/completions?api-version=2024-10-21",
        "Model__Endpoint (or AZURE_OPENAI_ENDPOINT) is the address of one deployment; write Model__Endpoint=https://r.openai.azure.com and Model__Name=mini.")]
    [InlineData(
        "Model__Provider=azure-openai|Model__Endpoint=https://r.openai.azure.com/openai/v1/chat/completions",
        "Model__Endpoint (or AZURE_OPENAI_ENDPOINT) is the address of one operation; write Model__Endpoint=https://r.openai.azure.com/openai/v1.")]
    [InlineData("Model__Endpoint=https://h/v1/chat/completions/|Model__Name=m", "Model__Endpoint is the address of one operation; write Model__Endpoint=https://h/v1.")]
    [InlineData(
        "Model__Provider=azure-openai|Model__Name=m",
        "Model__Endpoint is missing; set it (or AZURE_OPENAI_ENDPOINT) to the resource's address, for instance https://<resource>.openai.azure.com.")]
    [InlineData(
        "Model__Provider=azure-openai|AZURE_OPENAI_ENDPOINT=r.openai.azure.com",
        "Model__Endpoint (or AZURE_OPENAI_ENDPOINT) is not an http or https address; write it like https://<resource>.openai.azure.com, several with commas between.")]
    [InlineData(
        "Model__Provider=azure-openai|Model__Endpoint=http://r",
        "Model__Endpoint (or AZURE_OPENAI_ENDPOINT) is not https, and the managed identity is shown over https only; write https://, or set Model__ApiKey.")]
    [InlineData("Model__Provider=ollama|OLLAMA_HOST=host:canary", "Model__Endpoint (or OLLAMA_HOST) is not an http or https address; write it like http://localhost:11434, several with commas between.")]
    [InlineData("Model__Provider=ollama|Model__Endpoint=,", "Model__Endpoint is missing; set it to the server's address, for instance http://localhost:11434.")]
    [InlineData("Model__Endpoint=http://canary:canary@h|Model__Name=m", "Model__Endpoint carries a user or a query; write the bare address, and the key in Model__ApiKey.")]
    [InlineData("Model__Endpoint=http://h/v1?key=canary|Model__Name=m", "Model__Endpoint carries a user or a query; write the bare address, and the key in Model__ApiKey.")]
    [InlineData("Model__Endpoint=ftp://h|Model__Name=m", "Model__Endpoint is not an http or https address; write it like http://localhost:8000/v1, several with commas between.")]
    [InlineData("Model__Endpoint=http://h|Model__Name=m|Model__ApiKey=canary canary", "Model__ApiKey holds a blank, a line break or a character that no header can carry; copy the key again.")]
    [InlineData(
        "Model__Provider=huggingface|HF_TOKEN=canary\ncanary",
        "Model__ApiKey (or HUGGINGFACEHUB_API_TOKEN or HF_TOKEN) holds a blank, a line break or a character that no header can carry; copy the key again.")]
    [InlineData(
        "Model__Provider=huggingface",
        "Model__ApiKey is missing; set it (or HUGGINGFACEHUB_API_TOKEN or HF_TOKEN) to the provider's key, or choose a server that needs none, for instance with Model__Provider=ollama.")]
    [InlineData("Model__Fallbacks__0__Name=m", "Model__Fallbacks__0 stands behind no model; configure the first one with Model__Provider, or remove it.")]
    [InlineData(
        "Model__Provider=ollama|Model__Fallbacks__0__Provider=baseline",
        "Model__Fallbacks__0__Provider is baseline, which is no model; set Model__BaselineStandsIn=true to have it label while no model can be reached.")]
    [InlineData(
        "Model__Provider=ollama|Model__Fallbacks__0__Provider=magic",
        "Model__Fallbacks__0__Provider is 'magic'; it must be openai, azure-openai, huggingface, ollama, compatible or baseline.")]
    [InlineData(
        "Model__Provider=ollama|Model__Fallbacks__0__Name=m|Model__Fallbacks__1__Provider=openai",
        "Model__Fallbacks__1__ApiKey is missing; set it (or OPENAI_API_KEY) to the provider's key, or choose a server that needs none, for instance with Model__Fallbacks__1__Provider=ollama.")]
    [InlineData(
        "Model__Provider=ollama|Model__Fallbacks__0__Endpoint=https://h|Model__Fallbacks__0__ApiKey=canary canary",
        "Model__Fallbacks__0__Name is missing; name the model, for instance Model__Fallbacks__0__Name=gpt-4.1-mini.",
        "Model__Fallbacks__0__ApiKey holds a blank, a line break or a character that no header can carry; copy the key again.")]
    [InlineData("Model__Endpoint=http://h|Model__Name=m|Model__ReviewBelow=0.5", Doubt)]
    [InlineData("Model__Provider=huggingface|HF_TOKEN=k|Model__ReviewBelow=0.5", Doubt)]
    [InlineData("Model__Provider=ollama|Model__Confidence=None|Model__ReviewBelow=0.5", Doubt)]
    // What a fallback has from the first model is said once.
    [InlineData("Model__Provider=ollama|Model__MaxOutputTokens=15|Model__Fallbacks__0__Name=m", "Model__MaxOutputTokens must be between 16 and 32768.")]
    [InlineData(
        "Model__Provider=openai|Model__Fallbacks__0__Name=m",
        "Model__ApiKey is missing; set it (or OPENAI_API_KEY) to the provider's key, or choose a server that needs none, for instance with Model__Provider=ollama.")]
    [InlineData("Model__Provider=magic|Model__Fallbacks__0__Name=m", "Model__Provider is 'magic'; it must be openai, azure-openai, huggingface, ollama, compatible or baseline.")]
    public void What_is_wrong_is_told_with_the_way_to_mend_it_and_without_secrets(string settings, params string[] sentences)
    {
        var errors = FindErrors(settings);

        Assert.Equal(sentences, errors);
        Assert.DoesNotContain("canary", string.Join('\n', errors), StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("Model__Provider=ollama")]
    [InlineData("Model__Provider=baseline")]
    [InlineData("Model__Endpoint=http://h|Model__Name=m|Model__Confidence=Samples")]
    public void A_review_can_be_asked_for_where_there_is_a_confidence(string settings) => Assert.NotNull(Read(settings + "|Model__ReviewBelow=0.5").ToList());

    private static IEnumerable<string> Read(string settings)
    {
        using var services = Build(settings);
        return OptionsOf(services).Targets
            .Select(target => $"{target.Provider} {string.Join(",", target.Endpoints.Select(endpoint => endpoint.AbsoluteUri))} {target.Name} {target.ApiKey ?? "-"}");
    }

    private static string[] FindErrors(string settings)
    {
        using var services = Build(settings);
        return [.. Assert.Throws<OptionsValidationException>(() => OptionsOf(services)).Failures];
    }

    private static ModelOptions OptionsOf(IServiceProvider services) => services.GetRequiredService<IOptions<ModelOptions>>().Value;

    /// <summary>The wiring that every host calls, with these settings and nothing of this machine's.</summary>
    private static ServiceProvider Build(string settings, Action<ILoggingBuilder>? log = null)
    {
        var configuration = new ConfigurationBuilder()
            .AddInMemoryCollection(settings.Split('|', StringSplitOptions.RemoveEmptyEntries).Select(setting => setting.Split('=', 2))
                .Select(pair => KeyValuePair.Create(pair[0].Replace("__", ":", StringComparison.Ordinal), (string?)pair[1])))
            .Build();
        return new ServiceCollection()
            .AddSingleton<IConfiguration>(configuration)
            .AddSingleton(Mock.Of<IHostApplicationLifetime>())
            .AddLogging(log ?? (_ => { }))
            .AddTicketFunctions(configuration)
            .BuildServiceProvider();
    }
}
