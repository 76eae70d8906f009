using System.Globalization;
using System.Text.Json;
using Dapper;
using Microsoft.Extensions.Options;
using Npgsql;
using TicketFunctions.Classification;
using TicketFunctions.Tickets;

namespace TicketFunctions.Storage;

/// <summary>
/// Every statement on tickets. Each is autocommitted, and may run twice; only the database's clock decides about leases.
/// Locks are taken in one order: the ticket's row, then its work row, then its text's lock.
/// </summary>
public sealed partial class TicketStore(NpgsqlDataSource dataSource, IOptions<StorageOptions>? options = null)
{
    private static readonly JsonSerializerOptions SnakeCase = new() { PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower };

    private readonly StatementRunner _runner = new(dataSource, options?.Value.Role);

    /// <summary>Connections there may be at once.</summary>
    internal int MaxConnections { get; } = new NpgsqlConnectionStringBuilder(dataSource.ConnectionString).MaxPoolSize;

    static TicketStore() => DefaultTypeMap.MatchNamesWithUnderscores = true;

    /// <summary>Takes the lock on a ticket's text if it is free or its lease is over, and looks for an earlier decision on the text.</summary>
    /// <param name="ticket">The claimed ticket.</param>
    /// <param name="textSha256">The hash of its text. What the claim locked by another one is unlocked.</param>
    /// <param name="reuseAfter">Only decisions with a higher id are looked for; 0 for all.</param>
    /// <param name="terms">As for every claim.</param>
    /// <param name="cancellationToken">Gives up waiting; a lock that was taken all the same runs out with the ticket's lease.</param>
    public Task<TextLock> LockTextAsync(ClaimedTicket ticket, byte[] textSha256, long reuseAfter, ClaimTerms terms, CancellationToken cancellationToken) =>
        // Statements in one round trip and one transaction. The snapshots of the later ones are later: whoever gets the lock
        // that went with the commit of a decision sees that decision.
        _runner.RunAsync(
            _ =>
            [
                new NpgsqlBatchCommand(
                    """
                    delete from public.ticket_text_locks
                    where text_sha256 = @claimedSha256
                      and text_sha256 <> @textSha256
                      and lease_token = @leaseToken
                    """)
                {
                    Parameters = { new("claimedSha256", ticket.TextSha256), new("textSha256", textSha256), new("leaseToken", ticket.LeaseToken) },
                },
                new NpgsqlBatchCommand(
                    """
                    insert into public.ticket_text_locks as held (text_sha256, lease_token, held_until)
                    select @textSha256, lease_token, due_at
                    from public.ticket_work
                    where ticket_id = @id
                      and lease_token = @leaseToken
                    on conflict (text_sha256) do update
                    set lease_token = excluded.lease_token,
                      held_until = excluded.held_until
                    where held.held_until <= now()
                    """)
                {
                    Parameters = { new("textSha256", textSha256), new("id", ticket.Id), new("leaseToken", ticket.LeaseToken) },
                },
                new NpgsqlBatchCommand(
                    """
                    select
                      exists (
                        select
                        from public.ticket_work
                        where ticket_id = @id
                          and lease_token = @leaseToken
                      ) as owned,
                      exists (
                        select
                        from public.ticket_text_locks
                        where text_sha256 = @textSha256
                          and lease_token = @leaseToken
                      ) as locked
                    """)
                {
                    Parameters = { new("textSha256", textSha256), new("id", ticket.Id), new("leaseToken", ticket.LeaseToken) },
                },
                FindEarlier([textSha256], [reuseAfter], terms),
            ],
            async reader =>
            {
                await reader.ReadAsync(cancellationToken);
                var (owned, locked) = (reader.GetBoolean(0), reader.GetBoolean(1));
                await reader.NextResultAsync(cancellationToken);
                return new TextLock(owned, locked, (await ReadEarlierAsync(reader)).GetValueOrDefault(0));
            },
            cancellationToken);

