using Dapper;
using Npgsql;

namespace TicketFunctions.Hosting.AspNetCore;

/// <summary>Tickets for a newcomer to look at, in a database that has none.</summary>
internal static class SampleTickets
{
    private static readonly string[] Texts =
    [
        "No puedo iniciar sesión desde ayer, me da error 500.",
        "Me cobraron dos veces la cuota de octubre, necesito que me devuelvan el dinero cuanto antes.",
        "¿Qué precio tiene el plan anual para un equipo de quince personas?",
        "Muchas gracias, la actualización arregló la app y ahora va rapidísima. ¡Excelente trabajo!",
        "La impresora de etiquetas dejó de funcionar después de instalar la última versión.",
        "¿Cómo descargo la factura del mes pasado en PDF?",
        "Quisiera agendar una demostración antes de contratar.",
        "El paquete lleva tres semanas de retraso y nadie contesta. Un desastre.",
        "¿A qué hora abren la oficina de la calle Mayor?",
        "My invoice shows the wrong VAT number, could you issue a new one?",
        "O aplicativo fecha sozinho toda vez que abro a câmera.",
        "Encantada con el trato de la chica que me atendió ayer, un diez.",
    ];

    /// <summary>Inserts the samples unless there is a ticket, or ever was a decision on one.</summary>
    public static async Task<int> InsertAsync(NpgsqlDataSource dataSource, CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
        return await connection.ExecuteAsync(new CommandDefinition(
            """
            insert into public.tickets (description)
            select unnest(@Texts)
            where not exists (select from public.tickets)
              and not exists (select from public.ticket_decisions)
            """,
            new { Texts },
            cancellationToken: cancellationToken));
    }

    /// <summary>The newest tickets as they are stored.</summary>
    public static async Task<IReadOnlyList<SampleRow>> ReadAsync(NpgsqlDataSource dataSource, CancellationToken cancellationToken)
    {
        await using var connection = await dataSource.OpenConnectionAsync(cancellationToken);
        var rows = await connection.QueryAsync<SampleRow>(new CommandDefinition(
            """
            select id, description, category, sentiment
            from public.tickets
            order by created_at desc, id
            limit 12
            """,
            cancellationToken: cancellationToken));
        return [.. rows];
    }
}

internal sealed record SampleRow(Guid Id, string Description, string? Category, string? Sentiment);
