// The whole journey with the official SDK for Node: a file, a job, a tuned answer, and what it made deleted again.
//
//     (cd examples/clients && npm install)
//     export OPENAI_BASE_URL=http://127.0.0.1:8000/v1 OPENAI_API_KEY=...     (`luthierd up` prints both)
//     node examples/clients/client.mjs

import { createReadStream } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import OpenAI from "openai";

const client = new OpenAI();
const rows = createReadStream(new URL("../demo/training.jsonl", import.meta.url));
const trainingFile = await client.files.create({ file: rows, purpose: "fine-tune" });
let job = await client.fineTuning.jobs.create({
  model: "luthier-tiny",
  training_file: trainingFile.id,
  suffix: "node",
  method: { type: "supervised", supervised: { hyperparameters: { n_epochs: 6, batch_size: 8 } } },
});

while (!["succeeded", "failed", "cancelled"].includes(job.status)) {
  await sleep(2000);
  job = await client.fineTuning.jobs.retrieve(job.id);
  const [newest] = (await client.fineTuning.jobs.listEvents(job.id, { limit: 1 })).data;
  console.log(`${job.status}: ${newest.message}`);
}
if (job.fine_tuned_model === null) throw new Error(job.error?.message ?? job.status);

const messages = [{ role: "user", content: "Do you post instruments to Norway?" }];
for (const model of [job.model, job.fine_tuned_model]) {
  const answer = await client.chat.completions.create({ model, messages, temperature: 0, max_tokens: 16 });
  console.log(`${model}: ${answer.choices[0].message.content}`);
}

const models = [];
for await (const model of client.models.list()) models.push(model.id);
console.log("models:", ...models);
const steps = [];
for await (const at of client.fineTuning.jobs.checkpoints.list(job.id)) steps.push(at.step_number);
console.log("checkpoints:", ...steps);
const result = await (await client.files.content(job.result_files[0])).text();
console.log("result:", Buffer.from(result, "base64").toString().split("\n")[0]);

// The last checkpoint is the tuned model itself. Jobs stay: OpenAI's API deletes none.
const made = [];
for await (const at of client.fineTuning.jobs.checkpoints.list(job.id)) made.push(at.fine_tuned_model_checkpoint);
for (const name of made) await client.models.delete(name);
const files = [trainingFile.id, ...job.result_files];
for (const id of files) await client.files.delete(id);
console.log("deleted:", ...made, ...files);
