namespace TicketFunctions.Tests.Support;

/// <summary>One change of a row of tickets; null where there was no row before or is none after.</summary>
public sealed record TicketChange(DateTime At, string Application, Guid TicketId, string? OldText, bool? WasProcessed, string? Text, string? Category, string? Sentiment, bool? Processed);

/// <summary>Keeps every change of every ticket: what happened in between, not only how it ended.</summary>
public static class TicketAudit
{
    /// <summary>Starts to keep them.</summary>
    public const string Install =
        """
        create table audit (
          n bigint generated always as identity primary key,
          at timestamptz not null default clock_timestamp(),
          application text not null default current_setting('application_name'),
          was public.tickets,
          became public.tickets
        );

        create function audit_ticket() returns trigger language plpgsql security definer as $$
        begin
          insert into public.audit (was, became) values (old, new);
          return null;
        end;
        $$;

        create trigger audit_ticket after insert or update or delete on public.tickets
          for each row execute function audit_ticket();
        """;

    /// <summary>The changes, in their order.</summary>
    public const string Read =
        """
        select
          at,
          application,
          coalesce((became).id, (was).id) as ticket_id,
          (was).description as old_text,
          (was).processed as was_processed,
          (became).description as text,
          (became).category,
          (became).sentiment,
          (became).processed
        from audit
        order by n
        """;

    public static Task InstallAsync(TicketApp app) => app.ExecuteAsync(Install);

    /// <inheritdoc cref="Read"/>
    public static Task<IReadOnlyList<TicketChange>> ReadAsync(TicketApp app) => app.QueryAsync<TicketChange>(Read);
}
