using System.Text;
using System.Text.Json;
using BenchmarkDotNet.Attributes;
using TicketFunctions.Classification;
using TicketFunctions.Classification.Baseline;
using TicketFunctions.Tickets;
using TicketFunctions.Triggers;

namespace TicketFunctions.Micro;

/// <summary>What one ticket takes besides the database, the network and the model.</summary>
[MemoryDiagnoser]
public class PureParts
{
    private readonly string _text =
        "Buenos días: no puedo entrar en mi cuenta desde ayer por la tarde. Cambio la clave, la página la acepta y al volver a entrar me dice que no es válida. "
        + "Lo he intentado desde el móvil y desde el ordenador, con el mismo resultado, y necesito las facturas de este mes antes del viernes. ¿Pueden ayudarme? Gracias.";

    private readonly byte[] _body = Encoding.UTF8.GetBytes(
        """{"id":"3f8e2a4c-5b6d-4e7f-8a9b-0c1d2e3f4a5b","description":"No puedo entrar en mi cuenta desde ayer: cambio la clave, la página la acepta y al volver me dice que no es válida."}""");

    private readonly Taxonomy _taxonomy = new(new TaxonomyOptions());
    private readonly TicketPrompt _prompt = new(new Taxonomy(new TaxonomyOptions()));
    private readonly BaselineModel _baseline = BaselineModel.Default;
    private readonly TicketAnswer _answer = new(Guid.Parse("3f8e2a4c-5b6d-4e7f-8a9b-0c1d2e3f4a5b"), "Tecnico", "Negativo", true, "model", "stub", 0.97f);

    [Benchmark(Description = "parse a request")]
    public TicketRequest? ParseRequest() => TicketRequest.Read(_body).Request;

    [Benchmark(Description = "normalise and hash a text")]
    public byte[] HashText() => TicketText.Hash(TicketText.Normalize(_text));

    [Benchmark(Description = "write a prompt")]
    public int WritePrompt() => _prompt.For(_text).Count;

    [Benchmark(Description = "read and match a model's labels")]
    public Labels? MatchLabels()
    {
        LabelParser.Parse("""{"category":"Técnico","sentiment":"Negativo"}""", _taxonomy, out var labels, out _);
        return labels;
    }

    [Benchmark(Description = "predict by the baseline")]
    public BaselinePrediction Predict() => _baseline.Predict(_text);

    [Benchmark(Description = "write an answer")]
    public byte[] WriteAnswer() => JsonSerializer.SerializeToUtf8Bytes(_answer, AnswerJson.Default.TicketAnswer);
}