    /// <summary>Ends a failed attempt: the ticket waits for its next one, or is parked after the last.</summary>
    /// <param name="ticket">The claimed ticket.</param>
    /// <param name="error">What went wrong, in our own words.</param>
    /// <param name="wait">From now to the next attempt, when this one counts.</param>
    /// <param name="park">This was the last attempt.</param>
    /// <param name="spare">Whether it counts.</param>
    /// <param name="spareWait">From now to the next attempt, when this one does not count.</param>
    /// <param name="cancellationToken">Gives up; the lease then runs out by itself.</param>
    public async Task<FailStatus> FailAsync(
        ClaimedTicket ticket, string error, TimeSpan wait, bool park, Spare spare, TimeSpan spareWait, CancellationToken cancellationToken)
    {
        // Under our lease only an edit of the text changes the attempts: it sets them back, and the failure is not the new text's.
        var row = await QueryFirstOrDefaultAsync<FailRow>(
            """
            with owned as (
              select
                attempts = @Attempts as current,
                greatest(first_attempt_at, last_failed_at) as since
              from public.ticket_work
              where ticket_id = @Id
                and lease_token = @LeaseToken
              for update
            ),
            failed as (
              select
                current,
                @always or (
                  @inOutage
                  and not exists (
                    select
                    from public.ticket_decisions
                    where decided_at > since
                      and source = 'model'
                  )
                  and not exists (
                    select
                    from public.ticket_failures
                    where failed_at > since
                      and answered
                  )
                ) as spared
              from owned
            ),
            unlocked as (
              delete from public.ticket_text_locks
              where text_sha256 = @TextSha256
                and lease_token = @LeaseToken
            )
            update public.ticket_work
            set lease_token = null,
              attempts = case when current and spared then attempts - 1 else attempts end,
              due_at = now() + case when not current then interval '0' when spared then @spareWait else @wait end,
              parked_at = case when current and @park and not spared then now() end,
              last_failed_at = now(),
              last_error = case when current then @error end
            from failed
            where ticket_work.ticket_id = @Id
            returning failed.current, failed.spared
            """,
            new
            {
                ticket.Id,
                ticket.LeaseToken,
                ticket.TextSha256,
                ticket.Attempts,
                error,
                wait,
                park,
                always = spare == Spare.Always,
                inOutage = spare == Spare.InOutage,
                spareWait,
            },
            cancellationToken);
        return row switch
        {
            null => FailStatus.LeaseLost,
            { Current: false } => FailStatus.Stale,
            { Spared: true } => FailStatus.Spared,
            _ => park ? FailStatus.Parked : FailStatus.Waiting,
        };
    }

    /// <summary>Records an attempt that took calls and left no labels, unless it lost its lease and these calls are a decision's already.</summary>
    /// <remarks>They are when a write of ours was committed and its receipt lost on the way: the next try finds the lease gone.</remarks>
    /// <returns>Rows written.</returns>
    public Task<int> RecordFailureAsync(ClaimedTicket ticket, FailedAttempt failure, CancellationToken cancellationToken)
    {
        var usage = Usage.Of(failure.Calls);
        return ExecuteAsync(
            """
            insert into public.ticket_failures (
              ticket_id, lease_token, attempt, kind, reason, text_sha256, answered, tokens_in, tokens_out, cost, calls
            )
            select @Id, @LeaseToken, @Attempts, @Kind, @Reason, @TextSha256, @Answered, @TokensIn, @TokensOut, @Cost, @Calls::jsonb
            where @Kind <> 'lease_lost'
              or not exists (
                select
                from public.ticket_decisions
                where ticket_id = @Id
                  and text_sha256 = @TextSha256
                  and calls = @Calls::jsonb
              )
            on conflict (lease_token) do nothing
            """,
            new
            {
                ticket.Id,
                ticket.LeaseToken,
                ticket.Attempts,
                failure.Kind,
                failure.Reason,
                failure.TextSha256,
                Answered = failure.Calls.Any(call => call.WasAnswered),
                usage.TokensIn,
                usage.TokensOut,
                usage.Cost,
                Calls = CallRecords.ToJson(failure.Calls),
            },
            cancellationToken);
    }

