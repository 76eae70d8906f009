// What both queues do with a ticket: one call to the model over kept connections, one prepared update.
import pg from 'pg';
import { Pool } from 'undici';

const prompt = `Clasifica el ticket de soporte. Responde solo con un objeto JSON con dos claves: "category" (Técnico, Facturación o Comercial)
y "sentiment" (Positivo, Neutral o Negativo), sin texto alrededor.

Ticket:
`;
const categories = new Set(['Técnico', 'Facturación', 'Comercial']);
const sentiments = new Set(['Positivo', 'Neutral', 'Negativo']);
const headers = { 'content-type': 'application/json', authorization: 'Bearer none' };
const address = new URL(process.env.MODEL + '/chat/completions');
const model = new Pool(address.origin, { connections: 1024, pipelining: 1 });

export const connectionString = process.env.DATABASE_URL;
export const concurrency = Number(process.env.CONCURRENCY);
export const tickets = Number(process.env.TICKETS);
export const database = new pg.Pool({ connectionString, max: 20 });

async function classify(description) {
  const answer = await model.request({
    path: address.pathname,
    method: 'POST',
    headers,
    body: JSON.stringify({
      model: 'stub',
      temperature: 0,
      max_tokens: 64,
      response_format: { type: 'json_object' },
      messages: [{ role: 'user', content: prompt + description }],
    }),
  });
  if (answer.statusCode !== 200) throw new Error(`the model answered ${answer.statusCode}`);
  const labels = JSON.parse((await answer.body.json()).choices[0].message.content);
  if (!categories.has(labels.category) || !sentiments.has(labels.sentiment)) throw new Error('the model answered no label');
  return labels;
}

export async function processTicket({ id, description }) {
  const { category, sentiment } = await classify(description);
  await database.query({
    name: 'update',
    text: 'update tickets set category = $1, sentiment = $2, processed = true where id = $3',
    values: [category, sentiment, id],
  });
}

// What Compare reads, when the queue itself has let go of its last job.
export async function report(started, done, left) {
  while ((await database.query(left)).rows[0].count > 0) await new Promise(resolve => setTimeout(resolve, 5));
  console.log('JSON ' + JSON.stringify({ done, milliseconds: Math.round(performance.now() - started) }));
}
