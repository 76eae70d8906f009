using Dapper;
using Npgsql;

namespace TicketFunctions.Storage;

/// <summary>A connection as the server sees it.</summary>
/// <param name="Login">Who is logged in.</param>
/// <param name="Database">Where.</param>
/// <param name="Version">The server's version, as it writes it.</param>
/// <param name="VersionNumber">The same as a number, like 170004.</param>
public sealed record SessionState(string Login, string Database, string Version, int VersionNumber);

/// <summary>The role that the service works as.</summary>
public sealed record RoleState
{
    /// <summary>Its name, quoted where SQL wants that.</summary>
    public required string Name { get; init; }
    public bool IsSuperuser { get; init; }
    public bool BypassesRowSecurity { get; init; }
    public bool OwnsTickets { get; init; }

    /// <summary>Whether the login may take it.</summary>
    public bool IsGranted { get; init; }
}

/// <summary>Something that the service does and row level security does not let it do.</summary>
/// <param name="Action">What, like <c>update on tickets</c>.</param>
/// <param name="IsPartial">It may be done with some rows, by the condition of a policy.</param>
public sealed record PolicyGap(string Action, bool IsPartial);

/// <summary>What hears of changes for Supabase's Realtime.</summary>
public sealed record PublicationState(bool Exists, bool HasTickets);

/// <summary>A trigger on tickets that sends requests.</summary>
public sealed record WebhookTrigger
{
    public required string Name { get; init; }

    /// <summary>Its function, with the schema.</summary>
    public required string Function { get; init; }
    public bool IsEnabled { get; init; }
    public bool OnInsert { get; init; }
    public bool OnUpdate { get; init; }

    /// <summary>Of <c>update of</c>; empty for every column.</summary>
    public required string[] Columns { get; init; }

    /// <summary>Each ended by a zero byte.</summary>
    public required byte[] Arguments { get; init; }
}

/// <summary>What the signed triggers need.</summary>
public sealed record WebhookMeans(bool HasNet, bool HasVault, bool MayReadVault);

/// <summary>How many connections the server takes.</summary>
/// <param name="Limit">From logins like ours.</param>
/// <param name="Used">By all, now.</param>
public sealed record ConnectionLimits(int Limit, int Used);

/// <summary>Questions about the state of a database, each one statement that changes nothing. They run with the login's own rights.</summary>
public sealed class Diagnosis(NpgsqlDataSource dataSource)
{
    private static readonly string[] Tables = ["tickets", "ticket_work", "ticket_decisions", "ticket_failures", "ticket_text_locks", "ticket_heartbeat"];

    static Diagnosis() => DefaultTypeMap.MatchNamesWithUnderscores = true;

    public async Task<SessionState> ReadSessionAsync(CancellationToken cancellationToken) =>
        (await QueryFirstOrDefaultAsync<SessionState>(
            """
            select
              current_user::text as login,
              current_database()::text as database,
              current_setting('server_version') as version,
              current_setting('server_version_num')::int as version_number
            """,
            new { },
            cancellationToken))!;

    /// <param name="role">Its name; null for the login's own.</param>
    /// <param name="cancellationToken">Gives up waiting.</param>
    /// <returns>Null when there is no such role.</returns>
    public Task<RoleState?> FindRoleAsync(string? role, CancellationToken cancellationToken) =>
        QueryFirstOrDefaultAsync<RoleState>(
            """
            select
              quote_ident(rolname) as name,
              rolsuper as is_superuser,
              rolbypassrls as bypasses_row_security,
              exists (
                select
                from pg_catalog.pg_class
                where relnamespace = 'public'::regnamespace
                  and relname = 'tickets'
                  and pg_has_role(pg_roles.oid, relowner, 'usage')
              ) as owns_tickets,
              pg_has_role(oid, case when current_setting('server_version_num')::int >= 160000 then 'set' else 'member' end) as is_granted
            from pg_catalog.pg_roles
            where rolname = coalesce(@role, current_user)
            """,
            new { role },
            cancellationToken);

