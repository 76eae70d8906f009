using Npgsql;
using TicketFunctions.Storage;

namespace TicketFunctions.Tests.Storage;

public sealed class MigrationsTests
{
    private const string History = "select concat_ws(' ', version, name) from supabase_migrations.schema_migrations order by version";

    private static readonly string[] Files = [.. Migrations.All.Select(migration => $"{migration.Version} {migration.Name}")];

    [Fact]
    public async Task An_empty_database_gets_every_migration_and_a_second_run_changes_nothing()
    {
        await using var database = await ScratchDatabase.CreateAsync();
        var migrations = new Migrations(database.DataSource);

        Assert.Equal(Migrations.All, await migrations.FindMissingAsync(default));
        Assert.Equal(Migrations.All, await migrations.ApplyAsync(default));

        Assert.Empty(await migrations.FindMissingAsync(default));
        Assert.Equal(Files, await database.ReadLinesAsync(History));
        var schema = await database.ReadSchemaAsync();
        Assert.Empty(await migrations.ApplyAsync(default));
        Assert.Equal(schema, await database.ReadSchemaAsync());
        Assert.Equal(Files, await database.ReadLinesAsync(History));
    }

    [Fact]
    public async Task The_table_of_tickets_has_the_columns_the_team_knows_and_no_others()
    {
        await using var database = await ScratchDatabase.CreateAsync();
        await new Migrations(database.DataSource).ApplyAsync(default);

        Assert.Equal(
            [
                "id uuid NO gen_random_uuid()",
                "created_at timestamp with time zone YES now()",
                "description text NO",
                "category text YES",
                "sentiment text YES",
                "processed boolean NO false",
            ],
            await database.ReadLinesAsync(
                """
                select concat_ws(' ', column_name, data_type, is_nullable, column_default)
                from information_schema.columns
                where table_schema = 'public'
                  and table_name = 'tickets'
                order by ordinal_position
                """));
        Assert.Equal("PRIMARY KEY (id)", await database.QuerySingleAsync<string>(
            "select pg_get_constraintdef(oid) from pg_constraint where conrelid = 'tickets'::regclass and contype = 'p'"));
    }

    [Fact]
    public async Task Every_table_has_row_level_security()
    {
        await using var database = await ScratchDatabase.CreateAsync();
        await new Migrations(database.DataSource).ApplyAsync(default);

        Assert.Equal(
            ["ticket_decisions true", "ticket_failures true", "ticket_heartbeat true", "ticket_text_locks true", "ticket_work true", "tickets true"],
            await database.ReadLinesAsync(
                "select concat(relname, ' ', relrowsecurity::text) from pg_class where relnamespace = 'public'::regnamespace and relkind = 'r' order by relname"));
    }

