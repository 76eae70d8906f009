using System.CommandLine;
using System.Globalization;
using System.Text.Encodings.Web;
using System.Text.Json;
using Spectre.Console;
using TicketFunctions.Classification;

namespace TicketFunctions.Hosting.AspNetCore.Commands;

/// <summary><c>models</c>: what the configured servers offer.</summary>
internal static class ModelsCommand
{
    private static readonly JsonSerializerOptions Json = new(JsonSerializerDefaults.Web)
    {
        WriteIndented = true,
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping,
    };

    /// <summary>The columns; those in which nothing stands are not shown.</summary>
    private static readonly (string Title, Func<ModelListing, string?> Cell)[] Columns =
    [
        ("  model", model => $"{(model.Configured ? "→" : " ")} {model.Name}"),
        ("size", model => model.SizeBytes is { } size ? FormatSize(size) : null),
        ("parameters", model => string.Join(' ', new[] { model.Parameters, model.Quantization }.OfType<string>()) is { Length: > 0 } text ? text : null),
        ("context", model => model.ContextLength?.ToString(CultureInfo.InvariantCulture)),
        ("schema", model => model.StructuredOutput is { } can ? can ? "yes" : "no" : null),
        ("price in/out", model => model.InputPricePerMillion is null && model.OutputPricePerMillion is null
            ? null
            : $"{FormatPrice(model.InputPricePerMillion)} / {FormatPrice(model.OutputPricePerMillion)}"),
    ];

    public static Command Create()
    {
        var json = new Option<bool>("--json") { Description = "Write a JSON array." };
        var command = new Command("models", "List the models that the configured servers offer; an arrow marks those that answer. schema: takes a JSON schema. Prices are for a million tokens.") { json };
        command.SetAction((parsed, cancellationToken) => CommandLine.Guarded(token => RunAsync(parsed.GetValue(json), token), cancellationToken));
        return command;
    }

    private static async Task<int> RunAsync(bool json, CancellationToken cancellationToken)
    {
        using var host = await CommandServices.StartAsync(cancellationToken);
        var offer = await host.Services.GetRequiredService<ModelCatalog>().ListAsync(cancellationToken);
        if (json)
        {
            Console.WriteLine(JsonSerializer.Serialize(offer.Models, Json));
        }
        else
        {
            foreach (var server in offer.Models.GroupBy(model => model.Endpoint is null ? model.Provider : $"{model.Provider} at {model.Endpoint}"))
            {
                CommandLine.Screen.WriteLine(server.Key);
                Show([.. server]);
            }
        }

        foreach (var sentence in offer.Missing)
        {
            Console.Error.WriteLine($"warning: {sentence}");
        }

        return offer.Faults.Count > 0 ? CommandLine.Fail(CommandLine.Failure, offer.Faults.Select(fault => fault.Reason))
            : offer.Missing.Count > 0 ? CommandLine.Failure
            : CommandLine.Success;
    }

    private static void Show(List<ModelListing> models)
    {
        var columns = Columns.Where(column => models.Exists(model => column.Cell(model) is not null)).ToList();
        var table = new Table();
        table.AddColumns([.. columns.Select(column => new TableColumn(column.Title).NoWrap())]);
        foreach (var model in models)
        {
            table.AddRow([.. columns.Select(column => Markup.Escape(column.Cell(model) ?? ""))]);
        }

        CommandLine.Screen.Write(table);
    }

    private static string FormatSize(long bytes) => bytes switch
    {
        >= 1_000_000_000 => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1e9:0.0} GB"),
        >= 1_000_000 => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1e6:0.0} MB"),
        _ => string.Create(CultureInfo.InvariantCulture, $"{bytes / 1e3:0.0} kB"),
    };

    private static string FormatPrice(decimal? price) => price?.ToString("0.####", CultureInfo.InvariantCulture) ?? "?";
}
