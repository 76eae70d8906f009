using Spectre.Console;

namespace TicketFunctions.Hosting.AspNetCore.Commands;

/// <summary>A bar for long work, where somebody looks.</summary>
internal static class ProgressBar
{
    /// <param name="title">What is being done.</param>
    /// <param name="length">How many steps there are.</param>
    /// <param name="work">Reports the steps done so far; gets null where nobody looks.</param>
    public static async Task<T> ShowAsync<T>(string title, long length, Func<IProgress<int>?, Task<T>> work)
    {
        if (!CommandLine.Screen.Profile.Capabilities.Interactive)
        {
            return await work(null);
        }

        return await CommandLine.Screen.Progress()
            .Columns(new TaskDescriptionColumn(), new ProgressBarColumn(), new PercentageColumn(), new RemainingTimeColumn(), new SpinnerColumn())
            .StartAsync(async context =>
            {
                var bar = context.AddTask(title, maxValue: Math.Max(1, length));
                var result = await work(new Bar(bar));
                bar.Value = bar.MaxValue;
                return result;
            });
    }

    private sealed class Bar(ProgressTask bar) : IProgress<int>
    {
        public void Report(int value) => bar.Value = value;
    }
}
