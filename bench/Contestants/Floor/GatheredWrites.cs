using System.Threading.Channels;
using Npgsql;
using NpgsqlTypes;

namespace TicketFunctions.Floor;

/// <summary>One statement for the labels that wait together.</summary>
internal sealed class GatheredWrites
{
    private const int MostAtOnce = 500;
    private const int Writers = 2;

    private readonly Channel<Write> _waiting = Channel.CreateUnbounded<Write>();

    public GatheredWrites(NpgsqlDataSource dataSource)
    {
        for (var i = 0; i < Writers; i++)
        {
            _ = Task.Run(() => WriteWaitingAsync(dataSource));
        }
    }

    /// <returns>Whether there is such a ticket.</returns>
    public Task<bool> WriteAsync(Guid id, Labels labels)
    {
        var write = new Write(id, labels);
        _waiting.Writer.TryWrite(write);
        return write.Task;
    }

    /// <param name="dataSource">Where they go.</param>
    /// <param name="ids">Sorted, so that two writers never wait for each other.</param>
    /// <param name="labels">In the order of their ids.</param>
    /// <returns>The tickets there are.</returns>
    public static async Task<HashSet<Guid>> WriteAsync(NpgsqlDataSource dataSource, Guid[] ids, IEnumerable<Labels> labels)
    {
        await using var command = dataSource.CreateCommand(
            """
            update tickets
            set category = label.category, sentiment = label.sentiment, processed = true
            from unnest($1, $2, $3) label (id, category, sentiment)
            where tickets.id = label.id
            returning tickets.id
            """);
        command.Parameters.Add(new NpgsqlParameter<Guid[]> { TypedValue = ids, NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Uuid });
        command.Parameters.Add(Texts(labels.Select(label => label.Category)));
        command.Parameters.Add(Texts(labels.Select(label => label.Sentiment)));
        var found = new HashSet<Guid>(ids.Length);
        await using var reader = await command.ExecuteReaderAsync();
        while (await reader.ReadAsync())
        {
            found.Add(reader.GetFieldValue<Guid>(0));
        }

        return found;

        static NpgsqlParameter<string[]> Texts(IEnumerable<string> values) =>
            new() { TypedValue = [.. values], NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Text };
    }

    private async Task WriteWaitingAsync(NpgsqlDataSource dataSource)
    {
        var writes = new List<Write>(MostAtOnce);
        while (await _waiting.Reader.WaitToReadAsync())
        {
            writes.Clear();
            while (writes.Count < MostAtOnce && _waiting.Reader.TryRead(out var write))
            {
                writes.Add(write);
            }

            if (writes.Count == 0)
            {
                continue;
            }

            try
            {
                writes.Sort((left, right) => left.Id.CompareTo(right.Id));
                var found = await WriteAsync(dataSource, [.. writes.Select(write => write.Id)], writes.Select(write => write.Labels));
                writes.ForEach(write => write.SetResult(found.Contains(write.Id)));
            }
            catch (NpgsqlException e)
            {
                writes.ForEach(write => write.SetException(e));
            }
        }
    }

    private sealed class Write(Guid id, Labels labels) : TaskCompletionSource<bool>(TaskCreationOptions.RunContinuationsAsynchronously)
    {
        public Guid Id => id;

        public Labels Labels => labels;
    }
}
