namespace TicketFunctions.Compare;

/// <summary>One run: set-up, the suites, the report.</summary>
internal static class CompareRun
{
    /// <returns>Whether everything was measured and, where that was asked, every bar met.</returns>
    public static async Task<bool> RunAsync(BenchOptions options, CancellationToken cancellationToken)
    {
        var contestants = new Contestants(options);
        var names = contestants.Http.Concat(contestants.Drains).Select(contestant => contestant.Name).ToHashSet();
        if (options.Only.FirstOrDefault(name => !names.Contains(name)) is { } unknown)
        {
            throw new UsageException($"There is no contestant '{unknown}'; there are {string.Join(", ", names)}");
        }

        if (options.Other is { } other && !File.Exists(Path.Combine(other, "TicketFunctions.dll")))
        {
            throw new UsageException($"{other} holds no TicketFunctions.dll; publish that commit there with dotnet publish -c Release -o");
        }

        Bench.Say("Publishing …");
        await contestants.PublishAsync(cancellationToken);
        await using var bench = await Bench.StartAsync(options, cancellationToken);
        foreach (var suite in options.Suites)
        {
            await (suite switch
            {
                "http" => new HttpSuite(bench, contestants).RunAsync(cancellationToken),
                "duplicates" => new HttpSuite(bench, contestants).RunDuplicatesAsync(cancellationToken),
                "sweep" => new SweepSuite(bench, contestants).RunAsync(cancellationToken),
                "start" => new StartSuite(bench, contestants).RunAsync(cancellationToken),
                "database" => new DatabaseSuite(bench).RunAsync(cancellationToken),
                "scale" => new ScaleSuite(bench, contestants).RunAsync(cancellationToken),
                _ => throw new InvalidOperationException(suite),
            });
        }

        var report = new Report(options, bench, contestants.Published);
        await report.WriteAsync(cancellationToken);
        return !report.HasInvalid && (!options.Assert || report.Bars.All(bar => bar.IsMet));
    }
}
