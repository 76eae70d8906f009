using System.Net.Sockets;
using Npgsql;

namespace TicketFunctions.Storage;

/// <summary>Tells a database that is away, full or read-only from a statement that is wrong.</summary>
public static class StorageFaults
{
    /// <summary>An exception as it may be logged. What Postgres says may quote a row, by a constraint or a trigger of the team's own.</summary>
    public static string Describe(Exception exception) => exception is PostgresException e
        ? $"PostgresException {e.SqlState} on {e.TableName ?? "?"}, constraint {e.ConstraintName ?? "?"}{Environment.NewLine}{e.StackTrace}"
        : exception.ToString();

    /// <summary>Whether the same statement may succeed later.</summary>
    /// <remarks>Npgsql's own IsTransient leaves out read-only, cancelled statements and protocol violations. Codes: https://www.postgresql.org/docs/current/errcodes-appendix.html</remarks>
    public static bool IsUnavailable(Exception exception) => exception switch
    {
        PostgresException e => e.IsTransient || e.SqlState switch
        {
            PostgresErrorCodes.ReadOnlySqlTransaction
                or PostgresErrorCodes.InsufficientPrivilege
                or PostgresErrorCodes.InvalidPassword
                or PostgresErrorCodes.InvalidAuthorizationSpecification
                or PostgresErrorCodes.InvalidCatalogName
                or PostgresErrorCodes.UndefinedTable
                or PostgresErrorCodes.UndefinedColumn => true,
            // Connections, resources, interventions, system errors, rollbacks, objects in use.
            { } code => code[..2] is "08" or "53" or "57" or "58" or "40" or "55",
            _ => false,
        },
        NpgsqlException or SocketException or TimeoutException or IOException => true,
        _ => false,
    };
}
