-- Row level security, and the least each role needs. Supabase grants everything to its client roles by
-- default, so revoke first. On a plain Postgres those roles do not exist and their part is passed over.
alter table public.tickets enable row level security;
alter table public.ticket_work enable row level security;
alter table public.ticket_decisions enable row level security;
alter table public.ticket_heartbeat enable row level security;

revoke all on public.tickets, public.ticket_work, public.ticket_decisions, public.ticket_heartbeat from public;

do $$
begin
  if not exists (select from pg_catalog.pg_roles where rolname = 'ticket_functions') then
    create role ticket_functions nologin;
  end if;
exception
  -- Roles belong to the whole server: another database's migration may have made it this instant.
  when duplicate_object or unique_violation then null;
  when insufficient_privilege then
    raise notice 'role ticket_functions was not created: this login may not create roles';
end;
$$;

do $$
begin
  if exists (select from pg_catalog.pg_roles where rolname = 'ticket_functions') then
    grant usage on schema public to ticket_functions;
    grant select, update (category, sentiment, processed) on public.tickets to ticket_functions;
    grant select, insert, update, delete on public.ticket_work to ticket_functions;
    grant select, insert on public.ticket_decisions to ticket_functions;
    grant select, update (seen_at) on public.ticket_heartbeat to ticket_functions;

    drop policy if exists "The app reads tickets" on public.tickets;
    create policy "The app reads tickets" on public.tickets
      for select to ticket_functions using (true);
    drop policy if exists "The app labels tickets" on public.tickets;
    create policy "The app labels tickets" on public.tickets
      for update to ticket_functions using (true) with check (true);
    create policy "The app keeps its work" on public.ticket_work
      for all to ticket_functions using (true) with check (true);
    create policy "The app reads decisions" on public.ticket_decisions
      for select to ticket_functions using (true);
    create policy "The app records decisions" on public.ticket_decisions
      for insert to ticket_functions with check (true);
    create policy "The app reads its heartbeat" on public.ticket_heartbeat
      for select to ticket_functions using (true);
    create policy "The app writes its heartbeat" on public.ticket_heartbeat
      for update to ticket_functions using (true) with check (true);
  end if;

  if exists (select from pg_catalog.pg_roles where rolname = 'anon') then
    revoke all on public.tickets, public.ticket_work, public.ticket_decisions, public.ticket_heartbeat from anon;
    revoke all on sequence public.ticket_decisions_id_seq from anon;
    revoke all on function public.ticket_text_changed(), public.ticket_decisions_are_final() from anon;
  end if;

  if exists (select from pg_catalog.pg_roles where rolname = 'authenticated') then
    revoke all on public.tickets, public.ticket_work, public.ticket_decisions, public.ticket_heartbeat from authenticated;
    revoke all on sequence public.ticket_decisions_id_seq from authenticated;
    revoke all on function public.ticket_text_changed(), public.ticket_decisions_are_final() from authenticated;
    -- A dashboard reads tickets and opens new ones; labels come from the app alone.
    grant select, insert (description) on public.tickets to authenticated;
    drop policy if exists "Signed-in users read tickets" on public.tickets;
    create policy "Signed-in users read tickets" on public.tickets
      for select to authenticated using (true);
    drop policy if exists "Signed-in users open tickets" on public.tickets;
    create policy "Signed-in users open tickets" on public.tickets
      for insert to authenticated with check (not processed and category is null and sentiment is null);
  end if;

  if exists (select from pg_catalog.pg_roles where rolname = 'service_role') then
    revoke all on public.tickets, public.ticket_work, public.ticket_decisions, public.ticket_heartbeat from service_role;
    revoke all on sequence public.ticket_decisions_id_seq from service_role;
    revoke all on function public.ticket_text_changed(), public.ticket_decisions_are_final() from service_role;
    grant select, insert, update, delete on public.tickets to service_role;
    grant select on public.ticket_work, public.ticket_decisions to service_role;
    -- service_role bypasses row level security on Supabase; the policy says so for other servers.
    drop policy if exists "The service role manages tickets" on public.tickets;
    create policy "The service role manages tickets" on public.tickets
      for all to service_role using (true) with check (true);
    create policy "The service role reads work" on public.ticket_work
      for select to service_role using (true);
    create policy "The service role reads decisions" on public.ticket_decisions
      for select to service_role using (true);
  end if;

  -- Realtime: dashboards hear of each classification, which is one update.
  if exists (select from pg_catalog.pg_publication where pubname = 'supabase_realtime' and not puballtables)
    and not exists (
      select
      from pg_catalog.pg_publication_tables
      where pubname = 'supabase_realtime'
        and schemaname = 'public'
        and tablename = 'tickets'
    ) then
    alter publication supabase_realtime add table public.tickets;
  end if;
end;
$$;
