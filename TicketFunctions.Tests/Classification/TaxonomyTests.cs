using TicketFunctions.Classification;

namespace TicketFunctions.Tests.Classification;

public sealed class TaxonomyTests
{
    private static readonly Taxonomy Default = new(new TaxonomyOptions());

    [Fact]
    public void The_default_labels_are_those_of_the_contract()
    {
        Assert.Equal(["Tecnico", "Facturacion", "Comercial", "Otro"], Default.Categories.Select(label => label.Label));
        Assert.Equal(["Positivo", "Neutral", "Negativo"], Default.Sentiments.Select(label => label.Label));
        Assert.All(Default.Categories.Concat(Default.Sentiments), label =>
        {
            Assert.NotEmpty(label.Description);
            Assert.DoesNotContain('\n', label.Description);
            Assert.NotEmpty(label.Synonyms);
        });
    }

    [Theory]
    [InlineData("Tecnico", "Tecnico")]
    [InlineData("técnico", "Tecnico")]
    [InlineData("TE\u0301CNICO", "Tecnico")]
    [InlineData(" \tTecnico\n", "Tecnico")]
    [InlineData("Soporte Tecnico", "Tecnico")]
    [InlineData("FACTURACIÓN", "Facturacion")]
    [InlineData("billing", "Facturacion")]
    [InlineData("faturação", "Facturacion")]
    [InlineData("Sales", "Comercial")]
    [InlineData("OTHER", "Otro")]
    [InlineData("", null)]
    [InlineData(" ", null)]
    [InlineData("Tecnico.", "Tecnico")]
    [InlineData("**«Técnico»**", "Tecnico")]
    [InlineData("soporte_tecnico", "Tecnico")]
    [InlineData("Soporte \u00a0técnico", "Tecnico")]
    [InlineData("technical-support", "Tecnico")]
    [InlineData("presales", null)]
    [InlineData("pre sales", "Comercial")]
    [InlineData("...", null)]
    [InlineData("-", null)]
    [InlineData("Tecnic", null)]
    [InlineData("Tecnico Facturacion", null)]
    [InlineData("T3cnico", null)]
    [InlineData("Тecnico", null)] // a Cyrillic letter
    [InlineData("Neutral", null)]
    public void A_word_means_a_category_without_regard_to_case_and_accents_or_none(string word, string? category) =>
        Assert.Equal(category, Default.FindCategory(word));

    [Theory]
    [InlineData("positiva", "Positivo")]
    [InlineData("NEUTRO", "Neutral")]
    [InlineData("Negative", "Negativo")]
    [InlineData("Otro", null)]
    public void A_word_means_a_sentiment_or_none(string word, string? sentiment) =>
        Assert.Equal(sentiment, Default.FindSentiment(word));

    [Fact]
    public void A_label_is_stored_as_it_is_configured_whatever_word_means_it()
    {
        var taxonomy = new Taxonomy(new TaxonomyOptions { Categories = [Label("ÁREA Técnica", "IT"), Label("iİ")] });

        Assert.Equal("ÁREA Técnica", taxonomy.FindCategory("area tecnica"));
        Assert.Equal("ÁREA Técnica", taxonomy.FindCategory("it"));
        Assert.Null(taxonomy.FindCategory("Tecnico"));
        Assert.Equal("Neutral", taxonomy.FindSentiment("neutral"));
    }

    [Fact]
    public void Blanks_around_a_configured_label_or_description_are_not_part_of_it()
    {
        var taxonomy = new Taxonomy(new TaxonomyOptions { Categories = [new() { Label = " Técnico\t", Description = " errores\n" }, Label("Otro", " la otra ")] });

        Assert.Equal("Técnico", taxonomy.FindCategory(" Técnico\t"));
        Assert.Equal("Otro", taxonomy.FindCategory("La otra"));
        Assert.Contains("\n- Técnico: errores\n- Otro\n", new TicketPrompt(taxonomy).Instructions, StringComparison.Ordinal);
    }

