// The `openai` library for Node.js.
import OpenAI from "openai";
import { zodResponseFormat, zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";
import {
  baseURL, secret, CHAT, EMBEDDER, HELLO, STORY, TEXTS, WEATHER, WEATHER_QUESTION, arrivals, errorOf, thing,
} from "./telling.mjs";

const client = new OpenAI({ baseURL, apiKey: secret, maxRetries: 0 });
const chat = client.chat.completions;
const hello = [{ role: "user", content: HELLO }];
const story = [{ role: "user", content: STORY }];
const question = [{ role: "user", content: WEATHER_QUESTION }];
const tool = { type: "function", function: { name: "get_weather", description: "Weather.", parameters: WEATHER } };
const Weather = z.object({
  city: z.enum(["Moscow", "Paris", "Tokyo"]),
  unit: z.enum(["celsius", "fahrenheit"]),
  days: z.int().min(1).max(7),
});

const usageOf = ({ usage }) => [usage.prompt_tokens, usage.completion_tokens, usage.total_tokens];
const callsOf = ({ tool_calls }) =>
  (tool_calls ?? []).map((call) => ({ name: call.function.name, arguments: JSON.parse(call.function.arguments) }));

await thing("chat", async () => {
  const one = await chat.create({ model: CHAT, messages: hello, max_tokens: 16, temperature: 0 });
  return { text: one.choices[0].message.content, finish: one.choices[0].finish_reason, usage: usageOf(one) };
});

await thing("stream", async () => {
  let last;
  const found = await arrivals(async function* () {
    const chunks = await chat.create({
      model: CHAT, messages: story, max_tokens: 48, temperature: 0, stream: true,
      stream_options: { include_usage: true },
    });
    for await (const chunk of chunks) {
      last = chunk;
      yield chunk.choices[0]?.delta.content;
    }
  });
  return { ...found, usage: usageOf(last) };
});

await thing("stream_helper", async () => {
  const runner = chat.stream({ model: CHAT, messages: story, max_tokens: 24, temperature: 0 });
  return { text: await runner.finalContent() };
});

await thing("leaves_a_stream", async () => {
  const chunks = await chat.create({ model: CHAT, messages: story, max_tokens: 1500, stream: true });
  for await (const chunk of chunks) if (chunk.choices[0]?.delta.content) break;
  const after = await chat.create({ model: CHAT, messages: hello, max_tokens: 16, temperature: 0 });
  return { text: after.choices[0].message.content };
});

await thing("raw", async () => {
  const { response, request_id: id } = await chat
    .create({ model: CHAT, messages: hello, max_tokens: 4 }).withResponse();
  return { headers: Object.fromEntries(response.headers), "request id": id };
});

await thing("forced_tool", async () => {
  const one = await chat.create({
    model: CHAT, messages: question, max_tokens: 96, tools: [tool],
    tool_choice: { type: "function", function: { name: "get_weather" } },
  });
  return { calls: callsOf(one.choices[0].message), finish: one.choices[0].finish_reason };
});

await thing("streamed_tool", async () => {
  const runner = chat.stream({
    model: CHAT, messages: question, max_tokens: 96, tools: [tool], tool_choice: "required",
  });
  const one = await runner.finalChatCompletion();
  return { calls: callsOf(one.choices[0].message), finish: one.choices[0].finish_reason };
});

await thing("structured", async () => {
  const one = await chat.parse({
    model: CHAT, messages: question, max_tokens: 64, response_format: zodResponseFormat(Weather, "weather"),
  });
  return { object: one.choices[0].message.parsed };
});

await thing("completion", async () => {
  const one = await client.completions.create({ model: CHAT, prompt: "Once upon a time", max_tokens: 12 });
  return { text: one.choices[0].text, finish: one.choices[0].finish_reason, usage: usageOf(one) };
});

await thing("response", async () => {
  const one = await client.responses.create({ model: CHAT, input: HELLO, max_output_tokens: 16, store: false });
  const { usage } = one;
  return {
    text: one.output_text, status: one.status,
    usage: [usage.input_tokens, usage.output_tokens, usage.total_tokens],
  };
});

await thing("response_stream", async () => {
  const kinds = [];
  const found = await arrivals(async function* () {
    kinds.length = 0;
    const events = await client.responses.create({
      model: CHAT, input: STORY, max_output_tokens: 48, temperature: 0, stream: true, store: false,
    });
    for await (const event of events) {
      kinds.push(event.type);
      yield event.type === "response.output_text.delta" ? event.delta : undefined;
    }
  });
  return { ...found, kinds };
});

await thing("response_parse", async () => {
  const one = await client.responses.parse({
    model: CHAT, input: WEATHER_QUESTION, max_output_tokens: 64, store: false,
    text: { format: zodTextFormat(Weather, "weather") },
  });
  return { object: one.output_parsed };
});

await thing("embeddings", async () => {
  const one = await client.embeddings.create({ model: EMBEDDER, input: TEXTS });
  return { vectors: one.data.map((item) => item.embedding) };
});

await thing("models", async () => {
  const listed = [];
  for await (const model of client.models.list()) listed.push(model.id);
  return { listed, one: (await client.models.retrieve(CHAT)).id };
});

await thing("errors", async () => {
  const stranger = new OpenAI({ baseURL, apiKey: "sk-scibox-nobody", maxRetries: 0 });
  return {
    "wrong key": await errorOf(() => stranger.models.list()),
    "wrong model": await errorOf(() => chat.create({ model: "no-such-model", messages: hello })),
    "bad request": await errorOf(() => chat.create({ model: CHAT, messages: [] })),
  };
});
