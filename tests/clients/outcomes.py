"""What each block of the manuals must have done. A block that is not named here fails its test."""

from __future__ import annotations

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


# Our own manuals name their blocks.
OURS: dict[str, Outcome] = {
    "settings": prints_nothing,
    "health": shows_health,
    "who-am-i": shows_key,
    "make-key": makes_a_key,
    "list-models": lists_models,
    "one-model": shows_model,
    "chat": completes,
    "stream": streams_events,
    "stream-by-hand": streams_text,
    "stream-in-javascript": streams_text,
    "embed-one": embeds(1),
    "embed-many": embeds(3),
    "embed-base64": prints("2 384"),
    "nearest": finds_the_nearest,
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
