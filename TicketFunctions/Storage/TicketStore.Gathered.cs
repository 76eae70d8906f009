using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Npgsql;
using NpgsqlTypes;
using TicketFunctions.Classification;
using TicketFunctions.Tickets;

namespace TicketFunctions.Storage;

/// <summary>
/// The statements that every ticket passes, each for many tickets at once. The planner expects a few rows in an array and none in
/// tables that are empty at night; its plans must be good for hundreds all the same. So what belongs to one ticket goes from step to
/// step within a statement and is put together here, since to join steps would compare each with each; and work rows, locks and, from
/// them, tickets are looked up one by one or by an array of keys: <c>offset 0</c> keeps the planner from joining them, and
/// <c>processed is not true</c> from reading the index of unprocessed tickets, which may have been empty as well, from end to end.
/// </summary>
public sealed partial class TicketStore
{
    /// <summary>
    /// The hash of a text as <see cref="TicketText"/> makes it, so that a claim can lock the text in its own statement; of a text
    /// that is not in normal form another one. Whoever goes on with the claim compares it with his own, and then locks by that.
    /// The server does not normalise: it would take a minute for a hundred thousand combining marks, could not be interrupted, and
    /// all tickets of the statement would wait.
    /// </summary>
    private const string TextSha256 =
        """
        sha256(convert_to(
              btrim(
                description,
                e' \t\n\u000b\f\r\u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000'
              ),
              'UTF8'
            ))
        """;

    /// <summary>Takes the locks on the texts of what was claimed, for one ticket of each text: if they are free, or their leases over.</summary>
    private const string LockTexts =
        """
        locked as (
          insert into public.ticket_text_locks as held (text_sha256, lease_token, held_until)
          select distinct on (text_sha256) text_sha256, lease_token, (select until from lease)
          from hashed
          where @lockTexts
            and (lease_token in (select lease_token from claimed)) is true
          order by text_sha256, n
          on conflict (text_sha256) do update
          set lease_token = excluded.lease_token,
            held_until = excluded.held_until
          where held.held_until <= now()
            or held.lease_token = excluded.lease_token
          returning held.lease_token
        )
        """;

    private const string ClaimRows =
        """
        with asked as (
          select *
          from unnest(@ids, @tokens, @expected, @expectedTexts) as asked (id, lease_token, expected, expected_text)
        ),
        ticket as (
          select
            tickets.id, tickets.description, tickets.category, tickets.sentiment, tickets.processed,
            asked.lease_token, asked.expected, (
              asked.expected is not null and convert_to(tickets.description, 'UTF8') = asked.expected_text
            ) is true as is_same, work.lease_token is not null as expired
          from asked
          join public.tickets on tickets.id = asked.id
          left join lateral (
            select lease_token, due_at
            from public.ticket_work
            where ticket_id = asked.id
            offset 0
          ) as work on true
          where (not tickets.processed or tickets.id = any(@forced))
            and (work.lease_token is null or work.lease_token = asked.lease_token or work.due_at <= now())
          for no key update of tickets
        """;

    private const string ClaimLocked =
        $"""
        ),
        hashed as materialized (
          select
            id, description, category, sentiment, processed, lease_token, expected, is_same, expired, row_number() over () as n,
            case when is_same then expected else {TextSha256} end as text_sha256
          from ticket
        ),
        lease as (
          select clock_timestamp() + @lease as until
        ),
        claimed as (
          insert into public.ticket_work as work (ticket_id, attempts, lease_token, due_at)
          select id, 1, lease_token, (select until from lease)
          from hashed
          where expected is null
            or expected = text_sha256
          on conflict (ticket_id) do update
          set attempts = case when work.ticket_id = any(@forced) then 1 when work.lease_token = excluded.lease_token then work.attempts else work.attempts + 1 end,
            first_attempt_at = case when work.ticket_id = any(@forced) then now() else work.first_attempt_at end,
            lease_token = excluded.lease_token,
            due_at = excluded.due_at,
            parked_at = null
          where work.lease_token = excluded.lease_token
            or (
              (work.due_at <= now() or (work.lease_token is null and work.ticket_id <> all(@onlyDue)))
              and (work.ticket_id = any(@forced) or (work.parked_at is null and work.attempts < @maxAttempts))
            )
          returning work.lease_token, work.attempts
        ),
        {LockTexts}
        select
          lease_token, null as attempts, false as locked, id, case when not is_same then description end as description, text_sha256, expired, category, sentiment,
          processed
        from hashed
        union all
        select lease_token, attempts, false, null, null, null, null, null, null, null
        from claimed
        union all
        select lease_token, null, true, null, null, null, null, null, null, null
        from locked
        """;

