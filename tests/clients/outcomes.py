"""What each block of the manuals must have done. A block that is not named here fails its test."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from typing import Any

from clients.relay import Relay
from clients.runs import Run

CHAT, EMBEDDER = "smollm2-135m-instruct", "multilingual-e5-small"
ALIASES = {"Qwen2.5-72B-Instruct-AWQ": CHAT, "bge-m3": EMBEDDER}
MIN_PIECES = 5  # fewer arrivals are no stream

Outcome = Callable[[Run, Relay], None]


class TooShortError(AssertionError):
    """The model stopped so early that nothing can be said of the stream: worth another try."""


def succeeded(run: Run) -> None:
    assert run.status == 0, f"exit code {run.status}\n{run.output}\n{run.errors}"


def prints_nothing(run: Run, relay: Relay) -> None:
    assert run.output == ""


def prints_text(run: Run, relay: Relay) -> None:
    assert re.search(r"\w", run.output), repr(run.output)


def streams_text(run: Run, relay: Relay) -> None:
    prints_text(run, relay)
    arrives_piece_by_piece(run, relay)


def streams_events(run: Run, relay: Relay) -> None:
    """`data: ` before every event, whole JSON in each, `[DONE]` at the end, never an `id:` line."""
    lines = [line for line in run.output.splitlines() if line and not line.startswith(":")]
    assert all(line.startswith("data: ") for line in lines), lines
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert {chunk["model"] for chunk in chunks} == {CHAT}
    assert not any(chunk.get("usage") for chunk in chunks), "usage was not asked for"
    deltas = [choice["delta"].get("content") for chunk in chunks for choice in chunk["choices"]]
    if len([delta for delta in deltas if delta]) < 2:
        raise TooShortError(deltas)
    reasons = [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]]
    assert [reason for reason in reasons if reason] in (["stop"], ["length"])
    arrives_piece_by_piece(run, relay)


def arrives_piece_by_piece(run: Run, relay: Relay) -> None:
    """Several arrivals, the first one before half of the answer's time had passed."""
    if len(run.pieces) < MIN_PIECES:
        raise TooShortError(f"only {len(run.pieces)} pieces came: {run.output!r}")
    middle = (relay.asked_at + relay.ended_at) / 2
    late_s = run.pieces[0].at - middle
    assert late_s < 0, f"the first piece came {late_s:.2f} s after half of the answer's time had passed"


def lists_models(run: Run, relay: Relay) -> None:
    answer = json.loads(run.output)
    assert answer["object"] == "list"
    assert {CHAT, EMBEDDER, *ALIASES} <= {model["id"] for model in answer["data"]}


def shows_model(run: Run, relay: Relay) -> None:
    answer = json.loads(run.output)
    assert (answer["object"], answer["id"]) == ("model", CHAT)


def shows_queue(run: Run, relay: Relay) -> None:
    answer = json.loads(run.output)
    assert answer["object"] == "list"
    assert all(call["status"] in {"waiting", "running"} for call in answer["data"])


def shows_usage(run: Run, relay: Relay) -> None:
    answer = json.loads(run.output)
    assert answer["object"] == "page"
    assert isinstance(answer["data"], list)


def shows_key(run: Run, relay: Relay) -> None:
    answer = json.loads(run.output)
    assert answer["object"] == "key"
    assert {"id", "owner", "models", "expires_at"} <= answer.keys()
    assert CHAT in answer["models"]


def shows_health(run: Run, relay: Relay) -> None:
    assert json.loads(run.output)["status"] in ("ok", "starting")


def completes(run: Run, relay: Relay) -> None:
    answer = json.loads(run.output)
    assert answer["object"] == "chat.completion"
    assert answer["model"] == CHAT, "answers name the model that really served"
    (choice,) = answer["choices"]
    assert choice["message"]["role"] == "assistant"
    assert re.search(r"\w", choice["message"]["content"])
    assert choice["finish_reason"] in ("stop", "length")
    assert answer["usage"]["completion_tokens"] > 0


