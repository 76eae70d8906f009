using System.Runtime.CompilerServices;
using System.Text;
using TicketFunctions.Classification;
using TicketFunctions.Classification.Baseline;

namespace TicketFunctions.Tests.Classification;

public sealed class BaselineTests
{
    private static readonly Lazy<ExampleSet> Committed = new(() => ExampleSet.Read(BaselineFolder()));

    private static BaselineModel Model => BaselineModel.Default;

    [Fact]
    public void The_committed_model_was_trained_from_the_committed_examples_and_lexicons() =>
        Assert.Equal(Convert.ToHexString([.. Committed.Value.Hash]), Convert.ToHexString([.. Model.TrainingDataHash]));

    [Fact]
    public void The_training_data_hash_does_not_depend_on_line_endings()
    {
        var folder = Directory.CreateTempSubdirectory();
        try
        {
            var unix = ReadCopy(folder.FullName, "\n").Hash;
            var windows = ReadCopy(folder.FullName, "\r\n").Hash;
            Assert.Equal(unix, windows);
        }
        finally
        {
            folder.Delete(recursive: true);
        }
    }

    [Theory]
    [InlineData("La aplicación se cierra sola y muestra un error al iniciar sesión", "Tecnico", "Negativo")]
    [InlineData("No puedo entrar al sistema, mi contraseña no funciona", "Tecnico", "Negativo")]
    [InlineData("¿Cómo configuro la VPN en mi portátil?", "Tecnico", "Neutral")]
    [InlineData("Me cobraron dos veces la misma factura y exijo el reembolso", "Facturacion", "Negativo")]
    [InlineData("¿Dónde puedo descargar la factura de marzo?", "Facturacion", "Neutral")]
    [InlineData("Gracias por el reembolso, llegó rapidísimo, excelente", "Facturacion", "Positivo")]
    [InlineData("¿Cuánto cuesta el plan anual para 20 usuarios?", "Comercial", "Neutral")]
    [InlineData("Quisiera una cotización de sus servicios de marketing digital", "Comercial", "Neutral")]
    [InlineData("El repartidor fue muy grosero y dejó el paquete tirado en la calle", "Otro", "Negativo")]
    [InlineData("The app crashes every time I try to log in", "Tecnico", "Negativo")]
    [InlineData("I was charged twice on my last invoice, please refund me", "Facturacion", "Negativo")]
    [InlineData("How much is the premium plan for a team of ten?", "Comercial", "Neutral")]
    [InlineData("O sistema não abre e aparece uma mensagem de erro", "Tecnico", "Negativo")]
    [InlineData("Fui cobrado duas vezes na fatura, quero o estorno", "Facturacion", "Negativo")]
    [InlineData("Qual o preço do plano anual?", "Comercial", "Neutral")]
    public void Obvious_tickets_are_classified(string text, string category, string sentiment)
    {
        var prediction = Model.Predict(text);
        Assert.Equal((category, sentiment), (prediction.Category, prediction.Sentiment));
    }

    [Theory]
    [InlineData("¿Qué hago si pierdo la tarjeta?")]
    [InlineData("¿Cómo cancelo una suscripción?")]
    [InlineData("¿Cuánto se tarda en recibir un reembolso?")]
    [InlineData("¿Cuál es la multa por pagar tarde?")]
    [InlineData("¿En qué año terminó la Segunda Guerra Mundial?")]
    [InlineData("¿Quién mató a Julio César?")]
    [InlineData("que documentos necesito para denunciar un robo")]
    [InlineData("What should I do if my card is lost?")]
    [InlineData("How long does a refund take?")]
    [InlineData("Como faço para cancelar o plano?")]
    public void Informational_questions_are_not_negative(string text) =>
        Assert.NotEqual("Negativo", Model.Predict(text).Sentiment);

    [Fact]
    public void Case_and_accents_do_not_change_the_category()
    {
        var plain = Model.Predict("no puedo descargar la facturacion de enero");
        var accented = Model.Predict("NO PUEDO DESCARGAR LA FACTURACIÓN DE ENERO");
        Assert.Equal(plain.Category, accented.Category);
    }

