// The Vercel AI SDK, unmodified, asks a model through /v1/responses: run by test_frameworks.py, as ask.py is.
//
//     node ask.mjs URL KEY MODEL URL KEY MODEL

import { createOpenAI } from "@ai-sdk/openai";
import { generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const weather = tool({
  description: "The weather of a city.",
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `rain in ${city}`,
});
// Several steps: nothing is stored here, so the SDK is to send the items themselves.
const steps = { tools: { weather }, stopWhen: stepCountIs(3), providerOptions: { openai: { store: false } } };

const asked = async (url, key, name, tools) => {
  const model = createOpenAI({ baseURL: url, apiKey: key })(name);
  const settings = { model, maxOutputTokens: 64, temperature: 0, maxRetries: 0, onError: () => {} };
  const whole = async (prompt, more = {}) => (await generateText({ ...settings, ...more, prompt })).text;
  const stream = async (prompt, more = {}) => {
    let said = "";
    for await (const part of streamText({ ...settings, ...more, prompt }).fullStream) {
      if (part.type === "error") throw part.error;
      if (part.type === "text-delta") said += part.text;
    }
    return said;
  };

  const said = { whole: await whole("Hello"), stream: await stream("Hello") };
  if (tools) {
    said["tools whole"] = await whole("Weather in Oslo?", steps);
    said["tools stream"] = await stream("Weather in Oslo?", steps);
    said.broken = await stream("Break off").then((text) => `no error: ${text}`, () => "raised an error");
  }
  return { "ai-sdk": said };
};

const words = process.argv.slice(2);
const found = [await asked(...words.slice(0, 3), true), await asked(...words.slice(3), false)];
process.stdout.write(JSON.stringify(found));
