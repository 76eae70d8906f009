using System.Globalization;
using System.Text.Json;
using System.Text.Json.Serialization;
using Dapper;
using Microsoft.Extensions.Options;
using Npgsql;
using TicketFunctions.Classification;
using TicketFunctions.Tickets;

namespace TicketFunctions.Storage;

/// <summary>
/// Every statement on tickets. Each method is one autocommitted statement; only the database's clock decides about leases.
/// Locks are taken in one order: the ticket's row, then its work row, then its text's lock.
/// Each may run twice: when a connection breaks nobody knows whether its statement was committed, and it is sent again.
/// </summary>
public sealed class TicketStore(NpgsqlDataSource dataSource, IOptions<StorageOptions>? options = null)
{
    private static readonly JsonSerializerOptions CallsJson = new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        Converters = { new JsonStringEnumConverter(JsonNamingPolicy.SnakeCaseLower) },
    };

    /// <summary>
    /// How long the server works, and waits for locks: less than we wait for it, so that nothing goes on there unseen.
    /// For this transaction only, in the round trip of the statement: on a pooler the next one may run in another session.
    /// </summary>
    private const string Limits = "select set_config('lock_timeout', @lockTimeout, true), set_config('statement_timeout', @statementTimeout, true);\n";

    /// <summary>The same with the rights of a role, in the same way: a login that a pooler knows, and no more rights than needed.</summary>
    /// <remarks>By itself set_config answers an unknown role with the code of a wrong value, which many things have.</remarks>
    private const string LimitsOfRole =
        """
        select set_config('lock_timeout', @lockTimeout, true), set_config('statement_timeout', @statementTimeout, true), set_config('role', @role, true)
        where pg_has_role(@role, 'member') is not null;

        """;

    private readonly string? _role = options?.Value.Role;

    static TicketStore() => DefaultTypeMap.MatchNamesWithUnderscores = true;

    /// <summary>Claims one ticket for its next attempt.</summary>
    /// <param name="id">The ticket.</param>
    /// <param name="leaseToken">A new token, kept by the caller.</param>
    /// <param name="options">The length of the lease and the most attempts.</param>
    /// <param name="force">Claim it even if it is processed or parked.</param>
    /// <param name="onlyDue">Not while it waits for its next attempt.</param>
    /// <param name="cancellationToken">Gives up waiting; a claim that happened all the same runs out with its lease.</param>
    public async Task<Claim> ClaimAsync(
        Guid id, Guid leaseToken, TriageOptions options, bool force, bool onlyDue, CancellationToken cancellationToken)
    {
        // The row lock makes a claim wait for a classification that is being committed, and then see it:
        // without it the claim could start work on a ticket that was finished a moment ago.
        // The lease starts after that wait; now() is when the statement began.
        // Our own token is there when this is sent again: the attempt was counted then.
        var row = await QueryFirstOrDefaultAsync<ClaimRow>(
            """
            with ticket as (
              select id, description, category, sentiment, processed
              from public.tickets
              where id = @id
              for no key update
            ),
            claimed as (
              insert into public.ticket_work as work (ticket_id, attempts, lease_token, due_at)
              select id, 1, @leaseToken, clock_timestamp() + @Lease
              from ticket
              where not processed or @force
              on conflict (ticket_id) do update
              set attempts = case when @force then 1 when work.lease_token = excluded.lease_token then work.attempts else work.attempts + 1 end,
                first_attempt_at = case when @force then now() else work.first_attempt_at end,
                lease_token = excluded.lease_token,
                due_at = excluded.due_at,
                parked_at = null
              where work.lease_token = excluded.lease_token
                or (
                  (work.due_at <= now() or (work.lease_token is null and not @onlyDue))
                  and (@force or (work.parked_at is null and work.attempts < @MaxAttempts))
                )
              returning work.attempts
            )
            select
              ticket.description,
              ticket.category,
              ticket.sentiment,
              ticket.processed,
              claimed.attempts as claimed_attempts,
              work.lease_token is null and (work.parked_at is not null or work.attempts >= @MaxAttempts)
                or work.due_at <= now() and work.attempts >= @MaxAttempts as parked,
              extract(epoch from work.due_at - now())::float8 as due_in_seconds,
              claimed.attempts is not null and work.lease_token <> @leaseToken as expired,
              work.last_error
            from ticket
            left join claimed on true
            left join public.ticket_work as work on work.ticket_id = ticket.id
            """,
            new { id, leaseToken, options.Lease, options.MaxAttempts, force, onlyDue },
            cancellationToken);

        Telemetry.CountExpiredLeases(row is { Expired: true } ? 1 : 0);
        return row switch
        {
            null => new Claim.NotFound(),
            { ClaimedAttempts: { } attempts } => new Claim.Held(
                new ClaimedTicket(id, row.Description, leaseToken, attempts, row.Processed ? new Labels(row.Category!, row.Sentiment!) : null)),
            { Processed: true } when !force => new Claim.Processed(
                row.Description, new Labels(row.Category!, row.Sentiment!)),
            { Parked: true } => new Claim.Parked(row.Description, row.LastError),
            _ => new Claim.InProgress(row.Description, TimeSpan.FromSeconds(Math.Max(0, row.DueInSeconds ?? 0))),
        };
    }

    /// <summary>Claims tickets that are due: new ones and those whose backoff or lease is over.</summary>
    /// <param name="oldest">How many, oldest due first.</param>
    /// <param name="newest">How many from the other end, never tried before.</param>
    /// <param name="options">The length of the lease and the most attempts.</param>
    /// <param name="cancellationToken">Gives up waiting; claims that happened all the same run out with their leases.</param>
    public async Task<IReadOnlyList<ClaimedTicket>> ClaimDueAsync(
        int oldest, int newest, TriageOptions options, CancellationToken cancellationToken)
    {
        // Two sweeps never get the same row: each skips what the other has locked, and a new work row is inserted once.
        // Rows are skipped before they are counted: a few that somebody keeps locked must not stand in the others' way.
        // Every ticket gets a token of its own, so that no write for one can touch another. When this is sent again, they tell
        // what was claimed the first time; it comes on top of what is claimed now.
        var tokens = Enumerable.Range(0, oldest + newest).Select(_ => Guid.NewGuid()).ToArray();
        var rows = await QueryAsync<DueRow>(
            """
            with fresh as (
              select id, description, created_at as due_at, false as expired
              from public.tickets
              where not processed
                and not exists (
                  select
                  from public.ticket_work
                  where ticket_work.ticket_id = tickets.id
                )
              order by created_at, id
              limit @oldest
              for no key update skip locked
            ),
            newest as (
              select id, description
              from public.tickets
              where not processed
                and not exists (
                  select
                  from public.ticket_work
                  where ticket_work.ticket_id = tickets.id
                )
              order by created_at desc, id desc
              limit @newest
              for no key update skip locked
            ),
            waiting as (
              select tickets.id, tickets.description, work.due_at, work.lease_token is not null as expired
              from public.ticket_work as work
              join public.tickets on tickets.id = work.ticket_id
              where work.parked_at is null
                and work.due_at <= now()
                and work.attempts < @MaxAttempts
                and not tickets.processed
              order by work.due_at
              limit @oldest
              for no key update of tickets skip locked
            ),
            ticket as (
              (
                select id, description, expired
                from (select * from fresh union all select * from waiting) as due
                order by due_at
                limit @oldest
              )
              union
              select id, description, false
              from newest
            ),
            claimed as (
              insert into public.ticket_work as work (ticket_id, attempts, lease_token, due_at)
              select id, 1, (@tokens::uuid[])[row_number() over ()], clock_timestamp() + @Lease
              from ticket
              on conflict (ticket_id) do update
              set attempts = work.attempts + 1,
                lease_token = excluded.lease_token,
                due_at = excluded.due_at
              where work.parked_at is null
                and work.due_at <= now()
                and work.attempts < @MaxAttempts
              returning work.ticket_id, work.lease_token, work.attempts
            )
            select ticket.id, ticket.description, claimed.lease_token, claimed.attempts, ticket.expired
            from claimed
            join ticket on ticket.id = claimed.ticket_id
            union all
            select tickets.id, tickets.description, work.lease_token, work.attempts, false
            from public.ticket_work as work
            join public.tickets on tickets.id = work.ticket_id
            where @isRepeated
              and work.lease_token = any(@tokens)
            """,
            new { oldest, newest, tokens, options.Lease, options.MaxAttempts },
            cancellationToken);

        Telemetry.CountExpiredLeases(rows.Count(row => row.Expired));
        return [.. rows.Select(row => new ClaimedTicket(row.Id, row.Description, row.LeaseToken, row.Attempts))];
    }

    /// <summary>Takes the lock on a ticket's text if it is free or its lease is over, and looks for an earlier decision on the text.</summary>
    /// <param name="ticket">The claimed ticket.</param>
    /// <param name="textSha256">The hash of its text.</param>
    /// <param name="identities">Whose decisions are as good as a new one.</param>
    /// <param name="reuseAfter">Only decisions with a higher id are looked for; 0 for all.</param>
    /// <param name="cancellationToken">Gives up waiting; a lock that was taken all the same runs out with the ticket's lease.</param>
    public async Task<TextLock> LockTextAsync(
        ClaimedTicket ticket, byte[] textSha256, IReadOnlyList<ClassifierIdentity> identities, long reuseAfter, CancellationToken cancellationToken)
    {
        // Two statements in one round trip and one transaction. The second one's snapshot is later: whoever gets the lock
        // that went with the commit of a decision sees that decision.
        var row = await QueryFirstOrDefaultAsync<LockRow>(
            """
            insert into public.ticket_text_locks as held (text_sha256, lease_token, held_until)
            select @textSha256, lease_token, due_at
            from public.ticket_work
            where ticket_id = @Id
              and lease_token = @LeaseToken
            on conflict (text_sha256) do update
            set lease_token = excluded.lease_token,
              held_until = excluded.held_until
            where held.held_until <= now();

            with earlier as (
              select
                category,
                sentiment,
                confidence,
                needs_review,
                provider,
                model,
                prompt_version,
                taxonomy_version,
                served_model,
                case source when 'reused' then saved_tokens else coalesce(tokens_in + coalesce(tokens_out, 0), tokens_out) end as saved_tokens,
                case source when 'reused' then saved_cost else cost end as saved_cost
              from public.ticket_decisions
              where text_sha256 = @textSha256
                and id > @reuseAfter
                and source in ('model', 'reused')
                and (provider, model, prompt_version, taxonomy_version) in (
                  select *
                  from unnest(@providers, @models, @promptVersions, @taxonomyVersions)
                )
              order by id desc
              limit 1
            )
            select
              exists (
                select
                from public.ticket_work
                where ticket_id = @Id
                  and lease_token = @LeaseToken
              ) as owned,
              exists (
                select
                from public.ticket_text_locks
                where text_sha256 = @textSha256
                  and lease_token = @LeaseToken
              ) as locked,
              (select to_jsonb(earlier) from earlier)::text as earlier
            """,
            new
            {
                ticket.Id,
                ticket.LeaseToken,
                textSha256,
                reuseAfter,
                providers = identities.Select(identity => identity.Provider).ToArray(),
                models = identities.Select(identity => identity.Model).ToArray(),
                promptVersions = identities.Select(identity => identity.PromptVersion).ToArray(),
                taxonomyVersions = identities.Select(identity => identity.TaxonomyVersion).ToArray(),
            },
            cancellationToken);
        return new TextLock(
            row!.Owned, row.Locked, row.Earlier is null ? null : JsonSerializer.Deserialize<EarlierDecision>(row.Earlier, CallsJson));
    }

    /// <summary>Writes the labels, records the decision and ends the work on the ticket, all or nothing.</summary>
    public async Task<WriteStatus> CompleteAsync(
        ClaimedTicket ticket, Decision decision, CancellationToken cancellationToken)
    {
        var usage = Usage.Of(decision.Calls);
        var row = await QueryFirstOrDefaultAsync<WriteRow>(
            """
            with ticket as (
              select id, created_at, description, processed
              from public.tickets
              where id = @Id
              for no key update
            ),
            owned as (
              select work.ticket_id, work.attempts
              from public.ticket_work as work
              join ticket on ticket.id = work.ticket_id
              where work.lease_token = @LeaseToken
              for update of work
            ),
            written as (
              update public.tickets
              set category = @Category,
                sentiment = @Sentiment,
                processed = true
              from owned
              where tickets.id = owned.ticket_id
                and tickets.description = @Description
                and (not tickets.processed or (tickets.category = @PreviousCategory and tickets.sentiment = @PreviousSentiment))
              returning tickets.id
            ),
            recorded as (
              insert into public.ticket_decisions (
                ticket_id, category, sentiment, confidence, needs_review, source, provider, model, prompt_version,
                taxonomy_version, parameters, text_sha256, tokens_in, tokens_out, model_calls, latency_ms, attempts,
                served_model, cost, saved_tokens, saved_cost, calls
              )
              select
                owned.ticket_id, @Category, @Sentiment, @Confidence, @NeedsReview, @Source, @Provider, @Model, @PromptVersion,
                @TaxonomyVersion, @Parameters::jsonb, @TextSha256, @TokensIn, @TokensOut, @ModelCalls, @LatencyMs, owned.attempts,
                @ServedModel, @Cost, @SavedTokens, @SavedCost, @Calls::jsonb
              from written
              join owned on owned.ticket_id = written.id
            ),
            released as (
              delete from public.ticket_work
              using written
              where ticket_work.ticket_id = written.id
                and ticket_work.lease_token = @LeaseToken
            ),
            unlocked as (
              delete from public.ticket_text_locks
              where lease_token = @LeaseToken
            )
            select
              exists (select from owned) as owned,
              exists (select from written) as written,
              (
                select extract(epoch from clock_timestamp() - created_at)::float8
                from ticket
                where exists (select from written)
                  and not exists (
                    select
                    from public.ticket_decisions
                    where ticket_id = @Id
                  )
              ) as first_after_seconds
            """,
            new
            {
                ticket.Id,
                ticket.LeaseToken,
                ticket.Description,
                PreviousCategory = ticket.Previous?.Category,
                PreviousSentiment = ticket.Previous?.Sentiment,
                decision.Labels.Category,
                decision.Labels.Sentiment,
                decision.Confidence,
                decision.NeedsReview,
                decision.Source,
                decision.Identity.Provider,
                decision.Identity.Model,
                decision.Identity.PromptVersion,
                decision.Identity.TaxonomyVersion,
                decision.Identity.Parameters,
                decision.TextSha256,
                usage.TokensIn,
                usage.TokensOut,
                ModelCalls = decision.Calls.Count,
                LatencyMs = (int)decision.Latency.TotalMilliseconds,
                decision.ServedModel,
                usage.Cost,
                decision.Reused?.SavedTokens,
                decision.Reused?.SavedCost,
                Calls = JsonSerializer.Serialize(decision.Calls, CallsJson),
            },
            cancellationToken);
        if (row is { FirstAfterSeconds: { } seconds })
        {
            Telemetry.RecordTimeToLabel(TimeSpan.FromSeconds(seconds), decision.Source);
        }

        return row switch
        {
            { Written: true } => WriteStatus.Written,
            { Owned: true } => WriteStatus.Stale,
            _ => WriteStatus.LeaseLost,
        };
    }

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
                ticket_id,
                attempts = @Attempts as current,
                greatest(first_attempt_at, last_failed_at) as since
              from public.ticket_work
              where ticket_id = @Id
                and lease_token = @LeaseToken
              for update
            ),
            failed as (
              select
                ticket_id,
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
              where lease_token = @LeaseToken
            )
            update public.ticket_work
            set lease_token = null,
              attempts = case when current and spared then attempts - 1 else attempts end,
              due_at = now() + case when not current then interval '0' when spared then @spareWait else @wait end,
              parked_at = case when current and @park and not spared then now() end,
              last_failed_at = now(),
              last_error = case when current then @error end
            from failed
            where ticket_work.ticket_id = failed.ticket_id
            returning failed.current, failed.spared
            """,
            new
            {
                ticket.Id,
                ticket.LeaseToken,
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

    /// <summary>Records an attempt that took calls and left no labels, unless these calls are a decision's already.</summary>
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
            where not exists (
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
                Calls = JsonSerializer.Serialize(failure.Calls, CallsJson),
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
              where lease_token = @LeaseToken
            )
            update public.ticket_work
            set lease_token = null,
              due_at = now() + @wait,
              attempts = greatest(attempts - 1, 0),
              last_error = coalesce(@reason, last_error)
            where ticket_id = @Id
              and lease_token = @LeaseToken
            """,
            new { ticket.Id, ticket.LeaseToken, wait, reason },
            cancellationToken);
        return changed == 1 ? WriteStatus.Written : WriteStatus.LeaseLost;
    }

    /// <summary>Ends the work on a ticket that is processed and stays as it is.</summary>
    public async Task<WriteStatus> ForgetAsync(ClaimedTicket ticket, CancellationToken cancellationToken)
    {
        var changed = await ExecuteAsync(
            """
            with unlocked as (
              delete from public.ticket_text_locks
              where lease_token = @LeaseToken
            )
            delete from public.ticket_work
            where ticket_id = @Id
              and lease_token = @LeaseToken
            """,
            new { ticket.Id, ticket.LeaseToken },
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
            from exhausted
            where ticket_work.ticket_id = exhausted.ticket_id
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
              extract(epoch from now() - tickets.created_at)::float8 as age_seconds
            from public.ticket_work as work
            join public.tickets on tickets.id = work.ticket_id
            where work.parked_at is not null
              and not tickets.processed
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
            from parked
            where ticket_work.ticket_id = parked.ticket_id
            returning ticket_work.ticket_id
            """,
            new { ids },
            cancellationToken)];

    /// <summary>Removes work rows of tickets that somebody else labelled meanwhile.</summary>
    public Task<int> ForgetProcessedAsync(CancellationToken cancellationToken) =>
        ExecuteAsync(
            """
            with done as (
              select work.ticket_id
              from public.ticket_work as work
              join public.tickets on tickets.id = work.ticket_id
              where tickets.processed
                and (work.lease_token is null or work.due_at <= now())
              for update of work skip locked
            )
            delete from public.ticket_work
            using done
            where ticket_work.ticket_id = done.ticket_id
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
            using done
            where ticket_text_locks.text_sha256 = done.text_sha256
            """,
            new { },
            cancellationToken);

    /// <summary>The newest decision that gave a ticket the labels it has; null when a person did.</summary>
    /// <remarks>Not a part of the claim: that may have waited for the decision, and then its snapshot is older.</remarks>
    public Task<LabelOrigin?> FindOriginAsync(Guid id, Labels labels, CancellationToken cancellationToken) =>
        QueryFirstOrDefaultAsync<LabelOrigin>(
            """
            select model, confidence
            from public.ticket_decisions
            where ticket_id = @id
              and category = @Category
              and sentiment = @Sentiment
            order by id desc
            limit 1
            """,
            new { id, labels.Category, labels.Sentiment },
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

    /// <summary>The text of a ticket, or null when there is no such ticket.</summary>
    public Task<string?> FindDescriptionAsync(Guid id, CancellationToken cancellationToken) =>
        QueryFirstOrDefaultAsync<string>(
            """
            select description
            from public.tickets
            where id = @id
            """,
            new { id },
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
              count(*) as unprocessed,
              count(*) filter (where work.lease_token is not null and work.due_at > now()) as in_flight,
              count(*) filter (where work.parked_at is not null) as parked,
              coalesce(extract(epoch from now() - min(tickets.created_at)), 0)::float8 as oldest_seconds,
              coalesce(extract(epoch from now() - min(tickets.created_at) filter (where work.parked_at is null)), 0)::float8 as oldest_waiting_seconds
            from public.tickets
            left join public.ticket_work as work on work.ticket_id = tickets.id
            where not tickets.processed
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

    private async Task<T> RunAsync<T>(
        string sql, object parameters, int? commandTimeout, Func<NpgsqlConnection, CommandDefinition, Task<T>> run, CancellationToken cancellationToken)
    {
        try
        {
            return await RunOnceAsync(sql, parameters, commandTimeout, isRepeated: false, run, cancellationToken);
        }
        catch (Exception e) when (StorageFaults.Find(e) == StorageFault.Disconnected && !StorageFaults.IsTimeout(e))
        {
            // The connection may have died long ago in the pool, or its server was replaced: a new one may be well.
            // Whoever waits for a time-out has waited enough.
            return await RunOnceAsync(sql, parameters, commandTimeout, isRepeated: true, run, cancellationToken);
        }
    }

    private async Task<T> RunOnceAsync<T>(
        string sql,
        object parameters,
        int? commandTimeout,
        bool isRepeated,
        Func<NpgsqlConnection, CommandDefinition, Task<T>> run,
        CancellationToken cancellationToken)
    {
        var isOpen = false;
        try
        {
            await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
            isOpen = true;

            // Zero is none, for us and for the server.
            var limit = TimeSpan.FromSeconds(commandTimeout ?? connection.CommandTimeout);
            var arguments = new DynamicParameters(parameters);
            arguments.Add("lockTimeout", Milliseconds(limit / 2));
            arguments.Add("statementTimeout", Milliseconds(limit * 0.75));
            arguments.Add("role", _role);
            arguments.Add("isRepeated", isRepeated);
            var command = (_role is null ? Limits : LimitsOfRole) + sql;
            return await run(connection, new CommandDefinition(command, arguments, commandTimeout: commandTimeout, cancellationToken: cancellationToken));
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

    private sealed record ClaimRow
    {
        public required string Description { get; init; }
        public string? Category { get; init; }
        public string? Sentiment { get; init; }
        public bool Processed { get; init; }
        public int? ClaimedAttempts { get; init; }
        public bool? Parked { get; init; }
        public double? DueInSeconds { get; init; }
        public bool? Expired { get; init; }
        public string? LastError { get; init; }
    }

    private sealed record DueRow(Guid Id, string Description, Guid LeaseToken, int Attempts, bool Expired);

    private sealed record LockRow(bool Owned, bool Locked, string? Earlier);

    private sealed record WriteRow(bool Owned, bool Written, double? FirstAfterSeconds);

    private sealed record FailRow(bool Current, bool Spared);
}
