"""What replicas say of themselves: remote ones in `GET /v1/models`, a llama-server in `GET /props`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress

import msgspec
from msgspec import Struct

from scibox.core.errors import SciBoxError
from scibox.core.types import Dialect
from scibox.upstream.client import Client
from scibox.wire.llama.offers import is_hermes

from .replica import Replica

ASK_S = 10.0
RETRY_S = 5.0  # a server that loads its weights may come up at any time
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
    replica.slots = replica.slots or props.total_slots
    replica.has_tools = props.chat_template_caps.supports_tools
    replica.is_hermes = replica.has_tools and is_hermes(props.chat_template)


async def discover(client: Client, replicas: Iterable[Replica]) -> None:
    """Fill in what is not known; ends when every server has answered once."""
    unasked = [
        replica
        for replica in replicas
        if replica.context is None
        or replica.dialect is None
        or (replica.dialect == "llama" and replica.slots is None)
    ]
    while unasked:
        answered = await asyncio.gather(*(ask(client, replica) for replica in unasked))
        unasked = [replica for replica, has in zip(unasked, answered, strict=True) if not has]
        if unasked:
            await asyncio.sleep(RETRY_S)


async def ask(client: Client, replica: Replica) -> bool:
    """Whether the server answered, with or without what we asked for."""
    address = replica.address
    exchange = client.exchange(address, "GET", f"{address.prefix}/models", secret=replica.secret)
    try:
        async with asyncio.timeout(ASK_S):
            await exchange.open()
            if exchange.status not in (200, 404, 405):
                return False
            listed = msgspec.json.decode(await exchange.read_all(), type=_Models)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        listed = _Models([])  # a server without that list, or with one that cannot be read
    except (SciBoxError, TimeoutError):
        return False
    finally:
        exchange.close()
    own = next((model for model in listed.data if model.id == replica.model), None)
    if own is not None and replica.context is None:
        seen = own.meta.n_ctx if own.meta else None
        replica.context = own.max_model_len or own.context_length or seen
    if replica.dialect is None:
        replica.dialect = DIALECTS.get((own.owned_by or "").lower() if own else "", "openai")
    if replica.dialect == "llama" and replica.slots is None:
        with suppress(SciBoxError):
            await ask_template(client, replica)
    return True
