"""The library's own default (base64, decoded by it) against plain numbers. Prints one JSON object."""

import json
import os
import sys

import openai

client = openai.OpenAI(api_key=os.environ["SCIBOX_API_KEY"], base_url=os.environ["SCIBOX_BASE_URL"])
texts = ["Привет, мир", "Hello, world", "你好"]
by_default = client.embeddings.create(model="multilingual-e5-small", input=texts)
as_numbers = client.embeddings.create(model="multilingual-e5-small", input=texts, encoding_format="float")
json.dump(
    {
        "by default": [item.embedding for item in by_default.data],
        "as numbers": [item.embedding for item in as_numbers.data],
        "model": by_default.model,
    },
    sys.stdout,
)
