using System.Text.Json;
using System.Text.Json.Nodes;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.OpenApi;

/// <summary>A test that needs the linter or the validator.</summary>
public sealed class OpenApiFactAttribute() : NpmFactAttribute(OpenApiTools.Tools);

/// <summary>Redocly's linter and the JSON Schema validator Ajv, as the files beside this one pin them.</summary>
public static class OpenApiTools
{
    private const string Linter = "@redocly/cli/bin/cli.js";

    private static readonly string Source = Path.Combine(TestPostgres.SolutionFolder, "TicketFunctions.Tests", "OpenApi");

    public static NpmTools Tools { get; } = new("OpenApi", "openapi", Linter);

    /// <summary>Lints a document by the rules of redocly.yaml, and returns what was printed.</summary>
    public static (int ExitCode, string Output) Lint(string document)
    {
        var file = Path.Combine(Path.GetTempPath(), $"ticketfunctions-openapi-{Guid.NewGuid():N}.json");
        File.WriteAllText(file, document);
        try
        {
            return Tools.Run(Linter, ["lint", file, "--config", Path.Combine(Source, "redocly.yaml"), "--format", "stylish"]);
        }
        finally
        {
            File.Delete(file);
        }
    }

    /// <summary>What is wrong with each value by its schema (a JSON pointer into the document), or null.</summary>
    public static IReadOnlyList<string?> Validate(JsonNode document, IEnumerable<(string Schema, bool IsOpen, JsonNode? Value)> cases)
    {
        var input = new JsonObject
        {
            ["document"] = document.DeepClone(),
            ["cases"] = new JsonArray([.. cases.Select(item => (JsonNode)new JsonObject
            {
                ["schema"] = item.Schema,
                ["isOpen"] = item.IsOpen,
                ["value"] = item.Value?.DeepClone(),
            })]),
        };
        var (exitCode, output) = Tools.Run(Path.Combine(Source, "validate.mjs"), [], input: input.ToJsonString());
        Assert.True(exitCode == 0, output);
        return JsonSerializer.Deserialize<string?[]>(output)!;
    }
}
