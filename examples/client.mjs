// The whole journey with the official SDK for Node: a file, a job, a tuned answer.
//
//     npm install openai
//     export OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=...     (`luthierd up` prints both)
//     node examples/client.mjs

import { createReadStream } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import OpenAI from "openai";

const client = new OpenAI();
const rows = createReadStream(new URL("demo/training.jsonl", import.meta.url));
const trainingFile = await client.files.create({ file: rows, purpose: "fine-tune" });
let job = await client.fineTuning.jobs.create({
  model: "luthier-tiny",
  training_file: trainingFile.id,
  method: { type: "supervised", supervised: { hyperparameters: { n_epochs: 6, batch_size: 8 } } },
});
while (!["succeeded", "failed", "cancelled"].includes(job.status)) {
  await sleep(5000);
  job = await client.fineTuning.jobs.retrieve(job.id);
  console.log(job.id, job.status);
}
if (job.fine_tuned_model === null) throw new Error(job.error?.message ?? job.status);

const messages = [{ role: "user", content: "Do you post instruments to Norway?" }];
for (const model of [job.model, job.fine_tuned_model]) {
  const answer = await client.chat.completions.create({ model, messages, temperature: 0, max_tokens: 16 });
  console.log(`${model}: ${answer.choices[0].message.content}`);
}
