"""Eight streams at once, a stream left early, and the next call after it. Prints one JSON object."""

import asyncio
import json
import os
import sys
import time

import openai

client = openai.AsyncOpenAI(api_key=os.environ["SCIBOX_API_KEY"], base_url=os.environ["SCIBOX_BASE_URL"])
messages = [{"role": "user", "content": "Tell me a long story about a ship in a storm."}]


async def stream(max_tokens):
    """Text, finish reason, model and usage of one stream, and when its pieces began and ended."""
    answer = await client.chat.completions.create(
        model="smollm2-135m-instruct",
        messages=messages,
        max_tokens=max_tokens,
        stream=True,
        stream_options={"include_usage": True},
    )
    text, reason, usage, models, times = "", None, None, set(), []
    async for chunk in answer:
        models.add(chunk.model)
        usage = chunk.usage or usage
        for choice in chunk.choices:
            reason = choice.finish_reason or reason
            if choice.delta.content:
                text += choice.delta.content
                times.append(time.monotonic())
    return {
        "text": text,
        "reason": reason,
        "completion_tokens": usage.completion_tokens,
        "models": sorted(models),
        "first": times[0],
        "last": times[-1],
    }


async def leave_early():
    """Take three pieces of a long stream and close it."""
    answer = await client.chat.completions.create(
        model="smollm2-135m-instruct", messages=messages, max_tokens=2000, stream=True
    )
    pieces = 0
    async for chunk in answer:
        pieces += bool(chunk.choices and chunk.choices[0].delta.content)
        if pieces == 3:
            break
    await answer.close()
    return pieces


async def main():
    """All of it."""
    together = await asyncio.gather(*(stream(48) for _ in range(8)))
    left = [await leave_early() for _ in range(4)]
    after = await stream(8)
    json.dump({"together": together, "left": left, "after": after}, sys.stdout)
    await client.close()


asyncio.run(main())
