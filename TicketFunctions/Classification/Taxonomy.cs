using System.Globalization;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using System.Text.Json.Nodes;
using System.Text.Json.Serialization;

namespace TicketFunctions.Classification;

/// <summary>The section <c>Taxonomy</c>: the labels a ticket may get. An empty list means the default one.</summary>
public sealed class TaxonomyOptions
{
    public List<LabelOptions> Categories { get; set; } = [];

    public List<LabelOptions> Sentiments { get; set; } = [];
}

/// <summary>One label as it is configured.</summary>
public sealed class LabelOptions
{
    public string Label { get; set; } = "";

    /// <summary>One line that tells the model when the label is right.</summary>
    public string Description { get; set; } = "";

    /// <summary>Other words a model may answer for it.</summary>
    public List<string> Synonyms { get; set; } = [];
}

/// <summary>The labels a ticket may get, and the words that mean them. Nothing else is ever stored.</summary>
public sealed class Taxonomy
{
    private readonly Dictionary<string, LabelOptions> _categories;
    private readonly Dictionary<string, LabelOptions> _sentiments;

    /// <exception cref="FormatException">A label is empty or no line of text, or one word means two labels; the message says how to mend it.</exception>
    public Taxonomy(TaxonomyOptions options)
    {
        Categories = options.Categories.Count > 0 ? Trim(options.Categories) : DefaultCategories;
        Sentiments = options.Sentiments.Count > 0 ? Trim(options.Sentiments) : DefaultSentiments;
        _categories = Index("Taxonomy__Categories", Categories);
        _sentiments = Index("Taxonomy__Sentiments", Sentiments);
        Version = Hash(JsonSerializer.SerializeToUtf8Bytes(new LabelLists(Categories, Sentiments), TaxonomyJson.Default.LabelLists));
        Schema = BuildSchema();
    }

    public IReadOnlyList<LabelOptions> Categories { get; }

    public IReadOnlyList<LabelOptions> Sentiments { get; }

    /// <summary>Changes with every change of the labels, their descriptions or synonyms.</summary>
    public string Version { get; }

    /// <summary>The JSON schema of an answer, within what strict structured output takes.</summary>
    /// <remarks>https://platform.openai.com/docs/guides/structured-outputs#supported-schemas</remarks>
    public JsonElement Schema { get; }

    /// <summary>The category meant by a word, or null when it means none.</summary>
    public string? FindCategory(string word) => Find(_categories, word);

    /// <summary>The sentiment meant by a word, or null when it means none.</summary>
    public string? FindSentiment(string word) => Find(_sentiments, word);

    /// <summary>As a rule the word is one of the list as it stands.</summary>
    private static string? Find(Dictionary<string, LabelOptions> labels, string word) =>
        (labels.GetValueOrDefault(word) ?? (word.Length <= MaxFolded ? labels.GetValueOrDefault(Fold(word)) : null))?.Label;

    internal static string Hash(ReadOnlySpan<byte> bytes) => Convert.ToHexStringLower(SHA256.HashData(bytes))[..12];

    /// <summary>What is longer is a label to the letter or none: to fold an answer of a million combining marks takes minutes.</summary>
    private const int MaxFolded = 1000;

    /// <summary>What models put around a word.</summary>
    private const string Around = ".,;:!?¡¿\"'`*_()[]<>«»“”‘’";

    /// <summary>
    /// Without regard to case, accents, blanks and punctuation around it; what parts words (blanks, underscores, dashes) is one blank.
    /// A dash at the beginning may be a minus.
    /// </summary>
    private static string Fold(string word)
    {
        var bare = word.Trim().Trim([.. Around]).Trim();
        var folded = new StringBuilder(word.Length);
        foreach (var c in (bare.Length > 0 ? bare : word.Trim()).Normalize(NormalizationForm.FormD))
        {
            var category = CharUnicodeInfo.GetUnicodeCategory(c);
            if (folded.Length > 0 && (char.IsWhiteSpace(c) || c == '_' || category == UnicodeCategory.DashPunctuation))
            {
                folded.Append(folded[^1] == ' ' ? "" : " ");
            }
            else if (category != UnicodeCategory.NonSpacingMark)
            {
                folded.Append(char.ToLowerInvariant(c));
            }
        }

        return folded.ToString();
    }

    private static List<LabelOptions> Trim(List<LabelOptions> labels) =>
    [
        .. labels.Select(label => new LabelOptions
        {
            Label = label.Label?.Trim() ?? "",
            Description = label.Description?.Trim() ?? "",
            Synonyms = label.Synonyms,
        }),
    ];

    /// <summary>Whether it would begin new lines in the prompt, or is no text at all.</summary>
    private static bool IsNoLine(string text) => text.Any(c => CharUnicodeInfo.GetUnicodeCategory(c)
        is UnicodeCategory.Control or UnicodeCategory.LineSeparator or UnicodeCategory.ParagraphSeparator);

