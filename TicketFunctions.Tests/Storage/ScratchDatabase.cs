using Dapper;
using Npgsql;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.Storage;

/// <summary>A database with nothing in it, for one test.</summary>
public sealed class ScratchDatabase : IAsyncDisposable
{
    private ScratchDatabase(string connectionString)
    {
        ConnectionString = connectionString;
        DataSource = NpgsqlDataSource.Create(connectionString);
    }

    public string ConnectionString { get; }

    public NpgsqlDataSource DataSource { get; }

    public static async Task<ScratchDatabase> CreateAsync() => new(await TestPostgres.CreateEmptyDatabaseAsync());

    public async Task<int> ExecuteAsync(string sql, object? parameters = null)
    {
        await using var connection = await DataSource.OpenConnectionAsync();
        return await connection.ExecuteAsync(sql, parameters);
    }

    public async Task<T> QuerySingleAsync<T>(string sql, object? parameters = null)
    {
        await using var connection = await DataSource.OpenConnectionAsync();
        return await connection.QuerySingleAsync<T>(sql, parameters);
    }

    /// <summary>One column of text, as it comes.</summary>
    public async Task<string[]> ReadLinesAsync(string sql)
    {
        await using var connection = await DataSource.OpenConnectionAsync();
        return [.. await connection.QueryAsync<string>(sql)];
    }

    /// <summary>Everything the migrations define, a line each: two databases with equal lines have the same schema.</summary>
    public Task<string[]> ReadSchemaAsync() => ReadLinesAsync(
        """
        select line
        from (
          select format('column %s.%s %s null:%s default:%s identity:%s', table_name, column_name, data_type, is_nullable, column_default, is_identity)
          from information_schema.columns
          where table_schema = 'public'
          union all
          select format('constraint %s %s %s', conrelid::regclass, conname, pg_get_constraintdef(oid))
          from pg_constraint
          where connamespace = 'public'::regnamespace
          union all
          select indexdef
          from pg_indexes
          where schemaname = 'public'
          union all
          select pg_get_triggerdef(oid)
          from pg_trigger
          where not tgisinternal
          union all
          select pg_get_functiondef(oid)
          from pg_proc
          where pronamespace = 'public'::regnamespace
          union all
          select format('policy %s %s %s %s using:%s check:%s', tablename, policyname, roles, cmd, qual, with_check)
          from pg_policies
          where schemaname = 'public'
          union all
          select format('relation %s %s row security:%s %s options:%s', relname, relkind, relrowsecurity, relacl, reloptions)
          from pg_class
          where relnamespace = 'public'::regnamespace
          union all
          select format('grants on column %s.%s %s', attrelid::regclass, attname, attacl)
          from pg_attribute
          where attacl is not null
            and attrelid in (select oid from pg_class where relnamespace = 'public'::regnamespace)
        ) as lines (line)
        order by line
        """);

    public async ValueTask DisposeAsync()
    {
        await DataSource.DisposeAsync();
        await TestPostgres.DropDatabaseAsync(ConnectionString);
    }
}