    /// <summary>Two statements and not one that is told whether to wait: what it would not use would be set up each time all the same.</summary>
    private static readonly Statement ClaimAndPassOver = new(ClaimRows + " skip locked\n" + ClaimLocked);

    private static readonly Statement ClaimAndWait = new(ClaimRows + "\n" + ClaimLocked);

    /// <summary>From the oldest on. Only this finds rows of which nobody knows when they were created.</summary>
    private const string Fresh =
        """
        with fresh as (
          select id, description, created_at
          from public.tickets
          where not processed
            and not exists (
              select
              from public.ticket_work
              where ticket_work.ticket_id = tickets.id
              offset 0
            )
          order by created_at, id
          limit @limit
          for no key update skip locked
        ),
        """;

    /// <summary>From where the last claim ended: what it took need not be passed over again, done or not.</summary>
    private const string FreshAfter =
        """
        with fresh as (
          select id, description, created_at
          from public.tickets
          where not processed
            and (created_at, id) > (@createdAt, @id)
            and not exists (
              select
              from public.ticket_work
              where ticket_work.ticket_id = tickets.id
              offset 0
            )
          order by created_at, id
          limit @limit
          for no key update skip locked
        ),
        """;

    private const string ClaimFreshAndWaiting =
        $"""

        waiting as (
          select ticket.id, ticket.description, work.due_at, work.lease_token is not null as expired
          from (
            select ticket_id, due_at, lease_token
            from public.ticket_work
            where parked_at is null
              and due_at <= now()
              and attempts < @maxAttempts
            order by due_at
            offset 0
          ) as work
          cross join lateral (
            select id, description
            from public.tickets
            where id = work.ticket_id
              and processed is not true
            offset 0
            for no key update skip locked
          ) as ticket
          limit @waitingLimit
        ),
        due as (
          select id, description, created_at as due_at, created_at, false as expired
          from fresh
          union all
          select id, description, due_at, null, expired
          from waiting
          order by due_at, id
          limit @limit
        ),
        hashed as materialized (
          select id, description, created_at, expired, (@tokens::uuid[])[row_number() over ()] as lease_token, row_number() over () as n, {TextSha256} as text_sha256
          from due
        ),
        lease as (
          select clock_timestamp() + @lease as until
        ),
        claimed as (
          insert into public.ticket_work as work (ticket_id, attempts, lease_token, due_at)
          select id, 1, lease_token, (select until from lease)
          from hashed
          on conflict (ticket_id) do update
          set attempts = work.attempts + 1,
            lease_token = excluded.lease_token,
            due_at = excluded.due_at
          where work.parked_at is null
            and work.due_at <= now()
            and work.attempts < @maxAttempts
          returning work.lease_token, work.attempts
        ),
        {LockTexts}
        select
          lease_token, null as attempts, false as locked, id, description, text_sha256, expired,
          case when created_at between '0001-01-02' and '9999-12-30' then created_at end as created_at
        from hashed
        union all
        select lease_token, attempts, false, null, null, null, null, null
        from claimed
        union all
        select lease_token, null, true, null, null, null, null, null
        from locked
        union all
        select work.lease_token, work.attempts, false, ticket.id, ticket.description, {TextSha256}, false, null
        from (
          select ticket_id, lease_token, attempts
          from public.ticket_work
          where cardinality(@earlierTokens) > 0
            and lease_token = any(@earlierTokens)
          order by ticket_id
          offset 0
        ) as work
        cross join lateral (
          select id, description
          from public.tickets
          where id = work.ticket_id
          offset 0
        ) as ticket
        """;

    /// <summary>
    /// What an error holds that a completion raises where a trigger of the team's sets <c>processed</c> back: it undoes all, so that
    /// a ticket keeps the labels it had. The text is no number, which the server finds out when it comes to that.
    /// </summary>
    internal const string LeftUnprocessed = "was left unprocessed by a trigger";

