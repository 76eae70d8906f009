using Microsoft.Extensions.AI;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using Moq;
using TicketFunctions.Classification;
using TicketFunctions.Hosting;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Classification.Providers;

/// <summary>
/// The classifier as the built host wires it, a model stub behind it, and nothing else: no database, no web, no worker. So what
/// stands on it runs in both builds. Use it as a class fixture, or start one with other settings or services by
/// <see cref="StartAsync"/>.
/// </summary>
public sealed class ModelHarness : IAsyncLifetime, IAsyncDisposable
{
    private readonly CapturedLog _log = new();
    private readonly (string Name, string? Value)[] _settings;
    private readonly Action<IServiceCollection>? _configure;
    private ServiceProvider? _services;

    /// <summary>With the form of requests fixed: tests that share a harness do not see what others made the server out to be.</summary>
    public ModelHarness()
        : this(null, [("Model__Output", "Schema")])
    {
    }

    private ModelHarness(Action<IServiceCollection>? configure, (string Name, string? Value)[] settings) =>
        (_configure, _settings) = (configure, settings);

    public ModelStub Model { get; private set; } = null!;

    public IServiceProvider Services => _services!;

    public ITicketClassifier Classifier => _services!.GetRequiredService<ITicketClassifier>();

    /// <summary>What was logged, as level and message; every level is.</summary>
    public IReadOnlyCollection<(LogLevel Level, string Message)> Log => _log.Entries;

    /// <param name="configure">Last changes to the services.</param>
    /// <param name="settings">Settings by their environment names, over the defaults.</param>
    public static async Task<ModelHarness> StartAsync(Action<IServiceCollection>? configure = null, params (string Name, string? Value)[] settings)
    {
        var harness = new ModelHarness(configure, settings);
        await harness.InitializeAsync();
        return harness;
    }

    public async Task InitializeAsync()
    {
        Model = await ModelStub.StartAsync();
        var settings = new Dictionary<string, string?>
        {
            ["Model:Endpoint"] = Model.Endpoint,
            ["Model:Name"] = "stub-model",
            ["Model:ApiKey"] = "stub-key",
            ["Model:AttemptTimeout"] = "00:00:20",
            ["Model:TotalTimeout"] = "00:00:30",
        };
        foreach (var (name, value) in _settings)
        {
            settings[name.Replace("__", ":", StringComparison.Ordinal)] = value;
        }

        var services = new ServiceCollection();
        services.AddLogging(logging => logging.SetMinimumLevel(LogLevel.Trace).AddProvider(_log));
        var configuration = new ConfigurationBuilder().AddInMemoryCollection(settings).Build();
        services.AddSingleton<IConfiguration>(configuration).AddSingleton(Mock.Of<IHostApplicationLifetime>())
            .AddTicketFunctions(configuration).AddChatClients();
        _configure?.Invoke(services);
        _services = services.BuildServiceProvider();
    }

    /// <summary>Another chat client as the classifier has one for each address of a model.</summary>
    public IChatClient CreateChatClient()
    {
        var target = new ModelTarget("compatible", "stub-model", [new Uri(Model.Endpoint)], "stub-key", null, 64, null, null);
        return _services!.GetRequiredService<ChatClientFactory>()(target, target.Endpoints[0]);
    }

    public Task<ClassificationResult> ClassifyAsync(string text, CancellationToken cancellationToken = default) =>
        Classifier.ClassifyAsync(text, cancellationToken);

    /// <summary>The prompt with the taxonomy that is configured.</summary>
    public TicketPrompt CreatePrompt() => new(_services!.GetRequiredService<Taxonomy>());

    public async Task DisposeAsync()
    {
        await _services!.DisposeAsync();
        await Model.DisposeAsync();
    }

    ValueTask IAsyncDisposable.DisposeAsync() => new(DisposeAsync());
}
