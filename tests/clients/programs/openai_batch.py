"""Files and batches with the `openai` library, as its manual shows them."""

import io
import json
import time

import openai
from telling import BASE_URL, CHAT, EMBEDDER, SECRET, TEXTS, error_of, thing

client = openai.OpenAI(api_key=SECRET, base_url=BASE_URL, max_retries=0)
OVER = {"completed", "failed", "expired", "cancelled"}


def line(number, **body):
    """A line of an input file: one chat call."""
    message = {"role": "user", "content": f"Say the number {number}."}
    whole = {"model": CHAT, "messages": [message], "max_tokens": 8, **body}
    return {"custom_id": f"line-{number}", "method": "POST", "url": "/v1/chat/completions", "body": whole}


def upload(lines):
    """A file for a batch."""
    content = "".join(json.dumps(item) + "\n" for item in lines)
    return client.files.create(file=("in.jsonl", io.BytesIO(content.encode())), purpose="batch")


def start(lines, endpoint="/v1/chat/completions"):
    """A batch over these lines."""
    return client.batches.create(
        input_file_id=upload(lines).id, endpoint=endpoint, completion_window="24h", metadata={"job": "test"}
    )


def wait(batch, states=OVER):
    """The batch when it is over, or in another of these states."""
    deadline = time.monotonic() + 120
    while batch.status not in states and time.monotonic() < deadline:
        time.sleep(0.1)
        batch = client.batches.retrieve(batch.id)
    return batch


def results(file_id):
    """What a result file says of each line."""
    lines = [json.loads(text) for text in client.files.content(file_id).text.splitlines()]
    return {item["custom_id"]: item["response"] for item in lines}


def counts_of(batch):
    """Lines in all, done, failed."""
    counts = batch.request_counts
    return [counts.total, counts.completed, counts.failed]


@thing
def files():
    """A file uploaded, read, listed, removed."""
    content = b'{"custom_id": "line-1"}\n'
    one = client.files.create(file=("in.jsonl", content), purpose="batch")
    again = client.files.retrieve(one.id)
    return {
        "object": [one.object, one.purpose, one.filename, one.bytes],
        "same": again.model_dump() == one.model_dump(),
        "content": client.files.content(one.id).read() == content,
        "listed": one.id in [item.id for item in client.files.list()],
        "deleted": client.files.delete(one.id).deleted,
        "gone": error_of(lambda: client.files.retrieve(one.id)),
        "refused": error_of(lambda: client.files.create(file=("in.jsonl", content), purpose="assistants")),
    }


@thing
def batch_of_chats():
    """Three lines, one of them wrong: an output file, an error file, counts."""
    created = start([line(1), line(2), line(3, temperature=99)])
    done = wait(created)
    return {
        "created": created.status,
        "status": done.status,
        "metadata": done.metadata,
        "counts": counts_of(done),
        "texts": {
            name: item["body"]["choices"][0]["message"]["content"]
            for name, item in results(done.output_file_id).items()
        },
        "errors": {name: item["status_code"] for name, item in results(done.error_file_id).items()},
    }


@thing
def batch_of_embeddings():
    """A text in every line: the same vectors as at once."""
    lines = [
        {
            "custom_id": f"text-{number}",
            "method": "POST",
            "url": "/v1/embeddings",
            "body": {"model": EMBEDDER, "input": text},
        }
        for number, text in enumerate(TEXTS)
    ]
    found = results(wait(start(lines, "/v1/embeddings")).output_file_id)
    return {
        "vectors": [found[f"text-{number}"]["body"]["data"][0]["embedding"] for number in range(len(TEXTS))]
    }


@thing
def batch_refused():
    """The same name twice: the batch fails and says why."""
    failed = wait(start([line(1), line(1)]))
    return {"status": failed.status, "errors": [[error.code, error.message] for error in failed.errors.data]}


@thing
def batch_cancelled():
    """A long one, cancelled while it runs, and a call after it."""
    long = start([line(number, max_tokens=200) for number in range(200)])
    asked = client.batches.cancel(wait(long, OVER | {"in_progress"}).id)
    done = wait(asked)
    after = client.chat.completions.create(
        model=CHAT, messages=[{"role": "user", "content": "Hello."}], max_tokens=4
    )
    return {
        "asked": asked.status,
        "status": done.status,
        "counts": counts_of(done),
        "listed": done.id in [batch.id for batch in client.batches.list(limit=1)],
        "after": after.choices[0].message.content,
    }
