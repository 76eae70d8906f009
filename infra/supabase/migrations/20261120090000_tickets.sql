-- The team's own table. It may exist already, with rows, and with a nullable `processed`.
create table if not exists public.tickets (
  id uuid primary key default gen_random_uuid(),
  created_at timestamptz default now(),
  description text not null,
  category text,
  sentiment text,
  processed boolean not null default false
);

-- A row that says it is processed and lacks a label was never classified.
update public.tickets
set processed = false
where processed is null
  or (processed and (category is null or sentiment is null));

alter table public.tickets
  alter column created_at set default now(),
  alter column processed set default false,
  alter column processed set not null;

alter table public.tickets
  drop constraint if exists tickets_processed_has_labels;

alter table public.tickets
  add constraint tickets_processed_has_labels
  check (not processed or (category is not null and sentiment is not null));

-- What the claim reads: only the rows still to do, so its cost does not grow with the rows done.
create index if not exists tickets_unprocessed
  on public.tickets (created_at, id)
  where not processed;
