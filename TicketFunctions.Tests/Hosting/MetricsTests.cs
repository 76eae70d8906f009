using System.Diagnostics.Metrics;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Npgsql;
using TicketFunctions.Tests.Support;
using TicketFunctions.Tickets;

namespace TicketFunctions.Tests.Hosting;

/// <summary>What operators alert on. Instruments belong to the process, so nothing else runs meanwhile.</summary>
[Collection(nameof(MetricsTests))]
public sealed partial class MetricsTests : IDisposable
{
    [CollectionDefinition(nameof(MetricsTests), DisableParallelization = true)]
    public sealed class Alone;

    private readonly Measurements _measurements = new(Telemetry.Name, "Microsoft.AspNetCore.Hosting");

    public void Dispose() => _measurements.Dispose();

    [Fact]
    public async Task Each_attempt_is_counted_once_by_how_it_ended_and_logged_by_its_id()
    {
        await using var app = await StartAsync(("Triage__MaxAttempts", "2"));
        app.Model.On("Caído.", ModelStub.Raw(503, "application/json", "{}"));
        app.Model.On("Disparate.", ModelStub.Content("Quién sabe."));
        var labelled = await app.AddTicketAsync("Uno.");
        var reused = await app.AddTicketAsync("Uno.");
        var down = await app.AddTicketAsync("Caído.");
        var poison = await app.AddTicketAsync("Disparate.");
        var blank = await app.AddTicketAsync("\u200b");
        var interrupted = await app.AddTicketAsync("Su proceso murió en el último intento.");
        await HoldAsync(app, interrupted, attempts: 2, lease: "-1 second");

        await app.ProcessAsync(labelled);
        await app.ProcessAsync(reused);
        await app.ProcessAsync(down);
        await app.ProcessAsync(poison);
        await app.ProcessAsync(poison);
        await app.ProcessAsync(blank);
        await app.SweepAsync();

        // Neither is an attempt: it has its labels, it is parked.
        await app.ProcessAsync(labelled);
        await app.ProcessAsync(poison);
        app.Model.On("Uno.", ModelStub.Raw(503, "application/json", "{}"));
        await app.ProcessAsync(labelled, query: "?force=true");

        Assert.Equal(
            [
                "kept, upstream_unavailable: 1",
                "labelled, model: 1",
                "labelled, reused: 1",
                "parked, blank: 1",
                "parked, interrupted: 1",
                "parked, upstream_invalid: 1",
                "retry, upstream_invalid: 1",
                "retry, upstream_unavailable: 1",
            ],
            from outcome in All("tickets.outcomes")
            group outcome.Value by string.Join(", ", outcome.Tags.OrderBy(tag => tag.Key == "outcome" ? 0 : 1).Select(tag => tag.Value)) into kind
            orderby kind.Key
            select $"{kind.Key}: {kind.Sum()}");
        Assert.Single(app.Log, line => line.Level == LogLevel.Information && Regex.IsMatch(line.Message, $@"^Ticket {labelled}: labelled \(model\) in \d+ ms, attempt 1, 1 calls$"));
        Assert.Single(app.Log, line => line.Level == LogLevel.Information && Regex.IsMatch(line.Message, $@"^Ticket {reused}: labelled \(reused\) in \d+ ms, attempt 1, 0 calls$"));
        Assert.DoesNotContain(app.Log, line => line.Message.Contains("Tecnico", StringComparison.Ordinal) || line.Message.Contains("Negativo", StringComparison.Ordinal));
    }

    [Fact]
    public async Task What_calls_cost_is_counted_by_model_and_a_spent_budget_is_an_outcome()
    {
        await using var app = await StartAsync(("Model__InputPricePerMillion", "1000"), ("Model__OutputPricePerMillion", "2000"), ("Model__CostPerDay", "0.3"));

        await app.ProcessAsync(await app.AddTicketAsync("Cuesta."));
        await app.ProcessAsync(await app.AddTicketAsync("Ya no hay dinero."));

        var cost = Assert.Single(All("tickets.cost"));
        Assert.Equal((0.321 + 0.034, "compatible", "stub-model"), (Math.Round(cost.Value, 6), cost.Tags["gen_ai.provider.name"], cost.Tags["gen_ai.request.model"]));
        Assert.Single(All("tickets.outcomes"), outcome => outcome.Tags["outcome"] == "retry" && outcome.Tags["error.type"] == "budget_spent");
    }

