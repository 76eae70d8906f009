// graphile-worker.mjs fill | drain. At its fastest: jobs are fetched ahead into a local queue, and completed in batches.
import { Logger, makeWorkerUtils, run } from 'graphile-worker';
import { concurrency, connectionString, database, processTicket, report, tickets } from './tickets.mjs';

const logger = new Logger(() => () => {});
if (process.argv[2] === 'fill') {
  const utils = await makeWorkerUtils({ connectionString, logger });
  await utils.migrate();
  await database.query(`
    select count(*)
    from graphile_worker.add_jobs(array(
      select row('ticket', json_build_object('id', id, 'description', description), null, null, null, null, null, null)::graphile_worker.job_spec
      from tickets
      where not processed))`);
  await database.query('analyze');
  process.exit(0);
}

let done = 0;
let finish;
const finished = new Promise(resolve => (finish = resolve));
const maxPoolSize = Math.min(concurrency + 1, 33);
const started = performance.now();
await run({
  connectionString,
  logger,
  noHandleSignals: true,
  taskList: {
    ticket: async payload => {
      await processTicket(payload);
      if (++done === tickets) finish();
    },
  },
  preset: {
    worker: {
      connectionString,
      concurrentJobs: concurrency,
      maxPoolSize,
      localQueue: { size: Math.max(500, 2 * concurrency), refetchDelay: { durationMs: 10 } },
      completeJobBatchDelay: 0,
      failJobBatchDelay: 0,
    },
  },
});
await finished;
await report(started, done, 'select count(*)::int as count from graphile_worker._private_jobs');
process.exit(0);
