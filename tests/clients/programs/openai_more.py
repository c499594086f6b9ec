"""What else the `openai` library offers: completions, many calls at once, deadlines, leaving."""

import asyncio
import time

import openai
from telling import BASE_URL, CHAT, EMBEDDER, HELLO, SECRET, STORY, TEXTS, arrivals, error_of, thing

client = openai.OpenAI(api_key=SECRET, base_url=BASE_URL, max_retries=0)
hello = [{"role": "user", "content": HELLO}]
story = [{"role": "user", "content": STORY}]


@thing
def completion():
    """A text continued."""
    one = client.completions.create(model=CHAT, prompt="Once upon a time", max_tokens=12)
    return {
        "text": one.choices[0].text,
        "finish": one.choices[0].finish_reason,
        "usage": [one.usage.prompt_tokens, one.usage.completion_tokens, one.usage.total_tokens],
    }


@thing
def completion_stream():
    """The same in pieces."""

    def texts():
        for chunk in client.completions.create(
            model=CHAT, prompt="Once upon a time", max_tokens=32, temperature=0, stream=True
        ):
            yield chunk.choices[0].text if chunk.choices else None

    return arrivals(texts)


@thing
async def twenty_at_once():
    """Chats and embeddings of one asynchronous client together."""
    async with openai.AsyncOpenAI(api_key=SECRET, base_url=BASE_URL, max_retries=0) as many:
        chats = [
            many.chat.completions.create(model=CHAT, messages=hello, max_tokens=4, temperature=0)
            for _ in range(12)
        ]
        vectors = [many.embeddings.create(model=EMBEDDER, input=TEXTS) for _ in range(8)]
        answers = await asyncio.gather(*chats, *vectors)
    return {
        "texts": [answer.choices[0].message.content for answer in answers[:12]],
        "sizes": [[len(item.embedding) for item in answer.data] for answer in answers[12:]],
        "ids": len({answer.id for answer in answers[:12]}),
    }


@thing
def timeout():
    """A deadline that is too short, and the next call after it."""
    began = time.monotonic()
    hasty = client.with_options(timeout=0.3)
    error = error_of(lambda: hasty.chat.completions.create(model=CHAT, messages=story, max_tokens=1500))
    waited = time.monotonic() - began
    after = client.chat.completions.create(model=CHAT, messages=hello, max_tokens=4)
    return {"error": error, "waited": waited, "after": after.choices[0].message.content}


@thing
async def cancelled():
    """A task cancelled in the middle, and the next call after it."""
    async with openai.AsyncOpenAI(api_key=SECRET, base_url=BASE_URL, max_retries=0) as other:
        call = asyncio.ensure_future(
            other.chat.completions.create(model=CHAT, messages=story, max_tokens=1500)
        )
        await asyncio.sleep(0.3)
        call.cancel()
        (error,) = await asyncio.gather(call, return_exceptions=True)
        after = await other.chat.completions.create(model=CHAT, messages=hello, max_tokens=4)
    return {"error": type(error).__name__, "after": after.choices[0].message.content}


async def streamed(many):
    """Text, finish reason, model and usage of one stream, and when its pieces began and ended."""
    answer = await many.chat.completions.create(
        model=CHAT, messages=story, max_tokens=48, stream=True, stream_options={"include_usage": True}
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


@thing
async def eight_streams():
    """Streams that run side by side."""
    async with openai.AsyncOpenAI(api_key=SECRET, base_url=BASE_URL, max_retries=0) as many:
        return await asyncio.gather(*(streamed(many) for _ in range(8)))


@thing
def leaves_early():
    """Long streams left after their first pieces, both ways to stream, and the next call after them."""
    long = {"model": CHAT, "messages": story, "max_tokens": 1500, "temperature": 0}
    left, kinds = [], []
    for _ in range(4):
        pieces = 0
        with client.chat.completions.create(**long, stream=True) as chunks:
            for chunk in chunks:
                pieces += bool(chunk.choices and chunk.choices[0].delta.content)
                if pieces == 3:
                    break
        left.append(pieces)
    with client.chat.completions.stream(**long) as events:
        for event in events:
            kinds.append(event.type)
            if event.type == "content.delta":
                break
    after = client.chat.completions.create(model=CHAT, messages=hello, max_tokens=4)
    return {"left": left, "kinds": kinds, "text": after.choices[0].message.content}


@thing
def embeddings():
    """Vectors as the library asks for them: base64, which it decodes."""
    one = client.embeddings.create(model=EMBEDDER, input=TEXTS)
    return {"vectors": [item.embedding for item in one.data]}


@thing
def embeddings_as_numbers():
    """The same as plain numbers."""
    one = client.embeddings.create(model=EMBEDDER, input=TEXTS, encoding_format="float")
    return {"vectors": [item.embedding for item in one.data]}


@thing
def models():
    """The list, one of it, and an alias."""
    alias = client.models.retrieve("bge-m3")
    return {
        "listed": [model.id for model in client.models.list()],
        "one": client.models.retrieve(CHAT).id,
        "alias": [alias.id, alias.root],
    }


def error_in_detail(call):
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


@thing
def errors_in_detail():
    """What each error of the service becomes in the library."""
    stranger = openai.OpenAI(api_key="sk-scibox-nobody", base_url=BASE_URL, max_retries=0)
    ask = client.chat.completions.create
    long = [{"role": "user", "content": "word " * 200_000}]
    calls = {
        "wrong key": stranger.models.list,
        "wrong model": lambda: ask(model="smollm2-135m-instrukt", messages=hello),
        "wrong model, streamed": lambda: ask(model="smollm2-135m-instrukt", messages=hello, stream=True),
        "wrong model, retrieved": lambda: client.models.retrieve("no-such-model"),
        "no messages": lambda: ask(model=CHAT, messages=[]),
        "too long": lambda: ask(model=CHAT, messages=long),
        "too long, streamed": lambda: ask(model=CHAT, messages=long, stream=True),
        "empty text": lambda: client.embeddings.create(model=EMBEDDER, input=""),
    }
    return {what: error_in_detail(call) for what, call in calls.items()}
