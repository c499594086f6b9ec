"""What the client tests share: environments with `openai`, and a way to run a block against the service.

The service itself is the session's `manual_service` (tests/conftest.py), a `setting.Service`.
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from clients import venvs
from clients.relay import Relay
from clients.setting import ENVIRONMENTS, Service


@pytest.fixture(scope="session")
def openai_venvs() -> dict[str, venvs.Venv]:
    """One environment per name of `venvs.PINS`; made once, then kept."""
    ENVIRONMENTS.mkdir(parents=True, exist_ok=True)
    try:
        return {name: venvs.make(name, ENVIRONMENTS) for name in venvs.PINS}
    except venvs.NoRegistryError as error:
        pytest.skip(f"{error}: the tests with the openai library need one for their first run")


@pytest.fixture(params=list(venvs.PINS))
def openai_venv(request: pytest.FixtureRequest, openai_venvs: dict[str, venvs.Venv]) -> venvs.Venv:
    """Each of the environments in turn."""
    return openai_venvs[request.param]


@pytest.fixture
def relay(manual_service: Service) -> Iterator[Relay]:
    """A relay before the service: its address takes the service's place."""
    port = urlsplit(manual_service.base_url).port
    assert port is not None
    with Relay(port) as relay:
        yield relay
