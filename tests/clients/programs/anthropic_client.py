"""The Messages API with the `anthropic` library."""

from typing import Literal

import anthropic
from pydantic import BaseModel
from telling import BASE_URL, CHAT, HELLO, SECRET, STORY, WEATHER, WEATHER_QUESTION, arrivals, error_of, thing

ADDRESS = BASE_URL.removesuffix("/v1")  # the library adds it
client = anthropic.Anthropic(api_key=SECRET, base_url=ADDRESS, max_retries=0)
ask = client.messages
COLD = {"temperature": 0}  # the library no longer has the argument; the API has the field
hello = [{"role": "user", "content": HELLO}]
story = [{"role": "user", "content": STORY}]
question = [{"role": "user", "content": WEATHER_QUESTION}]
tool = {"name": "get_weather", "description": "The weather of a city.", "input_schema": WEATHER}


class Weather(BaseModel):
    """The weather of a city; the library would drop bounds of a number from the schema."""

    city: Literal["Moscow", "Paris", "Tokyo"]
    unit: Literal["celsius", "fahrenheit"]
    days: Literal[1, 3, 7]


def told(message):
    """What the rules look at."""
    return {
        "text": "".join(block.text for block in message.content if block.type == "text"),
        "finish": message.stop_reason,
        "usage": [
            message.usage.input_tokens,
            message.usage.output_tokens,
            message.usage.input_tokens + message.usage.output_tokens,
        ],
    }


def calls_of(message):
    """Each tool use."""
    return [
        {"name": block.name, "arguments": block.input}
        for block in message.content
        if block.type == "tool_use"
    ]


@thing
def chat():
    """One question, one answer."""
    return told(
        ask.create(model=CHAT, messages=hello, system="You are polite.", max_tokens=16, extra_body=COLD)
    )


@thing
def stream():
    """The text of a stream as it comes."""
    finals = []

    def texts():
        with ask.stream(model=CHAT, messages=story, max_tokens=48, extra_body=COLD) as events:
            yield from events.text_stream
            finals.append(events.get_final_message())

    return {**arrivals(texts), **told(finals[-1])}


@thing
def events():
    """The kinds of events in their order."""
    found = [event.type for event in ask.create(model=CHAT, messages=story, max_tokens=8, stream=True)]
    return {"first": found[:2], "last": found[-3:], "kinds": sorted(set(found))}


@thing
def several_turns():
    """Content in blocks, and an earlier answer."""
    return told(
        ask.create(
            model=CHAT,
            system=[{"type": "text", "text": "You are brief."}],
            messages=[
                {"role": "user", "content": [{"type": "text", "text": "Hello."}]},
                {"role": "assistant", "content": [{"type": "text", "text": "Hello, reader."}]},
                {"role": "user", "content": "And again?"},
            ],
            max_tokens=8,
            extra_body={"temperature": 0.2, "top_p": 0.9},
            stop_sequences=["!"],
        )
    )


@thing
def forced_tool():
    """A tool that must be used."""
    one = ask.create(
        model=CHAT,
        messages=question,
        tools=[tool],
        tool_choice={"type": "tool", "name": "get_weather"},
        max_tokens=96,
    )
    return {"calls": calls_of(one), "finish": one.stop_reason}


@thing
def required_tool():
    """Some tool must be used."""
    one = ask.create(model=CHAT, messages=question, tools=[tool], tool_choice={"type": "any"}, max_tokens=96)
    return {"calls": calls_of(one), "finish": one.stop_reason}


@thing
def streamed_tool():
    """The same in events, put together by the library."""
    with ask.stream(
        model=CHAT, messages=question, tools=[tool], tool_choice={"type": "any"}, max_tokens=96
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    return {"calls": calls_of(final), "finish": final.stop_reason, "kinds": kinds}


@thing
def tool_answered():
    """A use, its result, an answer in words."""
    one = ask.create(model=CHAT, messages=question, tools=[tool], tool_choice={"type": "any"}, max_tokens=96)
    [use] = [block for block in one.content if block.type == "tool_use"]
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "Snow, minus three."}
    two = ask.create(
        model=CHAT,
        messages=[
            *question,
            {"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in one.content]},
            {"role": "user", "content": [result]},
        ],
        tools=[tool],
        tool_choice={"type": "none"},
        max_tokens=16,
    )
    return told(two)


@thing
def parse():
    """A schema from a class, and an object of it."""
    one = ask.parse(model=CHAT, messages=question, output_format=Weather, max_tokens=64)
    return {"object": one.parsed_output.model_dump()}


@thing
def counted():
    """The length of a prompt without an answer."""
    return {"input_tokens": ask.count_tokens(model=CHAT, messages=hello).input_tokens}


@thing
def errors():
    """What the errors become."""
    stranger = anthropic.Anthropic(api_key="sk-scibox-nobody", base_url=ADDRESS, max_retries=0)
    return {
        "wrong key": error_of(lambda: stranger.messages.create(model=CHAT, messages=hello, max_tokens=4)),
        "wrong model": error_of(lambda: ask.create(model="no-such-model", messages=hello, max_tokens=4)),
        "bad request": error_of(lambda: ask.create(model=CHAT, messages=[], max_tokens=4)),
    }
