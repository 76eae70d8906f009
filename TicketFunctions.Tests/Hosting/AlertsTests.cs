using System.Reflection;
using System.Text.RegularExpressions;
using Microsoft.Extensions.Logging;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Hosting;

/// <summary>The alerts of <c>infra</c> look for lines in the log by their words.</summary>
public sealed partial class AlertsTests
{
    private static readonly string[] Messages =
    [
        .. from type in typeof(TicketFunctionsSetup).Assembly.GetTypes()
           from method in type.GetMethods(BindingFlags.Static | BindingFlags.Instance | BindingFlags.Public | BindingFlags.NonPublic)
           let message = method.GetCustomAttribute<LoggerMessageAttribute>()
           where message is { Level: >= LogLevel.Information }
           select Placeholder().Replace(message.Message, "\n"),
    ];

    [Fact]
    public void Every_line_that_an_alert_looks_for_is_written()
    {
        var alerts = File.ReadAllText(Path.Combine(TestPostgres.SolutionFolder, "infra", "modules", "alerts.bicep"));
        var patterns = Condition().Matches(alerts).Select(condition => condition.Groups["pattern"].Value).ToList();

        Assert.Equal(4, patterns.Count);
        Assert.All(patterns, pattern => Assert.Contains(Messages, message => Literal().Matches(pattern)
            .Select(literal => literal.Groups[1].Value)
            .Aggregate(0, (at, literal) => at >= 0 && message.IndexOf(literal, at, StringComparison.Ordinal) is var found and >= 0 ? found + literal.Length : -1) >= 0));
    }

    [GeneratedRegex(@"\{\w+\}")]
    private static partial Regex Placeholder();

    /// <summary>What a query compares a message with: one literal, or in a <c>parse</c> several with columns between.</summary>
    [GeneratedRegex("""Message (startswith|has|with) (?<pattern>"[^"]*"( [*\w:]+ "[^"]*")*)""")]
    private static partial Regex Condition();

    [GeneratedRegex("\"([^\"]*)\"")]
    private static partial Regex Literal();
}
