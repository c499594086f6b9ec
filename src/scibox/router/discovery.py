"""What replicas say of themselves: remote ones in `GET /v1/models`, a llama-server in `GET /props`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

import msgspec
from msgspec import Struct

from scibox.core.errors import (
    SciBoxError,
    UpstreamBroken,
    UpstreamMisconfigured,
    UpstreamUnavailable,
)
from scibox.core.types import Dialect
from scibox.upstream.client import Client
from scibox.wire.llama.offers import is_hermes

from .replica import Replica
from .trouble import AWAY, refused

ASK_S = 10.0
RETRY_S = 3.0  # a server that loads its weights may come up at any time
# `owned_by` of the servers whose parameters are known. SGLang has vLLM's names; SciBox has them too, and
# translates them for what is behind it.
DIALECTS: Mapping[str, Dialect] = {"vllm": "vllm", "sglang": "vllm", "scibox": "vllm", "llamacpp": "llama"}


class _Meta(Struct):
    n_ctx: int | None = None  # llama-server


class _Model(Struct):
    id: str
    owned_by: str | None = None
    max_model_len: int | None = None  # vLLM, SGLang
    context_length: int | None = None
    meta: _Meta | None = None


class _Models(Struct):
    data: list[_Model]


class _Caps(Struct, frozen=True):
    supports_tools: bool = False


class _Props(Struct):
    chat_template: str = ""
    total_slots: int | None = None
    chat_template_caps: _Caps = _Caps()


async def ask_template(client: Client, replica: Replica) -> None:
    """Ask a llama-server for its slots and whether its chat template shows tools; raises where it is away."""
    exchange = client.exchange(replica.address, "GET", f"{replica.address.root}/props", secret=replica.secret)
    try:
        async with asyncio.timeout(ASK_S):
            await exchange.open()
            if exchange.status == 503:  # it loads its weights
                return
            props = msgspec.json.decode(await exchange.read_all(), type=_Props)
    except (TimeoutError, msgspec.DecodeError, UnicodeDecodeError):
        return
    finally:
        exchange.close()
    replica.resize(replica.slots or props.total_slots)
    replica.has_tools = props.chat_template_caps.supports_tools
    replica.is_hermes = replica.has_tools and is_hermes(props.chat_template)


async def watch(client: Client, replicas: Callable[[], Iterable[Replica]]) -> None:
    """For ever: ask the servers of others that have not told yet, and those that could not answer."""
    while True:
        await look(client, replicas())
        await asyncio.sleep(RETRY_S)


async def look(client: Client, replicas: Iterable[Replica]) -> None:
    """Ask once, and fill in what is not known."""
    due = [one for one in replicas if not one.is_local and (not one.is_known or one.trouble is not None)]
    await asyncio.gather(*(ask(client, replica) for replica in due))


async def ask(client: Client, replica: Replica) -> None:
    """Whether it is there, its context and its dialect; what an operator has stated stays."""
    address = replica.address
    exchange = client.exchange(address, "GET", f"{address.prefix}/models", secret=replica.secret)
    listed = _Models([])  # of a server without that list, or with one that cannot be read
    try:
        async with asyncio.timeout(ASK_S):
            await exchange.open()
            if exchange.status in {401, 403}:
                replica.checked(refused(exchange.status), UpstreamMisconfigured.code)
                return
            if exchange.status >= 500:
                replica.checked(
                    f"It answers with status {exchange.status}: look at its own log.", UpstreamBroken.code
                )
                return
            if exchange.status == 200:
                listed = msgspec.json.decode(await exchange.read_all(), type=_Models)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    except (SciBoxError, TimeoutError):
        replica.checked(AWAY, UpstreamUnavailable.code)
        return
    finally:
        exchange.close()
    replica.checked()
    replica.is_known = True
    own = next((model for model in listed.data if model.id == replica.model), None)
    if own is not None and replica.context is None:
        seen = own.meta.n_ctx if own.meta else None
        replica.context = own.max_model_len or own.context_length or seen
    if replica.dialect is None:
        replica.dialect = DIALECTS.get((own.owned_by or "").lower() if own else "", "openai")
    if replica.dialect == "llama" and replica.slots is None:
        with suppress(SciBoxError):
            await ask_template(client, replica)
