"""`llm`, as a library and from the command line."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
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
    arrivals,
    thing,
)

folder = Path(tempfile.mkdtemp(prefix="llm-"))
os.environ["LLM_USER_PATH"] = str(folder)
named = {"model_name": CHAT, "api_base": BASE_URL, "api_key_name": "scibox", "supports_schema": True}
(folder / "extra-openai-models.yaml").write_text(
    yaml.safe_dump(
        [
            {"model_id": "scibox", "supports_tools": True, **named},
            {"model_id": "scibox-text", "completion": True, **named},
            {"model_id": "scibox-responses", "responses": True, **named},
        ]
    )
)
(folder / "keys.json").write_text(json.dumps({"scibox": SECRET}))

import llm  # noqa: E402  it reads the folder when it is imported
from llm.default_plugins.openai_models import OpenAIEmbeddingModel  # noqa: E402

model = llm.get_model("scibox")


@thing
def chat():
    """One question, one answer."""
    one = model.prompt(HELLO, stream=False, max_tokens=16, temperature=0)
    text, usage = one.text(), one.usage()
    return {"text": text, "usage": [usage.input, usage.output, usage.input + usage.output]}


@thing
def stream():
    """The text of a stream as it comes."""
    return arrivals(lambda: model.prompt(STORY, stream=True, max_tokens=48, temperature=0))


@thing
def structured():
    """JSON of a schema."""
    return {"object": json.loads(model.prompt(WEATHER_QUESTION, schema=WEATHER, max_tokens=64).text())}


@thing
def tools_are_offered():
    """Tools go along; the library cannot force one, so whether it is called is the model's choice."""

    def get_weather(city: str) -> str:
        """The weather of a city."""
        return f"Snow in {city}."

    one = model.prompt(WEATHER_QUESTION, tools=[get_weather], max_tokens=24, temperature=0, stream=False)
    return {"text": one.text(), "calls": [call.name for call in one.tool_calls()]}


@thing
def completion():
    """A text continued."""
    return {
        "text": llm.get_model("scibox-text")
        .prompt("Once upon a time", max_tokens=12, temperature=0, stream=False)
        .text()
    }


@thing
def responses():
    """The Responses API."""
    return {
        "text": llm.get_model("scibox-responses")
        .prompt(HELLO, max_tokens=16, temperature=0, stream=False)
        .text()
    }


@thing
def command():
    """The command line."""
    ended = subprocess.run(
        [Path(sys.executable).parent / "llm", "-m", "scibox", "-o", "max_tokens", "16", HELLO],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return {"text": ended.stdout}


@thing
def embeddings():
    """Vectors of several texts; its class takes the address from the environment only."""
    os.environ["OPENAI_BASE_URL"] = BASE_URL
    embedder = OpenAIEmbeddingModel("scibox-embeddings", EMBEDDER)
    return {"vectors": list(embedder.embed_batch(TEXTS, key=SECRET))}
