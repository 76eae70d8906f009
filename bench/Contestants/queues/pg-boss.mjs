// pg-boss.mjs fill | drain. At its fastest: four workers that fetch batches and work on each job of a batch at once.
import { PgBoss } from 'pg-boss';
import { concurrency, connectionString, database, processTicket, report, tickets } from './tickets.mjs';

const workers = 4;
const queue = 'tickets';
const boss = new PgBoss({ connectionString, max: 20 });
boss.on('error', error => console.error(String(error)));
await boss.start();
if (process.argv[2] === 'fill') {
  await boss.createQueue(queue);
  const { rows } = await database.query('select id, description from tickets where not processed order by created_at, id');
  for (let first = 0; first < rows.length; first += 1000) {
    await boss.insert(queue, rows.slice(first, first + 1000).map(data => ({ data })));
  }
  await database.query('analyze');
  process.exit(0);
}

let done = 0;
let finish;
const finished = new Promise(resolve => (finish = resolve));
const started = performance.now();
await boss.work(
  queue,
  { batchSize: Math.max(2, concurrency / workers), localConcurrency: workers, pollingIntervalSeconds: 0.5, burstWhenBatchFull: true },
  async jobs => {
    await Promise.all(jobs.map(job => processTicket(job.data)));
    done += jobs.length;
    if (done === tickets) finish();
  },
);
await finished;
await report(started, done, `select count(*)::int as count from pgboss.job where name = '${queue}' and state <> 'completed'`);
process.exit(0);