    /// <summary>The service's tables that there are not.</summary>
    public Task<IReadOnlyList<string>> FindMissingTablesAsync(CancellationToken cancellationToken) =>
        QueryAsync<string>(
            """
            select relation
            from unnest(@tables) as needed (relation)
            where not exists (
              select
              from pg_catalog.pg_class
              where relnamespace = 'public'::regnamespace
                and relname = relation
            )
            order by 1
            """,
            new { tables = Tables },
            cancellationToken);

    /// <summary>The statements that give a role what the service needs and it lacks; tables that are missing count for nothing.</summary>
    public Task<IReadOnlyList<string>> FindMissingGrantsAsync(string? role, CancellationToken cancellationToken) =>
        QueryAsync<string>(
            """
            with needed (relation, privilege, attribute) as (
              values
                ('tickets', 'select', null),
                ('tickets', 'update', 'category'),
                ('tickets', 'update', 'sentiment'),
                ('tickets', 'update', 'processed'),
                ('ticket_work', 'select', null),
                ('ticket_work', 'insert', null),
                ('ticket_work', 'update', null),
                ('ticket_work', 'delete', null),
                ('ticket_decisions', 'select', null),
                ('ticket_decisions', 'insert', null),
                ('ticket_failures', 'select', null),
                ('ticket_failures', 'insert', null),
                ('ticket_text_locks', 'select', null),
                ('ticket_text_locks', 'insert', null),
                ('ticket_text_locks', 'update', null),
                ('ticket_text_locks', 'delete', null),
                ('ticket_heartbeat', 'select', null),
                ('ticket_heartbeat', 'update', 'seen_at')
            ),
            worker as (
              select oid, rolname
              from pg_catalog.pg_roles
              where rolname = coalesce(@role, current_user)
            )
            select format(
              'grant %s on public.%s to %I;',
              string_agg(privilege || coalesce(' (' || attribute || ')', ''), ', ' order by privilege, attribute),
              relname,
              rolname
            )
            from needed
            join pg_catalog.pg_class on relname = relation and relnamespace = 'public'::regnamespace
            cross join worker
            where not case
              when attribute is null then has_table_privilege(worker.oid, pg_class.oid, privilege)
              else has_column_privilege(worker.oid, pg_class.oid, attribute, privilege)
            end
            group by relname, rolname
            union all
            select format('grant usage on schema public to %I;', rolname)
            from worker
            where not has_schema_privilege(worker.oid, 'public', 'usage')
            order by 1
            """,
            new { role },
            cancellationToken);

    /// <summary>What row level security keeps a role from doing that the service does, like <c>update on tickets</c>: with any row, or with some.</summary>
    public Task<IReadOnlyList<PolicyGap>> FindPolicyGapsAsync(string? role, CancellationToken cancellationToken) =>
        QueryAsync<PolicyGap>(
            """
            with needed (relation, command, code) as (
              values
                ('tickets', 'select', 'r'),
                ('tickets', 'update', 'w'),
                ('ticket_work', 'select', 'r'),
                ('ticket_work', 'insert', 'a'),
                ('ticket_work', 'update', 'w'),
                ('ticket_work', 'delete', 'd'),
                ('ticket_decisions', 'select', 'r'),
                ('ticket_decisions', 'insert', 'a'),
                ('ticket_failures', 'select', 'r'),
                ('ticket_failures', 'insert', 'a'),
                ('ticket_text_locks', 'select', 'r'),
                ('ticket_text_locks', 'insert', 'a'),
                ('ticket_text_locks', 'update', 'w'),
                ('ticket_text_locks', 'delete', 'd'),
                ('ticket_heartbeat', 'select', 'r'),
                ('ticket_heartbeat', 'update', 'w')
            )
            select format('%s on %s', command, relname) as action, coalesce(bool_or(polpermissive), false) as is_partial
            from needed
            join pg_catalog.pg_class on relname = relation and relnamespace = 'public'::regnamespace
            join pg_catalog.pg_roles as worker on worker.rolname = coalesce(@role, current_user)
            left join lateral (
              select
                polpermissive,
                coalesce(pg_get_expr(case when code = 'a' then coalesce(polwithcheck, polqual) else polqual end, polrelid), 'true') = 'true'
                  and (code <> 'w' or coalesce(pg_get_expr(polwithcheck, polrelid), 'true') = 'true') as is_for_all
              from pg_catalog.pg_policy
              where polrelid = pg_class.oid
                and polcmd::text in (code, '*')
                and exists (
                  select
                  from unnest(polroles) as policy (role)
                  where policy.role = 0
                    or pg_has_role(worker.oid, policy.role, 'usage')
                )
            ) as policy on true
            where relrowsecurity
              and not worker.rolsuper
              and not worker.rolbypassrls
              and not (pg_has_role(worker.oid, relowner, 'usage') and not relforcerowsecurity)
            group by command, relname
            having bool_or(polpermissive and is_for_all) is not true
              or bool_or(not polpermissive and not is_for_all)
            order by 1
            """,
            new { role },
            cancellationToken);