    /// <summary>
    /// Only what the steps need goes from one to the next, as a row of every step is a copy. All else is taken from its array where it is
    /// needed, and what the decisions have in common is there once for each decider.
    /// </summary>
    private const string AnsweredRows =
        """
        with ticket as (
          select
            answer.n, answer.id, answer.lease_token, (
              tickets.description = (@descriptions)[answer.n]
              and (
                not tickets.processed
                or (tickets.category = (@previousCategories)[answer.n] and tickets.sentiment = (@previousSentiments)[answer.n])
              )
            ) is true as is_same
          from unnest(@ids, @tokens) with ordinality as answer (id, lease_token, n)
          join public.tickets on tickets.id = answer.id
          for no key update of tickets
        """;

    private const string CompleteLocked =
        $"""
        ),
        owned as (
          select ticket.n, ticket.id, ticket.is_same, work.attempts
          from ticket
          cross join lateral (
            select attempts
            from public.ticket_work
            where ticket_id = ticket.id
              and lease_token = ticket.lease_token
            offset 0
            for update
          ) as work
        ),
        written as (
          update public.tickets
          set category = (@categories)[owned.n],
            sentiment = (@sentiments)[owned.n],
            processed = true
          from owned
          where tickets.id = owned.id
            and owned.is_same
          returning owned.n, tickets.id, tickets.created_at, tickets.processed, owned.attempts
        ),
        recorded as (
          insert into public.ticket_decisions (
            ticket_id, category, sentiment, confidence, needs_review, source, provider, model, prompt_version,
            taxonomy_version, parameters, text_sha256, tokens_in, tokens_out, model_calls, latency_ms, attempts,
            served_model, cost, saved_tokens, saved_cost, calls
          )
          select
            id, (@categories)[n], (@sentiments)[n], (@confidences)[n], (@needReviews)[n], (@sources)[decider], (@providers)[decider], (@models)[decider],
            (@promptVersions)[decider], (@taxonomyVersions)[decider], (@parameters)[decider], (@hashes)[n], (@tokensIn)[n], (@tokensOut)[n],
            (@modelCalls)[n], (@latenciesMs)[n], attempts, (@servedModels)[decider], (@costs)[n], (@savedTokens)[n], (@savedCosts)[n], (@calls)[n]
          from written
          cross join lateral (select (@deciders)[n] as decider) as by
        ),
        released as (
          delete from public.ticket_work
          where ticket_id = any(array(select id from written))
            and (lease_token in (select (@tokens)[n] from written)) is true
        ),
        unlocked as (
          delete from public.ticket_text_locks
          where text_sha256 = any(@hashes)
            and (lease_token in (select lease_token from ticket)) is true
        )
        select n, 'seen' as step, null::float8 as first_after_seconds
        from ticket
        union all
        select n, case when is_same then 'refused' else 'stale' end, null
        from owned
        union all
        select n, case when processed then 'written' else (n || ' {LeftUnprocessed}')::int::text end, case when @timesFirst and isfinite(created_at) and not exists (select from public.ticket_decisions where ticket_id = written.id offset 0)
          then greatest(extract(epoch from clock_timestamp() - created_at), 0)::float8 end
        from written
        """;

    private static readonly Statement CompleteAndPassOver = new(AnsweredRows + " skip locked\n" + CompleteLocked);

    private static readonly Statement CompleteAndWait = new(AnsweredRows + "\n" + CompleteLocked);

    private static readonly Statement ClaimDueFromTheOldest = new(Fresh + ClaimFreshAndWaiting);

    private static readonly Statement ClaimDueAfter = new(FreshAfter + ClaimFreshAndWaiting);

    /// <summary>The newest decision on each text that is as good as a new one.</summary>
    private static readonly Statement FindEarlierStatement = new(
        """
        select asked.n, to_jsonb(earlier)::text
        from unnest(@hashes, @reuseAfter) with ordinality as asked (text_sha256, reuse_after, n)
        cross join lateral (
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
          where ticket_decisions.text_sha256 = asked.text_sha256
            and id > asked.reuse_after
            and source in ('model', 'reused')
            and (provider, model, prompt_version, taxonomy_version) in (
              select *
              from unnest(@providers, @models, @promptVersions, @taxonomyVersions)
            )
          order by id desc
          limit 1
        ) as earlier
        """);

