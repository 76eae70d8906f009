using System.Collections.Concurrent;

namespace TicketFunctions.Tickets;

/// <summary>The texts that this process is having classified: who has the same one waits for its end and need not ask the database.</summary>
internal sealed class TextsUnderWay
{
    private readonly ConcurrentDictionary<string, TaskCompletionSource> _texts = new(StringComparer.Ordinal);

    /// <summary>Completes when the text is no longer under way; null when it is not.</summary>
    public Task? Find(byte[] textSha256) => _texts.GetValueOrDefault(Convert.ToHexString(textSha256))?.Task;

    /// <returns>To be disposed when what came of it is stored.</returns>
    public IDisposable Enter(byte[] textSha256)
    {
        var text = Convert.ToHexString(textSha256);
        var end = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);

        // One whose lease is over may still be there: the later one counts.
        _texts[text] = end;
        return new Entry(this, text, end);
    }

    private sealed class Entry(TextsUnderWay owner, string text, TaskCompletionSource end) : IDisposable
    {
        public void Dispose()
        {
            owner._texts.TryRemove(KeyValuePair.Create(text, end));
            end.TrySetResult();
        }
    }
}
