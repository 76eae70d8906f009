using System.Text.Json.Nodes;
using TicketFunctions.Classification;

namespace TicketFunctions.Tests.Classification;

/// <summary>The calls as they are stored: whoever evaluates them reads these names.</summary>
public sealed class CallRecordsTests
{
    [Theory]
    [InlineData(CallOutcome.Labelled, "labelled")]
    [InlineData(CallOutcome.Sampled, "sampled")]
    [InlineData(CallOutcome.Empty, "empty")]
    [InlineData(CallOutcome.Unparseable, "unparseable")]
    [InlineData(CallOutcome.OffTaxonomy, "off_taxonomy")]
    [InlineData(CallOutcome.Truncated, "truncated")]
    [InlineData(CallOutcome.Refused, "refused")]
    [InlineData(CallOutcome.Filtered, "filtered")]
    [InlineData(CallOutcome.Malformed, "malformed")]
    [InlineData(CallOutcome.Rejected, "rejected")]
    [InlineData(CallOutcome.RateLimited, "rate_limited")]
    [InlineData(CallOutcome.QuotaSpent, "quota_spent")]
    [InlineData(CallOutcome.Unavailable, "unavailable")]
    [InlineData(CallOutcome.TimedOut, "timed_out")]
    public void Each_outcome_has_its_word(CallOutcome outcome, string word)
    {
        var call = JsonNode.Parse(CallRecords.ToJson([new CallRecord("p", "m", null, outcome, null, null, null, null, 1)]))![0]!;

        Assert.Equal(word, (string?)call["outcome"]);
    }

    [Fact]
    public void Each_member_is_there_also_where_nothing_is_known()
    {
        const string Expected =
            """
            [
              {"provider":"openai","model":"m","served_model":"ser\"vi\\do ñ","outcome":"labelled","status":null,"tokens_in":300,"tokens_out":10,"cost":0.000015,"latency_ms":42},
              {"provider":"openai","model":"m","served_model":null,"outcome":"rejected","status":400,"tokens_in":null,"tokens_out":null,"cost":null,"latency_ms":0}
            ]
            """;

        var json = CallRecords.ToJson(
        [
            new CallRecord("openai", "m", "ser\"vi\\do ñ", CallOutcome.Labelled, null, 300, 10, 0.000015m, 42),
            new CallRecord("openai", "m", null, CallOutcome.Rejected, 400, null, null, null, 0),
        ]);

        Assert.True(JsonNode.DeepEquals(JsonNode.Parse(Expected), JsonNode.Parse(json)), json);
        Assert.Equal("[]", CallRecords.ToJson([]));
    }
}
