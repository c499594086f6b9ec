"""Real clients of the ecosystem against the real service: everything their programs do has come out right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from clients import matrix
from clients.matrix import CLIENTS, Client
from clients.outcomes import EMBEDDER
from clients.rules import RULES, TEXTS, Seen

pytestmark = pytest.mark.real


@pytest.fixture(scope="session")
def vectors(manual_service: Any) -> list[list[float]]:
    """What the service itself says of the programs' texts."""
    body = {"model": EMBEDDER, "input": TEXTS, "encoding_format": "float"}
    status, answer = manual_service.post("/v1/embeddings", body)
    assert status == 200, answer
    return [item["embedding"] for item in answer["data"]]


@pytest.mark.parametrize(
    ("client", "program", "thing"),
    [
        pytest.param(client, program, thing, id=f"{client.name}-{thing}")
        for client in CLIENTS
        for program, thing in client.things()
    ],
)
def test_it_works(
    client: Client, program: str, thing: str, told: Callable[..., Any], vectors: list[list[float]]
) -> None:
    heard = told(client, program)
    assert thing in heard.lines, f"the program ended before it:\n{heard.errors[-4000:]}"
    line = heard.lines[thing]
    assert "failed" not in line, f"{line['failed']}\n\nall that {program} said:\n{heard.errors[-4000:]}"
    RULES[thing](Seen(client.name, line["found"], vectors))


def test_every_thing_has_a_rule_and_every_rule_a_thing() -> None:
    assert {thing for client in CLIENTS for _, thing in client.things()} == set(RULES)


def test_every_program_belongs_to_a_client() -> None:
    programs = {program for client in CLIENTS for program in client.programs}
    here = {
        path.name
        for folder, ending in (("programs", "py"), ("node", "mjs"))
        for path in (matrix.HERE / folder).glob(f"*.{ending}")
        if matrix.things_of(path.name)
    }
    assert programs == here