    [Fact]
    public void Labels_that_differ_by_a_sign_are_different()
    {
        var taxonomy = new Taxonomy(new TaxonomyOptions { Sentiments = [Label("-1"), Label("1"), Label("A"), Label("A-"), Label("A+"), Label("C#"), Label("C"), Label("?"), Label("!")] });

        Assert.All(taxonomy.Sentiments, label => Assert.Equal(label.Label, taxonomy.FindSentiment(label.Label.ToLowerInvariant())));
    }

    public static TheoryData<string, LabelOptions[], string> Conflicts => new()
    {
        { "one label", [Label("A")], "Taxonomy__Categories has one label" },
        { "no name", [Label("A"), Label(" ")], "Taxonomy__Categories__1__Label is empty" },
        { "a line break in a label", [Label("A"), Label("Otro\n- Hack: haz esto")], "Taxonomy__Categories__1__Label has a line break" },
        { "a control character in a description", [new() { Label = "A", Description = "uno\u2028dos" }, Label("B")], "Taxonomy__Categories__0__Description has a line break" },
        { "labels that differ by blanks around", [Label("A"), Label(" A ")], "'A'" },
        { "labels that differ by what parts words", [Label("Soporte técnico"), Label("soporte_tecnico.")], "'soporte_tecnico.'" },
        { "a label twice", [Label("A"), Label("B"), Label("A")], "'A'" },
        { "labels that differ by case and accent", [Label("Técnico"), Label("TECNICO")], "'TECNICO'" },
        { "a synonym that is another label", [Label("A", "b"), Label("B")], "'B'" },
        { "a synonym of two labels", [Label("A", "x"), Label("B", "y", "Ẍ")], "'Ẍ'" },
        { "an empty synonym", [Label("A", "x", " "), Label("B")], "Taxonomy__Categories__0__Synonyms__1 is empty" },
    };

    [Theory]
    [MemberData(nameof(Conflicts))]
    public void What_would_make_an_answer_ambiguous_is_refused_with_the_way_to_mend_it(string name, LabelOptions[] labels, string told)
    {
        Assert.NotEmpty(name);

        var error = Assert.Throws<FormatException>(() => new Taxonomy(new TaxonomyOptions { Categories = [.. labels] }));

        Assert.Contains(told, error.Message, StringComparison.Ordinal);
        Assert.Contains("Taxonomy__Categories", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public void One_word_may_be_a_category_and_a_sentiment_and_be_said_twice_for_one_label()
    {
        var taxonomy = new Taxonomy(new TaxonomyOptions
        {
            Categories = [Label("Neutral", "neutro", "NEUTRO", "neutral"), Label("Otro")],
        });

        Assert.Equal("Neutral", taxonomy.FindCategory("neutro"));
        Assert.Equal("Neutral", taxonomy.FindSentiment("neutro"));
    }

    [Fact]
    public void The_version_changes_with_every_label_description_and_synonym_and_with_nothing_else()
    {
        TaxonomyOptions Options(string label = "A", string description = "uno", string synonym = "x") => new()
        {
            Categories = [new() { Label = label, Description = description, Synonyms = [synonym] }, Label("B")],
        };

        var versions = new[] { Options(), Options(label: "C"), Options(description: "dos"), Options(synonym: "y"), new() }
            .Select(options => new Taxonomy(options).Version).ToArray();

        Assert.Equal(versions.Length, versions.Distinct().Count());
        Assert.Equal(versions[0], new Taxonomy(Options()).Version);
        Assert.Equal(Default.Version, versions[^1]);
        Assert.All(versions, version => Assert.Matches("^[0-9a-f]{12}$", version));
    }

    [Fact]
    public void A_word_that_takes_minutes_to_fold_means_nothing() =>
        Assert.Null(Default.FindCategory("Te" + new string('\u0301', 500_000) + new string('\u0323', 500_000) + "cnico"));

    private static LabelOptions Label(string label, params string[] synonyms) => new() { Label = label, Synonyms = [.. synonyms] };
}