    /// <summary>The service's tables on which row level security is off.</summary>
    public Task<IReadOnlyList<string>> FindOpenTablesAsync(CancellationToken cancellationToken) =>
        QueryAsync<string>(
            """
            select relname::text
            from pg_catalog.pg_class
            where relnamespace = 'public'::regnamespace
              and relname = any(@tables)
              and not relrowsecurity
            order by 1
            """,
            new { tables = Tables },
            cancellationToken);

    /// <summary>The service's tables that people who have not signed in may use in some way, by a grant; policies may still keep them from rows.</summary>
    public Task<IReadOnlyList<string>> FindTablesOfAnybodyAsync(CancellationToken cancellationToken) =>
        QueryAsync<string>(
            """
            select relname::text
            from pg_catalog.pg_class
            join pg_catalog.pg_roles on rolname = 'anon'
            where relnamespace = 'public'::regnamespace
              and relname = any(@tables)
              and (
                has_any_column_privilege(pg_roles.oid, pg_class.oid, 'select, insert, update')
                or has_table_privilege(pg_roles.oid, pg_class.oid, 'delete, truncate')
              )
            order by 1
            """,
            new { tables = Tables },
            cancellationToken);

    public async Task<PublicationState> ReadPublicationAsync(CancellationToken cancellationToken) =>
        (await QueryFirstOrDefaultAsync<PublicationState>(
            """
            select
              exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime') as exists,
              exists (
                select
                from pg_catalog.pg_publication_tables
                where pubname = 'supabase_realtime'
                  and schemaname = 'public'
                  and tablename = 'tickets'
              ) as has_tickets
            """,
            new { },
            cancellationToken))!;

    /// <summary>Our own, those that Supabase's dashboard makes, and any whose function calls pg_net.</summary>
    public Task<IReadOnlyList<WebhookTrigger>> FindWebhookTriggersAsync(CancellationToken cancellationToken) =>
        QueryAsync<WebhookTrigger>(
            """
            select
              tgname::text as name,
              concat(function_schema.nspname, '.', proname) as function,
              tgenabled in ('O', 'A') as is_enabled,
              tgtype & 4 <> 0 as on_insert,
              tgtype & 16 <> 0 as on_update,
              array(
                select attname::text
                from pg_catalog.pg_attribute
                where attrelid = tgrelid
                  and attnum = any(tgattr)
                order by attnum
              ) as columns,
              tgargs as arguments
            from pg_catalog.pg_trigger
            join pg_catalog.pg_class on pg_class.oid = tgrelid
            join pg_catalog.pg_proc on pg_proc.oid = tgfoid
            join pg_catalog.pg_namespace as function_schema on function_schema.oid = pronamespace
            where relnamespace = 'public'::regnamespace
              and relname = 'tickets'
              and not tgisinternal
              and (
                concat(function_schema.nspname, '.', proname) in ('public.ticket_webhook', 'supabase_functions.http_request')
                or prosrc ~* '\mnet\.http_'
              )
            order by tgname
            """,
            new { },
            cancellationToken);