    private static Dictionary<string, LabelOptions> Index(string setting, IReadOnlyList<LabelOptions> labels)
    {
        if (labels.Count < 2)
        {
            throw new FormatException($"{setting} has one label; give at least two, or none for the default list.");
        }

        var index = new Dictionary<string, LabelOptions>(StringComparer.Ordinal);
        for (var i = 0; i < labels.Count; i++)
        {
            if (string.IsNullOrWhiteSpace(labels[i].Label))
            {
                throw new FormatException($"{setting}__{i}__Label is empty; name the label, or remove the entry.");
            }

            foreach (var (name, text) in new[] { ("Label", labels[i].Label), ("Description", labels[i].Description) })
            {
                if (IsNoLine(text))
                {
                    throw new FormatException($"{setting}__{i}__{name} has a line break, a tab or a control character in it; write it as one line.");
                }
            }

            if (labels[i].Synonyms.FindIndex(string.IsNullOrWhiteSpace) is >= 0 and var empty)
            {
                throw new FormatException($"{setting}__{i}__Synonyms__{empty} is empty; name a word, or remove the entry.");
            }

            foreach (var word in labels[i].Synonyms.Prepend(labels[i].Label))
            {
                if (!index.TryAdd(Fold(word), labels[i]) && index[Fold(word)] != labels[i])
                {
                    throw new FormatException($"{setting}: '{word}' means both '{index[Fold(word)].Label}' and '{labels[i].Label}'; keep it in one of them.");
                }

                index.TryAdd(word, labels[i]);
            }
        }

        return index;
    }

    private JsonElement BuildSchema()
    {
        static JsonObject Enum(IEnumerable<LabelOptions> labels) => new()
        {
            ["type"] = "string",
            ["enum"] = new JsonArray([.. labels.Select(label => (JsonNode)label.Label)]),
        };

        var schema = new JsonObject
        {
            ["type"] = "object",
            ["properties"] = new JsonObject { ["category"] = Enum(Categories), ["sentiment"] = Enum(Sentiments) },
            ["required"] = new JsonArray("category", "sentiment"),
            ["additionalProperties"] = false,
        };
        return JsonSerializer.SerializeToElement(schema, TaxonomyJson.Default.JsonObject);
    }

    private static readonly LabelOptions[] DefaultCategories =
    [
        new()
        {
            Label = "Tecnico",
            Description = "algo no funciona o no se sabe usar: errores, accesos y contraseñas, caídas, lentitud, instalación, equipos defectuosos",
            Synonyms = ["Técnica", "Soporte", "Soporte técnico", "Technical", "Technical support", "Tech", "Suporte técnico"],
        },
        new()
        {
            Label = "Facturacion",
            Description = "dinero de lo ya contratado: facturas, cobros, cargos, pagos, reembolsos, comisiones, saldos, impuestos",
            Synonyms = ["Factura", "Facturas", "Pagos", "Cobros", "Billing", "Billing and payments", "Payments", "Faturamento", "Faturação", "Pagamentos"],
        },
        new()
        {
            Label = "Comercial",
            Description = "comprar o contratar: precios, planes, presupuestos, pedidos nuevos, promociones, cambios de plan, renovación, baja",
            Synonyms = ["Ventas", "Sales", "Commercial", "Pre-sales", "Vendas"],
        },
        new()
        {
            Label = "Otro",
            Description = "lo demás: envíos, devoluciones, trato recibido, trámites, horarios, sugerencias, saludos, texto sin relación",
            Synonyms = ["Otra", "Otros", "Otras", "Other", "Others", "General", "Outro", "Outros"],
        },
    ];

    private static readonly LabelOptions[] DefaultSentiments =
    [
        new()
        {
            Label = "Positivo",
            Description = "agradece por algo hecho, elogia, está satisfecho",
            Synonyms = ["Positiva", "Positive"],
        },
        new()
        {
            Label = "Neutral",
            Description = "pregunta, pide o informa sin queja ni elogio, también si el tema es desagradable",
            Synonyms = ["Neutro", "Neutra"],
        },
        new()
        {
            Label = "Negativo",
            Description = "se queja, está molesto o perjudicado, o informa de que algo falla o se hizo mal, aunque sea cortés",
            Synonyms = ["Negativa", "Negative"],
        },
    ];
}

/// <summary>What the version of a taxonomy is the hash of.</summary>
internal sealed record LabelLists(IReadOnlyList<LabelOptions> Categories, IReadOnlyList<LabelOptions> Sentiments);

[JsonSerializable(typeof(LabelLists))]
[JsonSerializable(typeof(JsonObject))]
internal sealed partial class TaxonomyJson : JsonSerializerContext;
