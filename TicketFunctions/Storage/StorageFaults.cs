using System.Net.Sockets;
using Npgsql;

namespace TicketFunctions.Storage;

/// <summary>What a fault of the database is, by what helps.</summary>
public enum StorageFault
{
    /// <summary>Nothing helps: the statement, or the data in it, is not taken.</summary>
    Refused,

    /// <summary>Somebody has to mend the database, its rights or its schema first.</summary>
    Misconfigured,

    /// <summary>The same statement again: locks, deadlocks, a full disk, too many connections.</summary>
    Passing,

    /// <summary>The same statement again, on a new connection.</summary>
    Disconnected,
}

/// <summary>Tells a database that is away, full or read-only from a statement that is wrong.</summary>
public static class StorageFaults
{
    /// <summary>An exception as it may be logged. What Postgres says may quote a row, by a constraint or a trigger of the team's own.</summary>
    public static string Describe(Exception exception) => exception is PostgresException e
        ? $"PostgresException {e.SqlState} on {e.TableName ?? "?"}, constraint {e.ConstraintName ?? "?"}{Environment.NewLine}{e.StackTrace}"
        : exception.ToString();

    /// <summary>The SQLSTATE, or the exception's name where the server said nothing.</summary>
    public static string NameOf(Exception exception) => (exception as PostgresException)?.SqlState ?? exception.GetType().Name;

    /// <summary>What a fault of the database is; null when the exception is none.</summary>
    /// <remarks>Npgsql's own IsTransient leaves out read-only, cancelled statements and protocol violations. Codes: https://www.postgresql.org/docs/current/errcodes-appendix.html</remarks>
    public static StorageFault? Find(Exception exception) => exception switch
    {
        PostgresException e => e.SqlState switch
        {
            // The server has become a replica: this session, and its neighbours in the pool, will never write again.
            PostgresErrorCodes.ReadOnlySqlTransaction => StorageFault.Disconnected,
            PostgresErrorCodes.InsufficientPrivilege
                or PostgresErrorCodes.InvalidPassword
                or PostgresErrorCodes.InvalidAuthorizationSpecification
                or PostgresErrorCodes.InvalidCatalogName
                or PostgresErrorCodes.UndefinedTable
                or PostgresErrorCodes.UndefinedColumn
                // Storage__Role names no role.
                or PostgresErrorCodes.UndefinedObject => StorageFault.Misconfigured,
            // The server goes, starts, or ends sessions.
            { } code when code.StartsWith("57P", StringComparison.Ordinal) => StorageFault.Disconnected,
            // Supabase's pooler tells nearly everything by this: a session that it lost, too many clients, no session free in time.
            PostgresErrorCodes.InternalError => StorageFault.Disconnected,
            { } code => code[..2] switch
            {
                "08" => StorageFault.Disconnected,
                // Rollbacks, resources, objects in use, interventions, system errors.
                "40" or "53" or "55" or "57" or "58" => StorageFault.Passing,
                _ => StorageFault.Refused,
            },
            _ => StorageFault.Refused,
        },
        NpgsqlException or SocketException or TimeoutException or IOException => StorageFault.Disconnected,
        _ => null,
    };

    /// <summary>Whether it showed by nothing coming back in time, from the server or from the pool.</summary>
    public static bool IsTimeout(Exception exception) => exception is TimeoutException or { InnerException: TimeoutException };

    /// <summary>Whether the same statement may succeed later.</summary>
    public static bool IsUnavailable(Exception exception) => Find(exception) is not (null or StorageFault.Refused);

    /// <summary>Whether the same statement may succeed in a moment, without anybody's doing.</summary>
    public static bool IsPassing(Exception exception) => Find(exception) is StorageFault.Passing or StorageFault.Disconnected;
}
