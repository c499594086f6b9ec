"""The Responses API with the `openai` library."""

import json

import openai
from shapes import Weather
from telling import BASE_URL, CHAT, HELLO, SECRET, STORY, WEATHER, WEATHER_QUESTION, arrivals, error_of, thing

client = openai.OpenAI(api_key=SECRET, base_url=BASE_URL, max_retries=0)
ask = client.responses
tool = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": WEATHER,
    "strict": True,
}


def told(response):
    """What the rules look at."""
    usage = response.usage
    return {
        "text": response.output_text,
        "status": response.status,
        "usage": [usage.input_tokens, usage.output_tokens, usage.total_tokens],
    }


def calls_of(response):
    """Each function call with its arguments decoded."""
    return [
        {"name": item.name, "arguments": json.loads(item.arguments)}
        for item in response.output
        if item.type == "function_call"
    ]


@thing
def response():
    """A question as one string."""
    return told(
        ask.create(model=CHAT, input=HELLO, instructions="You are polite.", max_output_tokens=16, store=False)
    )


@thing
def response_stream():
    """Events, and the text in their deltas."""
    kinds = []

    def texts():
        kinds.clear()
        for event in ask.create(model=CHAT, input=STORY, max_output_tokens=48, stream=True, store=False):
            kinds.append(event.type)
            yield event.delta if event.type == "response.output_text.delta" else None

    found = arrivals(texts)
    return {**found, "kinds": kinds}


@thing
def response_stream_helper():
    """The helper that keeps the state of a stream."""
    with ask.stream(model=CHAT, input=HELLO, temperature=0, store=False) as events:
        kinds = [event.type for event in events]
        final = events.get_final_response()
    return {"kinds": kinds, **told(final)}


@thing
def response_tool():
    """A function that must be called, its result, an answer in words."""
    question = [{"role": "user", "content": WEATHER_QUESTION}]
    one = ask.create(
        model=CHAT, input=question, tools=[tool], tool_choice="required", max_output_tokens=96, store=False
    )
    [call] = [item for item in one.output if item.type == "function_call"]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "Snow, minus three."}
    two = ask.create(
        model=CHAT,
        input=[*question, call.model_dump(exclude_none=True), result],
        tools=[tool],
        tool_choice="none",
        max_output_tokens=16,
        store=False,
    )
    return {"calls": calls_of(one), "after": told(two)}


@thing
def response_tool_stream():
    """The same in events."""
    with ask.stream(
        model=CHAT,
        input=WEATHER_QUESTION,
        tools=[tool],
        tool_choice={"type": "function", "name": "get_weather"},
        max_output_tokens=96,
        store=False,
    ) as events:
        kinds = [event.type for event in events]
        final = events.get_final_response()
    return {"calls": calls_of(final), "kinds": kinds}


@thing
def response_schema():
    """JSON of a schema."""
    wanted = {"format": {"type": "json_schema", "name": "weather", "schema": WEATHER, "strict": True}}
    one = ask.create(model=CHAT, input=WEATHER_QUESTION, text=wanted, max_output_tokens=64, store=False)
    return {"object": json.loads(one.output_text)}


@thing
def response_parse():
    """A schema from a class, and an object of it."""
    one = ask.parse(
        model=CHAT, input=WEATHER_QUESTION, text_format=Weather, max_output_tokens=64, store=False
    )
    return {"object": one.output_parsed.model_dump()}


@thing
def response_errors():
    """What the errors become."""
    stranger = openai.OpenAI(api_key="sk-scibox-nobody", base_url=BASE_URL, max_retries=0).responses
    return {
        "wrong key": error_of(lambda: stranger.create(model=CHAT, input=HELLO)),
        "wrong model": error_of(lambda: ask.create(model="no-such-model", input=HELLO)),
        "bad request": error_of(lambda: ask.create(model=CHAT, input=[])),
        "earlier answer": error_of(
            lambda: ask.create(model=CHAT, input=HELLO, previous_response_id="resp_1")
        ),
    }