    public async Task<WebhookMeans> ReadWebhookMeansAsync(CancellationToken cancellationToken) =>
        // Not to_regclass: it wants rights on the schema.
        (await QueryFirstOrDefaultAsync<WebhookMeans>(
            """
            with secrets as (
              select pg_class.oid, pg_namespace.oid as schema
              from pg_catalog.pg_class
              join pg_catalog.pg_namespace on pg_namespace.oid = relnamespace
              where nspname = 'vault'
                and relname = 'decrypted_secrets'
            )
            select
              exists (
                select
                from pg_catalog.pg_proc
                join pg_catalog.pg_namespace on pg_namespace.oid = pronamespace
                where nspname = 'net'
                  and proname = 'http_post'
              ) as has_net,
              exists (select from secrets) as has_vault,
              exists (select from secrets where has_schema_privilege(schema, 'usage') and has_table_privilege(oid, 'select')) as may_read_vault
            """,
            new { },
            cancellationToken))!;

    /// <summary>The secrets of the signed triggers, by their names. They are for comparing only.</summary>
    public async Task<IReadOnlyDictionary<string, string>> ReadWebhookSecretsAsync(CancellationToken cancellationToken) =>
        (await QueryAsync<(string Name, string Secret)>(
            """
            select name, decrypted_secret
            from vault.decrypted_secrets
            where name in ('ticket_functions_url', 'ticket_functions_key', 'ticket_functions_webhook_secret')
              and decrypted_secret is not null
            """,
            new { },
            cancellationToken)).ToDictionary(secret => secret.Name, secret => secret.Secret);

    public async Task<ConnectionLimits> ReadConnectionLimitsAsync(CancellationToken cancellationToken) =>
        (await QueryFirstOrDefaultAsync<ConnectionLimits>(
            """
            select
              current_setting('max_connections')::int
                - current_setting('superuser_reserved_connections')::int
                - coalesce(current_setting('reserved_connections', true)::int, 0) as limit,
              (select sum(numbackends) from pg_catalog.pg_stat_database)::int as used
            """,
            new { },
            cancellationToken))!;

    public Task<DateTime> ReadClockAsync(CancellationToken cancellationToken) =>
        QueryFirstOrDefaultAsync<DateTime>("select clock_timestamp()", new { }, cancellationToken);

    /// <summary>Whether connections that are open together get one session by turns, as behind a pooler in transaction mode.</summary>
    /// <param name="connections">How many may be opened, at least two; with more a pooler with many idle sessions is caught too.</param>
    /// <param name="cancellationToken">Gives up waiting.</param>
    public async Task<bool> SharesSessionsAsync(int connections, CancellationToken cancellationToken)
    {
        await using var first = await dataSource.OpenConnectionAsync(cancellationToken);
        var session = await ReadBackendAsync(first);
        var holders = new List<NpgsqlConnection>();
        try
        {
            while (holders.Count < connections - 1)
            {
                var holder = await dataSource.OpenConnectionAsync(cancellationToken);
                holders.Add(holder);
                await holder.BeginTransactionAsync(cancellationToken);
                if (await ReadBackendAsync(holder) == session)
                {
                    return true;
                }
            }

            return await ReadBackendAsync(first) != session;
        }
        finally
        {
            foreach (var holder in holders)
            {
                await holder.DisposeAsync();
            }
        }

        Task<int> ReadBackendAsync(NpgsqlConnection connection) =>
            connection.QuerySingleAsync<int>(new CommandDefinition("select pg_backend_pid()", cancellationToken: cancellationToken));
    }

    private async Task<T?> QueryFirstOrDefaultAsync<T>(string sql, object parameters, CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
        return await connection.QueryFirstOrDefaultAsync<T>(new CommandDefinition(sql, parameters, cancellationToken: cancellationToken));
    }

    private async Task<IReadOnlyList<T>> QueryAsync<T>(string sql, object parameters, CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
        return [.. await connection.QueryAsync<T>(new CommandDefinition(sql, parameters, cancellationToken: cancellationToken))];
    }
}
