-- Tells the app at once of new and edited tickets, by a request that is signed as https://www.standardwebhooks.com says.
-- Needs pg_net and Vault, which a Supabase project has, and these secrets. Until they are there it does nothing:
--   select vault.create_secret('https://<app>/process-ticket', 'ticket_functions_url');
--   select vault.create_secret('<function key>', 'ticket_functions_key');
--   select vault.create_secret('whsec_<base64>', 'ticket_functions_webhook_secret');

-- HMAC (RFC 2104) with what every Postgres has: where pgcrypto is installed, if it is, differs by project.
create function public.ticket_hmac_sha256(key bytea, message bytea)
returns bytea
language sql
immutable
strict
set search_path = ''
as $$
  with padded as (
    select short || decode(repeat('00', 64 - octet_length(short)), 'hex') as block
    from (select case when octet_length(key) > 64 then sha256(key) else key end as short) as keys
  ),
  pads as (
    select
      string_agg(set_byte('\x00', 0, get_byte(block, i) # 54), '' order by i) as inner_pad,
      string_agg(set_byte('\x00', 0, get_byte(block, i) # 92), '' order by i) as outer_pad
    from padded, generate_series(0, 63) as i
  )
  select sha256(outer_pad || sha256(inner_pad || message))
  from pads
$$;

-- The row itself is not sent: the app reads it anyway, it may be larger than a request may be, and pg_net's queue is open
-- to every login. Nobody's insert waits long for that queue's locks or fails because of it: what is not sent the sweep finds.
create function public.ticket_webhook()
returns trigger
language plpgsql
security definer
set search_path = ''
set lock_timeout = '200ms'
as $$
declare
  address text;
  function_key text;
  secret text;
  body jsonb;
  message_id text;
  signed_at text;
  signature bytea;
begin
  if to_regclass('vault.decrypted_secrets') is null
    or to_regprocedure('net.http_post(text, jsonb, jsonb, jsonb, integer)') is null then
    return null;
  end if;

  select
    max(decrypted_secret) filter (where name = 'ticket_functions_url'),
    max(decrypted_secret) filter (where name = 'ticket_functions_key'),
    max(decrypted_secret) filter (where name = 'ticket_functions_webhook_secret')
  into address, function_key, secret
  from vault.decrypted_secrets
  where name in ('ticket_functions_url', 'ticket_functions_key', 'ticket_functions_webhook_secret');
  if address is null or secret is null then
    return null;
  end if;

  body := jsonb_build_object(
    'type', tg_op,
    'schema', tg_table_schema,
    'table', tg_table_name,
    'record', jsonb_build_object('id', new.id, 'processed', new.processed),
    'old_record', null
  );
  message_id := 'msg_' || gen_random_uuid();
  signed_at := floor(extract(epoch from clock_timestamp()))::bigint;
  signature := public.ticket_hmac_sha256(
    decode(regexp_replace(secret, '^whsec_', ''), 'base64'),
    -- pg_net sends exactly body::text in UTF-8.
    convert_to(concat_ws('.', message_id, signed_at, body::text), 'UTF8')
  );
  perform net.http_post(
    url => address,
    body => body,
    headers => jsonb_strip_nulls(jsonb_build_object(
      'Content-Type', 'application/json',
      'x-functions-key', function_key,
      'webhook-id', message_id,
      'webhook-timestamp', signed_at,
      'webhook-signature', 'v1,' || encode(signature, 'base64')
    )),
    timeout_milliseconds => 5000
  );
  return null;
exception
  when others then
    -- Not sqlerrm: it may quote a secret.
    raise warning 'The webhook of ticket % was not sent (SQLSTATE %); the sweep will find the ticket.', new.id, sqlstate;
    return null;
end;
$$;

create trigger ticket_webhook_of_insert
  after insert on public.tickets
  for each row
  when (not new.processed)
  execute function public.ticket_webhook();

-- The app's own update is of other columns: no loop.
create trigger ticket_webhook_of_update
  after update of description on public.tickets
  for each row
  when (new.description is distinct from old.description and not new.processed)
  execute function public.ticket_webhook();

revoke all on function public.ticket_hmac_sha256(bytea, bytea), public.ticket_webhook() from public;

do $$
declare
  client text;
begin
  for client in
    select rolname
    from pg_catalog.pg_roles
    where rolname in ('anon', 'authenticated', 'service_role')
  loop
    execute format('revoke all on function public.ticket_hmac_sha256(bytea, bytea), public.ticket_webhook() from %I', client);
  end loop;
end;
$$;
