using System.Globalization;
using Npgsql;

namespace TicketFunctions.Storage;

/// <summary>
/// Runs statements, each autocommitted, with the limits and the role that go with each. Each may run twice: when a connection
/// breaks nobody knows whether its statement was committed, and it is sent again.
/// </summary>
/// <param name="dataSource">The database.</param>
/// <param name="role">The role each statement takes; null for the login's own rights.</param>
internal sealed class StatementRunner(NpgsqlDataSource dataSource, string? role)
{
    /// <summary>
    /// How long the server works, and waits for locks: less than we wait for it, so that nothing goes on there unseen.
    /// For this transaction only, in the round trip of the statement: on a pooler the next one may run in another session.
    /// </summary>
    private const string Limits = "select set_config('lock_timeout', @lockTimeout, true), set_config('statement_timeout', @statementTimeout, true)";

    /// <summary>
    /// For gathered statements one plan each, whatever is in its arrays, and by index only. To plan takes longer than to run; and a plan
    /// that is kept was made for tables that may have been empty then, where rows that are dead and not yet vacuumed away counted for nothing.
    /// Nor compiled: the server would do it anew each time, for as long as a backlog is large enough to look expensive.
    /// </summary>
    private const string ByIndex =
        Limits + ", set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_seqscan', 'off', true), set_config('enable_bitmapscan', 'off', true)"
        + ", set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true), set_config('jit', 'off', true)";

    /// <summary>And with the rights of a role, in the same way: a login that a pooler knows, and no more rights than needed.</summary>
    /// <remarks>By itself set_config answers an unknown role with the code of a wrong value, which many things have.</remarks>
    private const string OfRole = ", set_config('role', @role, true) where pg_has_role(@role, 'member') is not null";

    private static readonly Statement LimitsByIndex = new(ByIndex);

    private static readonly Statement LimitsByIndexOfRole = new(ByIndex + OfRole);

    /// <summary>To prepare a statement takes a round trip on each connection: not worth it for a command that runs a few.</summary>
    private const int WorthPreparing = 20;

    private bool? _mayPrepare;
    private int _runs;

    /// <summary>Sends statements in one round trip and one transaction; none of them is built anew each time, so they are prepared where that is safe.</summary>
    /// <param name="statements">Makes them; told whether they are sent again.</param>
    /// <param name="read">Reads their results, from the first one on.</param>
    /// <param name="cancellationToken">Gives up waiting.</param>
    public Task<T> RunAsync<T>(Func<bool, NpgsqlBatchCommand[]> statements, Func<NpgsqlDataReader, Task<T>> read, CancellationToken cancellationToken = default) =>
        RunAsync(
            async (connection, attempt) =>
            {
                await using var batch = new NpgsqlBatch(connection);
                batch.BatchCommands.Add((role is null ? LimitsByIndex : LimitsByIndexOfRole).With(
                    [new NpgsqlParameter<string>("lockTimeout", attempt.LockTimeout),
                    new NpgsqlParameter<string>("statementTimeout", attempt.StatementTimeout),
                    .. role is null ? Array.Empty<NpgsqlParameter>() : [new NpgsqlParameter<string>("role", role)]]));
                foreach (var statement in statements(attempt.IsRepeated))
                {
                    batch.BatchCommands.Add(statement);
                }

                if (await MayPrepareAsync(connection, cancellationToken))
                {
                    await batch.PrepareAsync(cancellationToken);
                }

                await using var reader = await batch.ExecuteReaderAsync(cancellationToken);
                await reader.NextResultAsync(cancellationToken);
                var result = await read(reader);

                // What fails at the commit fails here.
                while (await reader.NextResultAsync(cancellationToken))
                {
                }

                return result;
            },
            commandTimeout: null,
            cancellationToken);

