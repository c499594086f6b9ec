"""`langchain-openai` as its manual shows it; the standard tests of `langchain-tests` are `langchain_standard.py`."""

from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from shapes import Weather
from telling import (
    BASE_URL,
    CHAT,
    EMBEDDER,
    HELLO,
    SECRET,
    STORY,
    TEXTS,
    WEATHER_QUESTION,
    arrivals,
    error_of,
    thing,
)

there = {"base_url": BASE_URL, "api_key": SECRET, "max_retries": 0}
model = ChatOpenAI(model=CHAT, max_tokens=96, temperature=0, **there)


@tool(args_schema=Weather)
def get_weather(city: str, unit: str, days: int) -> str:
    """The weather of a city."""
    return f"Snow, minus three {unit}, in {city} for {days} days."


@thing
def chat():
    """One question, one answer."""
    one = model.invoke(HELLO, max_tokens=16)
    usage = one.usage_metadata
    return {
        "text": one.content,
        "finish": one.response_metadata["finish_reason"],
        "usage": [usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]],
    }


@thing
def stream():
    """The text of a stream as it comes."""
    whole = []

    def texts():
        whole.clear()
        for chunk in model.stream(STORY, max_tokens=48, stream_usage=True):
            whole.append(chunk)
            yield chunk.content

    found = arrivals(texts)
    total = whole[0]
    for chunk in whole[1:]:
        total += chunk
    usage = total.usage_metadata
    return {**found, "usage": [usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]]}


@thing
async def together():
    """Several questions together."""
    return [message.content for message in await model.abatch([HELLO] * 4, max_tokens=6)]


@thing
def forced_tool():
    """A tool that must be called, its result, an answer in words."""
    question = HumanMessage(WEATHER_QUESTION)
    one = model.bind_tools([get_weather], tool_choice="get_weather").invoke([question])
    results = [
        ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"]) for call in one.tool_calls
    ]
    two = model.bind_tools([get_weather], tool_choice="none").invoke([question, one, *results], max_tokens=16)
    return {
        "calls": [{"name": call["name"], "arguments": call["args"]} for call in one.tool_calls],
        "after": two.content,
    }


@thing
def streamed_tool():
    """The same in chunks, added up by the library."""
    total = None
    for chunk in model.bind_tools([get_weather], tool_choice="any").stream(WEATHER_QUESTION):
        total = chunk if total is None else total + chunk
    return {"calls": [{"name": call["name"], "arguments": call["args"]} for call in total.tool_calls]}


@thing
def structured():
    """An object of a class, by `response_format`."""
    return {"object": model.with_structured_output(Weather).invoke(WEATHER_QUESTION).model_dump()}


@thing
def structured_by_tool():
    """The same by a forced function."""
    asked = model.with_structured_output(Weather, method="function_calling")
    return {"object": asked.invoke(WEATHER_QUESTION).model_dump()}


@thing
def responses():
    """The Responses API through the same class."""
    one = ChatOpenAI(model=CHAT, use_responses_api=True, store=False, temperature=0, **there).invoke(
        HELLO, max_tokens=16
    )
    return {"text": one.text}


@thing
def completion():
    """A text continued."""
    return {"text": OpenAI(model=CHAT, max_tokens=12, temperature=0, **there).invoke("Once upon a time")}


@thing
def embeddings():
    """Vectors as the library asks for them when nobody says otherwise: by the ids of another model's vocabulary."""
    return {"vectors": OpenAIEmbeddings(model=EMBEDDER, **there).embed_documents(TEXTS)}


@thing
def embeddings_by_text():
    """The same by text."""
    embedder = OpenAIEmbeddings(model=EMBEDDER, check_embedding_ctx_length=False, **there)
    return {"vectors": embedder.embed_documents(TEXTS)}


@thing
def long_embedding():
    """A text that the library cuts by its ids and averages."""
    embedder = OpenAIEmbeddings(model=EMBEDDER, embedding_ctx_length=64, **there)
    return {"vector": embedder.embed_query("The ship sailed on through the night. " * 20)}


@thing
def errors():
    """What the errors become."""
    stranger = ChatOpenAI(model=CHAT, base_url=BASE_URL, api_key="sk-scibox-nobody", max_retries=0)
    return {
        "wrong key": error_of(lambda: stranger.invoke(HELLO)),
        "wrong model": error_of(lambda: ChatOpenAI(model="no-such-model", **there).invoke(HELLO)),
        "bad request": error_of(lambda: model.invoke(HELLO, temperature=9)),
    }