    [Fact]
    public async Task The_time_to_label_is_since_the_creation_and_counts_first_labels_only()
    {
        await using var app = await StartAsync();
        var id = await app.AddTicketAsync("Espera desde hace una hora.");
        await app.ExecuteAsync("update tickets set created_at = now() - interval '1 hour' where id = @id", new { id });

        await app.ProcessAsync(id);
        await app.ProcessAsync(id, query: "?force=true");
        await app.ExecuteAsync("update tickets set description = 'Otro texto.' where id = @id", new { id });
        await app.ProcessAsync(id);

        Assert.Equal(3, await app.QuerySingleAsync<int>("select count(*) from ticket_decisions"));
        var time = Assert.Single(All("tickets.time_to_label"));
        Assert.Equal("model", time.Tags["source"]);
        Assert.InRange(time.Value, 3600, 3660);
    }

    [Fact]
    public async Task Leases_that_are_taken_over_are_counted_and_backoffs_that_are_over_are_not()
    {
        await using var app = await StartAsync();
        var asked = await app.AddTicketAsync("Cero.");
        await HoldAsync(app, asked, attempts: 1, lease: "-1 second");
        await app.ProcessAsync(asked);
        await app.ProcessAsync(asked, query: "?force=true");
        foreach (var text in new[] { "Uno.", "Dos." })
        {
            await HoldAsync(app, await app.AddTicketAsync(text), attempts: 1, lease: "-1 second");
        }

        var waited = await app.AddTicketAsync("Tres.");
        await HoldAsync(app, waited, attempts: 1, lease: "-1 second");
        await app.ExecuteAsync("update ticket_work set lease_token = null where ticket_id = @waited", new { waited });
        await HoldAsync(app, await app.AddTicketAsync("Cuatro."), attempts: 1, lease: "1 minute");
        await app.AddTicketAsync("Cinco.");

        Assert.Equal(4, (await app.SweepAsync()).Labelled);

        Assert.Equal(3, All("tickets.leases.expired").Sum(lease => lease.Value));
    }

    [Theory]
    [InlineData("raise exception using errcode = '53100'", "53100", 1)]
    [InlineData("perform pg_terminate_backend(pg_backend_pid())", "57P01", 2)]
    public async Task A_fault_of_the_database_is_counted_by_its_SQLSTATE(string fault, string sqlState, int times)
    {
        await using var app = await StartAsync();
        await app.ExecuteAsync(
            $"""
            create function fail() returns trigger language plpgsql as $$ begin {fault}; return null; end $$;
            create trigger fail before update on ticket_heartbeat for each row execute function fail();
            """);

        await app.Http.GetAsync("/health/ready");

        // Where a new connection may help there is a second try.
        Assert.Equal(Enumerable.Repeat(sqlState, times), All("tickets.storage.faults").Select(measured => measured.Tags["error.type"]));
    }