    [Fact]
    public void Odd_input_gives_a_prediction()
    {
        string[] texts =
        [
            "", " ", "\0", "\ud800", "x\udc00y\ud83d", "?!?!?!", "¿", "🤬🤬🤬", "12345", "https://", "::::(((", "''''",
            new string('a', 65_536), new string('!', 65_536), new string('€', 65_536),
            string.Concat(Enumerable.Repeat("no ", 30_000)),
            "h" + new string('\u0301', 5_000) + "ola",
            string.Concat(Enumerable.Repeat("\ud83d\ude21", 30_000)),
            new string(':', 4_096) + ")",
            "İıſßǆ ﷺ ℌ 𝐇𝐨𝐥𝐚 中文 עברית",
        ];
        foreach (var text in texts)
        {
            var prediction = Model.Predict(text);
            Assert.InRange(prediction.CategoryConfidence, 0.2f, 1f);
            Assert.InRange(prediction.SentimentConfidence, 0.3f, 1f);
        }
    }

    [Fact]
    public void An_empty_text_abstains() => Assert.True(Model.Predict("").Abstains);

    [Fact]
    public void Threads_share_a_model()
    {
        var texts = Committed.Value.Examples.Take(400).Select(example => example.Text).ToArray();
        var alone = texts.Select(Model.Predict).ToArray();
        Assert.Equal(alone, texts.AsParallel().AsOrdered().Select(Model.Predict).ToArray());
    }

    [Fact]
    public void A_saved_model_predicts_as_the_trained_one_and_training_is_deterministic()
    {
        var set = Subset(Committed.Value, 6).Where(example => example.Text.Length < 50);
        var path = Path.GetTempFileName();
        try
        {
            var first = BaselineTrainer.Train(set);
            first.Save(path);
            var saved = File.ReadAllBytes(path);
            var text = "La factura llegó con un error";
            using var stream = new MemoryStream(saved);
            Assert.Equal(first.Model.Predict(text), BaselineModel.Read(stream).Predict(text));
            BaselineTrainer.Train(set).Save(path);
            Assert.Equal(saved, File.ReadAllBytes(path));
        }
        finally
        {
            File.Delete(path);
        }
    }

    [Fact]
    public void Cross_validation_on_few_sources_beats_the_majority()
    {
        var set = Subset(Committed.Value, 3);
        var all = BaselineTrainer.CrossValidate(set).Rows.Single(row => row.Name == "all");
        Assert.True(all.Category.MacroF1 > 2 * Majority(set.Examples.Select(example => example.Category)).MacroF1);
        Assert.True(all.Sentiment.MacroF1 > 2 * Majority(set.Examples.Select(example => example.Sentiment)).MacroF1);
    }

    [Fact]
    public void Training_can_be_cancelled()
    {
        using var cancelled = new CancellationTokenSource();
        cancelled.Cancel();
        Assert.ThrowsAny<OperationCanceledException>(() => BaselineTrainer.Train(Subset(Committed.Value, 2), null, cancelled.Token));
    }

    private static Evaluation Majority(IEnumerable<string?> labels)
    {
        var known = labels.OfType<string>().ToArray();
        var most = known.CountBy(label => label).MaxBy(pair => pair.Value).Key;
        return Evaluation.Of(known.Select(label => (label, most)));
    }

    private static ExampleSet Subset(ExampleSet set, int sources)
    {
        var kept = set.Examples.Where(example => example.Category is not null)
            .Select(example => example.Source).Distinct().Take(sources).ToHashSet();
        return set.Where(example => kept.Contains(example.Source));
    }

    private static ExampleSet ReadCopy(string folder, string newLine)
    {
        foreach (var name in new[] { "Examples/a.jsonl", "Lexicons/b.txt" })
        {
            var path = Path.Combine(folder, name);
            Directory.CreateDirectory(Path.GetDirectoryName(path)!);
            var line = name.EndsWith('t') ? "positive: bien, bueno" : """{"text":"Hola","sentiment":"Neutral","lang":"es"}""";
            File.WriteAllText(path, line + newLine, new UTF8Encoding(false));
        }

        return ExampleSet.Read(folder);
    }

    private static string BaselineFolder([CallerFilePath] string here = "") =>
        Path.GetFullPath(Path.Combine(Path.GetDirectoryName(here)!, "../../TicketFunctions/Classification/Baseline"));
}
