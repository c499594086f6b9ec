"""The faces over real sockets: the three APIs that are told of the same way."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from chat_answers import events

from rig import Rig, rig
from scibox.core.types import Ending
from scibox.engines.fake_script import Script

RESPONSE: dict[str, Any] = {"model": "chatty", "input": "hello there"}
MESSAGE: dict[str, Any] = {
    "model": "chatty",
    "max_tokens": 50,
    "messages": [{"role": "user", "content": "hello there"}],
}
COMPLETION: dict[str, Any] = {"model": "chatty", "prompt": "hello there"}
FACES = [("/v1/responses", RESPONSE), ("/v1/messages", MESSAGE), ("/v1/completions", COMPLETION)]
TOOL = {"name": "weather", "input_schema": {"type": "object"}}
FUNCTION = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
CALLING = Script(
    reasoning=("Hm", "."), chunks=("I ", "look."), calls=(("weather", '{"city":"Paris"}'), ("time", "{}"))
)


async def post(r: Rig, path: str, body: dict[str, Any], **more: Any) -> Any:
    return await r.client.post(path, json={**body, **more})


@pytest.mark.parametrize(("path", "body"), FACES)
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_accounted_for_like_any_other(
    path: str, body: dict[str, Any], stream: bool
) -> None:
    async with rig() as r:
        answer = await post(r, path, body, stream=stream)
        bare = await post(r, path.removeprefix("/v1"), body)
        await r.until_idle()

    assert (answer.status_code, bare.status_code) == (200, 200)
    assert [ended.outcome for ended in r.ended] == [Ending.FINISHED] * 2
    assert all(ended.usage.completion_tokens > 0 for ended in r.ended)


async def test_a_response_calls_tools_and_reasons() -> None:
    async with rig() as r:
        r.engine.script = CALLING
        whole = await post(r, "/v1/responses", RESPONSE, tools=[FUNCTION])
        streamed = await post(r, "/v1/responses", RESPONSE, tools=[FUNCTION], stream=True)

    body = whole.json()
    assert [item["type"] for item in body["output"]] == [
        "reasoning",
        "message",
        "function_call",
        "function_call",
    ]
    assert body["output"][2]["arguments"] == '{"city":"Paris"}'
    told = events(streamed.content)
    assert told[-1][0] == "response.completed"
    assert "[DONE]" not in streamed.text
    final = told[-1][1]["response"]
    assert [{**item, "id": ""} for item in final["output"]] == [{**item, "id": ""} for item in body["output"]]
    assert final["usage"] == body["usage"]
    assert final["id"] == f"resp_{streamed.headers['x-request-id'].removeprefix('req_')}"


async def test_a_message_uses_tools_and_thinks() -> None:
    thinking = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000, "tools": [TOOL]}
    async with rig() as r:
        r.engine.script = CALLING
        whole = await post(r, "/v1/messages", MESSAGE, **thinking)
        streamed = await post(r, "/v1/messages", MESSAGE, **thinking, stream=True)

    body = whole.json()
    assert [block["type"] for block in body["content"]] == ["thinking", "text", "tool_use", "tool_use"]
    assert body["content"][2]["input"] == {"city": "Paris"}
    assert body["stop_reason"] == "tool_use"
    told = events(streamed.content)
    assert told[-1][0] == "message_stop"
    assert [data["index"] for name, data in told if name == "content_block_stop"] == [0, 1, 2, 3]
    assert told[-2][1]["usage"] == body["usage"]


async def test_completions_of_several_prompts_and_choices() -> None:
    async with rig() as r:
        answer = await post(r, "/v1/completions", COMPLETION, prompt=["one", "two three"], n=2, echo=True)

    choices = answer.json()["choices"]
    assert [choice["index"] for choice in choices] == [0, 1, 2, 3]
    assert [choice["text"].startswith(("one", "two three")) for choice in choices] == [True] * 4
    assert len({choice["text"] for choice in choices}) == 4
    assert answer.json()["usage"] == {"prompt_tokens": 3, "completion_tokens": 48, "total_tokens": 51}


@pytest.mark.parametrize("stream", [False, True])
async def test_llama_server_is_asked_for_one_prompt_and_one_choice_at_a_time(stream: bool) -> None:
    wanted: dict[str, Any] = {"prompt": ["one", "two three"], "n": 2, "echo": True, "max_tokens": 3}
    if stream:
        wanted |= {"stream": True, "stream_options": {"include_usage": True}}
    async with rig(dialect="llama") as r:
        answer = await post(r, "/v1/completions", COMPLETION, **wanted)
        await r.until_idle()

    sent = [request.json for request in r.engine.requests if request.path == "/v1/completions"]
    assert sorted(body["prompt"] for body in sent) == ["one", "one", "two three", "two three"]
    assert not any("n" in body or "echo" in body for body in sent)
    if stream:
        *chunks, last, done = answer.text.split("\n\n")[:-1]
        assert done == "data: [DONE]"
        told = json.loads(last.removeprefix("data: "))
        texts = ["", "", "", ""]
        for chunk in chunks:
            for choice in json.loads(chunk.removeprefix("data: "))["choices"]:
                texts[choice["index"]] += choice["text"]
    else:
        told = answer.json()
        texts = [choice["text"] for choice in told["choices"]]
    assert [text.startswith(("one", "two three")) for text in texts] == [True] * 4
    # A prompt is counted once, however many choices it has.
    assert told["usage"] == {"prompt_tokens": 3, "completion_tokens": 12, "total_tokens": 15}
    assert r.ended[0].usage.completion_tokens == 12


async def test_completions_are_cut_at_16_tokens_where_nothing_else_is_said() -> None:
    async with rig() as r:
        r.engine.script = Script(chunks=("a ",) * 20)
        answer = await post(r, "/v1/completions", COMPLETION)

    assert answer.json()["choices"][0] == {
        "index": 0,
        "text": "a " * 16,
        "logprobs": None,
        "finish_reason": "length",
    }


@pytest.mark.parametrize("fault", ["reset", "close", "end", "garbage", "error"])
async def test_a_broken_stream_ends_in_the_error_of_its_api(fault: str) -> None:
    async with rig() as r:
        r.engine.script = Script(chunks=("a", "b", "c"), fault=fault, after_chunks=2)  # type: ignore[arg-type]
        response = events((await post(r, "/v1/responses", RESPONSE, stream=True)).content)
        message = events((await post(r, "/v1/messages", MESSAGE, stream=True)).content)
        completion = (await post(r, "/v1/completions", COMPLETION, stream=True)).text
        await r.until_idle()

    assert response[-1][0] == "response.failed"
    assert response[-1][1]["response"]["error"]["code"] == "server_error"
    assert (message[-1][0], message[-1][1]["error"]["type"]) == ("error", "api_error")
    assert "error" in json.loads(completion.split("\n\n")[-2].removeprefix("data: "))
    assert "[DONE]" not in completion
    assert [ended.outcome for ended in r.ended] == [Ending.UPSTREAM_ERROR] * 3


@pytest.mark.parametrize(("path", "body"), FACES)
async def test_a_client_that_leaves_frees_the_slot(path: str, body: dict[str, Any]) -> None:
    async with rig() as r:
        r.engine.script = Script(chunks=("a",) * 100, chunk_delay_s=0.3)
        call = asyncio.create_task(post(r, path, body, stream=True))
        async with asyncio.timeout(5):
            while not r.engine.in_flight:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        call.cancel()
        await r.until_idle(seconds=1.0)

    assert [ended.outcome for ended in r.ended] == [Ending.CLIENT_GONE]


async def test_errors_of_messages_have_anthropics_shape_from_the_first_on() -> None:
    async with rig(max_body_bytes=1000) as r:
        no_key = await r.client.post("/v1/messages", json=MESSAGE, headers={"authorization": "Bearer x"})
        no_model = await post(r, "/v1/messages", MESSAGE, model="nope")
        too_large = await post(r, "/v1/messages", MESSAGE, system="x" * 1000)
        no_method = await r.client.get("/v1/messages")
        nothing = await r.client.post("/v1/messages/nothing", json={})
        malformed = await r.client.post("/messages", content=b"{")

    told = [no_key, no_model, too_large, no_method, nothing, malformed]
    assert [answer.status_code for answer in told] == [401, 404, 413, 405, 404, 400]
    assert [answer.json()["error"]["type"] for answer in told] == [
        "authentication_error",
        "not_found_error",
        "request_too_large",
        "invalid_request_error",
        "not_found_error",
        "invalid_request_error",
    ]
    for answer in told:
        assert set(answer.json()) == {"type", "error", "request_id"}
        assert answer.json()["request_id"] == answer.headers["x-request-id"]


async def test_anthropics_own_header_carries_the_key() -> None:
    async with rig() as r:
        secret = r.client.headers.pop("authorization").removeprefix("Bearer ")
        headers = {"x-api-key": secret, "anthropic-version": "2023-06-01"}
        answer = await r.client.post("/v1/messages", json=MESSAGE, headers=headers)

    assert answer.status_code == 200


async def test_a_prompt_over_the_context_is_named_in_the_clients_words() -> None:
    async with rig() as r:
        words = "word " * 9000
        response = await post(r, "/v1/responses", RESPONSE, input=words)
        completion = await post(r, "/v1/completions", COMPLETION, prompt=words)

    assert (response.status_code, response.json()["error"]["param"]) == (400, "input")
    assert response.json()["error"]["code"] == "context_length_exceeded"
    assert (completion.status_code, completion.json()["error"]["param"]) == (400, "prompt")


async def test_a_model_that_cannot_is_refused_by_the_endpoint_that_was_asked() -> None:
    async with rig() as r:
        completion = await post(r, "/v1/completions", COMPLETION, model="vectors")
        score = await r.client.post("/v1/score", json={"model": "chatty", "text_1": "a", "text_2": "b"})
        empty = await r.client.post("/v1/rerank", json={"model": "vectors", "query": " ", "documents": ["b"]})

    assert "serves /v1/embeddings, not /v1/completions." in completion.json()["error"]["message"]
    assert "serves /v1/chat/completions, not /v1/score." in score.json()["error"]["message"]
    assert empty.json()["error"]["message"] == "'query' is empty; give a text."


@pytest.mark.parametrize("stream", [False, True])
async def test_a_long_completion_is_counted_by_llama_cpp_as_the_text_that_it_is(stream: bool) -> None:
    async with rig(dialect="llama") as r:
        answer = await post(r, "/v1/completions", COMPLETION, prompt="word " * 9000, stream=stream)
        called = [asked.path for asked in r.engine.requests]

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "prompt")
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert called[-1] == "/tokenize"
    assert "/apply-template" not in called


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_responses_are_not_kept(method: str) -> None:
    async with rig() as r:
        answer = await r.client.request(method, "/v1/responses/resp_abc")
        stranger = await r.client.request(method, "/v1/responses/resp_abc", headers={"authorization": ""})

    assert (answer.status_code, stranger.status_code) == (404, 401)
    assert "not kept" in answer.json()["error"]["message"]


@pytest.mark.parametrize(("path", "body"), FACES)
async def test_an_embedding_model_cannot_answer(path: str, body: dict[str, Any]) -> None:
    async with rig() as r:
        answer = await post(r, path, body, model="vectors")

    assert answer.status_code == 400


async def test_counting_the_tokens_of_a_message_asks_the_models_own_tokenizer() -> None:
    dialogue = {name: value for name, value in MESSAGE.items() if name != "max_tokens"}
    async with rig() as r:
        short = await post(r, "/v1/messages/count_tokens", dialogue)
        longer = await post(r, "/v1/messages/count_tokens", dialogue, system="three more words")
        wrong = await post(r, "/v1/messages/count_tokens", MESSAGE)

    assert short.json().keys() == {"input_tokens"}
    # Three words, and the name of the role before them.
    assert longer.json()["input_tokens"] - short.json()["input_tokens"] == 4
    assert (wrong.status_code, wrong.json()["type"]) == (400, "error")
    assert not r.ended
