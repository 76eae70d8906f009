using System.Text.RegularExpressions;
using TicketFunctions.Tests.Support;
using TicketFunctions.Tickets;

namespace TicketFunctions.Tests.Tickets;

public sealed class BackoffTests
{
    [Fact]
    public void The_table_in_the_decisions_is_what_the_code_does_by_default()
    {
        var options = new TriageOptions();
        var expected = Enumerable.Range(1, options.MaxAttempts)
            .Select(attempt => $"| {attempt} | {(attempt < options.MaxAttempts ? options.BackoffAfter(attempt).ToString("c") : "parked")} |");

        var document = File.ReadAllText(Path.Combine(TestPostgres.SolutionFolder, "docs", "decisions.md"));
        var written = Regex.Matches(document, @"^\| \d+ \| .*\|$", RegexOptions.Multiline).Select(match => match.Value);

        Assert.Equal(expected, written);
    }
}
