"""What replicas say of themselves: remote ones their context, a llama-server what its chat template can."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec
from msgspec import Struct

from scibox.core.errors import SciBoxError
from scibox.upstream.client import Client

from .replica import Replica

RETRY_S = 30.0


class _Meta(Struct):
    n_ctx: int | None = None  # llama-server


class _Model(Struct):
    id: str
    max_model_len: int | None = None  # vLLM, SGLang
    context_length: int | None = None
    meta: _Meta | None = None


class _Models(Struct):
    data: list[_Model]


class _Caps(Struct, frozen=True):
    supports_tools: bool = False


class _Props(Struct):
    chat_template_caps: _Caps = _Caps()


async def learn(client: Client, replica: Replica) -> None:
    """Ask a llama-server that is ready what its chat template can; unanswered, the humbler guess stays."""
    exchange = client.exchange(replica.address, "GET", f"{replica.address.root}/props", secret=replica.secret)
    try:
        async with asyncio.timeout(RETRY_S):
            await exchange.open()
            props = msgspec.json.decode(await exchange.read_all(), type=_Props)
    except (SciBoxError, TimeoutError, msgspec.DecodeError, UnicodeDecodeError):
        return
    finally:
        exchange.close()
    replica.has_tools = props.chat_template_caps.supports_tools


async def discover(client: Client, replicas: Iterable[Replica]) -> None:
    """Fill in the contexts that are not known; ends when every server has answered once."""
    unasked = [replica for replica in replicas if replica.context is None and not replica.is_local]
    while unasked:
        answered = await asyncio.gather(*(_ask(client, replica) for replica in unasked))
        unasked = [replica for replica, has in zip(unasked, answered, strict=True) if not has]
        if unasked:
            await asyncio.sleep(RETRY_S)


async def _ask(client: Client, replica: Replica) -> bool:
    """Whether the server answered, with or without what we asked for."""
    address = replica.address
    exchange = client.exchange(address, "GET", f"{address.prefix}/models", secret=replica.secret)
    try:
        async with asyncio.timeout(RETRY_S):
            await exchange.open()
            listed = msgspec.json.decode(await exchange.read_all(), type=_Models)
    except (SciBoxError, TimeoutError, msgspec.DecodeError, UnicodeDecodeError):
        return False
    finally:
        exchange.close()
    for model in listed.data:
        if model.id == replica.model:
            seen = model.meta.n_ctx if model.meta else None
            replica.context = model.max_model_len or model.context_length or seen
    return True
