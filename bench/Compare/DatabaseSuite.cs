using System.Globalization;
using System.Text.RegularExpressions;

namespace TicketFunctions.Compare;

/// <summary>What Postgres alone takes: the bound of whoever writes one row at a time, and of whoever gathers them.</summary>
internal sealed partial class DatabaseSuite(Bench bench)
{
    private const int Connections = 16;

    public async Task RunAsync(CancellationToken cancellationToken)
    {
        if (Machine.FindOnPath("pgbench") is null)
        {
            bench.LeaveOut("pgbench", "it is missing; install Debian's postgresql-contrib or postgresql");
            return;
        }

        for (var round = 1; round <= bench.Options.Rounds; round++)
        {
            foreach (var rows in (int[])[1, 10, 100])
            {
                var name = rows == 1 ? "update by key, prepared" : $"update from unnest, {rows} rows";
                await bench.MeasureAsync(
                    $"database, round {round}, {name}", new Cell { Suite = "database", Contestant = name, Round = round },
                    cell => bench.OnCopyAsync(bench.Template, database => MeasureAsync(cell, database, rows, cancellationToken), cancellationToken),
                    cancellationToken);
            }
        }
    }

    private async Task<Cell> MeasureAsync(Cell cell, string database, int rows, CancellationToken cancellationToken)
    {
        var script = bench.Options.Log($"pgbench-{rows}.sql");
        await File.WriteAllTextAsync(script, rows == 1
            ? $"""
              \set n random(1, {bench.Options.Tickets})
              update tickets set category = 'Técnico', sentiment = 'Negativo', processed = true where id = ticket_id(:n);
              """
            // Blocks, each in order: two that overlapped would deadlock.
            : $"""
              \set n random(0, {(bench.Options.Tickets / rows) - 1}) * {rows}
              update tickets set category = label.category, sentiment = label.sentiment, processed = true from unnest(array(select ticket_id(n) from generate_series(:n + 1, :n + {rows}) n), array_fill('Técnico'::text, array[{rows}]), array_fill('Negativo'::text, array[{rows}])) label (id, category, sentiment) where tickets.id = label.id;
              """, cancellationToken);
        var canary = await bench.MeasureCanaryAsync(cancellationToken);
        var connection = bench.Postgres.ConnectionTo(database);
        var cpu = bench.Postgres.Pid is { } pid ? Machine.CpuOfTree(pid) : 0;
        var output = await Child.RunAsync(
            new Launch(
                ["pgbench", "-n", "-M", "prepared", "-c", $"{(rows == 1 ? Connections : 4)}", "-j", "2", "-T", $"{bench.Options.Seconds}", "-f", script,
                    "-h", connection.Host!, "-p", $"{connection.Port}", "-U", connection.Username!, database],
                null, ("PGPASSWORD", connection.Password ?? "")),
            bench.Options.Log("pgbench"), TimeSpan.FromSeconds(bench.Options.Seconds + 60), cancellationToken);
        var transactions = double.Parse(Processed().Match(output).Groups[1].Value, CultureInfo.InvariantCulture);
        var failed = Failed().Match(output) is { Success: true } match ? long.Parse(match.Groups[1].Value, CultureInfo.InvariantCulture) : 0;
        return cell with
        {
            Rate = double.Parse(PerSecond().Match(output).Groups[1].Value, CultureInfo.InvariantCulture) * rows,
            CpuPostgres = bench.Postgres.Pid is { } after ? (Machine.CpuOfTree(after) - cpu) / (transactions * rows) * 1e6 : null,
            Requests = (long)transactions * rows,
            Errors = failed,
            Canary = canary,
            Invalid = failed > 0 ? $"{failed} transactions failed" : null,
        };
    }

    [GeneratedRegex(@"tps = ([\d.]+)")]
    private static partial Regex PerSecond();

    [GeneratedRegex(@"transactions actually processed: (\d+)")]
    private static partial Regex Processed();

    [GeneratedRegex(@"number of failed transactions: (\d+)")]
    private static partial Regex Failed();
}
