"""Chat completions with the `openai` library: every way it has of asking."""

import json

import openai
from shapes import Weather
from telling import (
    BASE_URL,
    CHAT,
    HELLO,
    SECRET,
    STORY,
    WEATHER,
    WEATHER_QUESTION,
    WEATHER_TOOL,
    arrivals,
    thing,
)

client = openai.OpenAI(api_key=SECRET, base_url=BASE_URL, max_retries=0)
ask = client.chat.completions
hello = [{"role": "user", "content": HELLO}]
story = [{"role": "user", "content": STORY}]
question = [{"role": "user", "content": WEATHER_QUESTION}]


def told(completion):
    """What the rules look at."""
    usage = completion.usage
    return {
        "text": completion.choices[0].message.content,
        "finish": completion.choices[0].finish_reason,
        "usage": [usage.prompt_tokens, usage.completion_tokens, usage.total_tokens],
    }


def calls_of(message):
    """Each tool call with its arguments decoded."""
    return [
        {"name": call.function.name, "arguments": json.loads(call.function.arguments)}
        for call in message.tool_calls or []
    ]


@thing
def chat():
    """One question, one answer."""
    return told(ask.create(model=CHAT, messages=hello, max_tokens=16, temperature=0))


@thing
def stream():
    """Pieces as they come, usage at the end."""
    chunks = []

    def texts():
        chunks.clear()
        for chunk in ask.create(
            model=CHAT,
            messages=story,
            max_tokens=48,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        ):
            chunks.append(chunk)
            yield chunk.choices[0].delta.content if chunk.choices else None

    found = arrivals(texts)
    usage = chunks[-1].usage
    finishes = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    return {
        **found,
        "finish": finishes,
        "usage": [usage.prompt_tokens, usage.completion_tokens, usage.total_tokens],
        "usages": sum(chunk.usage is not None for chunk in chunks),
    }


@thing
def stream_events():
    """The helper that keeps the state of a stream."""
    kinds = []
    with ask.stream(model=CHAT, messages=story, max_tokens=24, temperature=0) as events:
        for event in events:
            kinds.append(event.type)
        final = events.current_completion_snapshot
    return {"kinds": kinds, "text": final.choices[0].message.content}


@thing
def raw():
    """The headers of an answer."""
    answer = ask.with_raw_response.create(model=CHAT, messages=hello, max_tokens=4)
    return {
        "headers": {name.lower(): value for name, value in answer.headers.items()},
        "request id": answer.parse()._request_id,
    }


@thing
def several():
    """Two choices; usage counts both."""
    two = ask.create(model=CHAT, messages=hello, max_tokens=8, n=2, seed=7, temperature=1.0)
    return {"texts": [choice.message.content for choice in two.choices], "usage": two.usage.completion_tokens}


@thing
def seeded():
    """The same seed at temperature 0, twice."""
    return [
        ask.create(model=CHAT, messages=hello, max_tokens=12, seed=11, temperature=0)
        .choices[0]
        .message.content
        for _ in range(2)
    ]


@thing
def logprobs():
    """Probabilities of what was said."""
    one = ask.create(model=CHAT, messages=hello, max_tokens=3, logprobs=True, top_logprobs=2)
    return [
        {"token": item.token, "bytes": item.bytes, "top": len(item.top_logprobs), "logprob": item.logprob}
        for item in one.choices[0].logprobs.content
    ]


@thing
def stopped():
    """Ends before a word that was named."""
    one = ask.create(
        model=CHAT,
        messages=[{"role": "user", "content": "Count: one, two, three, four."}],
        max_tokens=24,
        temperature=0,
        logit_bias={},
        stop=[" "],
    )
    return told(one)


@thing
def forced_tool():
    """A function that must be called."""
    named = {"type": "function", "function": {"name": "get_weather"}}
    one = ask.create(model=CHAT, messages=question, max_tokens=96, tools=[WEATHER_TOOL], tool_choice=named)
    return {"calls": calls_of(one.choices[0].message), "finish": one.choices[0].finish_reason}


@thing
def required_tool():
    """Some function must be called."""
    other = {
        "type": "function",
        "function": {
            "name": "get_time",
            "parameters": {
                "type": "object",
                "properties": {"zone": {"enum": ["MSK", "UTC"]}},
                "required": ["zone"],
            },
        },
    }
    one = ask.create(
        model=CHAT, messages=question, max_tokens=96, tools=[other, WEATHER_TOOL], tool_choice="required"
    )
    return {"calls": calls_of(one.choices[0].message), "finish": one.choices[0].finish_reason}


@thing
def streamed_tool():
    """The same in deltas, put together by the library."""
    kinds = []
    with ask.stream(
        model=CHAT, messages=question, max_tokens=96, tools=[WEATHER_TOOL], tool_choice="required"
    ) as events:
        for event in events:
            kinds.append(event.type)
        choice = events.get_final_completion().choices[0]
    return {"calls": calls_of(choice.message), "finish": choice.finish_reason, "kinds": kinds}


@thing
def tool_answered():
    """A call, its result, an answer in words."""
    one = ask.create(
        model=CHAT, messages=question, max_tokens=96, tools=[WEATHER_TOOL], tool_choice="required"
    )
    message = one.choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "Snow, minus three."}
    two = ask.create(
        model=CHAT,
        messages=[*question, message.model_dump(exclude_none=True), result],
        max_tokens=16,
        tools=[WEATHER_TOOL],
        tool_choice="none",
    )
    return told(two)


@thing
def json_object():
    """JSON of the model's own choice."""
    one = ask.create(
        model=CHAT,
        messages=[{"role": "user", "content": "A JSON object with the key 'colour' and one colour."}],
        max_tokens=64,
        temperature=0,
        response_format={"type": "json_object"},
    )
    return told(one)


@thing
def json_schema():
    """JSON of a schema, as a dict."""
    wanted = {"type": "json_schema", "json_schema": {"name": "weather", "strict": True, "schema": WEATHER}}
    one = ask.create(model=CHAT, messages=question, max_tokens=64, response_format=wanted)
    return {"object": json.loads(one.choices[0].message.content)}


@thing
def parse():
    """A schema from a class, and an object of it."""
    one = ask.parse(model=CHAT, messages=question, max_tokens=64, response_format=Weather)
    return {"object": one.choices[0].message.parsed.model_dump()}


@thing
def parse_streamed():
    """The same in a stream."""
    with ask.stream(model=CHAT, messages=question, max_tokens=64, response_format=Weather) as events:
        for _ in events:
            pass
        final = events.get_final_completion()
    return {"object": final.choices[0].message.parsed.model_dump()}


@thing
def parse_tool():
    """A function from a class, and its arguments as an object of it."""
    tool = openai.pydantic_function_tool(Weather, name="get_weather")
    one = ask.parse(model=CHAT, messages=question, max_tokens=96, tools=[tool], tool_choice="required")
    [call] = one.choices[0].message.tool_calls
    return {"calls": [{"name": call.function.name, "arguments": call.function.parsed_arguments.model_dump()}]}


@thing
def roles():
    """Every role, and content in parts."""
    one = ask.create(
        model=CHAT,
        messages=[
            {"role": "system", "content": "You are brief."},
            {"role": "developer", "content": [{"type": "text", "text": "Answer in English."}]},
            {
                "role": "user",
                "content": [{"type": "text", "text": "Say"}, {"type": "text", "text": " hello."}],
            },
            {"role": "assistant", "content": "Hello."},
            {"role": "user", "content": "Again, please.", "name": "reader"},
        ],
        max_completion_tokens=8,
    )
    return told(one)
