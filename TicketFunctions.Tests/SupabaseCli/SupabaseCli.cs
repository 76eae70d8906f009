using Npgsql;
using TicketFunctions.Tests.Support;

namespace TicketFunctions.Tests.SupabaseCli;

/// <summary>A test that needs the Supabase CLI.</summary>
public sealed class SupabaseCliFactAttribute() : NpmFactAttribute(SupabaseCli.Tools);

/// <summary>The real Supabase CLI, as the files beside this one pin it.</summary>
public static class SupabaseCli
{
    private const string Script = "supabase/dist/supabase.js";

    public static NpmTools Tools { get; } = new("SupabaseCli", "supabase-cli", Script);

    /// <summary>Runs <c>supabase db push</c> of one folder (which holds <c>supabase/</c>) on a database, and returns what it printed.</summary>
    public static string Push(string workFolder, string connectionString)
    {
        var database = new NpgsqlConnectionStringBuilder(connectionString);
        var uri = new UriBuilder("postgresql", database.Host!, database.Port, database.Database)
        {
            UserName = Uri.EscapeDataString(database.Username!),
            Password = Uri.EscapeDataString(database.Password ?? ""),
        };
        var (exitCode, output) = Tools.Run(Script, ["db", "push", "--workdir", workFolder, $"--remote={uri.Uri.AbsoluteUri}", "--yes"], workFolder);
        Assert.True(exitCode == 0, $"supabase db push ended with {exitCode}: {output}");
        return output;
    }
}
