using TicketFunctions.Storage;
using TicketFunctions.Tests.Storage;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.SupabaseCli;

/// <summary>The product's <c>migrate</c> and the real <c>supabase db push</c> follow each other in any order.</summary>
public sealed class SupabaseCliTests : IDisposable
{
    private static readonly string[] Files = [.. Migrations.All.Select(migration => $"{migration.Version} {migration.Name}")];

    /// <summary>A copy of infra, because the CLI keeps files of its own in it.</summary>
    private readonly string _infra = Path.Combine(Path.GetTempPath(), $"ticketfunctions-infra-{Guid.NewGuid():N}");

    public SupabaseCliTests()
    {
        var migrations = Directory.CreateDirectory(Path.Combine(_infra, "supabase", "migrations")).FullName;
        var source = Path.Combine(TestPostgres.SolutionFolder, "infra", "supabase");
        File.Copy(Path.Combine(source, "config.toml"), Path.Combine(_infra, "supabase", "config.toml"));
        foreach (var file in Directory.EnumerateFiles(Path.Combine(source, "migrations")))
        {
            File.Copy(file, Path.Combine(migrations, Path.GetFileName(file)));
        }
    }

    public void Dispose() => Directory.Delete(_infra, recursive: true);

    [SupabaseCliFact]
    public async Task After_the_cli_the_product_finds_nothing_to_do_and_the_schema_is_the_products()
    {
        await using var database = await ScratchDatabase.CreateAsync();

        SupabaseCli.Push(_infra, database.ConnectionString);

        var migrations = new Migrations(database.DataSource);
        Assert.Empty(await migrations.FindMissingAsync(default));
        Assert.Empty(await migrations.ApplyAsync(default));
        await AssertCompleteAsync(database);
    }

    [SupabaseCliFact]
    public async Task After_the_product_the_cli_finds_nothing_to_do()
    {
        await using var database = await ScratchDatabase.CreateAsync();
        await new Migrations(database.DataSource).ApplyAsync(default);
        var history = await ReadHistoryAsync(database);

        var output = SupabaseCli.Push(_infra, database.ConnectionString);

        Assert.DoesNotContain("Applying", output, StringComparison.Ordinal);
        Assert.Equal(history, await ReadHistoryAsync(database));
        await AssertCompleteAsync(database);
    }

    [SupabaseCliFact]
    public async Task The_product_goes_on_where_the_cli_left_off()
    {
        await using var database = await ScratchDatabase.CreateAsync();
        foreach (var file in Directory.EnumerateFiles(Path.Combine(_infra, "supabase", "migrations")).Order(StringComparer.Ordinal).Skip(2))
        {
            File.Delete(file);
        }

        SupabaseCli.Push(_infra, database.ConnectionString);

        var migrations = new Migrations(database.DataSource);
        Assert.Equal(Migrations.All.Skip(2), await migrations.FindMissingAsync(default));
        Assert.Equal(Migrations.All.Skip(2), await migrations.ApplyAsync(default));
        await AssertCompleteAsync(database);
    }

    [SupabaseCliFact]
    public async Task The_cli_goes_on_where_the_product_left_off()
    {
        await using var database = await ScratchDatabase.CreateAsync();
        await using (var whole = await ScratchDatabase.CreateAsync())
        {
            // As an earlier version of the product, which had two files, left its database.
            await new Migrations(whole.DataSource).ApplyAsync(default);
            await database.ExecuteAsync(string.Join('\n', await whole.ReadLinesAsync(
                """
                select 'create schema supabase_migrations;
                  create table supabase_migrations.schema_migrations (version text primary key, statements text[], name text);'
                union all
                (
                  select format('insert into supabase_migrations.schema_migrations values (%L, %L, %L);', version, statements, name)
                  from supabase_migrations.schema_migrations
                  order by version
                  limit 2
                )
                """)));
            await database.ExecuteAsync(Migrations.All[0].Sql + Migrations.All[1].Sql);
        }

        var output = SupabaseCli.Push(_infra, database.ConnectionString);

        Assert.DoesNotContain(Migrations.All[1].Version, output, StringComparison.Ordinal);
        Assert.Contains(Migrations.All[2].Version, output, StringComparison.Ordinal);
        Assert.Empty(await new Migrations(database.DataSource).ApplyAsync(default));
        await AssertCompleteAsync(database);
    }

    private static async Task AssertCompleteAsync(ScratchDatabase database)
    {
        await using var expected = await ScratchDatabase.CreateAsync();
        await new Migrations(expected.DataSource).ApplyAsync(default);
        Assert.Equal(await expected.ReadSchemaAsync(), await database.ReadSchemaAsync());
        Assert.Equal(Files, (await ReadHistoryAsync(database)).Select(line => line.Split(" as ")[0]));
    }

    private static Task<string[]> ReadHistoryAsync(ScratchDatabase database) => database.ReadLinesAsync(
        "select concat(version, ' ', name, ' as ', md5(statements::text)) from supabase_migrations.schema_migrations order by version");
}
