using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Classification;

/// <summary>What of a row and of the settings goes over the wire; the whole request is pinned in <see cref="Providers.RequestTests"/>.</summary>
public sealed class WireTests(TicketApp app) : IClassFixture<TicketApp>
{
    [Fact]
    public async Task A_taxonomy_of_ones_own_is_what_the_model_reads_and_what_decides()
    {
        await using var custom = await TicketApp.StartAsync(
            ("Taxonomy__Categories__0__Label", "Garantía"),
            ("Taxonomy__Categories__0__Description", "roto dentro del plazo"),
            ("Taxonomy__Categories__0__Synonyms__0", "Warranty"),
            ("Taxonomy__Categories__0__Synonyms__1", "Reparación"),
            ("Taxonomy__Categories__1__Label", "Resto"),
            ("Taxonomy__Sentiments__0__Label", "Contento"),
            ("Taxonomy__Sentiments__0__Synonyms__0", "Positivo"),
            ("Taxonomy__Sentiments__1__Label", "Enfadado"),
            ("Taxonomy__Sentiments__1__Description", "protesta"));
        async Task<HttpResponseMessage> AskAsync(string text, string category, string sentiment)
        {
            custom.Model.On(text, ModelStub.Labels(category, sentiment));
            return await custom.ProcessAsync(await custom.AddTicketAsync(text));
        }

        var answer = await (await AskAsync("La lavadora pierde agua.", "reparacion", "POSITIVO")).ReadJsonAsync();
        var exact = await (await AskAsync("Y la secadora también.", "Garantía", "Enfadado")).ReadJsonAsync();
        await (await AskAsync("Eran etiquetas de antes.", "Tecnico", "Negativo")).AssertProblemAsync(502, "upstream-invalid");

        Assert.Equal(("Garantía", "Contento"), ((string?)answer["category"], (string?)answer["sentiment"]));
        Assert.Equal(("Garantía", "Enfadado"), ((string?)exact["category"], (string?)exact["sentiment"]));
        var body = Assert.Single(custom.Model.CallsFor("La lavadora pierde agua.")).Body;
        JsonAssert.Equal(
            """
            {
              "type": "object",
              "properties": {
                "category": {"type": "string", "enum": ["Garantía", "Resto"]},
                "sentiment": {"type": "string", "enum": ["Contento", "Enfadado"]}
              },
              "required": ["category", "sentiment"],
              "additionalProperties": false
            }
            """,
            body["response_format"]!["json_schema"]!["schema"]);
        Assert.EndsWith(
            """

            category:
            - Garantía: roto dentro del plazo
            - Resto

            sentiment:
            - Contento
            - Enfadado: protesta

            """.ReplaceLineEndings("\n"),
            (string?)body["messages"]![0]!["content"],
            StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_long_text_is_read_to_its_limit_and_never_to_half_a_character()
    {
        var text = new string('x', 15_999) + "😀" + new string('y', 5_000);

        await app.ProcessAsync(await app.AddTicketAsync(text));

        Assert.Single(app.Model.CallsFor(text[..15_999]));
    }
}
