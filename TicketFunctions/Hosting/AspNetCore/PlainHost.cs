using Microsoft.Extensions.Options;
using TicketFunctions.Classification;
using TicketFunctions.Tickets;
using TicketFunctions.Triggers;

namespace TicketFunctions.Hosting.AspNetCore;

/// <summary>The functions as a plain web process.</summary>
public static class PlainHost
{
    public const string DefaultUrl = "http://localhost:7071";

    public const string DefaultSweepSchedule = "0 */5 * * * *";

    /// <summary>Nothing follows a setting that changes later, so no file is watched: Linux grants a user 128 watchers by default.</summary>
    internal static readonly string[] ReadSettingsOnce = ["--hostBuilder:reloadConfigOnChange=false"];

    /// <summary>Wires the process; the caller starts it.</summary>
    /// <param name="settings">Settings that win over the environment.</param>
    /// <param name="configure">Last changes to the services.</param>
    /// <exception cref="OptionsValidationException">A setting is wrong.</exception>
    /// <exception cref="FormatException">A setting is wrong.</exception>
    public static WebApplication Build(
        IEnumerable<KeyValuePair<string, string?>>? settings = null, Action<IServiceCollection>? configure = null)
    {
        var builder = WebApplication.CreateSlimBuilder(new WebApplicationOptions { Args = ReadSettingsOnce, ContentRootPath = AppContext.BaseDirectory });
        builder.Configuration.AddLocalSettings().AddInMemoryCollection(settings ?? []);
        if (string.IsNullOrEmpty(builder.Configuration["urls"]?.Trim(' ', ';')))
        {
            // Empty, the framework goes by the ports; blank, by nothing.
            builder.Configuration["urls"] = FunctionKeys.FindAddresses(builder.Configuration).Any() ? "" : DefaultUrl;
        }

        builder.Configuration["SweepSchedule"] ??= DefaultSweepSchedule;
        builder.Configuration["Docs:Enabled"] ??= FunctionKeys.FindOpenAddress(builder.Configuration) is null ? "true" : "false";
        builder.AddQuietLogging();
        if (!IsEachRequestWatched(builder.Configuration))
        {
            builder.Logging.AddFilter("Microsoft.AspNetCore.Hosting.Diagnostics", LogLevel.None);
        }

        // What the slim builder leaves out and some address may need.
        builder.WebHost.UseKestrelHttpsConfiguration();
        builder.WebHost.ConfigureKestrel(kestrel =>
        {
            kestrel.AddServerHeader = false;
            // RequestBody counts what the body says. Kestrel counts the framing of chunks too: up to six bytes for each of one byte.
            kestrel.Limits.MaxRequestBodySize = 8 * RequestBody.MaxBytes;
        });

        // What is under way gets the grace of WorkDrain; the rest of the time is for writing and closing.
        builder.Services.Configure<HostOptions>(host => host.ShutdownTimeout = TimeSpan.FromSeconds(9));
        TicketFunctionsSetup.AddOptions<KeyOptions>(builder.Services, builder.Configuration, "Keys");
        builder.Services.AddTicketFunctions(builder.Configuration).AddChatClients();
        builder.Services.AddFunctions();
        builder.Services.AddHostedService(provider => provider.GetRequiredService<BacklogWatch>());
        configure?.Invoke(builder.Services);

        var app = builder.Build();
        if (FunctionKeys.FindError(app.Configuration, app.Services.GetRequiredService<IOptions<KeyOptions>>().Value) is { } error)
        {
            throw new FormatException(error);
        }

        var problems = app.Services.GetRequiredService<ProblemAnswers>();
        app.Use(next => context => problems.RunAsync(context, next));
        app.MapFunctions();

        // Before anything is set up for them: a wrong setting stops the start here.
        app.Services.GetRequiredService<IStartupValidator>().Validate();
        app.Services.GetRequiredService<TimerFunctions>();
        return app;
    }

    /// <summary>One line an event, on standard error: standard output belongs to what commands print.</summary>
    /// <exception cref="FormatException">A level is none.</exception>
    public static void AddQuietLogging(this IHostApplicationBuilder builder)
    {
        foreach (var (name, level) in builder.Configuration.GetSection("Logging").AsEnumerable())
        {
            if (name.Contains("LogLevel:", StringComparison.OrdinalIgnoreCase) && !string.IsNullOrEmpty(level) && !Enum.TryParse<LogLevel>(level, ignoreCase: true, out _))
            {
                throw new FormatException(
                    $"{name.Replace(":", "__", StringComparison.Ordinal)} is no level; write Trace, Debug, Information, Warning, Error, Critical or None.");
            }
        }

        builder.Logging.AddSimpleConsole(console =>
        {
            console.SingleLine = true;
            console.TimestampFormat = "HH:mm:ss ";
        });
        // The line stays the framework's, its writer does not.
        builder.Logging.ClearProviders();
        builder.Logging.Services.AddSingleton<ILoggerProvider, ConsoleLog>();
        builder.Logging.AddFilter("Microsoft", LogLevel.Warning);
        builder.Logging.AddFilter("Microsoft.Hosting.Lifetime", LogLevel.Warning);
        // A failed start is thrown as well; the log would show it first, with its stack.
        builder.Logging.AddFilter("Microsoft.Extensions.Hosting.Internal.Host", LogLevel.Critical);
        builder.Logging.AddFilter("Npgsql", LogLevel.Warning);
        // The banner says it.
        builder.Logging.AddFilter(typeof(ModelAnnouncement).FullName, LogLevel.Warning);
    }

    /// <summary>
    /// Whether somebody may read the scope and the span that the web server puts around each request as soon as it may log: a setting
    /// asks for its lines or for scopes, or log lines are exported, which name the span. A listener to the span itself gets it anyhow.
    /// </summary>
    private static bool IsEachRequestWatched(ConfigurationManager configuration) =>
        TelemetryExport.IsOn("LOGS", configuration)
        || configuration.GetSection("Logging").AsEnumerable().Any(setting =>
            setting.Key.Contains("Microsoft.AspNetCore", StringComparison.OrdinalIgnoreCase) || setting.Key.EndsWith("IncludeScopes", StringComparison.OrdinalIgnoreCase));

    /// <summary>Reads <c>local.settings.json</c> of the current folder, as <c>func start</c> does; the environment wins over it.</summary>
    internal static ConfigurationManager AddLocalSettings(this ConfigurationManager configuration)
    {
        IConfiguration file;
        try
        {
            file = new ConfigurationBuilder().AddJsonFile(Path.GetFullPath("local.settings.json"), optional: true).Build();
        }
        catch (InvalidDataException e)
        {
            throw new FormatException($"local.settings.json of the current folder is not JSON; mend it, or remove it. {e.GetBaseException().Message}");
        }

        ((IConfigurationBuilder)configuration).Sources.Insert(0, new Microsoft.Extensions.Configuration.Memory.MemoryConfigurationSource
        {
            InitialData = file.GetSection("Values").AsEnumerable(makePathsRelative: true)
                .Where(pair => pair.Value is not null)
                .Select(pair => KeyValuePair.Create(
                    pair.Key.Replace("__", ":", StringComparison.Ordinal).Replace("ASPNETCORE_", "", StringComparison.OrdinalIgnoreCase), pair.Value)),
        });
        return configuration;
    }
}
