using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Console;
using TicketFunctions.Hosting.AspNetCore;

namespace TicketFunctions.Tests.Hosting;

/// <summary>What is logged reaches standard error, and nobody waits for it.</summary>
public sealed partial class ConsoleLogTests
{
    [Fact]
    public void A_line_is_the_frameworks_with_its_scopes_and_its_exception()
    {
        var output = new MemoryStream();
        using (var log = Create(output, ("Logging:Console:FormatterOptions:IncludeScopes", "true")))
        {
            var logger = log.CreateLogger("Tickets");
            using (logger.BeginScope("request {Number}", 7))
            {
                logger.LogInformation(new EventId(3), "Ticket {Id}: ñ\nlabelled", 5);
            }

            logger.LogError(new InvalidOperationException("no"), "It failed");
        }

        Assert.Matches(
            @"^\d\d:\d\d:\d\d info: Tickets\[3\] => request 7 Ticket 5: ñ labelled\n\d\d:\d\d:\d\d fail: Tickets\[0\] It failed System\.InvalidOperationException: no\n$",
            Encoding.UTF8.GetString(output.ToArray()));
    }

    [Fact]
    public async Task A_reader_that_does_not_read_holds_up_nobody_and_costs_no_error()
    {
        const int Lines = 30_000;
        using var output = new BlockedStream();
        using (var log = Create(output))
        {
            var logger = log.CreateLogger("Tickets");
            logger.LogInformation("The first one");
            await output.Blocked;
            for (var i = 0; i < Lines; i++)
            {
                logger.LogInformation("A line that says which one it is among all the others, which is line {Number}", i);
            }

            logger.LogError("An error comes through");
            output.Release();
        }

        var written = Encoding.UTF8.GetString(output.ToArray());
        var lost = int.Parse(LostLines().Match(written).Groups[1].Value, CultureInfo.InvariantCulture);
        Assert.InRange(lost, 1, Lines - 1);
        Assert.Equal(Lines - lost, written.Split("A line that").Length - 1);
        Assert.Contains("fail: Tickets[0] An error comes through\n", written, StringComparison.Ordinal);
    }

    [Fact]
    public void What_is_logged_after_the_end_is_written_at_once()
    {
        var output = new MemoryStream();
        var log = Create(output);
        var logger = log.CreateLogger("Tickets");
        log.Dispose();

        logger.LogInformation("Late");

        Assert.EndsWith("info: Tickets[0] Late\n", Encoding.UTF8.GetString(output.ToArray()), StringComparison.Ordinal);
    }

    [GeneratedRegex(@"warn: TicketFunctions\.Hosting\.AspNetCore\.ConsoleLog\[0\] (\d+) lines came faster than they could be written, and are lost\n")]
    private static partial Regex LostLines();

    private static ConsoleLog Create(Stream output, params (string Name, string Value)[] settings)
    {
        var builder = Microsoft.AspNetCore.Builder.WebApplication.CreateSlimBuilder();
        foreach (var (name, value) in settings)
        {
            builder.Configuration[name] = value;
        }

        builder.AddQuietLogging();
        return new ConsoleLog(builder.Services.BuildServiceProvider().GetServices<ConsoleFormatter>(), output);
    }

    /// <summary>Takes nothing until it is released, like a pipe whose reader sleeps.</summary>
    private sealed class BlockedStream : MemoryStream
    {
        private readonly TaskCompletionSource _blocked = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private readonly ManualResetEventSlim _released = new();

        public Task Blocked => _blocked.Task;

        public void Release() => _released.Set();

        public override void Write(byte[] buffer, int offset, int count)
        {
            _blocked.TrySetResult();
            _released.Wait();
            base.Write(buffer, offset, count);
        }

        protected override void Dispose(bool disposing)
        {
            _released.Dispose();
            base.Dispose(disposing);
        }
    }
}
