-- Work in progress. A row exists only while a ticket is in flight, waits for its next attempt, or is parked.
create table public.ticket_work (
  ticket_id uuid primary key references public.tickets (id) on delete cascade,
  attempts integer not null,
  -- Since when this text is being tried.
  first_attempt_at timestamptz not null default now(),
  -- Who holds the ticket. Every write on claimed work repeats it.
  lease_token uuid,
  -- When the ticket may be claimed next: the end of the lease while it is held, else of the backoff.
  due_at timestamptz not null,
  -- Set when the attempts are used up: nobody claims the ticket until somebody edits or revives it.
  parked_at timestamptz,
  last_error text,
  constraint ticket_work_attempts_not_negative check (attempts >= 0),
  constraint ticket_work_parked_is_not_held check (parked_at is null or lease_token is null)
);

create index ticket_work_due
  on public.ticket_work (due_at)
  where parked_at is null;

-- Rows come and go with every ticket: vacuum early, and leave room for updates in place.
alter table public.ticket_work set (
  fillfactor = 70,
  autovacuum_vacuum_scale_factor = 0.02,
  autovacuum_vacuum_threshold = 200
);

-- Labels belong to a text. When the text changes they are void, and the new text starts afresh,
-- unless the same update brings labels of its own (a person's correction). No column list on the trigger:
-- another trigger may be what changes the text.
create function public.ticket_text_changed()
returns trigger
language plpgsql
security definer
set search_path = ''
as $$
begin
  update public.ticket_work
  set attempts = 0,
    first_attempt_at = now(),
    parked_at = null,
    last_error = null,
    due_at = case when lease_token is null then now() else due_at end
  where ticket_id = new.id;

  if new.category is null
    or new.sentiment is null
    or (new.category = old.category and new.sentiment = old.sentiment) then
    new.processed := false;
    new.category := null;
    new.sentiment := null;
  end if;

  return new;
end;
$$;

revoke all on function public.ticket_text_changed() from public;

create trigger ticket_text_changed
  before update on public.tickets
  for each row
  when (new.description is distinct from old.description)
  execute function public.ticket_text_changed();

-- One row that readiness writes to: a database that only reads is not ready.
create table public.ticket_heartbeat (
  only_row boolean primary key default true,
  seen_at timestamptz not null default now(),
  constraint ticket_heartbeat_has_one_row check (only_row)
);

insert into public.ticket_heartbeat default values;