    /// <summary>Gives a ticket back untried: the attempt does not count.</summary>
    /// <param name="ticket">The claimed ticket.</param>
    /// <param name="wait">From now to when it is due.</param>
    /// <param name="reason">Why it has to wait, in our own words; null to leave the last error as it is.</param>
    /// <param name="cancellationToken">Gives up; the lease then runs out by itself.</param>
    public async Task<WriteStatus> ReleaseAsync(ClaimedTicket ticket, TimeSpan wait, string? reason, CancellationToken cancellationToken)
    {
        var changed = await ExecuteAsync(
            """
            with unlocked as (
              delete from public.ticket_text_locks
              where text_sha256 = @TextSha256
                and lease_token = @LeaseToken
            )
            update public.ticket_work
            set lease_token = null,
              due_at = now() + @wait,
              attempts = greatest(attempts - 1, 0),
              last_error = coalesce(@reason, last_error)
            where ticket_id = @Id
              and lease_token = @LeaseToken
            """,
            new { ticket.Id, ticket.LeaseToken, ticket.TextSha256, wait, reason },
            cancellationToken);
        return changed == 1 ? WriteStatus.Written : WriteStatus.LeaseLost;
    }

    /// <summary>Ends the work on a ticket that is processed and stays as it is, or with which nothing was begun.</summary>
    public async Task<WriteStatus> ForgetAsync(ClaimedTicket ticket, CancellationToken cancellationToken)
    {
        var changed = await ExecuteAsync(
            """
            with unlocked as (
              delete from public.ticket_text_locks
              where text_sha256 = @TextSha256
                and lease_token = @LeaseToken
            )
            delete from public.ticket_work
            where ticket_id = @Id
              and lease_token = @LeaseToken
            """,
            new { ticket.Id, ticket.LeaseToken, ticket.TextSha256 },
            cancellationToken);
        return changed == 1 ? WriteStatus.Written : WriteStatus.LeaseLost;
    }

    /// <summary>Parks tickets whose last attempt ended with its process: nobody was left to count it as failed.</summary>
    public Task<int> ParkExhaustedAsync(int maxAttempts, CancellationToken cancellationToken) =>
        ExecuteAsync(
            """
            with exhausted as (
              select ticket_id
              from public.ticket_work
              where parked_at is null
                and due_at <= now()
                and attempts >= @maxAttempts
              for update skip locked
            )
            update public.ticket_work
            set lease_token = null,
              parked_at = now(),
              last_error = coalesce(last_error, 'interrupted: the process ended during the last attempt')
            where ticket_id = any(array(select ticket_id from exhausted))
            """,
            new { maxAttempts },
            cancellationToken);

    /// <summary>The tickets whose attempts are used up, the longest parked first.</summary>
    public async Task<IReadOnlyList<ParkedTicket>> FindParkedAsync(CancellationToken cancellationToken) =>
        [.. await QueryAsync<ParkedTicket>(
            """
            select
              work.ticket_id as id,
              work.parked_at,
              work.attempts,
              work.last_error,
              case when isfinite(ticket.created_at) then extract(epoch from now() - ticket.created_at)::float8 end as age_seconds
            from public.ticket_work as work
            cross join lateral (
              select created_at
              from public.tickets
              where id = work.ticket_id
                and processed is not true
              offset 0
            ) as ticket
            where work.parked_at is not null
            order by work.parked_at, work.ticket_id
            """,
            new { },
            cancellationToken)];

