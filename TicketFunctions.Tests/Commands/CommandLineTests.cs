using System.Diagnostics;
using System.Text.Json.Nodes;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Commands;

/// <summary>The product, and a model for it that is known to answer.</summary>
public sealed class ProductWithModel : IAsyncLifetime
{
    public ModelStub Model { get; private set; } = null!;

    /// <summary>Without a database: where one were needed, it would be made in a folder of this test's own.</summary>
    public Product Product { get; } = new(("EmbeddedPostgres__Folder", "postgres"));

    /// <summary>One call is one call, and a failure leaves nobody alone: ResilienceTests has the rest.</summary>
    public (string Name, string Value)[] UseModel =>
        [("Model__Endpoint", Model.Endpoint), ("Model__Name", "stub-model"), ("Model__MaxRetries", "0"), ("Model__BreakDuration", "00:00:00")];

    public async Task InitializeAsync() => Model = await ModelStub.StartAsync();

    public async Task DisposeAsync()
    {
        Product.Dispose();
        await Model.DisposeAsync();
    }
}

/// <summary>What the commands say and answer that need no database.</summary>
public sealed class CommandLineTests(ProductWithModel fixture) : IClassFixture<ProductWithModel>
{
    private readonly Product _product = fixture.Product;

    [Theory]
    [InlineData("", "serve", "migrate", "sweep", "add <text>", "costs", "classify <text>", "evaluate <file>", "models")]
    [InlineData("serve", "Ctrl-C")]
    [InlineData("migrate", "supabase db push")]
    [InlineData("sweep", "due")]
    [InlineData("parked", "--json", "revive")]
    [InlineData("revive", "<id>", "--all")]
    [InlineData("add", "<text>")]
    [InlineData("costs", "--since", "--json", "2026-11-20")]
    [InlineData("classify", "<text>", "--json", "standard input")]
    [InlineData("evaluate", "<file>", "--json", "category")]
    [InlineData("models", "--json", "arrow")]
    [InlineData("doctor", "--url", "--key", "warn, fail or skip")]
    public async Task Each_command_explains_itself(string command, params string[] words)
    {
        var help = await _product.RunAsync([.. command.Split(' ', StringSplitOptions.RemoveEmptyEntries), "--help"]);

        Assert.Equal((0, ""), (help.ExitCode, help.Error));
        Assert.Contains("Usage:", help.Output, StringComparison.Ordinal);
        Assert.All(words, word => Assert.Contains(word, help.Output, StringComparison.Ordinal));
    }

    [Theory]
    [InlineData("'nope'", "nope")]
    [InlineData("'--nope'", "sweep", "--nope")]
    [InlineData("'--nope'", "classify", "hola", "--nope")]
    [InlineData("'dos'", "classify", "uno", "dos")]
    [InlineData("'classify'", "classify")]
    [InlineData("give their ids, or --all", "revive")]
    [InlineData("give their ids, or --all", "revive", "--all", "00000000-0000-4000-8000-000000000000")]
    [InlineData("An id is not a UUID", "revive", "00000000-0000-4000-8000-000000000000", "00000000")]
    [InlineData("'now'", "migrate", "now")]
    [InlineData("--since is not a date; write it like 2026-11-20.", "costs", "--since", "gestern")]
    [InlineData("--since is not a date", "costs", "--since", "2026-13-01")]
    [InlineData("'--since'", "costs", "--since")]
    [InlineData("--url is not an address", "doctor", "--url", "tickets.example.com")]
    [InlineData("without a key", "doctor", "--url", "https://tickets.example.com?code=1")]
    [InlineData("give both", "doctor", "--key", "1")]
    [InlineData("'nowhere.jsonl'", "evaluate", "nowhere.jsonl")]
    [InlineData("'.' is a folder", "evaluate", ".")]
    [InlineData("--limit must be a whole number", "reprocess", "--model", "m", "--limit", "x")]
    [InlineData("--limit must be a whole number", "reprocess", "--model", "m", "--limit", "0")]
    [InlineData("--limit must be a whole number", "reprocess", "--model", "m", "--limit", "99999999999")]
    [InlineData("--since is not a time; write it like 2026-11-20 or 2026-11-20T08:30:00Z.", "reprocess", "--since", "1.1")]
    [InlineData("--since is not a time", "reprocess", "--since", "10:00")]
    [InlineData("--since is not a time", "reprocess", "--since", "03/04/2026")]
    public async Task Wrong_words_are_told_and_nothing_is_done(string told, params string[] words)
    {
        var result = await _product.RunAsync(words);

        Assert.Equal(2, result.ExitCode);
        Assert.Contains(told, result.Error, StringComparison.Ordinal);
        Assert.False(Directory.Exists(Path.Combine(_product.Folder, "postgres")));
    }

