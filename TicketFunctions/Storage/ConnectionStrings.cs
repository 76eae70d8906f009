using System.Net;
using Npgsql;

namespace TicketFunctions.Storage;

/// <summary>What stands at an address of a database, as far as its host and port tell.</summary>
public enum DatabaseAddress
{
    /// <summary>The server itself.</summary>
    Direct,

    /// <summary>A pooler that gives each connection a session of its own for as long as it lasts.</summary>
    SessionPooler,

    /// <summary>A pooler that gives each transaction a session: nothing may be kept in one.</summary>
    TransactionPooler,
}

/// <summary>Turns what people paste (key=value or the <c>postgresql://</c> URI that Supabase shows) into Npgsql settings.</summary>
/// <remarks>URI form: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS</remarks>
public static class ConnectionStrings
{
    /// <summary>Supabase's poolers in transaction mode, and where PgBouncer listens unless it is told otherwise.</summary>
    private static readonly int[] TransactionPorts = [6543, 6432];

    /// <summary>Of the sessions that Supabase's smallest projects have for a login in session mode (15), a third: others want some.</summary>
    private const int SessionPoolSize = 5;

    /// <exception cref="FormatException">The text is neither form; the message says how to mend it and never repeats the text.</exception>
    public static NpgsqlConnectionStringBuilder Parse(string text) => Parse(text, out _);

    /// <param name="text">Either form.</param>
    /// <param name="adjusted">What was set because of where the database is, like <c>Maximum Pool Size=5</c>.</param>
    /// <inheritdoc cref="Parse(string)"/>
    public static NpgsqlConnectionStringBuilder Parse(string text, out IReadOnlyList<string> adjusted)
    {
        text = text.Trim();
        var builder = IsUri(text) ? ParseUri(text) : ParseKeyValue(text);
        if (string.IsNullOrWhiteSpace(builder.Host))
        {
            throw new FormatException("The connection string names no host. " + Forms);
        }

        if (builder.Port is < 1 or > 65535)
        {
            throw new FormatException("The connection string's port is not between 1 and 65535. " + Forms);
        }

        ApplyDefaults(builder);
        adjusted = [.. AdjustToAddress(builder)];
        return builder;
    }

    /// <summary>What stands at the address; a pooler with another name and port is taken for the server.</summary>
    public static DatabaseAddress FindAddress(NpgsqlConnectionStringBuilder builder) =>
        TransactionPorts.Contains(builder.Port) ? DatabaseAddress.TransactionPooler
        : IsWithin(builder.Host!, "pooler.supabase.com") ? DatabaseAddress.SessionPooler
        : DatabaseAddress.Direct;

    /// <summary>Names what stands at an address, as people say it.</summary>
    public static string Describe(DatabaseAddress address) => address switch
    {
        DatabaseAddress.TransactionPooler => "a transaction pooler",
        DatabaseAddress.SessionPooler => "a session pooler",
        _ => "a direct address",
    };

    /// <summary>Whether the database is on this machine.</summary>
    public static bool IsLoopback(NpgsqlConnectionStringBuilder builder) => IsLoopback(builder.Host!);

    private const string Forms =
        "Set ConnectionStrings__Tickets (or SUPABASE_DB_URL) to `Host=…;Port=5432;Database=…;Username=…;Password=…` or `postgresql://user:password@host:5432/database` "
        + "(percent-encode special characters in the password).";

    private static bool IsUri(string text) =>
        text.StartsWith("postgresql://", StringComparison.OrdinalIgnoreCase)
        || text.StartsWith("postgres://", StringComparison.OrdinalIgnoreCase);

    private static NpgsqlConnectionStringBuilder ParseKeyValue(string text)
    {
        try
        {
            return new NpgsqlConnectionStringBuilder(text);
        }
        catch (Exception e) when (e is ArgumentException or FormatException or KeyNotFoundException)
        {
            throw new FormatException("The connection string cannot be read. " + Forms);
        }
    }

    private static NpgsqlConnectionStringBuilder ParseUri(string text)
    {
        // An @ without credentials before it: a / ? or # of the password has ended the host early, and the rest would
        // be taken, and shown, for a database or a parameter.
        if (!Uri.TryCreate(text, UriKind.Absolute, out var uri) || uri.Port == 0 || (uri.UserInfo.Length == 0 && text.Contains('@')))
        {
            throw new FormatException("The connection URI cannot be read. " + Forms);
        }

        var builder = new NpgsqlConnectionStringBuilder
        {
            Host = uri.Host.Trim('[', ']'),
            Port = uri.IsDefaultPort || uri.Port < 0 ? NpgsqlConnection.DefaultPort : uri.Port,
        };
        var database = Uri.UnescapeDataString(uri.AbsolutePath.TrimStart('/'));
        if (database.Length > 0)
        {
            builder.Database = database;
        }

        var credentials = uri.UserInfo.Split(':', 2);
        if (credentials[0].Length > 0)
        {
            builder.Username = Uri.UnescapeDataString(credentials[0]);
        }

        if (credentials.Length == 2)
        {
            builder.Password = Uri.UnescapeDataString(credentials[1]);
        }

        foreach (var pair in uri.Query.TrimStart('?').Split('&', StringSplitOptions.RemoveEmptyEntries))
        {
            var parts = pair.Split('=', 2);
            Apply(builder, Uri.UnescapeDataString(parts[0]), parts.Length == 2 ? Uri.UnescapeDataString(parts[1]) : "");
        }

        return builder;
    }

