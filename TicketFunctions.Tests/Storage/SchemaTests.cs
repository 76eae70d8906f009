using System.Text.RegularExpressions;
using Dapper;
using Npgsql;
using TicketFunctions.Storage;
using TicketFunctions.Tests.Support;
using TicketFunctions.Tickets;

namespace TicketFunctions.Tests.Storage;

public sealed class SchemaTests(TicketApp app) : IClassFixture<TicketApp>
{
    private const string Decision =
        """
        insert into ticket_decisions (
          ticket_id, category, sentiment, confidence, source, provider, model, prompt_version, taxonomy_version, parameters, text_sha256,
          model_calls, latency_ms, attempts
        )
        values (gen_random_uuid(), 'Otro', 'Neutral', 0.5, 'model', 'p', 'm', '1', '1', '{}', sha256('x'), 1, 1, 1)
        """;

    private const string Failure =
        """
        insert into ticket_failures (ticket_id, attempt, kind, reason, text_sha256, answered, tokens_in, cost, calls)
        values (gen_random_uuid(), 1, 'upstream_invalid', 'invalid', sha256('x'), true, 300, 0.01, '[]')
        """;

    [Theory]
    [InlineData("insert into tickets (description, processed) values ('x', true)", "tickets_processed_has_labels")]
    [InlineData("insert into tickets (description, category, processed) values ('x', 'Otro', true)", "tickets_processed_has_labels")]
    [InlineData("insert into tickets (description, sentiment, processed) values ('x', 'Neutral', true)", "tickets_processed_has_labels")]
    [InlineData("insert into ticket_work (ticket_id, attempts, due_at) select id, -1, now() from tickets", "ticket_work_attempts_not_negative")]
    [InlineData("insert into ticket_work (ticket_id, attempts, due_at, parked_at, lease_token) select id, 1, now(), now(), id from tickets", "ticket_work_parked_is_not_held")]
    [InlineData("insert into ticket_heartbeat (only_row) values (false)", "ticket_heartbeat_has_one_row")]
    [InlineData("insert into ticket_heartbeat (only_row) values (true)", "ticket_heartbeat_pkey")]
    [InlineData("insert into ticket_text_locks values ('x', gen_random_uuid(), now())", "ticket_text_locks_hash_is_sha256")]
    [InlineData("insert into ticket_text_locks select sha256('x'), gen_random_uuid(), now() from generate_series(1, 2)", "ticket_text_locks_pkey")]
    [InlineData("insert into ticket_failures (ticket_id, attempt, kind, reason, text_sha256, answered, calls) select id, 1, 'k', 'r', 'x', true, '[]' from tickets", "ticket_failures_hash_is_sha256")]
    public async Task What_must_not_be_is_refused(string sql, string constraint)
    {
        await app.AddTicketAsync("algo");

        var error = await Assert.ThrowsAsync<PostgresException>(() => app.ExecuteAsync(sql));

        Assert.Equal(constraint, error.ConstraintName);
    }

    [Theory]
    [InlineData("0.5", "1.01", "ticket_decisions_confidence_is_share")]
    [InlineData("0.5", "-0.01", "ticket_decisions_confidence_is_share")]
    [InlineData("'model'", "'stored'", "ticket_decisions_source_known")]
    [InlineData("sha256('x')", "'x'", "ticket_decisions_hash_is_sha256")]
    public async Task A_decision_that_makes_no_sense_is_refused(string right, string wrong, string constraint)
    {
        Assert.Equal(1, await app.ExecuteAsync(Decision));

        var error = await Assert.ThrowsAsync<PostgresException>(() => app.ExecuteAsync(Decision.Replace(right, wrong, StringComparison.Ordinal)));

        Assert.Equal(constraint, error.ConstraintName);
    }