    private static readonly Statement FindStatesStatement = new(
        $"""
        select
          tickets.id,
          tickets.description,
          tickets.category,
          tickets.sentiment,
          tickets.processed,
          coalesce(work.lease_token is null and (work.parked_at is not null or work.attempts >= @maxAttempts)
            or work.due_at <= now() and work.attempts >= @maxAttempts, false) as parked,
          work.lease_token is not null as held,
          extract(epoch from work.due_at - now())::float8 as due_in_seconds,
          work.last_error,
          origin.model,
          origin.confidence,
          case when not tickets.processed or tickets.id = any(@forced) then {TextSha256} end as text_sha256
        from public.tickets
        left join lateral (
          select *
          from public.ticket_work
          where ticket_id = tickets.id
          offset 0
        ) as work on true
        left join lateral (
          select model, confidence
          from public.ticket_decisions
          where ticket_id = tickets.id
            and category = tickets.category
            and sentiment = tickets.sentiment
          order by id desc
          limit 1
        ) as origin on tickets.processed
        where tickets.id = any(@ids)
        """);

    /// <summary>Claims tickets, each for its next attempt, and takes the locks on their texts.</summary>
    /// <param name="requests">Which.</param>
    /// <param name="terms">The same for all.</param>
    /// <param name="wait">Wait for rows that somebody else has locked; otherwise they are passed over.</param>
    /// <returns>What came of each, in their order.</returns>
    public async Task<Claim[]> ClaimAsync(IReadOnlyList<ClaimRequest> requests, ClaimTerms terms, bool wait)
    {
        // One for each ticket; who asks for the same one finds what that leaves.
        var firsts = new Dictionary<Guid, ClaimRequest>(requests.Count);
        foreach (var request in requests)
        {
            firsts.TryAdd(request.Id, request);
        }

        ClaimRequest[] asked = [.. firsts.Values];

        // A claim that says its text is one round trip; the text of others is known only after it.
        ClaimRequest[] hinted = terms.Reusable.Count == 0 ? [] : Array.FindAll(asked, request => request.ExpectedSha256 is not null);

        // The row lock makes a claim see a classification that is just being committed: without it the claim could start work on
        // a ticket that was finished a moment ago. The lease starts after a wait for it; now() is when the statement began.
        // Our own token is there when this is sent again: the attempt was counted then.
        var rows = await _runner.RunAsync(
            _ =>
            [
                (wait ? ClaimAndWait : ClaimAndPassOver).With(
                    new NpgsqlParameter<Guid[]>("ids", Array.ConvertAll(asked, request => request.Id)),
                    new NpgsqlParameter<Guid[]>("tokens", Array.ConvertAll(asked, request => request.LeaseToken)),
                    new NpgsqlParameter<byte[]?[]>("expected", Array.ConvertAll(asked, request => request.ExpectedSha256)),
                    new NpgsqlParameter<byte[]?[]>("expectedTexts", Array.ConvertAll(asked, request => request.ExpectedText is { } text ? Encoding.UTF8.GetBytes(text) : null)),
                    new NpgsqlParameter<Guid[]>("forced", FindForced(asked)),
                    new NpgsqlParameter<Guid[]>("onlyDue", [.. asked.Where(request => request.OnlyDue).Select(request => request.Id)]),
                    new NpgsqlParameter<TimeSpan>("lease", terms.Lease),
                    new NpgsqlParameter<int>("maxAttempts", terms.MaxAttempts),
                    new NpgsqlParameter<bool>("lockTexts", terms.Reusable.Count > 0)),
                FindEarlier(Array.ConvertAll(hinted, request => request.ExpectedSha256!), Array.ConvertAll(hinted, request => request.ReuseAfter), terms),
            ],
            async reader =>
            {
                var rows = new Dictionary<Guid, ClaimedRow>(asked.Length);
                while (await reader.ReadAsync())
                {
                    var row = ClaimedRow.Read(reader, rows);
                    if (!reader.IsDBNull(3) && reader.IsDBNull(4))
                    {
                        row.Description = firsts[row.Id].ExpectedText!;
                    }

                    if (!reader.IsDBNull(9) && reader.GetBoolean(9))
                    {
                        row.Previous = new Labels(reader.GetString(7), reader.GetString(8));
                    }
                }

                await reader.NextResultAsync();
                var earlier = await ReadEarlierAsync(reader);
                for (var i = 0; i < hinted.Length; i++)
                {
                    if (rows.TryGetValue(hinted[i].LeaseToken, out var row) && row.IsLocked)
                    {
                        row.Turn = new TextLock(Owned: true, Locked: true, earlier.GetValueOrDefault(i));
                    }
                }

                return rows;
            });

        var missed = Array.FindAll(asked, request => !rows.TryGetValue(request.LeaseToken, out var row) || row.Attempts is null);
        var states = missed.Length == 0 ? [] : await FindStatesAsync(missed, terms);
        var tickets = await ToTicketsAsync(rows, Array.ConvertAll(asked, request => (request.LeaseToken, request.ReuseAfter)), terms);
        var claims = asked.ToDictionary(
            request => request.Id,
            request => tickets.TryGetValue(request.LeaseToken, out var ticket) ? new Claim.Held(ticket) : Explain(request, states.GetValueOrDefault(request.Id), wait));
        return
        [
            .. requests.Select(request => firsts[request.Id] is var first && request == first ? claims[request.Id]
                : !request.IsLike(first) ? new Claim.PassedOver()
                : claims[request.Id] is Claim.Held held ? new Claim.InProgress(held.Ticket.Description, terms.Lease)
                : claims[request.Id]),
        ];
    }

