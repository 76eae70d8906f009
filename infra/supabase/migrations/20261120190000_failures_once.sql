-- A failed attempt is recorded once, also when the receipt for it was lost and the statement came again.

alter table public.ticket_failures
  -- Whose claim made the attempt; null in rows from before.
  add column lease_token uuid;

create unique index ticket_failures_once
  on public.ticket_failures (lease_token);