def embeds(count: int) -> Outcome:
    def check(run: Run, relay: Relay) -> None:
        answer = json.loads(run.output)
        assert answer["object"] == "list"
        assert answer["model"] == EMBEDDER, "answers name the model that really served"
        assert [item["index"] for item in answer["data"]] == list(range(count))
        for item in answer["data"]:
            assert len(item["embedding"]) == 384
            assert abs(sum(number**2 for number in item["embedding"]) - 1) < 1e-3
        assert answer["usage"]["prompt_tokens"] > 0

    return check


def prints(wanted: str) -> Outcome:
    def check(run: Run, relay: Relay) -> None:
        assert run.output.strip() == wanted

    return check


def installs(run: Run, relay: Relay) -> None:
    assert re.search(r"openai[-= ]|openai in ", run.output), run.output


def makes_a_key(run: Run, relay: Relay) -> None:
    """The secret once, and a list that has the key and not the secret."""
    assert len(re.findall(r"\bsk-scibox-[0-9A-Za-z]{36}\b", run.output)) == 1, run.output
    assert run.output.count("ivanov") >= 1


def refuses_key(run: Run, relay: Relay) -> None:
    head, body = run.output.replace("\r\n", "\n").split("\n\n", 1)
    assert head.startswith("HTTP/1.1 401")
    assert re.search(r"(?mi)^x-request-id: \S+$", head)
    error: dict[str, Any] = json.loads(body)["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["code"] == "invalid_api_key"


def reports_error(run: Run, relay: Relay) -> None:
    """The program of the chapter on errors asks for a model that is not there."""
    status, code, request_id = run.output.split("\n")[0].split()
    assert (status, code) == ("404", "model_not_found")
    assert request_id.startswith("req_")


def finds_the_nearest(run: Run, relay: Relay) -> None:
    """Best match first, cosines falling."""
    rows = [line.split(maxsplit=1) for line in run.output.splitlines()]
    cosines = [float(cosine) for cosine, _ in rows]
    assert len(rows) == 3
    assert cosines == sorted(cosines, reverse=True)
    assert all(-1.001 <= cosine <= 1.001 for cosine in cosines)
    assert re.search(r"пароль|password", rows[0][1]), run.output


def answers_in_json(run: Run, relay: Relay) -> None:
    """Whatever the model is: JSON, and of the schema."""
    completes(run, relay)
    (choice,) = json.loads(run.output)["choices"]
    assert choice["finish_reason"] == "stop"
    review = json.loads(choice["message"]["content"])
    assert review.keys() == {"mood", "stars", "summary"}
    assert review["mood"] in ("good", "bad", "mixed")
    assert review["stars"] in range(1, 6)
    assert len(review["summary"]) <= 40


def prints_a_review(run: Run, relay: Relay) -> None:
    """The same, of a class."""
    first, summary = run.output.rstrip("\n").split("\n", 1)
    assert re.fullmatch(r"(good|bad|mixed) [1-5]", first), run.output
    assert len(summary) <= 40


def calls_a_tool(run: Run, relay: Relay) -> None:
    """A call with arguments of the schema, then an answer in words."""
    call, words = run.output.split("\n", 1)
    name, arguments = call.split(" ", 1)
    found = json.loads(arguments)
    assert name == "get_weather"
    assert found.keys() == {"city", "days"}
    assert found["city"] in ("Moscow", "Kazan", "Tomsk")
    assert found["days"] in range(1, 8)
    if not re.search(r"\w", words):
        raise TooShortError(run.output)


def completes_without_thoughts(run: Run, relay: Relay) -> None:
    completes(run, relay)
    (choice,) = json.loads(run.output)["choices"]
    assert "reasoning_content" not in choice["message"]


def shows_probabilities(run: Run, relay: Relay) -> None:
    """Two answers, each with the likeliest first LLM tokens: the question is one, and so are they."""
    rows = [re.fullmatch(r"(\d) (\[\(.*?\)\]) (['\"].*)", line) for line in run.output.splitlines()]
    found = [(row[1], ast.literal_eval(row[2])) for row in rows if row]
    assert [index for index, _ in found] == ["0", "1"], run.output
    for _, likely in found:
        assert len(likely) == 3
        assert 0 < sum(probability for _, probability in likely) <= 1.001
    assert [token for token, _ in found[0][1]] == [token for token, _ in found[1][1]]


def ranks(run: Run, relay: Relay) -> None:
    answer = json.loads(run.output)
    assert answer["model"] == EMBEDDER
    scores = [item["relevance_score"] for item in answer["results"]]
    assert answer["results"][0]["index"] == 1, "the text about the password"
    assert len(scores) == 2
    assert scores == sorted(scores, reverse=True)


def runs_a_batch(run: Run, relay: Relay) -> None:
    first, *answers = run.output.splitlines()
    assert re.fullmatch(r"completed 2 (of|из) 2", first), run.output
    names = [name for name in ("question-0", "question-1") if any(line.startswith(name) for line in answers)]
    assert names == ["question-0", "question-1"], run.output


def sends_a_message(run: Run, relay: Relay) -> None:
    answer = json.loads(run.output)
    assert (answer["type"], answer["role"], answer["model"]) == ("message", "assistant", CHAT)
    (block,) = answer["content"]
    assert block["type"] == "text"
    assert re.search(r"\w", block["text"])
    assert answer["stop_reason"] in ("end_turn", "max_tokens")


def continues_a_text(run: Run, relay: Relay) -> None:
    answer = json.loads(run.output)
    assert (answer["object"], answer["model"]) == ("text_completion", CHAT)
    (choice,) = answer["choices"]
    assert re.search(r"\w", choice["text"])
    assert choice["finish_reason"] in ("stop", "length")


def counts_tokens(run: Run, relay: Relay) -> None:
    answer = json.loads(run.output)
    assert answer["count"] == len(answer["tokens"]) > 3


# Our own manuals name their blocks.
OURS: dict[str, Outcome] = {
    "settings": prints_nothing,
    "health": shows_health,
    "who-am-i": shows_key,
    "make-key": makes_a_key,
    "list-models": lists_models,
    "one-model": shows_model,
    "chat": completes,
    "several-answers": shows_probabilities,
    "stream": streams_events,
    "stream-by-hand": streams_text,
    "stream-in-javascript": streams_text,
    "json": answers_in_json,
    "json-class": prints_a_review,
    "tools": calls_a_tool,
    "reasoning": completes_without_thoughts,
    "embed-one": embeds(1),
    "embed-many": embeds(3),
    "embed-base64": prints("2 384"),
    "nearest": finds_the_nearest,
    "embed-long-list": prints("50 49"),
    "rerank": ranks,
    "batch": runs_a_batch,
    "responses": prints_text,
    "messages": sends_a_message,
    "completions": continues_a_text,
    "tokenize": counts_tokens,
    "my-queue": shows_queue,
    "my-usage": shows_usage,
    "wrong-key": refuses_key,
    "errors": reports_error,
    "install": installs,
    "client-chat": prints_text,
    "client-stream": streams_text,
    "client-stream-events": streams_text,
    "client-embeddings": prints("2 384"),
}

# The original's blocks have no names: they go by language and order, which is fixed by its publication.
ORIGINAL: dict[tuple[str, int], Outcome] = {
    ("bash", 0): lists_models,
    ("bash", 1): completes,
    ("bash", 2): streams_events,
    ("bash", 3): embeds(1),
    ("bash", 4): embeds(2),
    ("bash", 5): installs,
    ("python", 0): prints_text,
    ("python", 1): streams_text,
    ("python", 2): prints("2 384"),
}