    /// <summary>Gives parked tickets a new start: no attempt made, no error, due at once.</summary>
    /// <param name="ids">Which; null for all.</param>
    /// <param name="cancellationToken">Gives up waiting.</param>
    /// <returns>Those that were parked.</returns>
    public async Task<IReadOnlyList<Guid>> ReviveAsync(Guid[]? ids, CancellationToken cancellationToken) =>
        // One that somebody has locked is being edited, forced or revived already.
        [.. await QueryAsync<Guid>(
            """
            with parked as (
              select ticket_id
              from public.ticket_work
              where parked_at is not null
                and (@ids::uuid[] is null or ticket_id = any(@ids))
              for update skip locked
            )
            update public.ticket_work
            set attempts = 0,
              first_attempt_at = now(),
              due_at = now(),
              parked_at = null,
              last_error = null
            where ticket_id = any(array(select ticket_id from parked))
            returning ticket_id
            """,
            new { ids },
            cancellationToken)];

    /// <summary>Removes work rows of tickets that somebody else labelled meanwhile, or that are gone.</summary>
    public Task<int> ForgetProcessedAsync(CancellationToken cancellationToken) =>
        ExecuteAsync(
            """
            with done as (
              select work.ticket_id
              from public.ticket_work as work
              where (lease_token is null or due_at <= now())
                and not exists (
                  select
                  from public.tickets
                  where id = ticket_id
                    and processed is not true
                  offset 0
                )
              for update skip locked
            )
            delete from public.ticket_work
            where ticket_id = any(array(select ticket_id from done))
            """,
            new { },
            cancellationToken);

    /// <summary>Removes locks on texts whose holders are gone; such a lock stops nobody.</summary>
    public Task<int> ForgetLocksAsync(CancellationToken cancellationToken) =>
        ExecuteAsync(
            """
            with done as (
              select text_sha256
              from public.ticket_text_locks
              where held_until <= now()
              for update skip locked
            )
            delete from public.ticket_text_locks
            where text_sha256 = any(array(select text_sha256 from done))
            """,
            new { },
            cancellationToken);

    /// <summary>Processed tickets whose labels are those of their newest decision, if that meets every condition given; the oldest first.</summary>
    /// <remarks>A ticket with other labels was corrected by a person since.</remarks>
    public async Task<IReadOnlyList<DecidedTicket>> FindDecidedAsync(DecisionFilter filter, int? limit, CancellationToken cancellationToken) =>
        [.. await QueryAsync<DecidedTicket>(
            """
            select
              tickets.id,
              tickets.description,
              decision.id as decision_id,
              decision.category,
              decision.sentiment,
              decision.source,
              decision.provider,
              decision.model,
              decision.prompt_version,
              decision.taxonomy_version
            from public.ticket_decisions as decision
            join public.tickets on tickets.id = decision.ticket_id
            where tickets.processed
              and tickets.category = decision.category
              and tickets.sentiment = decision.sentiment
              and not exists (
                select
                from public.ticket_decisions as later
                where later.ticket_id = decision.ticket_id
                  and later.id > decision.id
              )
              and (@PromptVersion::text is null or decision.prompt_version = @PromptVersion)
              and (@Model::text is null or decision.model = @Model or (decision.source = 'baseline' and @Model = 'baseline'))
              and (@Label::text is null or decision.category = @Label or decision.sentiment = @Label)
              and (@Since::timestamptz is null or decision.decided_at >= @Since)
            order by tickets.created_at, tickets.id
            limit @limit
            """,
            new { filter.PromptVersion, filter.Model, filter.Label, filter.Since, limit },
            cancellationToken,
            isReport: true)];

    /// <summary>The newest decision there is, or 0.</summary>
    public async Task<long> FindNewestDecisionAsync(CancellationToken cancellationToken) =>
        await QueryFirstOrDefaultAsync<long>(
            """
            select coalesce(max(id), 0)
            from public.ticket_decisions
            """,
            new { },
            cancellationToken);