    /// <summary>Claims tickets that are due: new ones and those whose backoff or lease is over, the oldest due first.</summary>
    /// <param name="limit">How many.</param>
    /// <param name="after">Only new ones that come after this one; null to begin with the oldest.</param>
    /// <param name="withWaiting">Look also for those that were tried before.</param>
    /// <param name="terms">As for every claim.</param>
    public async Task<DueClaim> ClaimDueAsync(int limit, FreshTicket? after, bool withWaiting, ClaimTerms terms)
    {
        // Two sweeps never get the same row: each skips what the other has locked, and a new work row is inserted once.
        // Rows are skipped before they are counted: a few that somebody keeps locked must not stand in the others' way.
        // Every ticket gets a token of its own, so that no write for one can touch another. When this is sent again it has other
        // ones; the first ones tell what was claimed the first time, and that comes on top.
        var tokens = new Guid[2 * limit];
        RandomNumberGenerator.Fill(MemoryMarshal.AsBytes(tokens.AsSpan()));

        FreshTicket? last = null;
        var rows = await _runner.RunAsync(
            isRepeated =>
            {
                List<NpgsqlParameter> parameters =
                [
                    new NpgsqlParameter<int>("limit", limit),
                    new NpgsqlParameter<int>("waitingLimit", withWaiting ? limit : 0),
                    new NpgsqlParameter<Guid[]>("tokens", isRepeated ? tokens[limit..] : tokens[..limit]),
                    new NpgsqlParameter<Guid[]>("earlierTokens", isRepeated ? tokens[..limit] : []),
                    new NpgsqlParameter<TimeSpan>("lease", terms.Lease),
                    new NpgsqlParameter<int>("maxAttempts", terms.MaxAttempts),
                    new NpgsqlParameter<bool>("lockTexts", terms.Reusable.Count > 0),
                ];
                if (after is not { } place)
                {
                    return [ClaimDueFromTheOldest.With([.. parameters])];
                }

                parameters.Add(new NpgsqlParameter<DateTime>("createdAt", place.CreatedAt));
                parameters.Add(new NpgsqlParameter<Guid>("id", place.Id));
                return [ClaimDueAfter.With([.. parameters])];
            },
            async reader =>
            {
                var rows = new Dictionary<Guid, ClaimedRow>(limit);
                while (await reader.ReadAsync())
                {
                    var row = ClaimedRow.Read(reader, rows);
                    if (!reader.IsDBNull(7))
                    {
                        // They come in their order.
                        last = new FreshTicket(reader.GetDateTime(7), row.Id);
                    }
                }

                return rows;
            });

        var tickets = await ToTicketsAsync(rows, Array.ConvertAll(tokens, token => (token, 0L)), terms);
        return new DueClaim([.. tickets.Values], rows.Count, last);
    }

