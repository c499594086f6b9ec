"""Haystack: its generators and embedders, alone and in a pipeline."""

import json

from haystack import Document, Pipeline
from haystack.components.builders import ChatPromptBuilder
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.components.generators.chat import OpenAIChatGenerator, OpenAIResponsesChatGenerator
from haystack.components.retrievers.in_memory import InMemoryEmbeddingRetriever
from haystack.dataclasses import ChatMessage
from haystack.document_stores.in_memory import InMemoryDocumentStore
from haystack.tools import Tool
from haystack.utils import Secret
from shapes import Weather
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
    error_of,
    thing,
    watched,
)

there = {"api_base_url": BASE_URL, "api_key": Secret.from_token(SECRET), "max_retries": 0}
hello, story, question = ([ChatMessage.from_user(text)] for text in (HELLO, STORY, WEATHER_QUESTION))
tool = Tool(
    name="get_weather", description="The weather of a city.", parameters=WEATHER, function=lambda **_: "Snow."
)


def generator(**settings):
    """The generator with what every call needs."""
    return OpenAIChatGenerator(model=CHAT, generation_kwargs={"temperature": 0, **settings}, **there)


def told(message):
    """What the rules look at."""
    usage = message.meta["usage"]
    return {
        "text": message.text,
        "finish": message.meta["finish_reason"],
        "usage": [usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]],
    }


def calls_of(message):
    """Each tool call."""
    return [{"name": call.tool_name, "arguments": call.arguments} for call in message.tool_calls]


@thing
def chat():
    """One question, one answer."""
    return told(generator(max_tokens=16).run(hello)["replies"][0])


@thing
def stream():
    """The text of a stream as it comes."""
    ask = generator(max_tokens=48)
    return watched(lambda came: ask.run(story, streaming_callback=lambda chunk: came(chunk.content)))


@thing
def forced_tool():
    """A function that must be called, its result, an answer in words."""
    one = generator(max_tokens=96, tool_choice="required").run(question, tools=[tool])["replies"][0]
    result = ChatMessage.from_tool("Snow, minus three.", origin=one.tool_calls[0])
    two = generator(max_tokens=16).run([*question, one, result])["replies"][0]
    return {"calls": calls_of(one), "after": two.text}


@thing
def streamed_tool():
    """The same in chunks, put together by the library."""
    one = generator(max_tokens=96, tool_choice="required").run(
        question, tools=[tool], streaming_callback=lambda _: None
    )["replies"][0]
    return {"calls": calls_of(one)}


@thing
def structured():
    """An object of a class, by `response_format`."""
    one = generator(max_tokens=64, response_format=Weather).run(question)["replies"][0]
    return {"object": json.loads(one.text)}


@thing
def responses():
    """The Responses API."""
    settings = {"max_output_tokens": 16, "store": False, "temperature": 0}
    one = OpenAIResponsesChatGenerator(model=CHAT, generation_kwargs=settings, **there).run(hello)
    return {"text": one["replies"][0].text}


@thing
def embeddings():
    """Vectors of several documents."""
    documents = [Document(content=text) for text in TEXTS]
    done = OpenAIDocumentEmbedder(model=EMBEDDER, progress_bar=False, **there).run(documents)
    return {"vectors": [document.embedding for document in done["documents"]]}


@thing
def pipeline():
    """A question to documents: embed, find, ask."""
    store = InMemoryDocumentStore(embedding_similarity_function="cosine")
    documents = [Document(content=text) for text in TEXTS]
    store.write_documents(
        OpenAIDocumentEmbedder(model=EMBEDDER, progress_bar=False, **there).run(documents)["documents"]
    )
    line = Pipeline()
    line.add_component("embedder", OpenAITextEmbedder(model=EMBEDDER, **there))
    line.add_component("retriever", InMemoryEmbeddingRetriever(store, top_k=1))
    line.add_component(
        "prompt",
        ChatPromptBuilder(
            [ChatMessage.from_user("Repeat: {{ documents[0].content }}")], required_variables=["documents"]
        ),
    )
    line.add_component("generator", generator(max_tokens=8))
    line.connect("embedder.embedding", "retriever.query_embedding")
    line.connect("retriever", "prompt.documents")
    line.connect("prompt", "generator.messages")
    done = line.run({"embedder": {"text": "Hello, world"}}, include_outputs_from={"retriever"})
    return {
        "texts": [document.content for document in done["retriever"]["documents"]],
        "text": done["generator"]["replies"][0].text,
    }


@thing
def errors():
    """What the errors become."""
    stranger = {**there, "api_key": Secret.from_token("sk-scibox-nobody")}
    return {
        "wrong key": error_of(lambda: OpenAIChatGenerator(model=CHAT, **stranger).run(hello)),
        "wrong model": error_of(lambda: OpenAIChatGenerator(model="no-such-model", **there).run(hello)),
        "bad request": error_of(lambda: generator(temperature=9).run(hello)),
    }