    [Theory]
    [InlineData("update ticket_decisions set category = 'Tecnico'")]
    [InlineData("update ticket_decisions set category = category where false")]
    [InlineData("delete from ticket_decisions")]
    [InlineData("truncate ticket_decisions")]
    [InlineData("truncate tickets, ticket_work, ticket_decisions")]
    [InlineData("update ticket_failures set cost = 0")]
    [InlineData("update ticket_failures set cost = cost where false")]
    [InlineData("delete from ticket_failures")]
    [InlineData("truncate ticket_failures")]
    public async Task Decisions_and_failures_are_only_ever_appended_even_by_a_superuser(string sql)
    {
        await app.ExecuteAsync(Decision);
        await app.ExecuteAsync(Failure);
        const string Read = """
            select concat_ws(
              ' ',
              (select concat_ws(' ', count(*), max(xmin::text::bigint), min(category)) from ticket_decisions),
              (select concat_ws(' ', count(*), max(xmin::text::bigint), min(cost)) from ticket_failures)
            )
            """;
        var before = await app.QuerySingleAsync<string>(Read);

        var error = await Assert.ThrowsAsync<PostgresException>(() => app.ExecuteAsync(sql));

        Assert.Equal(PostgresErrorCodes.RestrictViolation, error.SqlState);
        Assert.Equal(before, await app.QuerySingleAsync<string>(Read));
    }

    [Fact]
    public async Task A_deleted_ticket_takes_its_work_along_and_leaves_its_decisions()
    {
        var id = await app.AddTicketAsync("Me quiero dar de baja");
        Assert.True((await app.ProcessAsync(id)).IsSuccessStatusCode);
        await app.ExecuteAsync("insert into ticket_work (ticket_id, attempts, due_at) values (@id, 1, now())", new { id });

        Assert.Equal(1, await app.ExecuteAsync("delete from tickets where id = @id", new { id }));

        Assert.Equal(
            "0 1",
            await app.QuerySingleAsync<string>(
                "select concat_ws(' ', (select count(*) from ticket_work where ticket_id = @id), (select count(*) from ticket_decisions where ticket_id = @id))",
                new { id }));
    }

    [Fact]
    public async Task Many_tickets_deleted_at_once_are_not_each_compared_with_all_work()
    {
        await app.ExecuteAsync(
            """
            insert into tickets (description) select 'Sin trabajo ' || n from generate_series(1, 20000) n;
            insert into tickets (description) select 'Con trabajo ' || n from generate_series(1, 20000) n;
            insert into ticket_work (ticket_id, attempts, due_at) select id, 1, now() from tickets where not processed;
            delete from ticket_work;
            """);
        await app.ExecuteAsync("vacuum analyze ticket_work");

        // A session that has deleted from a table of work that Postgres takes for empty. 400 million comparisons take a minute.
        await using var dataSource = NpgsqlDataSource.Create($"{app.ConnectionString};Command Timeout=20");
        await using var session = await dataSource.OpenConnectionAsync();
        await session.ExecuteAsync("delete from tickets where description = 'Sin trabajo 1'");
        await session.ExecuteAsync("insert into ticket_work (ticket_id, attempts, due_at) select id, 1, now() from tickets where description like 'Con trabajo %'");

        Assert.Equal(19_999, await session.ExecuteAsync("delete from tickets where description like 'Sin trabajo %'"));
        Assert.Equal(20_000, await session.ExecuteScalarAsync<int>("select count(*) from ticket_work"));
        Assert.Equal(20_000, await session.ExecuteAsync("delete from tickets where description like 'Con trabajo %'"));
        Assert.Equal(0, await session.ExecuteScalarAsync<int>("select count(*) from ticket_work"));
    }