    [Fact]
    public async Task The_gauges_tell_what_a_sweep_left_which_it_also_logs_and_nothing_when_the_database_cannot_be_asked()
    {
        await using var app = await StartAsync();
        var parked = await app.AddTicketAsync("Aparcado.");
        await HoldAsync(app, parked, attempts: 5, lease: "0 seconds");
        await app.ExecuteAsync("update ticket_work set lease_token = null, parked_at = now()");
        await HoldAsync(app, await app.AddTicketAsync("En manos de otro."), attempts: 1, lease: "1 hour");
        var waiting = await app.AddTicketAsync("Espera.");
        await HoldAsync(app, waiting, attempts: 1, lease: "1 hour");
        await app.ExecuteAsync(
            """
            update ticket_work set lease_token = null where ticket_id = @waiting;
            update tickets set created_at = now() - interval '3 hours' where id = @parked;
            update tickets set created_at = now() - interval '1 hour' where id = @waiting;
            """,
            new { parked, waiting });

        await app.SweepAsync();

        var gauges = _measurements.ReadGauges().ToDictionary(gauge => gauge.Name, gauge => gauge.Value);
        Assert.Equal((3d, 1d, 1d), (gauges["tickets.backlog.unprocessed"], gauges["tickets.backlog.in_flight"], gauges["tickets.backlog.parked"]));
        Assert.InRange(gauges["tickets.backlog.age"], 3600, 3660);

        // Queries of logs read this line.
        Assert.Single(app.Log, line => Regex.IsMatch(line.Message, "^Backlog: 3 unprocessed, 1 in flight, 1 parked, the oldest that is not parked waits for 36\\d\\d s$"));

        await app.ExecuteAsync("alter table ticket_work rename to ticket_work_gone");
        Assert.Null(await app.Services.GetRequiredService<BacklogWatch>().CountAsync(CancellationToken.None));
        Assert.Empty(_measurements.ReadGauges());
        Assert.Single(app.Log, line => line.Level == LogLevel.Warning && line.Message == "The backlog could not be counted (PostgresException 42P01)");
    }

    [Fact]
    public async Task A_process_that_serves_tells_the_backlog_again_and_again_without_any_sweep()
    {
        var database = await TestPostgres.CreateDatabaseAsync();
        await using (var source = NpgsqlDataSource.Create(database))
        {
            await source.CreateCommand("insert into tickets (description) values ('Nadie barre.')").ExecuteNonQueryAsync();
        }

        await using (var app = await TicketApp.StartAsync(database, services => services.AddSingleton<TimeProvider>(new HurriedTime())))
        {
            await SeeAsync(1);
            await app.AddTicketAsync("Ni ahora.");
            await SeeAsync(2);
        }

        await TestPostgres.DropDatabaseAsync(database);

        Task SeeAsync(int unprocessed) => Eventually.TrueAsync(
            () => Task.FromResult(_measurements.ReadGauges().Any(gauge => gauge.Name == "tickets.backlog.unprocessed" && gauge.Value == unprocessed)),
            "the gauge of the unprocessed tickets");
    }