    /// <summary>The newest ticket that nobody has tried yet, or null.</summary>
    public async Task<Guid?> FindNewestAsync(CancellationToken cancellationToken) =>
        await QueryFirstOrDefaultAsync<Guid?>(
            """
            select id
            from public.tickets
            where not processed
              and not exists (
                select
                from public.ticket_work
                where ticket_work.ticket_id = tickets.id
                offset 0
              )
            order by created_at desc, id desc
            limit 1
            for no key update skip locked
            """,
            new { },
            cancellationToken);

    /// <summary>Writes labels, records the decisions and ends the work on the tickets, for each ticket all or nothing.</summary>
    /// <param name="answers">The tickets and what was decided about them.</param>
    /// <param name="wait">Wait for rows that somebody else has locked; otherwise they are passed over.</param>
    /// <returns>What came of each, in their order.</returns>
    public async Task<WriteStatus[]> CompleteAsync(IReadOnlyList<(ClaimedTicket Ticket, Decision Decision)> answers, bool wait)
    {
        // Most decisions of a moment are one model's, asked in one way.
        List<(string Source, string? ServedModel, ClassifierIdentity Identity)> deciders = [];
        var places = new int[answers.Count];
        for (var i = 0; i < places.Length; i++)
        {
            var decision = answers[i].Decision;
            var decider = (decision.Source, decision.ServedModel, decision.Identity);
            var known = deciders.IndexOf(decider);
            if (known < 0)
            {
                known = deciders.Count;
                deciders.Add(decider);
            }

            places[i] = known + 1;
        }

        return await _runner.RunAsync(
            _ =>
            [
                (wait ? CompleteAndWait : CompleteAndPassOver).With(
                    Column("ids", answer => answer.Ticket.Id),
                    Column("tokens", answer => answer.Ticket.LeaseToken),
                    Column("descriptions", answer => answer.Ticket.Description),
                    Column("previousCategories", answer => answer.Ticket.Previous?.Category),
                    Column("previousSentiments", answer => answer.Ticket.Previous?.Sentiment),
                    Column("categories", answer => answer.Decision.Labels.Category),
                    Column("sentiments", answer => answer.Decision.Labels.Sentiment),
                    Column("hashes", answer => answer.Decision.TextSha256),
                    new NpgsqlParameter<int[]>("deciders", places),
                    OfDeciders("sources", decider => decider.Source),
                    OfDeciders("servedModels", decider => decider.ServedModel),
                    OfDeciders("providers", decider => decider.Identity.Provider),
                    OfDeciders("models", decider => decider.Identity.Model),
                    OfDeciders("promptVersions", decider => decider.Identity.PromptVersion),
                    OfDeciders("taxonomyVersions", decider => decider.Identity.TaxonomyVersion),
                    AsJson(OfDeciders("parameters", decider => decider.Identity.Parameters)),
                    Column("confidences", answer => answer.Decision.Confidence),
                    Column("needReviews", answer => answer.Decision.NeedsReview),
                    Column("tokensIn", answer => answer.Decision.Usage.TokensIn),
                    Column("tokensOut", answer => answer.Decision.Usage.TokensOut),
                    Column("modelCalls", answer => answer.Decision.Calls.Count),
                    Column("latenciesMs", answer => (int)answer.Decision.Latency.TotalMilliseconds),
                    Column("costs", answer => answer.Decision.Usage.Cost),
                    Column("savedTokens", answer => answer.Decision.Reused?.SavedTokens),
                    Column("savedCosts", answer => answer.Decision.Reused?.SavedCost),
                    AsJson(Column("calls", answer => CallRecords.ToJson(answer.Decision.Calls))),
                    new NpgsqlParameter<bool>("timesFirst", Telemetry.RecordsTimeToLabel)),
            ],
            async reader =>
            {
                // Who waited for a row and got none: it was deleted.
                var statuses = new WriteStatus[answers.Count];
                Array.Fill(statuses, wait ? WriteStatus.LeaseLost : WriteStatus.PassedOver);
                while (await reader.ReadAsync())
                {
                    // The rows of a later step come later.
                    var i = (int)reader.GetInt64(0) - 1;
                    statuses[i] = reader.GetString(1) switch
                    {
                        "written" => WriteStatus.Written,
                        "refused" => WriteStatus.Refused,
                        "stale" => WriteStatus.Stale,
                        _ => WriteStatus.LeaseLost,
                    };
                    if (!reader.IsDBNull(2))
                    {
                        Telemetry.RecordTimeToLabel(TimeSpan.FromSeconds(reader.GetDouble(2)), answers[i].Decision.Source);
                    }
                }

                return statuses;
            });

        // The server walks through an array to each of its elements: not through one that has nothing in it.
        NpgsqlParameter<T[]?> Column<T>(string name, Func<(ClaimedTicket Ticket, Decision Decision), T> find)
        {
            var values = new T[answers.Count];
            var hasAny = false;
            for (var i = 0; i < values.Length; i++)
            {
                values[i] = find(answers[i]);
                hasAny |= values[i] is not null;
            }

            return new NpgsqlParameter<T[]?>(name, hasAny ? values : null);
        }

        NpgsqlParameter<string?[]> OfDeciders(string name, Func<(string Source, string? ServedModel, ClassifierIdentity Identity), string?> find) =>
            new(name, [.. deciders.Select(find)]);

        static NpgsqlParameter AsJson(NpgsqlParameter parameter)
        {
            parameter.NpgsqlDbType = NpgsqlDbType.Array | NpgsqlDbType.Jsonb;
            return parameter;
        }
    }