    [Fact]
    public async Task The_claim_reads_only_what_is_to_do_however_many_tickets_are_done()
    {
        var database = await TestPostgres.CreateDatabaseAsync();
        try
        {
            // A session adds up what it scanned when it ends, at the latest: so none is pooled.
            await using var dataSource = NpgsqlDataSource.Create(database + ";Pooling=false");
            await using (var setUp = dataSource.CreateCommand(
                """
                insert into tickets (description, category, sentiment, processed)
                select 'hecho ' || n, 'Otro', 'Neutral', true
                from generate_series(1, 20000) as n;
                insert into tickets (description)
                select 'por hacer ' || n
                from generate_series(1, 20) as n;
                insert into ticket_work (ticket_id, attempts, due_at)
                select id, 1, now() - interval '1 minute'
                from tickets
                where description like 'por hacer 1_';
                analyze tickets, ticket_work;
                """))
            {
                await setUp.ExecuteNonQueryAsync();
            }

            var before = await ReadScansAsync(dataSource);
            var store = new TicketStore(dataSource);
            var terms = new ClaimTerms(TimeSpan.FromSeconds(90), 5, []);

            var first = await store.ClaimDueAsync(12, null, withWaiting: true, terms);
            ClaimedTicket[] claimed = [.. first.Tickets, .. (await store.ClaimDueAsync(12, first.Last, withWaiting: true, terms)).Tickets];
            Assert.Empty((await store.ClaimDueAsync(12, null, withWaiting: true, terms)).Tickets);
            Assert.IsType<Claim.InProgress>((await store.ClaimAsync([new ClaimRequest(claimed[0].Id, Guid.NewGuid())], terms, wait: false))[0]);
            await store.ParkExhaustedAsync(terms.MaxAttempts, default);
            await store.ForgetProcessedAsync(default);
            await store.CountBacklogAsync(default);

            Assert.Equal(20, claimed.DistinctBy(ticket => ticket.Id).Count());
            var after = await ReadScansAsync(dataSource);
            Assert.Equal(before.WholeTable, after.WholeTable);
            Assert.True(after.UnprocessedIndex > before.UnprocessedIndex);
        }
        finally
        {
            await TestPostgres.DropDatabaseAsync(database);
        }
    }

    /// <summary>How often the table of tickets was read from end to end, and the index of those to do, by all sessions that have ended.</summary>
    private static async Task<(long WholeTable, long UnprocessedIndex)> ReadScansAsync(NpgsqlDataSource dataSource)
    {
        (long WholeTable, long UnprocessedIndex) scans = default;
        await Eventually.TrueAsync(
            async () =>
            {
                await using var command = dataSource.CreateCommand(
                    """
                    select
                      (select seq_scan from pg_stat_user_tables where relname = 'tickets'),
                      (select idx_scan from pg_stat_user_indexes where indexrelname = 'tickets_unprocessed'),
                      (
                        select count(*)
                        from pg_stat_activity
                        where datname = current_database()
                          and backend_type = 'client backend'
                          and pid <> pg_backend_pid()
                      )
                    """);
                await using var reader = await command.ExecuteReaderAsync();
                await reader.ReadAsync();
                scans = (reader.GetInt64(0), reader.GetInt64(1));
                return reader.GetInt64(2) == 0;
            },
            "all sessions have ended");
        return scans;
    }

    [Fact]
    public async Task No_work_is_left_of_tickets_that_go_one_by_one_or_all_at_once()
    {
        await using var app = await TicketApp.StartAsync();
        Guid[] ids = [await app.AddTicketAsync("se borra"), await app.AddTicketAsync("se queda"), await app.AddTicketAsync("se vacía")];
        await app.ExecuteAsync("insert into ticket_work (ticket_id, attempts, due_at) select id, 1, now() from tickets");

        await app.ExecuteAsync("delete from tickets where id = @id", new { id = ids[0] });
        Assert.Equal(ids[1..].Order(), (await app.QueryAsync<Guid>("select ticket_id from ticket_work")).Order());

        await app.ExecuteAsync("truncate tickets");
        Assert.Empty(await app.QueryAsync<Guid>("select ticket_id from ticket_work"));
    }

    [Fact]
    public async Task The_statements_of_the_operations_guide_run()
    {
        var document = await File.ReadAllTextAsync(Path.Combine(TestPostgres.SolutionFolder, "docs", "operations.md"));
        var statements = Regex.Matches(document, "```sql\n(.*?)```", RegexOptions.Singleline).Select(match => match.Groups[1].Value).ToList();

        Assert.Equal(4, statements.Count);
        foreach (var statement in statements)
        {
            await app.ExecuteAsync(statement.Replace("<id>", $"{Guid.NewGuid()}", StringComparison.Ordinal));
        }
    }
}