    /// <summary>Every word of the dashboards, the rules and the infrastructure that looks like a metric or one of its labels.</summary>
    [Fact]
    public async Task Every_metric_and_label_that_a_dashboard_or_an_alert_names_is_measured()
    {
        await using var app = await StartAsync(("Model__InputPricePerMillion", "1"), ("Model__OutputPricePerMillion", "1"));
        app.Model.On("Caído.", ModelStub.Raw(503, "application/json", "{}"));
        await app.ProcessAsync(await app.AddTicketAsync("Bien."));
        await app.ProcessAsync(await app.AddTicketAsync("Caído."));
        await HoldAsync(app, await app.AddTicketAsync("Murió."), attempts: 1, lease: "-1 second");
        await app.SweepAsync();
        _measurements.ReadGauges();
        await app.ExecuteAsync("alter table ticket_heartbeat rename to ticket_heartbeat_gone");
        await app.Http.GetAsync("/health/ready");
        await Eventually.TrueAsync(() => Task.FromResult(All("http.server.request.duration").Count > 0), "the duration of a request");

        var measured = _measurements.All.GroupBy(measurement => measurement.Instrument).ToList();
        var labelsByMetric = measured
            .SelectMany(group => PrometheusNamesOf(group.Key).Select(name => (name, labels: group.SelectMany(measurement => measurement.Tags.Keys))))
            .GroupBy(pair => pair.name)
            .ToDictionary(group => group.Key, group => group.SelectMany(pair => pair.labels).Select(Underscored).Append("le").ToHashSet());
        var infra = Path.Combine(TestPostgres.SolutionFolder, "infra");
        var named = new List<string>();
        var wrong = new List<string>();
        foreach (var file in Directory.EnumerateFiles(infra, "*", SearchOption.AllDirectories).Where(file => Path.GetExtension(file) is ".json" or ".yml" or ".yaml" or ".bicep"))
        {
            var text = await File.ReadAllTextAsync(file);
            var where = Path.GetRelativePath(infra, file);
            var expressions = Path.GetExtension(file) switch
            {
                ".json" when JsonNode.Parse(text) is JsonObject dashboard && dashboard["panels"] is JsonArray panels =>
                    panels.SelectMany(panel => panel!["targets"]!.AsArray()).Select(target => (string)target!["expr"]!).ToList(),
                _ => [.. text.Split('\n')],
            };
            foreach (var expression in expressions)
            {
                var names = PrometheusName().Matches(expression).Select(match => match.Value).ToList();
                var dotted = DottedName().Matches(expression).Select(match => match.Value).ToList();
                named.AddRange(names);
                wrong.AddRange(names.Where(name => !labelsByMetric.ContainsKey(name)).Concat(
                    dotted.Where(name => measured.All(group => group.Key.Name != name))).Select(name => $"{where}: {name}"));
                var known = names.Where(labelsByMetric.ContainsKey).SelectMany(name => labelsByMetric[name]).ToHashSet();
                wrong.AddRange(
                    from Match match in Label().Matches(names.Count > 0 ? expression : "")
                    from label in match.Groups["label"].Value.Split(',', StringSplitOptions.TrimEntries)
                    where !known.Contains(label)
                    select $"{where}: label {label} in {expression.Trim()}");
            }
        }

        Assert.Empty(wrong);
        Assert.InRange(named.Distinct().Count(), 10, 100);
        Assert.DoesNotContain(measured.SelectMany(group => group), measurement => measurement.Tags.Values.Any(value => Guid.TryParse(value, out _) || value == "Bien."));
    }

    private static Task<TicketApp> StartAsync(params (string Name, string? Value)[] settings) => TicketApp.StartAsync(settings);

    /// <summary>A ticket that some process has taken.</summary>
    private static Task<int> HoldAsync(TicketApp app, Guid id, int attempts, string lease) => app.ExecuteAsync(
        """
        insert into ticket_work (ticket_id, attempts, lease_token, due_at)
        values (@id, @attempts, gen_random_uuid(), now() + @lease::interval)
        """,
        new { id, attempts, lease });

    private List<Measurement> All(string name) => [.. _measurements.All.Where(measurement => measurement.Name == name)];

    /// <remarks>https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/</remarks>
    private static IEnumerable<string> PrometheusNamesOf(Instrument instrument)
    {
        var name = Underscored(instrument.Name) + (instrument.Unit == "s" ? "_seconds" : "");
        var type = instrument.GetType().GetGenericTypeDefinition();
        return type == typeof(Counter<>) ? [$"{name}_total"]
            : type == typeof(Histogram<>) ? [$"{name}_bucket", $"{name}_sum", $"{name}_count"]
            : [name];
    }

    private static string Underscored(string name) => name.Replace('.', '_');

    /// <summary>The usual time, but for the period of the watch, which is over in no time.</summary>
    private sealed class HurriedTime : TimeProvider
    {
        public override ITimer CreateTimer(TimerCallback callback, object? state, TimeSpan dueTime, TimeSpan period) =>
            base.CreateTimer(callback, state, Hurry(dueTime), Hurry(period));

        private static TimeSpan Hurry(TimeSpan time) => time == BacklogWatch.Period ? TimeSpan.FromMilliseconds(20) : time;
    }

    [GeneratedRegex(@"\b(tickets|gen_ai_client|http_server)_[a-z_]+\b")]
    private static partial Regex PrometheusName();

    [GeneratedRegex(@"(?<=['""])(tickets|gen_ai\.client|http\.server)\.[a-z_.]+(?=['""])")]
    private static partial Regex DottedName();

    [GeneratedRegex(@"\bby \((?<label>[^)]+)\)|[{,] *(?<label>[a-z_]+) *[!=]=?~?""")]
    private static partial Regex Label();
}