    /// <summary>How tickets stand that could not be claimed.</summary>
    private async Task<Dictionary<Guid, TicketState>> FindStatesAsync(ClaimRequest[] requests, ClaimTerms terms) =>
        await _runner.RunAsync(
            _ =>
            [
                FindStatesStatement.With(
                    new NpgsqlParameter<Guid[]>("ids", Array.ConvertAll(requests, request => request.Id)),
                    new NpgsqlParameter<Guid[]>("forced", FindForced(requests)),
                    new NpgsqlParameter<int>("maxAttempts", terms.MaxAttempts)),
            ],
            async reader =>
            {
                var states = new Dictionary<Guid, TicketState>(requests.Length);
                while (await reader.ReadAsync())
                {
                    states[reader.GetGuid(0)] = new TicketState(
                        reader.GetString(1),
                        reader.GetBoolean(4) ? new Labels(reader.GetString(2), reader.GetString(3)) : null,
                        IsParked: reader.GetBoolean(5),
                        IsHeld: reader.GetBoolean(6),
                        reader.IsDBNull(7) ? TimeSpan.Zero : TimeSpan.FromSeconds(Math.Max(0, reader.GetDouble(7))),
                        reader.IsDBNull(8) ? null : reader.GetString(8),
                        reader.IsDBNull(9) ? null : new LabelOrigin(reader.GetString(9), reader.IsDBNull(10) ? null : reader.GetFloat(10)),
                        reader.IsDBNull(11) ? null : reader.GetFieldValue<byte[]>(11));
                }

                return states;
            });

    private static Guid[] FindForced(ClaimRequest[] requests) => [.. requests.Where(request => request.Force).Select(request => request.Id)];

    private static Claim Explain(ClaimRequest request, TicketState? state, bool wait) => state switch
    {
        null => new Claim.NotFound(),
        { Labels: { } labels } when !request.Force => new Claim.Processed(state.Description, labels, state.Origin),
        { IsParked: true } when !request.Force => new Claim.Parked(state.Description, state.LastError),
        _ when state.DueIn > TimeSpan.Zero && (state.IsHeld || request.OnlyDue) => new Claim.InProgress(state.Description, state.DueIn),
        { TextSha256: { } text } when request.ExpectedSha256 is { } expected && !expected.AsSpan().SequenceEqual(text) => new Claim.OtherText(state.Description),
        // It was on the move between the two statements.
        _ when wait => new Claim.InProgress(state.Description, TimeSpan.Zero),
        _ => new Claim.PassedOver(),
    };

