using TicketFunctions.Classification;

namespace TicketFunctions.Tests.Classification;

public sealed class EvaluationTests
{
    [Fact]
    public void Known_pairs_give_known_scores()
    {
        var evaluation = Evaluation.Of([("a", "a"), ("a", "a"), ("a", "b"), ("b", "b"), ("b", "a"), ("c", "b")]);

        Assert.Equal(6, evaluation.Count);
        Assert.Equal(0.5, evaluation.Accuracy, 9);
        var a = evaluation.Classes.Single(score => score.Label == "a");
        Assert.Equal(2.0 / 3, a.Precision, 9);
        Assert.Equal(2.0 / 3, a.Recall, 9);
        Assert.Equal(2.0 / 3, a.F1, 9);
        Assert.Equal(3, a.Support);
        Assert.Equal(0.4, evaluation.Classes.Single(score => score.Label == "b").F1, 9);
        Assert.Equal((2.0 / 3 + 0.4 + 0) / 3, evaluation.MacroF1, 9);
        Assert.Equal(1, evaluation.Confusion[("c", "b")]);
    }

    [Fact]
    public void Predictions_outside_the_gold_classes_are_misses_and_no_class_of_the_mean()
    {
        var evaluation = Evaluation.Of([("a", "a"), ("a", "other"), ("b", "b")]);

        Assert.Equal(((2.0 / 3) + 1) / 2, evaluation.MacroF1, 9);
        Assert.Equal(0, evaluation.Classes.Single(score => score.Label == "other").Support);
    }

    [Fact]
    public void Nothing_to_evaluate_scores_zero()
    {
        var evaluation = Evaluation.Of([]);

        Assert.Equal((0, 0.0, 0.0), (evaluation.Count, evaluation.Accuracy, evaluation.MacroF1));
    }
}
