"""`OpenAILike` and `OpenAILikeEmbedding` of LlamaIndex."""

from llama_index.core import Document, VectorStoreIndex
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike
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


def model(**changes):
    """The class with what every call needs."""
    given = {
        "model": CHAT,
        "api_base": BASE_URL,
        "api_key": SECRET,
        "is_chat_model": True,
        "is_function_calling_model": True,
        "context_window": 2048,
        "max_tokens": 96,
        "temperature": 0,
        "max_retries": 0,
    }
    return OpenAILike(**{**given, **changes})


embedder = OpenAILikeEmbedding(model_name=EMBEDDER, api_base=BASE_URL, api_key=SECRET, max_retries=0)


def get_weather(city: str, unit: str, days: int) -> str:
    """The weather of a city."""
    return f"Snow, minus three {unit}, in {city} for {days} days."


tool = FunctionTool.from_defaults(get_weather, fn_schema=Weather)


@thing
def chat():
    """One question, one answer."""
    one = model(max_tokens=16).chat([ChatMessage(role="user", content=HELLO)])
    usage = one.raw.usage
    return {
        "text": one.message.content,
        "usage": [usage.prompt_tokens, usage.completion_tokens, usage.total_tokens],
    }


@thing
def stream():
    """The text of a stream as it comes."""
    return arrivals(lambda: (chunk.delta for chunk in model(max_tokens=48).stream_chat([ChatMessage(STORY)])))


@thing
def completion():
    """A text continued by the completions endpoint."""
    return {"text": model(is_chat_model=False, max_tokens=12).complete("Once upon a time").text}


@thing
def forced_tool():
    """A tool that must be called."""
    llm = model()
    one = llm.chat_with_tools([tool], user_msg=WEATHER_QUESTION, tool_required=True)
    calls = llm.get_tool_calls_from_response(one)
    return {"calls": [{"name": call.tool_name, "arguments": call.tool_kwargs} for call in calls]}


@thing
def structured():
    """An object of a class, by `response_format`."""
    asked = model(should_use_structured_outputs=True).as_structured_llm(Weather)
    return {"object": asked.chat([ChatMessage(WEATHER_QUESTION)]).raw.model_dump()}


@thing
def structured_by_tool():
    """The same by a forced function."""
    return {
        "object": model().as_structured_llm(Weather).chat([ChatMessage(WEATHER_QUESTION)]).raw.model_dump()
    }


@thing
def embeddings():
    """Vectors of several texts."""
    return {"vectors": embedder.get_text_embedding_batch(TEXTS)}


@thing
def nearest():
    """An index in memory, and its answer to a query."""
    index = VectorStoreIndex.from_documents([Document(text=text) for text in TEXTS], embed_model=embedder)
    return {"texts": [node.text for node in index.as_retriever(similarity_top_k=1).retrieve("Hello, world")]}


@thing
def errors():
    """What the errors become."""
    question = [ChatMessage(HELLO)]
    return {
        "wrong key": error_of(lambda: model(api_key="sk-scibox-nobody").chat(question)),
        "wrong model": error_of(lambda: model(model="no-such-model").chat(question)),
        "bad request": error_of(lambda: model().chat(question, temperature=9)),
    }
