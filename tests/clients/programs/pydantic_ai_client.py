"""Pydantic AI: agents over chat completions and over responses, and its embedder."""

from pydantic_ai import Agent, Embedder, NativeOutput, ToolOutput
from pydantic_ai.direct import model_request_sync
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.messages import ModelRequest, ToolCallPart
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.tools import ToolDefinition
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
    arrivals,
    thing,
)

provider = OpenAIProvider(base_url=BASE_URL, api_key=SECRET)
model = OpenAIChatModel(CHAT, provider=provider)


@thing
def chat():
    """One question, one answer."""
    one = Agent(model, model_settings={"max_tokens": 16, "temperature": 0}).run_sync(HELLO)
    usage = one.usage
    return {
        "text": one.output,
        "usage": [usage.input_tokens, usage.output_tokens, usage.input_tokens + usage.output_tokens],
    }


@thing
def stream():
    """The text of a stream as it comes."""
    agent = Agent(model, model_settings={"max_tokens": 48, "temperature": 0})
    return arrivals(lambda: agent.run_stream_sync(STORY).stream_text(delta=True, debounce_by=None))


@thing
def forced_tool():
    """A tool that must be called, asked for without an agent."""
    asked = ModelRequestParameters(
        function_tools=[ToolDefinition(name="get_weather", parameters_json_schema=WEATHER)],
        allow_text_output=False,
    )
    one = model_request_sync(
        model,
        [ModelRequest.user_text_prompt(WEATHER_QUESTION)],
        model_settings={"max_tokens": 96},
        model_request_parameters=asked,
    )
    calls = [part for part in one.parts if isinstance(part, ToolCallPart)]
    return {"calls": [{"name": call.tool_name, "arguments": call.args_as_dict()} for call in calls]}


@thing
def structured():
    """An object of a class, by `response_format`."""
    agent = Agent(model, output_type=NativeOutput(Weather), model_settings={"max_tokens": 64})
    return {"object": agent.run_sync(WEATHER_QUESTION).output.model_dump()}


@thing
def structured_by_tool():
    """The same by a forced function: what the library does when nobody says otherwise."""
    agent = Agent(
        model, output_type=ToolOutput(Weather, name="get_weather"), model_settings={"max_tokens": 96}
    )
    return {"object": agent.run_sync(WEATHER_QUESTION).output.model_dump()}


@thing
def responses_structured():
    """An agent over the Responses API."""
    agent = Agent(
        OpenAIResponsesModel(CHAT, provider=provider),
        output_type=NativeOutput(Weather),
        model_settings={"max_tokens": 64, "openai_store": False},
    )
    return {"object": agent.run_sync(WEATHER_QUESTION).output.model_dump()}


@thing
def embeddings():
    """Vectors of several texts."""
    embedder = Embedder(OpenAIEmbeddingModel(EMBEDDER, provider=provider))
    return {"vectors": [list(vector) for vector in embedder.embed_documents_sync(TEXTS).embeddings]}


@thing
def errors():
    """The status that its one class of HTTP errors carries."""

    def status_of(agent, **settings):
        try:
            agent.run_sync(HELLO, model_settings=settings)
        except Exception as error:
            return f"{type(error).__name__} {getattr(error, 'status_code', '')}".strip()
        return "none"

    stranger = OpenAIProvider(base_url=BASE_URL, api_key="sk-scibox-nobody")
    return {
        "wrong key": status_of(Agent(OpenAIChatModel(CHAT, provider=stranger))),
        "wrong model": status_of(Agent(OpenAIChatModel("no-such-model", provider=provider))),
        "bad request": status_of(Agent(model), temperature=9),
    }
