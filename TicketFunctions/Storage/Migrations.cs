using System.Reflection;
using Dapper;
using Npgsql;

namespace TicketFunctions.Storage;

/// <summary>One file of <c>infra/supabase/migrations</c>, as embedded in the assembly.</summary>
public sealed record Migration(string Version, string Name, string Sql);

/// <summary>Applies the migrations, and keeps the same history as the Supabase CLI, so that either can follow the other.</summary>
public sealed class Migrations(NpgsqlDataSource dataSource)
{
    /// <summary>All migrations, oldest first.</summary>
    public static IReadOnlyList<Migration> All { get; } = ReadAll();

    /// <summary>Applies what is missing; each migration commits with its line in the history.</summary>
    /// <returns>The migrations this call applied; empty when the database was up to date.</returns>
    /// <exception cref="PostgresException">A statement failed; that migration left nothing behind.</exception>
    public async Task<IReadOnlyList<Migration>> ApplyAsync(CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
        var applied = new List<Migration>();
        foreach (var migration in All)
        {
            if (await ApplyAsync(connection, migration, cancellationToken))
            {
                applied.Add(migration);
            }
        }

        return applied;
    }

    /// <summary>The migrations the database does not have yet.</summary>
    public async Task<IReadOnlyList<Migration>> FindMissingAsync(CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
        await using var command = connection.CreateCommand();

        // Not by Dapper: each start asks this, and it would compile a reader for it.
        command.CommandText = "select to_regclass('supabase_migrations.schema_migrations') is not null";
        if (await command.ExecuteScalarAsync(cancellationToken) is not true)
        {
            return All;
        }

        command.CommandText = "select version from supabase_migrations.schema_migrations";
        await using var reader = await command.ExecuteReaderAsync(cancellationToken);
        var known = new HashSet<string>();
        while (await reader.ReadAsync(cancellationToken))
        {
            known.Add(reader.GetString(0));
        }

        return [.. All.Where(migration => !known.Contains(migration.Version))];
    }

    /// <summary>What the history has that is newer than this program, and may be of a newer one or of somebody else.</summary>
    /// <exception cref="PostgresException">There is no history, or the login may not read it.</exception>
    public async Task<IReadOnlyList<string>> FindNewerAsync(CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
        return
        [
            .. await connection.QueryAsync<string>(new CommandDefinition(
                "select concat_ws('_', version, name) from supabase_migrations.schema_migrations where version > @newest order by version",
                new { newest = All[^1].Version },
                cancellationToken: cancellationToken)),
        ];
    }

    private static async Task<bool> ApplyAsync(NpgsqlConnection connection, Migration migration, CancellationToken cancellationToken)
    {
        await using var transaction = await connection.BeginTransactionAsync(cancellationToken);

        // One migrator at a time in this database. The lock ends with the transaction, so a pooler may be in between.
        await connection.ExecuteAsync(new CommandDefinition(
            "select pg_advisory_xact_lock(hashtext('supabase_migrations.schema_migrations'))",
            transaction: transaction,
            commandTimeout: 0,
            cancellationToken: cancellationToken));

        // The Supabase CLI's own table.
        await connection.ExecuteAsync(new CommandDefinition(
            """
            create schema if not exists supabase_migrations;
            create table if not exists supabase_migrations.schema_migrations (
              version text not null primary key,
              statements text[],
              name text
            );
            """,
            transaction: transaction,
            cancellationToken: cancellationToken));

        var recorded = await connection.ExecuteAsync(new CommandDefinition(
            """
            insert into supabase_migrations.schema_migrations (version, statements, name)
            values (@Version, array[@Sql], @Name)
            on conflict (version) do nothing
            """,
            migration,
            transaction,
            cancellationToken: cancellationToken));
        if (recorded == 1)
        {
            await connection.ExecuteAsync(new CommandDefinition(
                migration.Sql,
                transaction: transaction,
                commandTimeout: 0,
                cancellationToken: cancellationToken));
        }

        await transaction.CommitAsync(cancellationToken);
        return recorded == 1;
    }

    private static List<Migration> ReadAll()
    {
        const string Folder = "migrations/";
        var assembly = Assembly.GetExecutingAssembly();
        var migrations = new List<Migration>();
        foreach (var resource in assembly.GetManifestResourceNames().Where(name => name.StartsWith(Folder, StringComparison.Ordinal)).Order(StringComparer.Ordinal))
        {
            using var reader = new StreamReader(assembly.GetManifestResourceStream(resource)!);
            var file = Path.GetFileNameWithoutExtension(resource[Folder.Length..]);
            var underscore = file.IndexOf('_', StringComparison.Ordinal);
            migrations.Add(new Migration(file[..underscore], file[(underscore + 1)..], reader.ReadToEnd()));
        }

        return migrations;
    }
}
