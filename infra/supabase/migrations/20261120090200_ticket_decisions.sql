-- The evidence: one row for each committed classification, never changed.
-- It holds no ticket text, only its hash, and outlives the ticket.
create table public.ticket_decisions (
  id bigint generated always as identity primary key,
  ticket_id uuid not null,
  decided_at timestamptz not null default now(),
  category text not null,
  sentiment text not null,
  confidence real,
  needs_review boolean not null default false,
  source text not null,
  provider text not null,
  model text not null,
  prompt_version text not null,
  taxonomy_version text not null,
  parameters jsonb not null,
  -- SHA-256 of the text in UTF-8, after Unicode normalisation (NFC) and trimming.
  text_sha256 bytea not null,
  tokens_in integer,
  tokens_out integer,
  model_calls integer not null,
  latency_ms integer not null,
  attempts integer not null,
  constraint ticket_decisions_source_known check (source in ('model', 'reused', 'baseline')),
  constraint ticket_decisions_confidence_is_share check (confidence between 0 and 1),
  constraint ticket_decisions_hash_is_sha256 check (octet_length(text_sha256) = 32)
);

create index ticket_decisions_by_ticket
  on public.ticket_decisions (ticket_id, id);

-- Finds an earlier decision on the same text.
create index ticket_decisions_by_text
  on public.ticket_decisions (text_sha256, id);

-- Tells whether the model has answered anybody since a given moment.
create index ticket_decisions_by_time
  on public.ticket_decisions (decided_at);

create function public.ticket_decisions_are_final()
returns trigger
language plpgsql
set search_path = ''
as $$
begin
  raise exception 'ticket_decisions is append-only'
    using errcode = 'restrict_violation';
end;
$$;

revoke all on function public.ticket_decisions_are_final() from public;

create trigger ticket_decisions_are_final
  before update or delete or truncate on public.ticket_decisions
  for each statement
  execute function public.ticket_decisions_are_final();
