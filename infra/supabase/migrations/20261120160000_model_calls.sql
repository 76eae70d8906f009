-- What each attempt took, call by call: with a decision, or without one. And who is having a text classified right now.

alter table public.ticket_decisions
  -- The model as the provider names it in its answer.
  add column served_model text,
  -- In the currency of the settings; null where no price is known.
  add column cost numeric,
  -- What the original of a reused decision took.
  add column saved_tokens integer,
  add column saved_cost numeric,
  add column calls jsonb not null default '[]';

alter table public.ticket_work
  -- What the model has answered since then tells an outage from a ticket that fails by itself.
  add column last_failed_at timestamptz;

-- Attempts that took calls and left no labels, never changed: with the decisions they are all that was spent.
create table public.ticket_failures (
  id bigint generated always as identity primary key,
  ticket_id uuid not null,
  failed_at timestamptz not null default now(),
  attempt integer not null,
  kind text not null,
  reason text not null,
  -- As in ticket_decisions.
  text_sha256 bytea not null,
  -- A model answered, whatever it said: it can be reached.
  answered boolean not null,
  tokens_in integer,
  tokens_out integer,
  cost numeric,
  calls jsonb not null,
  constraint ticket_failures_hash_is_sha256 check (octet_length(text_sha256) = 32)
);

create index ticket_failures_by_ticket
  on public.ticket_failures (ticket_id, id);

create index ticket_failures_by_time
  on public.ticket_failures (failed_at);

-- An outage leaves many that were not answered; whether anybody was must not cost a look at them all.
create index ticket_failures_answered
  on public.ticket_failures (failed_at)
  where answered;

create function public.ticket_failures_are_final()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
  raise exception 'ticket_failures is append-only'
    using errcode = 'restrict_violation';
end;
$$;

revoke all on function public.ticket_failures_are_final() from public;

create trigger ticket_failures_are_final
  before update or delete or truncate on public.ticket_failures
  for each statement
  execute function public.ticket_failures_are_final();

-- One row for each text that is being classified: other tickets with the same text wait for its decision.
create table public.ticket_text_locks (
  -- As in ticket_decisions.
  text_sha256 bytea primary key,
  -- The ticket's, in ticket_work.
  lease_token uuid not null unique,
  -- The end of that lease: then anybody may take the lock over.
  held_until timestamptz not null,
  constraint ticket_text_locks_hash_is_sha256 check (octet_length(text_sha256) = 32)
);

alter table public.ticket_text_locks set (
  fillfactor = 70,
  autovacuum_vacuum_scale_factor = 0.02,
  autovacuum_vacuum_threshold = 200
);

alter table public.ticket_failures enable row level security;
alter table public.ticket_text_locks enable row level security;

revoke all on public.ticket_failures, public.ticket_text_locks from public;

do $$
begin
  if exists (select from pg_catalog.pg_roles where rolname = 'ticket_functions') then
    grant select, insert on public.ticket_failures to ticket_functions;
    grant select, insert, update, delete on public.ticket_text_locks to ticket_functions;

    create policy "The app reads failures" on public.ticket_failures
      for select to ticket_functions using (true);
    create policy "The app records failures" on public.ticket_failures
      for insert to ticket_functions with check (true);
    create policy "The app keeps its locks" on public.ticket_text_locks
      for all to ticket_functions using (true) with check (true);
  end if;

  if exists (select from pg_catalog.pg_roles where rolname = 'anon') then
    revoke all on public.ticket_failures, public.ticket_text_locks from anon;
    revoke all on sequence public.ticket_failures_id_seq from anon;
    revoke all on function public.ticket_failures_are_final() from anon;
  end if;

  if exists (select from pg_catalog.pg_roles where rolname = 'authenticated') then
    revoke all on public.ticket_failures, public.ticket_text_locks from authenticated;
    revoke all on sequence public.ticket_failures_id_seq from authenticated;
    revoke all on function public.ticket_failures_are_final() from authenticated;
  end if;

  if exists (select from pg_catalog.pg_roles where rolname = 'service_role') then
    revoke all on public.ticket_failures, public.ticket_text_locks from service_role;
    revoke all on sequence public.ticket_failures_id_seq from service_role;
    revoke all on function public.ticket_failures_are_final() from service_role;
    grant select on public.ticket_failures, public.ticket_text_locks to service_role;

    create policy "The service role reads failures" on public.ticket_failures
      for select to service_role using (true);
    create policy "The service role reads locks" on public.ticket_text_locks
      for select to service_role using (true);
  end if;
end;
$$;