    /// <summary>Inserts a ticket as any other client would.</summary>
    /// <param name="id">A new one.</param>
    /// <param name="description">The text.</param>
    /// <param name="cancellationToken">Gives up waiting.</param>
    public Task InsertAsync(Guid id, string description, CancellationToken cancellationToken) =>
        ExecuteAsync(
            """
            insert into public.tickets (id, description)
            values (@id, @description)
            on conflict (id) do nothing
            """,
            new { id, description },
            cancellationToken);

    /// <summary>Counts what is left to do.</summary>
    public async Task<Backlog> CountBacklogAsync(CancellationToken cancellationToken) =>
        (await QueryFirstOrDefaultAsync<Backlog>(
            """
            select
              (select count(*) from public.tickets where not processed) as unprocessed,
              count(*) filter (where work.lease_token is not null and work.due_at > now()) as in_flight,
              count(*) filter (where work.parked_at is not null) as parked,
              greatest(extract(epoch from now() - (select min(created_at) from public.tickets where not processed and isfinite(created_at))), 0)::float8 as oldest_seconds,
              greatest(
                extract(epoch from now() - (
                  select created_at
                  from public.tickets
                  where not processed
                    and isfinite(created_at)
                    and not exists (
                      select
                      from public.ticket_work
                      where ticket_id = tickets.id
                        and parked_at is not null
                      offset 0
                    )
                  order by created_at
                  limit 1
                )),
                0
              )::float8 as oldest_waiting_seconds
            from public.ticket_work as work
            cross join lateral (
              select
              from public.tickets
              where id = work.ticket_id
                and processed is not true
              offset 0
            ) as ticket
            """,
            new { },
            cancellationToken))!;

    /// <summary>Adds up what the current UTC day took so far.</summary>
    public async Task<DaySum> SumDayAsync(CancellationToken cancellationToken) =>
        (await QueryFirstOrDefaultAsync<DaySum>(
            """
            with spent as (
              select model_calls as calls, tokens_in, tokens_out, cost, source = 'reused' as reused, saved_tokens, saved_cost
              from public.ticket_decisions
              where decided_at >= date_trunc('day', now(), 'UTC')
              union all
              select jsonb_array_length(calls), tokens_in, tokens_out, cost, false, null, null
              from public.ticket_failures
              where failed_at >= date_trunc('day', now(), 'UTC')
            )
            select
              coalesce(sum(calls), 0)::bigint as calls,
              (coalesce(sum(tokens_in), 0) + coalesce(sum(tokens_out), 0))::bigint as tokens,
              trim_scale(sum(cost)) as cost,
              count(*) filter (where reused) as saved_calls,
              coalesce(sum(saved_tokens), 0)::bigint as saved_tokens,
              trim_scale(sum(saved_cost)) as saved_cost,
              extract(epoch from date_trunc('day', now(), 'UTC') + interval '24 hours' - now())::float8 as seconds_left
            from spent
            """,
            new { },
            cancellationToken))!;

