"""What the client tests share: environments, what the clients' programs told, and a relay before the service.

The service itself is the session's `manual_service` (tests/conftest.py), a `setting.Service`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from clients import matrix, nodes, runs, venvs
from clients.relay import Relay
from clients.setting import ENVIRONMENTS, Service


@dataclass(frozen=True, slots=True)
class Told:
    """What a program told of each thing, and what it printed for people."""

    lines: dict[str, Any]
    errors: str


@pytest.fixture(scope="session")
def environment() -> Callable[[str], venvs.Venv]:
    """Gives the environment of a name, made when it is first asked for."""
    made: dict[str, venvs.Venv] = {}

    def give(name: str) -> venvs.Venv:
        if name not in made:
            try:
                made[name] = venvs.make(name, ENVIRONMENTS)
            except venvs.NoRegistryError as error:
                pytest.skip(f"{error}: the tests with real clients need one for their first run")
        return made[name]

    return give


@pytest.fixture(params=venvs.OPENAI)
def openai_venv(request: pytest.FixtureRequest, environment: Callable[[str], venvs.Venv]) -> venvs.Venv:
    """Each of the environments with `openai` in turn."""
    return environment(request.param)


@pytest.fixture(scope="session")
def clients_env(
    environment: Callable[[str], venvs.Venv], manual_service: Service
) -> Callable[[venvs.Venv], dict[str, str]]:
    """Gives the environment variables of a client's program: our address, and nothing asked of anybody else."""

    def give(venv: venvs.Venv) -> dict[str, str]:
        # tiktoken fetches its vocabularies when they are needed; LlamaIndex carries the one that is.
        vocabularies = (
            environment("llama-index").packages / "llama_index" / "core" / "_static" / "tiktoken_cache"
        )
        return runs.environment(
            venv.bin,
            SCIBOX_BASE_URL=f"{manual_service.base_url}/v1",
            SCIBOX_API_KEY=manual_service.secret,
            HAYSTACK_TELEMETRY_ENABLED="False",
            LITELLM_LOCAL_MODEL_COST_MAP="True",
            TIKTOKEN_CACHE_DIR=str(vocabularies),
        )

    return give


@pytest.fixture(scope="session")
def told(
    environment: Callable[[str], venvs.Venv],
    clients_env: Callable[[venvs.Venv], dict[str, str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[matrix.Client, str], Told]:
    """Gives what a client's program told, each line under the name of what was done; runs it once."""
    heard: dict[tuple[str, str], Told] = {}

    def give(client: matrix.Client, program: str) -> Told:
        if (client.name, program) not in heard:
            venv = environment(client.environment)
            if client.in_node:
                argv = [str(venv.bin / "node"), str(nodes.make(venv) / program)]
            else:
                argv = [str(venv.python), str(matrix.file_of(program))]
            ended = runs.run(argv, clients_env(venv), tmp_path_factory.mktemp("program"), timeout_s=240)
            lines = [json.loads(line) for line in ended.output.splitlines() if line.startswith('{"did"')]
            heard[client.name, program] = Told({line["did"]: line for line in lines}, ended.errors)
        return heard[client.name, program]

    return give


@pytest.fixture
def relay(manual_service: Service) -> Iterator[Relay]:
    """A relay before the service: its address takes the service's place."""
    port = urlsplit(manual_service.base_url).port
    assert port is not None
    with Relay(port) as relay:
        yield relay