    [Fact]
    public async Task A_text_is_classified_without_an_account_and_without_a_database()
    {
        var text = await _product.RunAsync("classify", "No puedo iniciar sesión desde ayer 🤯");
        Assert.Equal((0, ""), (text.ExitCode, text.Error));
        Assert.Matches(@"^(Tecnico|Facturacion|Comercial|Otro), (Positivo|Neutral|Negativo)  \(confidence [01]\.\d\d, baseline \S+\)$", Assert.Single(text.Lines));

        var json = await _product.RunAsync("classify", "No puedo iniciar sesión desde ayer 🤯", "--json");
        Assert.Equal((0, ""), (json.ExitCode, json.Error));
        var answer = JsonNode.Parse(Assert.Single(json.Lines))!.AsObject();
        Assert.Equal(["category", "sentiment", "confidence", "source", "model", "needsReview"], answer.Select(member => member.Key));
        Assert.StartsWith($"{answer["category"]}, {answer["sentiment"]}  (confidence ", text.Output, StringComparison.Ordinal);
        Assert.InRange((double)answer["confidence"]!, 0, 1);
        Assert.Equal("baseline", (string?)answer["source"]);

        var blank = await _product.RunAsync("classify", " \u200b");
        Assert.Equal((1, ""), (blank.ExitCode, blank.Error));
        Assert.StartsWith("no labels: blank", blank.Output, StringComparison.Ordinal);
        Assert.False(Directory.Exists(Path.Combine(_product.Folder, "postgres")));
    }

    [Fact]
    public async Task Lines_are_answered_in_their_order_each_by_one_JSON_object()
    {
        fixture.Model.On("Falló el pago 🤯", ModelStub.Labels("Facturacion", "Negativo"));
        fixture.Model.On("\"comillas\" y \\", ModelStub.Labels("Comercial", "Neutral"));
        fixture.Model.On("no hay respuesta", ModelStub.Raw(500, "text/plain", "canary"));
        fixture.Model.On("gràcies — спасибо", ModelStub.Labels("Otro", "Positivo"));
        const string Input = "Falló el pago 🤯\n\n  \"comillas\" y \\\r\nno hay respuesta\ngràcies — спасибо";

        var result = await _product.RunAsync(Input, fixture.UseModel, "classify", "-");

        Assert.Equal(
            """
            {"category":"Facturacion","sentiment":"Negativo","confidence":null,"source":"model","model":"stub-model","needsReview":false}
            {"category":null,"sentiment":null,"confidence":null,"source":"model","model":"stub-model","needsReview":false,"error":"blank: the text has nothing in it to classify"}
            {"category":"Comercial","sentiment":"Neutral","confidence":null,"source":"model","model":"stub-model","needsReview":false}
            {"category":null,"sentiment":null,"confidence":null,"source":"model","model":"stub-model","needsReview":false,"error":"unavailable: the model's server answered HTTP 500"}
            {"category":"Otro","sentiment":"Positivo","confidence":null,"source":"model","model":"stub-model","needsReview":false}

            """,
            result.Output);
        Assert.Equal(1, result.ExitCode);
        Assert.Single(fixture.Model.CallsFor("Falló el pago 🤯"));
        Assert.DoesNotContain("canary", result.Error, StringComparison.Ordinal);

        const string Good = "Falló el pago 🤯\ngràcies — спасибо\n";
        var plain = await _product.RunAsync(Good, fixture.UseModel, "classify", "-");
        var json = await _product.RunAsync(Good, fixture.UseModel, "classify", "-", "--json");
        Assert.Equal((0, 0), (plain.ExitCode, json.ExitCode));
        Assert.Equal([result.Lines[0], result.Lines[4]], plain.Lines);
        Assert.Equal(plain.Output, json.Output);

        var nothing = await _product.RunAsync("", [], "classify", "-");
        Assert.Equal(new CommandResult(0, "", ""), nothing);
    }

