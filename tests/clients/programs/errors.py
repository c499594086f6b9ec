"""What each error of the service becomes in the library. Prints one JSON object."""

import json
import os
import sys

import openai

base_url, secret = os.environ["SCIBOX_BASE_URL"], os.environ["SCIBOX_API_KEY"]
client = openai.OpenAI(api_key=secret, base_url=base_url, max_retries=0)
stranger = openai.OpenAI(api_key="sk-scibox-nobody", base_url=base_url, max_retries=0)
hello = [{"role": "user", "content": "Hello"}]
chat = "smollm2-135m-instruct"


def attempt(call):
    """The error of one call, as a program would look at it."""
    try:
        call()
    except openai.APIStatusError as error:
        return {
            "class": type(error).__name__,
            "status": error.status_code,
            "code": error.code,
            "type": error.type,
            "param": error.param,
            "request_id": error.request_id,
            "message": error.body["message"],
        }
    return None


found = {
    "wrong key": attempt(stranger.models.list),
    "wrong model": attempt(
        lambda: client.chat.completions.create(model="smollm2-135m-instrukt", messages=hello)
    ),
    "wrong model, streamed": attempt(
        lambda: client.chat.completions.create(model="smollm2-135m-instrukt", messages=hello, stream=True)
    ),
    "wrong model, retrieved": attempt(lambda: client.models.retrieve("no-such-model")),
    "no messages": attempt(lambda: client.chat.completions.create(model=chat, messages=[])),
    "too long": attempt(
        lambda: client.chat.completions.create(
            model=chat, messages=[{"role": "user", "content": "word " * 200_000}]
        )
    ),
    "too long, streamed": attempt(
        lambda: client.chat.completions.create(
            model=chat, messages=[{"role": "user", "content": "word " * 200_000}], stream=True
        )
    ),
    "empty text": attempt(lambda: client.embeddings.create(model="multilingual-e5-small", input="")),
}
json.dump(found, sys.stdout)