    [Fact]
    public async Task A_table_that_is_there_already_keeps_its_rows()
    {
        await using var database = await ScratchDatabase.CreateAsync();
        await database.ExecuteAsync(
            """
            create table tickets (
              id uuid primary key default gen_random_uuid(),
              created_at timestamptz default now(),
              description text,
              category text,
              sentiment text,
              processed boolean default false
            );
            insert into tickets (id, created_at, description, category, sentiment, processed) values
              ('00000000-0000-0000-0000-00000000000a', '2025-01-02 03:04:05.678901+02', E'  Ñandú 🦜 e\u0301\r\n', ' tecnico', 'NEGATIVO', true),
              ('00000000-0000-0000-0000-00000000000b', null, 'sin fecha', 'Otro', 'Neutral', true),
              ('00000000-0000-0000-0000-00000000000c', '2025-01-02', 'nunca procesado', null, null, false),
              ('00000000-0000-0000-0000-00000000000d', '2025-01-02', 'etiquetas sin procesar', 'Otro', 'Neutral', false),
              ('00000000-0000-0000-0000-000000000001', '2025-01-02', 'processed null', null, null, null),
              ('00000000-0000-0000-0000-000000000002', null, 'processed null, sin fecha', 'Otro', 'Neutral', null),
              ('00000000-0000-0000-0000-000000000003', '2025-01-02', 'procesado sin etiquetas', null, null, true),
              ('00000000-0000-0000-0000-000000000004', '2025-01-02', 'procesado con una', 'Otro', null, true);
            """);

        // xmin names the transaction that wrote a row last: not even an update to the same values goes unnoticed.
        const string Sound = "select concat_ws(' ', xmin, ctid, tickets) from tickets where id > '00000000-0000-0000-0000-000000000009' order by id";
        var sound = await database.ReadLinesAsync(Sound);

        Assert.Equal(Migrations.All, await new Migrations(database.DataSource).ApplyAsync(default));

        Assert.Equal(4, sound.Length);
        Assert.Equal(sound, await database.ReadLinesAsync(Sound));
        Assert.Equal(
            [
                "processed null, created_at: yes, -, -, false",
                "processed null, sin fecha, created_at: no, Otro, Neutral, false",
                "procesado sin etiquetas, created_at: yes, -, -, false",
                "procesado con una, created_at: yes, Otro, -, false",
            ],
            await database.ReadLinesAsync(
                """
                select concat_ws(', ', description, case when created_at is null then 'created_at: no' else 'created_at: yes' end,
                  coalesce(category, '-'), coalesce(sentiment, '-'), processed::text)
                from tickets
                where id < '00000000-0000-0000-0000-000000000009'
                order by id
                """));
        await using var fresh = await ScratchDatabase.CreateAsync();
        await new Migrations(fresh.DataSource).ApplyAsync(default);
        Assert.Equal(await fresh.ReadSchemaAsync(), await database.ReadSchemaAsync());
    }

    [Theory]
    [InlineData(2)]
    [InlineData(5)]
    public async Task Several_at_once_apply_each_migration_once(int count)
    {
        await using var database = await ScratchDatabase.CreateAsync();
        var processes = Enumerable.Range(0, count).Select(_ => NpgsqlDataSource.Create(database.ConnectionString)).ToList();
        try
        {
            // Each has its session before the first one begins.
            foreach (var process in processes)
            {
                await using var connection = await process.OpenConnectionAsync();
            }

            var applied = await Task.WhenAll(processes.Select(process => Task.Run(() => new Migrations(process).ApplyAsync(default))));

            Assert.Equal(Migrations.All, applied.SelectMany(migrations => migrations).OrderBy(migration => migration.Version, StringComparer.Ordinal));
            Assert.Equal(Files, await database.ReadLinesAsync(History));
            Assert.Equal(1, await database.QuerySingleAsync<int>("select count(*) from ticket_heartbeat"));
        }
        finally
        {
            foreach (var process in processes)
            {
                await process.DisposeAsync();
            }
        }
    }

    [Fact]
    public async Task A_migration_that_fails_leaves_nothing_behind_and_can_be_run_again()
    {
        await using var database = await ScratchDatabase.CreateAsync();
        await database.ExecuteAsync("create table ticket_work (mine text)");

        var error = await Assert.ThrowsAsync<PostgresException>(() => new Migrations(database.DataSource).ApplyAsync(default));

        Assert.Equal(PostgresErrorCodes.DuplicateTable, error.SqlState);
        Assert.Equal(Files[..1], await database.ReadLinesAsync(History));
        await database.ExecuteAsync("drop table ticket_work");
        Assert.Equal(Migrations.All.Skip(1), await new Migrations(database.DataSource).ApplyAsync(default));
    }

    [Fact]
    public async Task Tickets_without_a_text_are_for_the_team_to_mend()
    {
        await using var database = await ScratchDatabase.CreateAsync();
        await database.ExecuteAsync("create table tickets (id uuid primary key default gen_random_uuid(), created_at timestamptz default now(), description text, category text, sentiment text, processed boolean default false); insert into tickets default values");

        var error = await Assert.ThrowsAsync<PostgresException>(() => new Migrations(database.DataSource).ApplyAsync(default));

        Assert.StartsWith("There are tickets without a text; give them one or delete them: ", error.MessageText, StringComparison.Ordinal);
        await database.ExecuteAsync("update tickets set description = 'sin texto'");
        Assert.Equal(Migrations.All.SkipWhile(migration => migration.Name != "texts_of_tickets"), await new Migrations(database.DataSource).ApplyAsync(default));
    }
}