    /// <summary>Adds up what each model did and took on each UTC day, the oldest first, and in the end all together.</summary>
    public async Task<IReadOnlyList<CostRow>> SumCostsAsync(DateOnly since, CancellationToken cancellationToken) =>
        [.. await QueryAsync<CostRow>(
            """
            with decision as (
              select *, decided_at at time zone 'UTC' as at
              from public.ticket_decisions
              where decided_at >= @since::timestamp at time zone 'UTC'
            ),
            failure as (
              select *, failed_at at time zone 'UTC' as at
              from public.ticket_failures
              where failed_at >= @since::timestamp at time zone 'UTC'
            ),
            item as (
              select at, model, 1 as decisions, (source = 'reused')::int as reused, 0 as failed_attempts,
                0 as calls, null::int as tokens_in, null::int as tokens_out, null::numeric as cost, saved_tokens, saved_cost
              from decision
              union all
              select at, coalesce(calls -> -1 ->> 'model', '?'), 0, 0, (kind <> 'dry_run')::int, 0, null, null, null, null, null
              from failure
              union all
              select at, call.model, 0, 0, 0, 1, call.tokens_in, call.tokens_out, call.cost, null, null
              from (select at, calls from decision union all select at, calls from failure) as attempt,
                jsonb_to_recordset(attempt.calls) as call (model text, tokens_in int, tokens_out int, cost numeric)
              union all
              -- Decisions from before their calls were recorded.
              select at, model, 0, 0, 0, model_calls, tokens_in, tokens_out, cost, null, null
              from decision
              where calls = '[]'
            )
            select
              to_char(at, 'YYYY-MM-DD') as day,
              model,
              coalesce(sum(decisions), 0) as decisions,
              coalesce(sum(reused), 0) as reused,
              coalesce(sum(failed_attempts), 0) as failed_attempts,
              coalesce(sum(calls), 0) as calls,
              coalesce(sum(tokens_in), 0) as tokens_in,
              coalesce(sum(tokens_out), 0) as tokens_out,
              trim_scale(sum(cost)) as cost,
              coalesce(sum(saved_tokens), 0) as saved_tokens,
              trim_scale(sum(saved_cost)) as saved_cost
            from item
            group by grouping sets ((1, 2), ())
            order by 1, 2
            """,
            new { since = since.ToString("O", CultureInfo.InvariantCulture) },
            cancellationToken,
            isReport: true)];

    /// <summary>Fails unless the database takes writes.</summary>
    public Task WriteHeartbeatAsync(CancellationToken cancellationToken) =>
        ExecuteAsync("update public.ticket_heartbeat set seen_at = now()", new { }, cancellationToken);

    private async Task<T?> QueryFirstOrDefaultAsync<T>(string sql, object parameters, CancellationToken cancellationToken) =>
        (await QueryAsync<T>(sql, parameters, cancellationToken)).FirstOrDefault();

    /// <param name="sql">One statement.</param>
    /// <param name="parameters">Its parameters.</param>
    /// <param name="cancellationToken">Gives up waiting.</param>
    /// <param name="isReport">It may look at every row there is, and somebody waits for it who can stop it.</param>
    private Task<List<T>> QueryAsync<T>(string sql, object parameters, CancellationToken cancellationToken, bool isReport = false) =>
        RunAsync(
            sql,
            parameters,
            isReport ? 0 : null,
            async (connection, command) =>
            {
                await using var reader = await connection.ExecuteReaderAsync(command);

                // The first result is that of setting the limits.
                await reader.NextResultAsync(cancellationToken);
                var read = reader.GetRowParser<object>(typeof(T));
                var rows = new List<T>();
                while (await reader.ReadAsync(cancellationToken))
                {
                    rows.Add((T)read(reader));
                }

                // What fails at the commit fails here.
                while (await reader.NextResultAsync(cancellationToken))
                {
                }

                return rows;
            },
            cancellationToken);

    private Task<int> ExecuteAsync(string sql, object parameters, CancellationToken cancellationToken) =>
        RunAsync(sql, parameters, commandTimeout: null, (connection, command) => connection.ExecuteAsync(command), cancellationToken);

    private Task<T> RunAsync<T>(
        string sql, object parameters, int? commandTimeout, Func<NpgsqlConnection, CommandDefinition, Task<T>> run, CancellationToken cancellationToken) =>
        _runner.RunAsync(
            (connection, attempt) =>
            {
                var arguments = new DynamicParameters(parameters);
                arguments.Add("lockTimeout", attempt.LockTimeout);
                arguments.Add("statementTimeout", attempt.StatementTimeout);
                arguments.Add("role", attempt.Role);
                return run(connection, new CommandDefinition(attempt.Limits + sql, arguments, commandTimeout: commandTimeout, cancellationToken: cancellationToken));
            },
            commandTimeout,
            cancellationToken);

    private sealed record FailRow(bool Current, bool Spared);
}
