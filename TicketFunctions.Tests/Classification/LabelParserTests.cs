using TicketFunctions.Classification;
using TicketFunctions.Tickets;

namespace TicketFunctions.Tests.Classification;

public sealed class LabelParserTests
{
    private static readonly Taxonomy Taxonomy = new(new TaxonomyOptions());

    [Theory]
    [InlineData("""{"category":"Facturacion","sentiment":"Neutral"}""")]
    [InlineData(" \r\n{ \"sentiment\" : \"neutro\", \"category\" : \"FACTURACIÓN\" }\t")]
    [InlineData("""{"category":"billing","sentiment":"Neutral","why":["{",{"category":"Otro"}]}""")]
    [InlineData("""{"c\u0061tegory":"Facturaci\u00f3n","sentiment":"\u004eeutral"}""")]
    [InlineData("""{"category":" Facturacion ","sentiment":"Neutral"}                                                                                                                                                                                                                       """)]
    [InlineData("```\n{\"category\":\"Facturacion\",\"sentiment\":\"Neutral\"}\n```")]
    [InlineData("\n```JSON \r\n{\"category\":\"Facturacion\",\"sentiment\":\"Neutral\"}\r\n```  ")]
    public void Two_labels_are_read(string text)
    {
        Assert.Equal(CallOutcome.Labelled, LabelParser.Parse(text, Taxonomy, out var labels, out var error));

        Assert.Equal(new Labels("Facturacion", "Neutral"), labels);
        Assert.Equal("", error);
    }

    [Theory]
    [InlineData("", "está vacía.")]
    [InlineData(" \n", "está vacía.")]
    [InlineData("```", "no es JSON válido, o tiene texto alrededor.")]
    [InlineData("``````", "no es JSON válido, o tiene texto alrededor.")]
    [InlineData("```json\n```", "no es JSON válido, o tiene texto alrededor.")]
    [InlineData("```{\"category\":\"Otro\",\"sentiment\":\"Neutral\"}```", "no es JSON válido, o tiene texto alrededor.")]
    [InlineData("hola {\"category\":\"Otro\",\"sentiment\":\"Neutral\"}", "no es JSON válido, o tiene texto alrededor.")]
    [InlineData("{\"category\":\"Otro\",\"sentiment\":\"Neutral\"} adiós", "no es JSON válido, o tiene texto alrededor.")]
    [InlineData("""{"category":"Otro","sentiment":"Neutral" """, "no es JSON válido, o tiene texto alrededor.")]
    [InlineData("""{"category":"Otro","category":"Otro","sentiment":"Neutral"}""", "no es JSON válido, o tiene texto alrededor.")]
    [InlineData("""{"category":"Otro","sentiment":"Neutral","s\u0065ntiment":"Neutral"}""", "no es JSON válido, o tiene texto alrededor.")]
    [InlineData("""{"category":"Otro","sentiment":"Neutral"}{}""", "no es JSON válido, o tiene texto alrededor.")]
    [InlineData("""{"category":"Otro","sentiment":"Neutral",}""", "no es JSON válido, o tiene texto alrededor.")]
    [InlineData("""{"category":"Otro","sentiment":"Neutral"}//""", "no es JSON válido, o tiene texto alrededor.")]
    [InlineData("""{"category":"Otro","sentiment":"Neutral","\ud800":1}""", "no es JSON válido, o tiene texto alrededor.")]
    [InlineData("\"Otro\"", "no es un objeto JSON.")]
    [InlineData("null", "no es un objeto JSON.")]
    [InlineData("""[{"category":"Otro","sentiment":"Neutral"}]""", "no es un objeto JSON.")]
    [InlineData("{}", "falta \"category\" o no es texto.")]
    [InlineData("""{"category":null,"sentiment":"Neutral"}""", "falta \"category\" o no es texto.")]
    [InlineData("""{"category":"Otro"}""", "falta \"sentiment\" o no es texto.")]
    [InlineData("""{"category":"Otro","sentiment":["Neutral"]}""", "falta \"sentiment\" o no es texto.")]
    [InlineData("""{"category":"CANARY","sentiment":"Neutral"}""", "\"category\" no es una etiqueta de la lista.")]
    [InlineData("""{"category":"\udc00","sentiment":"Neutral"}""", "\"category\" no es una etiqueta de la lista.")]
    [InlineData("""{"category":"Otro","sentiment":""}""", "\"sentiment\" no es una etiqueta de la lista.")]
    [InlineData("""{"category":"Otro","sentiment":"Neutral\ufffe"}""", "\"sentiment\" no es una etiqueta de la lista.")]
    public void Anything_else_is_named_without_repeating_it(string text, string error)
    {
        var outcome = LabelParser.Parse(text, Taxonomy, out var labels, out var told);

        Assert.Null(labels);
        Assert.Equal(error, told);
        Assert.Equal(
            told.EndsWith("de la lista.", StringComparison.Ordinal) ? CallOutcome.OffTaxonomy : told == "está vacía." ? CallOutcome.Empty : CallOutcome.Unparseable,
            outcome);
    }
}
