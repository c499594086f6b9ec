"""LiteLLM as a client of an OpenAI-compatible service."""

import json

import litellm
from telling import (
    BASE_URL,
    CHAT,
    EMBEDDER,
    HELLO,
    SECRET,
    STORY,
    TEXTS,
    WEATHER,
    WEATHER_QUESTION,
    WEATHER_TOOL,
    arrivals,
    error_of,
    thing,
)

there = {"api_base": BASE_URL, "api_key": SECRET, "num_retries": 0, "max_retries": 0, "temperature": 0}
hello = [{"role": "user", "content": HELLO}]
question = [{"role": "user", "content": WEATHER_QUESTION}]
NAME = f"openai/{CHAT}"


@thing
def chat():
    """One question, one answer."""
    one = litellm.completion(model=NAME, messages=hello, max_tokens=16, **there)
    return {
        "text": one.choices[0].message.content,
        "finish": one.choices[0].finish_reason,
        "usage": [one.usage.prompt_tokens, one.usage.completion_tokens, one.usage.total_tokens],
    }


@thing
def stream():
    """The text of a stream as it comes, usage at the end."""
    chunks = []

    def texts():
        chunks.clear()
        for chunk in litellm.completion(
            model=NAME,
            messages=[{"role": "user", "content": STORY}],
            max_tokens=48,
            stream=True,
            stream_options={"include_usage": True},
            **there,
        ):
            chunks.append(chunk)
            yield chunk.choices[0].delta.content if chunk.choices else None

    found = arrivals(texts)
    usage = chunks[-1].usage
    return {**found, "usage": [usage.prompt_tokens, usage.completion_tokens, usage.total_tokens]}


@thing
def forced_tool():
    """A function that must be called."""
    one = litellm.completion(
        model=NAME,
        messages=question,
        max_tokens=96,
        tools=[WEATHER_TOOL],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        **there,
    )
    calls = one.choices[0].message.tool_calls or []
    return {
        "calls": [
            {"name": call.function.name, "arguments": json.loads(call.function.arguments)} for call in calls
        ],
        "finish": one.choices[0].finish_reason,
    }


@thing
def structured():
    """JSON of a schema."""
    wanted = {"type": "json_schema", "json_schema": {"name": "weather", "strict": True, "schema": WEATHER}}
    one = litellm.completion(model=NAME, messages=question, max_tokens=64, response_format=wanted, **there)
    return {"object": json.loads(one.choices[0].message.content)}


@thing
def completion():
    """A text continued."""
    one = litellm.text_completion(
        model=f"text-completion-openai/{CHAT}", prompt="Once upon a time", max_tokens=12, **there
    )
    return {"text": one.choices[0].text}


@thing
def responses():
    """The Responses API."""
    one = litellm.responses(model=NAME, input=HELLO, max_output_tokens=16, **there)
    return {"text": one.output_text}


@thing
def embeddings():
    """Vectors of several texts."""
    one = litellm.embedding(
        model=f"openai/{EMBEDDER}", input=TEXTS, api_base=BASE_URL, api_key=SECRET, max_retries=0
    )
    return {"vectors": [item["embedding"] for item in one.data]}


@thing
def errors():
    """What the errors become."""

    def call(**changes):
        given = {"model": NAME, "messages": hello, **there}
        return error_of(lambda: litellm.completion(**{**given, **changes}))

    return {
        "wrong key": call(api_key="sk-scibox-nobody"),
        "wrong model": call(model="openai/no-such-model"),
        "bad request": call(temperature=9),
    }