    /// <summary>What was claimed, with earlier decisions on the texts that were locked.</summary>
    private async Task<Dictionary<Guid, ClaimedTicket>> ToTicketsAsync(
        Dictionary<Guid, ClaimedRow> rows, IReadOnlyList<(Guid LeaseToken, long ReuseAfter)> claims, ClaimTerms terms)
    {
        var claimed = claims.Where(claim => rows.TryGetValue(claim.LeaseToken, out var row) && row.Attempts is not null).ToArray();
        Telemetry.CountExpiredLeases(claimed.Count(claim => rows[claim.LeaseToken].IsExpired));
        var open = Array.FindAll(claimed, claim => rows[claim.LeaseToken] is { IsLocked: true, Turn: null });
        if (open.Length > 0)
        {
            try
            {
                // After the locks, and so with a later snapshot: whoever gets the lock that went with the commit of a decision sees that decision.
                var earlier = await _runner.RunAsync(
                    _ => [FindEarlier(Array.ConvertAll(open, claim => rows[claim.LeaseToken].TextSha256), Array.ConvertAll(open, claim => claim.ReuseAfter), terms)],
                    ReadEarlierAsync);
                for (var i = 0; i < open.Length; i++)
                {
                    rows[open[i].LeaseToken].Turn = new TextLock(Owned: true, Locked: true, earlier.GetValueOrDefault(i));
                }
            }
            catch (Exception e) when (StorageFaults.Find(e) is not null)
            {
                // The tickets are ours all the same. Who goes on with each asks again, and gives it back if need be.
            }
        }

        return claimed.ToDictionary(
            claim => claim.LeaseToken,
            claim => rows[claim.LeaseToken] is var row ? new ClaimedTicket(row.Id, row.Description, claim.LeaseToken, row.Attempts!.Value, row.TextSha256, row.Previous, row.Turn) : null!);
    }

    private static NpgsqlBatchCommand FindEarlier(byte[][] hashes, long[] reuseAfter, ClaimTerms terms) => FindEarlierStatement.With(
        new NpgsqlParameter<byte[][]>("hashes", hashes),
        new NpgsqlParameter<long[]>("reuseAfter", reuseAfter),
        new NpgsqlParameter<string[]>("providers", terms.Providers),
        new NpgsqlParameter<string[]>("models", terms.Models),
        new NpgsqlParameter<string[]>("promptVersions", terms.PromptVersions),
        new NpgsqlParameter<string[]>("taxonomyVersions", terms.TaxonomyVersions));

    /// <returns>The decisions by the places of their texts.</returns>
    private static async Task<Dictionary<int, EarlierDecision>> ReadEarlierAsync(NpgsqlDataReader reader)
    {
        var earlier = new Dictionary<int, EarlierDecision>();
        while (await reader.ReadAsync())
        {
            earlier[(int)reader.GetInt64(0) - 1] = JsonSerializer.Deserialize<EarlierDecision>(reader.GetString(1), SnakeCase)!;
        }

        return earlier;
    }

    private sealed record TicketState(
        string Description, Labels? Labels, bool IsParked, bool IsHeld, TimeSpan DueIn, string? LastError, LabelOrigin? Origin, byte[]? TextSha256);

    /// <summary>What the rows of a claim tell of one ticket.</summary>
    private sealed class ClaimedRow
    {
        public Guid Id { get; private set; }

        public string Description { get; set; } = "";

        public byte[] TextSha256 { get; private set; } = [];

        public bool IsExpired { get; private set; }

        public int? Attempts { get; private set; }

        public bool IsLocked { get; private set; }

        public Labels? Previous { get; set; }

        public TextLock? Turn { get; set; }

        /// <summary>Adds what the reader's row tells to what is known of its ticket.</summary>
        public static ClaimedRow Read(NpgsqlDataReader reader, Dictionary<Guid, ClaimedRow> rows)
        {
            var token = reader.GetGuid(0);
            if (!rows.TryGetValue(token, out var row))
            {
                rows.Add(token, row = new ClaimedRow());
            }

            if (!reader.IsDBNull(1))
            {
                row.Attempts = reader.GetInt32(1);
            }

            row.IsLocked |= reader.GetBoolean(2);
            if (!reader.IsDBNull(3))
            {
                row.Id = reader.GetGuid(3);
                row.Description = reader.IsDBNull(4) ? "" : reader.GetString(4);
                row.TextSha256 = reader.GetFieldValue<byte[]>(5);
                row.IsExpired = reader.GetBoolean(6);
            }

            return row;
        }
    }
}
