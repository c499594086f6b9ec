"""The blocking client leaves streams after the first piece, both ways to stream. Prints one JSON object."""

import json
import os
import sys

import openai

client = openai.OpenAI(api_key=os.environ["SCIBOX_API_KEY"], base_url=os.environ["SCIBOX_BASE_URL"])
question = {
    "model": "smollm2-135m-instruct",
    "messages": [{"role": "user", "content": "Tell me a long story about a ship in a storm."}],
    "max_tokens": 2000,
}

with client.chat.completions.create(**question, stream=True) as stream:
    for chunk in stream:
        if chunk.choices and chunk.choices[0].delta.content:
            break

kinds = []
with client.chat.completions.stream(**question) as events:
    for event in events:
        kinds.append(event.type)
        if event.type == "content.delta":
            break

again = client.chat.completions.create(**{**question, "max_tokens": 4})
json.dump({"kinds": kinds, "again": again.choices[0].message.content}, sys.stdout)
