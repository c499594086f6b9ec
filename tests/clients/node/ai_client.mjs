// The AI SDK (`ai`) with `@ai-sdk/openai-compatible`.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { Output, embedMany, generateText, jsonSchema, stepCountIs, streamText, tool } from "ai";
import {
  baseURL, secret, CHAT, EMBEDDER, HELLO, STORY, TEXTS, WEATHER, WEATHER_QUESTION, arrivals, thing,
} from "./telling.mjs";

const provider = (apiKey) =>
  createOpenAICompatible({ name: "scibox", baseURL, apiKey, includeUsage: true, supportsStructuredOutputs: true });
const scibox = provider(secret);
const model = scibox(CHAT);
const once = { model, maxRetries: 0, temperature: 0 };
const usageOf = ({ inputTokens, outputTokens, totalTokens }) => [inputTokens, outputTokens, totalTokens];
const tools = {
  get_weather: tool({
    description: "The weather of a city.",
    inputSchema: jsonSchema(WEATHER),
    execute: async () => "Snow, minus three.",
  }),
};

await thing("chat", async () => {
  const one = await generateText({ ...once, prompt: HELLO, maxOutputTokens: 16 });
  return { text: one.text, finish: one.finishReason, usage: usageOf(one.usage) };
});

await thing("stream", async () => {
  let one;
  const found = await arrivals(() => {
    one = streamText({ ...once, prompt: STORY, maxOutputTokens: 48 });
    return one.textStream;
  });
  return { ...found, finish: await one.finishReason, usage: usageOf(await one.usage) };
});

await thing("leaves_a_stream", async () => {
  const leaving = new AbortController();
  const one = streamText({ ...once, prompt: STORY, maxOutputTokens: 1500, abortSignal: leaving.signal });
  for await (const text of one.textStream) {
    if (text) leaving.abort();
  }
  const after = await generateText({ ...once, prompt: HELLO, maxOutputTokens: 16 });
  return { text: after.text };
});

await thing("forced_tool", async () => {
  const one = await generateText({
    ...once, prompt: WEATHER_QUESTION, maxOutputTokens: 96, tools,
    toolChoice: { type: "tool", toolName: "get_weather" },
  });
  return {
    calls: one.toolCalls.map((call) => ({ name: call.toolName, arguments: call.input })),
    finish: one.finishReason,
  };
});

await thing("streamed_tool", async () => {
  const one = streamText({ ...once, prompt: WEATHER_QUESTION, maxOutputTokens: 96, tools, toolChoice: "required" });
  const calls = (await one.toolCalls).map((call) => ({ name: call.toolName, arguments: call.input }));
  return { calls, finish: await one.finishReason };
});

await thing("tool_answered", async () => {
  const one = await generateText({
    ...once, prompt: WEATHER_QUESTION, maxOutputTokens: 96, tools, stopWhen: stepCountIs(2),
    prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? "required" : "none" }),
  });
  return { text: one.text, steps: one.steps.length };
});

await thing("structured", async () => {
  const one = await generateText({
    ...once, prompt: WEATHER_QUESTION, maxOutputTokens: 64, output: Output.object({ schema: jsonSchema(WEATHER) }),
  });
  return { object: one.output };
});

await thing("structured_streamed", async () => {
  const one = streamText({
    ...once, prompt: WEATHER_QUESTION, maxOutputTokens: 64, output: Output.object({ schema: jsonSchema(WEATHER) }),
  });
  let states = 0;
  for await (const _ of one.partialOutputStream) states += 1;
  return { object: await one.output, states };
});

await thing("completion", async () => {
  const one = await generateText({
    model: scibox.completionModel(CHAT), prompt: "Once upon a time", maxOutputTokens: 12, maxRetries: 0,
  });
  return { text: one.text };
});

await thing("embeddings", async () => {
  const one = await embedMany({ model: scibox.embeddingModel(EMBEDDER), values: TEXTS, maxRetries: 0 });
  return { vectors: one.embeddings };
});

await thing("errors", async () => {
  const statusOf = async (settings) => {
    try {
      await generateText({ ...once, prompt: HELLO, ...settings });
    } catch (error) {
      return `${error.constructor.name} ${error.statusCode}`;
    }
    return "none";
  };
  return {
    "wrong key": await statusOf({ model: provider("sk-scibox-nobody")(CHAT) }),
    "wrong model": await statusOf({ model: scibox("no-such-model") }),
    "bad request": await statusOf({ temperature: 9 }),
  };
});
