using System.Diagnostics;
using System.Threading.Channels;
using Npgsql;

namespace TicketFunctions.Floor;

/// <summary>Empties the backlog: claims ahead, so many calls at once, gathered writes. A claim is a mark in the row, and nobody looks after it.</summary>
internal static class Drain
{
    private const int RowsAtOnce = 1000;
    private const int Writers = 2;

    public static async Task RunAsync(NpgsqlDataSource dataSource, Model model, int concurrency)
    {
        await using (var command = dataSource.CreateCommand("alter table tickets add column if not exists claimed_until timestamptz"))
        {
            await command.ExecuteNonQueryAsync();
        }

        var watch = Stopwatch.StartNew();
        var claimed = Channel.CreateBounded<(Guid Id, string Text)>(Math.Max(RowsAtOnce, 2 * concurrency));
        var labelled = Channel.CreateBounded<(Guid Id, Labels Labels)>(4 * RowsAtOnce);
        var claiming = ClaimAsync(dataSource, claimed.Writer);
        var writing = Task.WhenAll(Enumerable.Range(0, Writers).Select(_ => WriteAsync(dataSource, labelled.Reader)));
        await Task.WhenAll(Enumerable.Range(0, concurrency).Select(async _ =>
        {
            await foreach (var (id, text) in claimed.Reader.ReadAllAsync())
            {
                await labelled.Writer.WriteAsync((id, await model.ClassifyAsync(text)));
            }
        }));
        labelled.Writer.Complete();
        await claiming;
        var counts = await writing;
        Console.WriteLine(FormattableString.Invariant($"JSON {{\"done\":{counts.Sum()},\"milliseconds\":{watch.Elapsed.TotalMilliseconds:0}}}"));
    }

    private static async Task ClaimAsync(NpgsqlDataSource dataSource, ChannelWriter<(Guid Id, string Text)> claimed)
    {
        (DateTime CreatedAt, Guid Id) last = (DateTime.UnixEpoch, Guid.Empty);
        while (true)
        {
            await using var command = dataSource.CreateCommand(
                """
                update tickets
                set claimed_until = now() + interval '2 minutes'
                from (
                  select id
                  from tickets
                  where not processed
                    and (claimed_until is null or claimed_until < now())
                    and (created_at, id) > ($1, $2)
                  order by created_at, id
                  limit $3
                  for update skip locked
                ) due
                where tickets.id = due.id
                returning tickets.id, tickets.description, tickets.created_at
                """);
            command.Parameters.Add(new NpgsqlParameter<DateTime> { TypedValue = last.CreatedAt });
            command.Parameters.Add(new NpgsqlParameter<Guid> { TypedValue = last.Id });
            command.Parameters.Add(new NpgsqlParameter<int> { TypedValue = RowsAtOnce });
            var rows = new List<(Guid Id, string Text)>(RowsAtOnce);
            await using (var reader = await command.ExecuteReaderAsync())
            {
                while (await reader.ReadAsync())
                {
                    rows.Add((reader.GetGuid(0), reader.GetString(1)));
                    var createdAt = reader.GetDateTime(2);
                    last = createdAt > last.CreatedAt ? (createdAt, rows[^1].Id) : last;
                }
            }

            foreach (var row in rows)
            {
                await claimed.WriteAsync(row);
            }

            if (rows.Count == 0)
            {
                claimed.Complete();
                return;
            }
        }
    }

    private static async Task<int> WriteAsync(NpgsqlDataSource dataSource, ChannelReader<(Guid Id, Labels Labels)> labelled)
    {
        var written = 0;
        var batch = new List<(Guid Id, Labels Labels)>(RowsAtOnce);
        while (await labelled.WaitToReadAsync())
        {
            batch.Clear();
            while (batch.Count < RowsAtOnce && labelled.TryRead(out var item))
            {
                batch.Add(item);
            }

            if (batch.Count > 0)
            {
                batch.Sort((left, right) => left.Id.CompareTo(right.Id));
                written += (await GatheredWrites.WriteAsync(dataSource, [.. batch.Select(item => item.Id)], batch.Select(item => item.Labels))).Count;
            }
        }

        return written;
    }
}
