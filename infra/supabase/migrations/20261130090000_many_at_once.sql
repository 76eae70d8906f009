-- Tables whose rows come and go with every ticket, a thousand a second and more.

-- A lock is found by its text; whose it is need not be looked for.
alter table public.ticket_text_locks
  drop constraint ticket_text_locks_lease_token_key;

-- Vacuum without pauses: these tables are small, and what it leaves is read over by every claim.
-- It does not give back empty pages at the end, which takes a lock that all would wait for: they are filled again at once.
alter table public.ticket_work set (
  autovacuum_vacuum_cost_delay = 0,
  vacuum_truncate = off
);

alter table public.ticket_text_locks set (
  autovacuum_vacuum_cost_delay = 0,
  vacuum_truncate = off
);

-- A claim holds the row of its ticket while it inserts a work row, so the ticket is there; to have the foreign key look for it
-- costs more than the insert. That no work is left behind when tickets go is the trigger's part.
alter table public.ticket_work
  drop constraint ticket_work_ticket_id_fkey;

create function public.ticket_work_of_deleted_tickets()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  if tg_op = 'TRUNCATE' then
    delete from public.ticket_work;
  else
    delete from public.ticket_work
    using deleted
    where ticket_work.ticket_id = deleted.id;
  end if;

  return null;
end;
$$;

revoke all on function public.ticket_work_of_deleted_tickets() from public;

create trigger ticket_work_of_deleted_tickets
  after delete on public.tickets
  referencing old table as deleted
  for each statement
  execute function public.ticket_work_of_deleted_tickets();

create trigger ticket_work_of_truncated_tickets
  after truncate on public.tickets
  for each statement
  execute function public.ticket_work_of_deleted_tickets();

do $$
begin
  if exists (select from pg_catalog.pg_roles where rolname = 'anon') then
    revoke all on function public.ticket_work_of_deleted_tickets() from anon;
  end if;

  if exists (select from pg_catalog.pg_roles where rolname = 'authenticated') then
    revoke all on function public.ticket_work_of_deleted_tickets() from authenticated;
  end if;

  if exists (select from pg_catalog.pg_roles where rolname = 'service_role') then
    revoke all on function public.ticket_work_of_deleted_tickets() from service_role;
  end if;
end;
$$;

-- Each ticket that is done leaves a dead entry at the front of tickets_unprocessed, which every sweep begins by passing over.
-- By default they would pile up to a fifth of the table before it is vacuumed, and stay even then while few pages are concerned.
do $$
begin
  if not exists (
    select
    from pg_catalog.pg_class
    where oid = 'public.tickets'::regclass
      and reloptions::text like '%autovacuum_vacuum_%'
  ) then
    alter table public.tickets set (
      autovacuum_vacuum_scale_factor = 0,
      autovacuum_vacuum_threshold = 50000,
      vacuum_index_cleanup = on
    );
  end if;
end;
$$;
