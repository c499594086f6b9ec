"""What remote replicas say of themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from scibox.core.types import Dialect
from scibox.engines.fake import FakeEngine
from scibox.router.health import look
from scibox.router.replica import Replica
from scibox.upstream.address import Address
from scibox.upstream.client import Client


@asynccontextmanager
async def engine(owned_by: str) -> AsyncIterator[tuple[FakeEngine, Address]]:
    async with FakeEngine("http://127.0.0.1:0", name="m", context=4096, owned_by=owned_by) as fake:
        yield fake, Address.parse(f"{fake.address}/v1")


@pytest.mark.parametrize(
    ("owned_by", "name", "dialect", "context"),
    [
        ("vllm", "m", "vllm", 4096),
        ("llamacpp", "m", "llama", 4096),
        ("somebody", "m", "openai", 4096),
        ("vllm", "another", "vllm", None),
    ],
)
async def test_dialect_and_context_are_told(
    owned_by: str, name: str, dialect: Dialect, context: int | None
) -> None:
    async with engine(owned_by) as (_, address):
        replica = Replica(address, name, dialect=None)
        await look(Client(1.0), [replica])

    assert (replica.dialect, replica.context) == (dialect, context)


async def test_what_the_operator_states_stays() -> None:
    async with engine("llamacpp") as (fake, address):
        stated = Replica(address, "m", context=100, dialect="vllm")
        context = Replica(address, "m", context=100, dialect=None)
        dialect = Replica(address, "m", dialect="vllm")
        await look(Client(1.0), [stated, context, dialect])

    assert (stated.dialect, stated.context) == ("vllm", 100)
    assert (context.dialect, context.context) == ("llama", 100)
    assert (dialect.dialect, dialect.context) == ("vllm", 4096)
    asked = [request for request in fake.requests if request.path == "/v1/models"]
    assert len(asked) == 3  # also the one of which everything is stated: is it there?


async def test_a_server_without_the_list_is_not_asked_again() -> None:
    async with engine("vllm") as (fake, _):
        replica = Replica(Address.parse(f"{fake.address}/other"), "m", dialect=None)
        await look(Client(1.0), [replica])
        asked = len(fake.requests)
        await look(Client(1.0), [replica])

    assert replica.dialect == "openai"
    assert len(fake.requests) == asked


async def test_a_server_that_is_away_is_in_trouble_until_it_answers() -> None:
    async with engine("vllm") as (fake, address):
        replica = Replica(address, "m", dialect=None)
        await fake.stop()
        await look(Client(1.0), [replica])
        assert replica.away
        since = replica.away.since
        await look(Client(1.0), [replica])
        assert replica.away.since == since
        await fake.start()
        await look(Client(1.0), [replica])

    assert replica.away is None
    assert replica.context == 4096
