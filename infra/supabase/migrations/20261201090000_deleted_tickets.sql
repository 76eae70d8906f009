-- A session keeps the plan of its first deletion, often of one ticket and from a table of work that was empty. By such a plan
-- a hundred thousand tickets that were deleted at once were each compared with each piece of work: now each is looked up.
create or replace function public.ticket_work_of_deleted_tickets()
returns trigger
language plpgsql
security definer
set search_path = ''
set enable_seqscan = off
as $$
begin
  if tg_op = 'TRUNCATE' then
    delete from public.ticket_work;
  else
    delete from public.ticket_work
    where ticket_id = any(array(select id from deleted));
  end if;

  return null;
end;
$$;