    /// <summary>Runs something on a connection that is open, and once more on a new one when that was broken.</summary>
    /// <param name="run">What is done; it says by <see cref="Attempt"/> what goes before its statement.</param>
    /// <param name="commandTimeout">Seconds, 0 for none; null for the connection string's.</param>
    /// <param name="cancellationToken">Gives up waiting.</param>
    public async Task<T> RunAsync<T>(Func<NpgsqlConnection, Attempt, Task<T>> run, int? commandTimeout, CancellationToken cancellationToken)
    {
        try
        {
            return await RunOnceAsync(run, commandTimeout, isRepeated: false, cancellationToken);
        }
        catch (Exception e) when (StorageFaults.Find(e) == StorageFault.Disconnected && !StorageFaults.IsTimeout(e))
        {
            // The connection may have died long ago in the pool, or its server was replaced: a new one may be well.
            // Whoever waits for a time-out has waited enough.
        }
        catch (PostgresException e) when (IsOfPreparation(e))
        {
            // Nothing was done. What was prepared is gone, or no longer fits the tables.
            if (e.SqlState != PostgresErrorCodes.FeatureNotSupported)
            {
                _mayPrepare = false;
            }

            dataSource.Clear();
        }

        return await RunOnceAsync(run, commandTimeout, isRepeated: true, cancellationToken);
    }

    /// <summary>A prepared statement that the server does not know, or has already, or that a changed table has overtaken.</summary>
    private static bool IsOfPreparation(PostgresException e) => e.SqlState is PostgresErrorCodes.InvalidSqlStatementName
        or PostgresErrorCodes.DuplicatePreparedStatement or PostgresErrorCodes.FeatureNotSupported;

    private async Task<T> RunOnceAsync<T>(
        Func<NpgsqlConnection, Attempt, Task<T>> run, int? commandTimeout, bool isRepeated, CancellationToken cancellationToken)
    {
        var isOpen = false;
        try
        {
            await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
            isOpen = true;

            // Zero is none, for us and for the server.
            var limit = TimeSpan.FromSeconds(commandTimeout ?? connection.CommandTimeout);
            return await run(connection, new Attempt(isRepeated, Milliseconds(limit / 2), Milliseconds(limit * 0.75), role, (role is null ? Limits : Limits + OfRole) + ";\n"));
        }
        catch (Exception e) when (StorageFaults.Find(e) is { } fault)
        {
            Telemetry.CountStorageFault(e);
            if (isOpen && fault == StorageFault.Disconnected)
            {
                // The others in the pool lead to the same server, which is gone, or has become one that only reads.
                dataSource.Clear();
            }

            throw;
        }

        static string Milliseconds(TimeSpan time) => ((long)time.TotalMilliseconds).ToString(CultureInfo.InvariantCulture);
    }

    /// <summary>
    /// Not through a pooler: the next statement may run in a session that has not prepared it. A pooler gives a session
    /// a number of its own, not that of the server's process.
    /// </summary>
    private async ValueTask<bool> MayPrepareAsync(NpgsqlConnection connection, CancellationToken cancellationToken)
    {
        if (_mayPrepare is { } known)
        {
            return known;
        }

        if (Interlocked.Increment(ref _runs) <= WorthPreparing)
        {
            return false;
        }

        await using var command = new NpgsqlCommand("select pg_backend_pid()", connection);
        var isDirect = (int)(await command.ExecuteScalarAsync(cancellationToken))! == connection.ProcessID;
        _mayPrepare = isDirect;
        return isDirect;
    }
}

/// <summary>One try at a statement, and what goes before it in its round trip.</summary>
/// <param name="IsRepeated">Nobody knows whether it was carried out before.</param>
/// <param name="LockTimeout">Milliseconds.</param>
/// <param name="StatementTimeout">Milliseconds.</param>
/// <param name="Role">The role, where one is taken.</param>
/// <param name="Limits">The statement that sets these.</param>
internal readonly record struct Attempt(bool IsRepeated, string LockTimeout, string StatementTimeout, string? Role, string Limits);