    private static void Apply(NpgsqlConnectionStringBuilder builder, string key, string value)
    {
        // The names libpq knows; anything else may be an Npgsql keyword, or a hint for other clients (pgbouncer=true).
        try
        {
            switch (key.ToLowerInvariant())
            {
                case "sslmode":
                    builder["SSL Mode"] = value.Replace("-", "", StringComparison.Ordinal);
                    break;
                case "sslrootcert":
                    builder.RootCertificate = value;
                    break;
                case "connect_timeout":
                    builder["Timeout"] = value;
                    break;
                case "application_name":
                    builder.ApplicationName = value;
                    break;
                case "options":
                    builder.Options = value;
                    break;
                case "pgbouncer" or "channel_binding" or "gssencmode" or "target_session_attrs":
                    break;
                default:
                    builder[key] = value;
                    break;
            }
        }
        catch (Exception e) when (e is ArgumentException or FormatException or KeyNotFoundException)
        {
            // An unknown name is not repeated: it may be part of a password that was not percent-encoded.
            var parameter = builder.ContainsKey(key) ? $"'{key}'" : "one of the parameters";
            throw new FormatException($"The connection URI cannot be read: {parameter} is not known or has a wrong value. {Forms}");
        }
    }

    private static void ApplyDefaults(NpgsqlConnectionStringBuilder builder)
    {
        // Npgsql 10.0.0 may dispose its own socket when a pooler refuses GSS encryption; nobody here uses it.
        builder.GssEncryptionMode = GssEncryptionMode.Disable;
        if (string.IsNullOrEmpty(builder.ApplicationName))
        {
            builder.ApplicationName = "ticket-functions";
        }

        // ContainsKey tells which keys there are; ShouldSerialize those that were set.
        if (!builder.ShouldSerialize("Command Timeout"))
        {
            builder.CommandTimeout = 4;
        }

        // A statement without an answer in this time is on a dead connection: the server ends its own earlier (TicketStore).
        // So nobody waits there for the answer to a cancellation as well.
        if (!builder.ShouldSerialize("Cancellation Timeout"))
        {
            builder.CancellationTimeout = -1;
        }

        // Some networks drop a connection that is idle for four minutes and tell nobody.
        if (!builder.ShouldSerialize("Tcp Keepalive Time") && !builder.Host!.StartsWith('/'))
        {
            builder.TcpKeepAliveTime = 60;
        }

        if (!builder.ShouldSerialize("Timeout"))
        {
            builder.Timeout = 5;
        }

        if (!builder.ShouldSerialize("Maximum Pool Size") && FindAddress(builder) != DatabaseAddress.SessionPooler)
        {
            builder.MaxPoolSize = 20;
        }

        // Supabase and other hosted servers take TLS; a server on this machine usually has none.
        if (!builder.ShouldSerialize("SSL Mode") && !IsLoopback(builder.Host!))
        {
            builder.SslMode = SslMode.Require;
        }
    }

    private static IEnumerable<string> AdjustToAddress(NpgsqlConnectionStringBuilder builder)
    {
        var address = FindAddress(builder);
        if (address == DatabaseAddress.TransactionPooler && !builder.NoResetOnClose)
        {
            builder.NoResetOnClose = true;
            yield return "No Reset On Close=true";
        }

        if (address == DatabaseAddress.TransactionPooler && builder.MaxAutoPrepare != 0)
        {
            builder.MaxAutoPrepare = 0;
            yield return "Max Auto Prepare=0";
        }

        // Each connection, also an idle one, has a session of the project's few.
        if (address == DatabaseAddress.SessionPooler && !builder.ShouldSerialize("Maximum Pool Size"))
        {
            builder.MaxPoolSize = SessionPoolSize;
            yield return $"Maximum Pool Size={SessionPoolSize}";
        }

        // Supabase always takes TLS, and between it and us is the Internet.
        if (builder.SslMode < SslMode.Require && (IsWithin(builder.Host!, "supabase.com") || IsWithin(builder.Host!, "supabase.co")))
        {
            builder.SslMode = SslMode.Require;
            yield return "SSL Mode=Require";
        }
    }

    private static bool IsWithin(string host, string domain) => host.EndsWith("." + domain, StringComparison.OrdinalIgnoreCase);

    private static bool IsLoopback(string host) =>
        host.Equals("localhost", StringComparison.OrdinalIgnoreCase)
        || host.StartsWith('/')
        || (IPAddress.TryParse(host, out var address) && IPAddress.IsLoopback(address));
}
