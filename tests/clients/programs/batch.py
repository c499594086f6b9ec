"""Files and batches, the whole way: upload, create, wait, read, list, cancel, remove. Prints one JSON object."""

import io
import json
import os
import sys
import time

import openai

client = openai.OpenAI(api_key=os.environ["SCIBOX_API_KEY"], base_url=os.environ["SCIBOX_BASE_URL"])


def line(number, **body):
    """A line of an input file: one chat call."""
    message = {"role": "user", "content": f"Say the number {number}."}
    body = {"model": "smollm2-135m-instruct", "messages": [message], "max_tokens": 8, **body}
    return {"custom_id": f"line-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def upload(lines):
    """A file for a batch."""
    content = "".join(json.dumps(item) + "\n" for item in lines)
    return client.files.create(file=("in.jsonl", io.BytesIO(content.encode())), purpose="batch")


def start(file, endpoint="/v1/chat/completions"):
    """A batch over a file."""
    return client.batches.create(
        input_file_id=file.id, endpoint=endpoint, completion_window="24h", metadata={"job": "test"}
    )


def wait(batch):
    """The batch when it is over."""
    while batch.status not in {"completed", "failed", "expired", "cancelled"}:
        time.sleep(0.2)
        batch = client.batches.retrieve(batch.id)
    return batch


def results(file_id):
    """Status and body of every line of a result file."""
    lines = [json.loads(text) for text in client.files.content(file_id).text.splitlines()]
    return {item["custom_id"]: item["response"] for item in lines}


file = upload([line(1), line(2), line(3, temperature=99)])
created = start(file)
done = wait(created)

texts = [
    {
        "custom_id": f"text-{number}",
        "method": "POST",
        "url": "/v1/embeddings",
        "body": {"model": "multilingual-e5-small", "input": f"text {number}"},
    }
    for number in range(3)
]
embedded = wait(start(upload(texts), "/v1/embeddings"))

wrong = wait(start(upload([line(1), line(1)])))

long = start(upload([line(number, max_tokens=200) for number in range(200)]))
asked = client.batches.cancel(long.id)
cancelled = wait(asked)

try:
    client.files.create(file=("in.jsonl", b"x"), purpose="assistants")
    refusal = None
except openai.BadRequestError as error:
    refusal = error.param

pages = [batch.id for batch in client.batches.list(limit=1)]  # asks for the next page by itself
files = [item.id for item in client.files.list(limit=2)]
one = client.files.retrieve(file.id)
deleted = client.files.delete(file.id)
try:
    client.files.retrieve(file.id)
    gone = False
except openai.NotFoundError:
    gone = True

json.dump(
    {
        "file": one.model_dump(),
        "created": created.model_dump(),
        "done": done.model_dump(),
        "output": results(done.output_file_id),
        "errors": results(done.error_file_id),
        "vectors": {
            name: len(item["body"]["data"]) for name, item in results(embedded.output_file_id).items()
        },
        "wrong": [error.model_dump() for error in wrong.errors.data],
        "asked to cancel": asked.status,
        "cancelled": cancelled.model_dump(),
        "refused purpose": refusal,
        "batches": [pages, [long.id, wrong.id, embedded.id, done.id]],
        "files": [len(files), len(set(files))],
        "deleted": deleted.model_dump(),
        "gone": gone,
    },
    sys.stdout,
)
