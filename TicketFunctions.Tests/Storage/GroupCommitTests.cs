using System.Collections.Concurrent;
using TicketFunctions.Storage;

namespace TicketFunctions.Tests.Storage;

/// <summary>When statements are sent, whatever is in them. Each waits until the test ends it.</summary>
public sealed class GroupCommitTests : IDisposable
{
    private static readonly TimeSpan Limit = TimeSpan.FromSeconds(30);

    private readonly BlockingCollection<(IReadOnlyList<int> Items, TaskCompletionSource<int[]> End)> _sent = [];
    private readonly SemaphoreSlim _alone = new(1);
    private readonly GroupCommit<int, int> _group;

    public GroupCommitTests() => _group = new(
        (items, _) =>
        {
            var end = new TaskCompletionSource<int[]>(TaskCreationOptions.RunContinuationsAsynchronously);
            _sent.Add((items, end));
            return end.Task;
        },
        _ => false,
        enough: 8,
        _alone);

    public void Dispose()
    {
        _group.Dispose();
        _alone.Dispose();
        _sent.Dispose();
    }

    [Fact]
    public async Task A_patient_item_that_stays_alone_is_sent()
    {
        var result = _group.RunAsync(1, isPatient: true).AsTask();

        End();
        Assert.Equal(1, await result.WaitAsync(Limit));
    }

    [Fact]
    public async Task Patient_items_are_sent_with_one_that_is_not()
    {
        var results = new[] { _group.RunAsync(1, isPatient: true).AsTask(), _group.RunAsync(2, isPatient: true).AsTask(), _group.RunAsync(3).AsTask() };
        EndAll(3);

        var answers = await Task.WhenAll(results).WaitAsync(Limit);
        Assert.Equal([1, 2, 3], answers);
    }

    [Fact]
    public async Task What_comes_while_a_statement_is_on_its_way_is_sent_after_it_patient_or_not()
    {
        var first = _group.RunAsync(1).AsTask();
        var sent = Take();
        Task<int>[] others = [_group.RunAsync(2, isPatient: true).AsTask(), _group.RunAsync(3).AsTask()];
        sent.End.SetResult([1]);
        EndAll(2);

        var answers = await Task.WhenAll([first, .. others]).WaitAsync(Limit);
        Assert.Equal([1, 2, 3], answers);
    }

    [Fact]
    public async Task While_statements_hang_others_are_started_up_to_four_and_the_rest_goes_when_one_ends()
    {
        var results = new List<Task<int>>();
        var hanging = new List<(IReadOnlyList<int> Items, TaskCompletionSource<int[]> End)>();
        for (var i = 0; i < 4; i++)
        {
            results.Add(_group.RunAsync(i).AsTask());
            hanging.Add(Take());
        }

        results.AddRange(Enumerable.Range(4, 300).Select(i => _group.RunAsync(i).AsTask()));
        Assert.Equal([[0], [1], [2], [3]], hanging.Select(statement => statement.Items));

        // In the meantime another group has started four one after the other, each when its item had waited: so a fifth would have been here.
        using var alone = new SemaphoreSlim(1);
        using var clock = new BlockingCollection<int>();
        var never = new TaskCompletionSource<int[]>();
        using var other = new GroupCommit<int, int>(
            (items, _) =>
            {
                clock.Add(items[0]);
                return never.Task;
            },
            _ => false,
            enough: 8,
            alone);
        for (var i = 0; i < 4; i++)
        {
            _ = other.RunAsync(i).AsTask();
            Assert.True(clock.TryTake(out _, Limit));
        }

        Assert.Empty(_sent);

        // Nothing but its end makes room for another one.
        hanging[2].End.SetResult([.. hanging[2].Items]);
        var next = Take();
        Assert.Equal(Enumerable.Range(4, 256), next.Items);
        Assert.Empty(_sent);
        hanging.ForEach(statement => statement.End.TrySetResult([.. statement.Items]));
        next.End.SetResult([.. next.Items]);
        EndAll(300 - 256);

        Assert.Equal(Enumerable.Range(0, 304), await Task.WhenAll(results).WaitAsync(Limit));
    }

    private (IReadOnlyList<int> Items, TaskCompletionSource<int[]> End) Take() =>
        _sent.TryTake(out var statement, Limit) ? statement : throw new TimeoutException("No statement was sent.");

    private int End()
    {
        var statement = Take();
        statement.End.SetResult([.. statement.Items]);
        return statement.Items.Count;
    }

    private void EndAll(int items)
    {
        while (items > 0)
        {
            items -= End();
        }
    }
}