    [Fact]
    public async Task A_line_is_answered_as_soon_as_it_comes()
    {
        fixture.Model.On("el primero", ModelStub.Labels("Otro", "Neutral"));
        await using var process = _product.Start(["classify", "-"], fixture.UseModel);

        await process.Input.WriteAsync("el primero\n");
        await process.Input.FlushAsync();

        await process.ReadLineWithAsync("\"Otro\"");
        process.Input.Close();
        Assert.Equal(0, await process.WaitForExitAsync());
    }

    [UnixTheory]
    [InlineData("INT")]
    [InlineData("TERM")]
    public async Task It_ends_at_once_while_it_waits_for_a_line(string signal)
    {
        await using var process = _product.Start(["classify", "-"]);
        await process.Input.WriteAsync("la única\n");
        await process.Input.FlushAsync();
        await process.ReadLineWithAsync("confidence");
        var waited = Stopwatch.StartNew();

        await process.SignalAsync(signal);

        Assert.Equal(130, await process.WaitForExitAsync());
        Assert.InRange(waited.Elapsed, TimeSpan.Zero, TimeSpan.FromSeconds(10));
    }

    /// <summary>Some of them OpenTelemetry passes over; these it refuses, and says neither which nor why.</summary>
    [Theory]
    [InlineData("OTEL_EXPORTER_OTLP_HEADERS", "Authorization: Bearer canary")]
    [InlineData("OTEL_EXPORTER_OTLP_TIMEOUT", "0")]
    [InlineData("OTEL_METRIC_EXPORT_INTERVAL", "0")]
    public async Task A_variable_that_OpenTelemetry_refuses_is_told_as_one(string name, string value)
    {
        (string, string)[] settings = [("ConnectionStrings__Tickets", "postgresql://u:p@127.0.0.1:1/d"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"), (name, value)];

        foreach (string[] command in new string[][] { ["classify", "hola"], ["serve"] })
        {
            var result = await _product.RunAsync("", settings, command);

            Assert.Equal((2, ""), (result.ExitCode, result.Output));
            Assert.Matches($"^error: OpenTelemetry does not take one of (OTEL_[A-Z_]+, )*{name}.+\n$", result.Error);
            Assert.DoesNotContain("canary", result.Error, StringComparison.Ordinal);
        }
    }

    [Fact]
    public async Task A_level_of_the_log_that_is_none_is_told()
    {
        var result = await _product.RunAsync("", [("Logging__LogLevel__Default", "nope")], "classify", "hola");

        Assert.Equal(
            (2, "error: Logging__LogLevel__Default is no level; write Trace, Debug, Information, Warning, Error, Critical or None.\n"), (result.ExitCode, result.Error));
    }

    [UnixFact]
    public async Task When_nobody_reads_the_answers_any_more_no_model_is_asked_for_them()
    {
        var hold = fixture.Model.Hold("la segunda");
        await using var pipe = _product.Start(["classify", "-"], "(head -n 1; exec 0<&-; echo gone >&2)", fixture.UseModel);

        await pipe.Input.WriteAsync("la primera\nla segunda\nla tercera\n");
        await pipe.Input.FlushAsync();
        await hold.Arrived;
        await pipe.ReadLineWithAsync("gone");
        hold.Release();
        await pipe.ReadLineWithAsync("error: Broken pipe");

        await pipe.WaitForExitAsync();
        Assert.Single(pipe.Output.Split('\n', StringSplitOptions.RemoveEmptyEntries));
        Assert.Empty(fixture.Model.CallsFor("la tercera"));
    }

    [Fact]
    public async Task Evaluate_scores_the_classifier()
    {
        fixture.Model.On("uno", ModelStub.Labels("Tecnico", "Negativo"));
        fixture.Model.On("dos", ModelStub.Labels("Facturacion", "Neutral"));
        fixture.Model.On("tres", ModelStub.Labels("Facturacion", "Neutral"));
        fixture.Model.On("cuatro", ModelStub.Labels("Comercial", "Negativo"));
        fixture.Model.On("cinco", ModelStub.Content("no sé"));
        var file = Path.Combine(_product.Folder, "gold.jsonl");
        await File.WriteAllTextAsync(
            file,
            """
            {"text": "uno", "category": "Tecnico", "sentiment": "Negativo"}
            {"text": "dos", "category": "TÉCNICO", "sentiment": "neutral", "note": "other members are passed over"}

            {"text": "tres", "category": "Billing"}
            {"text": "cuatro", "sentiment": "Positivo"}
            {"text": "cinco", "category": "Otro", "sentiment": "Negativo"}
            """);

        var json = await _product.RunAsync("", fixture.UseModel, "evaluate", file, "--json");

        // Category: Tecnico 1 of 2 found, 1 right of 1; Facturacion 1 of 1, 1 of 2; Otro never. F1 2/3, 2/3, 0.
        // Sentiment: Negativo 1 of 2, 1 of 2; Neutral whole; Positivo never. F1 1/2, 1, 0.
        Assert.Equal(1, json.ExitCode);
        JsonAssert.Equal(
            """
            {
              "model": "stub-model", "rows": 5, "unanswered": 1,
              "category": {
                "count": 4, "accuracy": 0.5, "macroF1": 0.4444,
                "classes": [
                  { "label": "(none)", "precision": 0, "recall": 0, "f1": 0, "support": 0 },
                  { "label": "Facturacion", "precision": 0.5, "recall": 1, "f1": 0.6667, "support": 1 },
                  { "label": "Otro", "precision": 0, "recall": 0, "f1": 0, "support": 1 },
                  { "label": "Tecnico", "precision": 1, "recall": 0.5, "f1": 0.6667, "support": 2 }
                ],
                "confusion": [
                  { "gold": "Facturacion", "predicted": "Facturacion", "count": 1 },
                  { "gold": "Otro", "predicted": "(none)", "count": 1 },
                  { "gold": "Tecnico", "predicted": "Facturacion", "count": 1 },
                  { "gold": "Tecnico", "predicted": "Tecnico", "count": 1 }
                ]
              },
              "sentiment": {
                "count": 4, "accuracy": 0.5, "macroF1": 0.5,
                "classes": [
                  { "label": "(none)", "precision": 0, "recall": 0, "f1": 0, "support": 0 },
                  { "label": "Negativo", "precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2 },
                  { "label": "Neutral", "precision": 1, "recall": 1, "f1": 1, "support": 1 },
                  { "label": "Positivo", "precision": 0, "recall": 0, "f1": 0, "support": 1 }
                ],
                "confusion": [
                  { "gold": "Negativo", "predicted": "(none)", "count": 1 },
                  { "gold": "Negativo", "predicted": "Negativo", "count": 1 },
                  { "gold": "Neutral", "predicted": "Neutral", "count": 1 },
                  { "gold": "Positivo", "predicted": "Negativo", "count": 1 }
                ]
              }
            }
            """,
            JsonNode.Parse(json.Output));

        var text = await _product.RunAsync("", fixture.UseModel, "evaluate", file);
        Assert.Equal(1, text.ExitCode);
        Assert.Contains("5 rows, stub-model; 1 got no labels", text.Output, StringComparison.Ordinal);
        Assert.Contains("Category: accuracy 0.500, macro-F1 0.444 over 4 rows", text.Output, StringComparison.Ordinal);
        Assert.Contains("Sentiment: accuracy 0.500, macro-F1 0.500 over 4 rows", text.Output, StringComparison.Ordinal);
        Assert.Contains(text.Lines, line => Cells(line) is ["Facturacion", "0.500", "1.000", "0.667", "1"]);
        Assert.Contains(text.Lines, line => Cells(line) is ["Tecnico", "0", "1", "0", "1"]);

        await File.WriteAllTextAsync(file, """{"text": "uno", "category": "Tecnico"}""");
        var answered = await _product.RunAsync("", fixture.UseModel, "evaluate", file);
        Assert.Equal(0, answered.ExitCode);
        Assert.DoesNotContain("no labels", answered.Output, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("""{"text": "dos", "category": """, "is not a JSON object with a \"text\"")]
    [InlineData("""["dos"]""", "is not a JSON object with a \"text\"")]
    [InlineData("""{"category": "Otro"}""", "is not a JSON object with a \"text\"")]
    [InlineData("""{"text": null}""", "is not a JSON object with a \"text\"")]
    [InlineData("""{"text": "dos", "sentiment": "Furioso"}""", "'Furioso' is no label of the taxonomy")]
    public async Task Evaluate_names_a_line_that_cannot_be_read_before_it_asks_any_model(string line, string told)
    {
        var first = $"primera línea {Guid.NewGuid()}";
        var file = Path.Combine(_product.Folder, "broken.jsonl");
        await File.WriteAllLinesAsync(file, [$$"""{"text": "{{first}}"}""", "", line]);

        var result = await _product.RunAsync("", fixture.UseModel, "evaluate", file);

        Assert.Equal(2, result.ExitCode);
        Assert.Equal($"error: broken.jsonl, line 3: {told}.\n", result.Error);
        Assert.Equal("", result.Output);
        Assert.Empty(fixture.Model.CallsFor(first));
    }

    [Fact]
    public async Task Wrong_settings_are_told_in_sentences_and_nothing_is_tried()
    {
        foreach (string[] command in new string[][] { ["classify", "hola"], ["migrate"], ["sweep"], ["add", "hola"], ["costs"], ["parked"], ["revive", "--all"], ["models"], ["serve"], [] })
        {
            var result = await _product.RunAsync("", [("Triage__MaxAttempts", "many"), ("Sweep__BatchSize", "0")], command);

            Assert.Equal(2, result.ExitCode);
            Assert.Equal("", result.Output);
            Assert.Equal(
                "error: Triage__MaxAttempts cannot be read; write a whole number.\nerror: Sweep__BatchSize must be between 1 and 1000.\n", result.Error);
        }

        Assert.False(Directory.Exists(Path.Combine(_product.Folder, "postgres")));
    }

    [Fact]
    public async Task Local_settings_are_honoured_and_the_environment_wins_over_them()
    {
        using var product = new Product();
        var file = Path.Combine(product.Folder, "local.settings.json");
        await File.WriteAllTextAsync(
            file,
            $$"""
            {
              // As the Functions tools write it, comments included.
              "IsEncrypted": false,
              "Values": { "Model__Endpoint": "{{fixture.Model.Endpoint}}", "Model__Name": "from-file", "Model__ApiKey": "file-key" },
              "Host": { "CORS": "*" }
            }
            """);

        Assert.Equal("from-file", await ReadModelAsync());
        Assert.Equal("from-environment", await ReadModelAsync(("Model__Name", "from-environment")));
        Assert.All(fixture.Model.CallsFor("de quién"), call => Assert.Equal("Bearer file-key", call.Headers.Authorization));

        await File.WriteAllTextAsync(file, """{ "Values": {""");
        var broken = await product.RunAsync("classify", "de quién");
        Assert.Equal(2, broken.ExitCode);
        Assert.StartsWith("error: local.settings.json of the current folder is not JSON; mend it, or remove it.", broken.Error, StringComparison.Ordinal);
        Assert.Single(broken.Error.Split('\n', StringSplitOptions.RemoveEmptyEntries));

        async Task<string?> ReadModelAsync(params (string, string)[] settings)
        {
            var result = await product.RunAsync("", settings, "classify", "de quién", "--json");
            Assert.Equal((0, ""), (result.ExitCode, result.Error));
            return (string?)JsonNode.Parse(result.Output)!["model"];
        }
    }

    private static string[] Cells(string line) =>
        [.. line.Split('│', StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries)];
}
