"""What replicas say of themselves: in `GET /v1/models`, and each kind of server in a place of its own.

By the servers' own documents: vLLM and SGLang tell `max_model_len` in the list; SGLang its slots in
`/get_server_info`, vLLM in `/server_info` where it runs in development mode; llama-server in `/props`;
Ollama the context in `/api/ps` once it has loaded the model, else in `/api/show`; LiteLLM in `/model/info`;
text-embeddings-inference has no list, and all of it in `/info`.
"""

from __future__ import annotations

import time
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import TypeVar

import msgspec
from msgspec import Struct, field

from scibox.core.errors import SciBoxError
from scibox.core.types import Dialect
from scibox.upstream.client import Client
from scibox.wire.llama.offers import is_hermes

from .replica import Replica, UpstreamKind
from .trouble import AWAY, Trouble, refused

# `owned_by` of the servers that say so what they are. SGLang has vLLM's names for parameters; SciBox has them
# too, and translates them for what is behind it.
OWNERS: Mapping[str, UpstreamKind] = {
    "vllm": "vllm",
    "sglang": "sglang",
    "scibox": "scibox",
    "llamacpp": "llama",
    "library": "ollama",
}
DIALECTS: Mapping[UpstreamKind, Dialect] = {
    "vllm": "vllm",
    "sglang": "vllm",
    "scibox": "vllm",
    "llama": "llama",
}
# Where each says that it can answer, below its root and without work for its engine. SciBox's `/health` is
# 200 also when nothing behind it answers.
WELL: Mapping[UpstreamKind, str] = {
    "vllm": "/health",
    "sglang": "/health",
    "llama": "/health",
    "tei": "/health",
    "ollama": "/api/version",
    "litellm": "/health/liveliness",
    "scibox": "/ready",
}
OPENAI = "api.openai.com"
SHOWN = 5  # names of models in a sentence
Question = Coroutine[None, None, str | None]  # what is wrong, in words for the operator
T = TypeVar("T")


class _Meta(Struct):
    n_ctx: int | None = None  # llama-server


class _Model(Struct):
    id: str
    owned_by: str | None = None
    max_model_len: int | None = None  # vLLM, SGLang, SciBox
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


class _Scheduler(Struct):
    max_num_seqs: int | None = None


class _VllmConfig(Struct):
    scheduler_config: _Scheduler = field(default_factory=_Scheduler)


class _VllmInfo(Struct):
    vllm_config: _VllmConfig = field(default_factory=_VllmConfig)


class _SglangState(Struct):
    effective_max_running_requests_per_dp: int | None = None


class _SglangInfo(Struct):
    max_running_requests: int | None = None
    dp_size: int = 1
    internal_states: list[_SglangState] = field(default_factory=list)


class _Loaded(Struct):
    name: str
    context_length: int | None = None


class _OllamaLoaded(Struct):
    models: list[_Loaded] = field(default_factory=list)


class _OllamaShown(Struct):
    parameters: str = ""
    model_info: dict[str, object] = field(default_factory=dict)


class _TeiInfo(Struct):
    model_id: str
    max_input_length: int
    max_concurrent_requests: int | None = None
    max_client_batch_size: int | None = None


class _LitellmFacts(Struct):
    max_input_tokens: int | None = None


class _LitellmModel(Struct):
    model_name: str
    model_info: _LitellmFacts = field(default_factory=_LitellmFacts)


class _LitellmInfo(Struct):
    data: list[_LitellmModel]


async def ask_template(client: Client, replica: Replica) -> None:
    """Ask a llama-server for its slots and whether its chat template shows tools; raises where it is away."""
    props = await _told(client, replica, "/props", _Props)
    if props is None:
        return
    _learn(replica, slots=props.total_slots)
    replica.has_tools = props.chat_template_caps.supports_tools
    replica.is_hermes = replica.has_tools and is_hermes(props.chat_template)


async def probe(client: Client, replica: Replica) -> str | None:
    """Whether it can answer, as briefly as it can be asked; what is wrong, in words."""
    path = WELL.get(replica.kind) if replica.kind else None
    if path is None:
        return await ask(client, replica)
    try:
        status, _ = await _get(client, replica, replica.address.root + path)
    except SciBoxError:
        return AWAY
    if status == 404:  # a proxy before it passes on the API alone
        return await ask(client, replica)
    return _unwell(status)


async def ask(client: Client, replica: Replica) -> str | None:
    """All that it says of itself; what an operator has stated stays. What is wrong with it, in words."""
    try:
        status, body = await _get(client, replica, f"{replica.address.prefix}/models")
        if words := _unwell(status, refusals=True):
            return words
        listed = _decoded(body, _Models) if status == 200 else None
        own = _find(listed, replica) if listed else None
        replica.kind = await _recognise(client, replica, listed, own)
        _learn(replica, dialect=DIALECTS.get(replica.kind, "openai") if replica.kind else "openai")
        if own is not None:
            seen = own.meta.n_ctx if own.meta else None
            _learn(replica, context=own.max_model_len or own.context_length or seen)
        await _ask_more(client, replica)
    except SciBoxError:
        return AWAY
    replica.is_known = True
    _doubt(replica, listed, own)
    return None


async def _recognise(
    client: Client, replica: Replica, listed: _Models | None, own: _Model | None
) -> UpstreamKind | None:
    """What kind of server it is, None where it does not say."""
    if replica.address.host == OPENAI:
        return "openai"
    owners = [one.owned_by for one in ([own] if own else listed.data if listed else [])]
    for owner in owners:
        if (kind := OWNERS.get((owner or "").lower())) is not None:
            return kind
    if replica.kind is not None:
        return replica.kind
    if replica.dialect is not None and not replica.may_learn("dialect") and replica.dialect != "openai":
        return "llama" if replica.dialect == "llama" else "vllm"
    if listed is None:
        return "tei" if await _told(client, replica, "/info", _TeiInfo) else None
    status, body = await _get(client, replica, f"{replica.address.root}/health/liveliness")
    return "litellm" if status == 200 and b"alive" in body else None


async def _ask_more(client: Client, replica: Replica) -> None:
    """What its kind tells in a place of its own."""
    match replica.kind:
        case "llama":
            await ask_template(client, replica)
        case "vllm":
            info = await _told(client, replica, "/server_info?config_format=json", _VllmInfo)
            _learn(replica, slots=info.vllm_config.scheduler_config.max_num_seqs if info else None)
        case "sglang":
            await _ask_sglang(client, replica)
        case "ollama":
            await _ask_ollama(client, replica)
        case "tei":
            if tei := await _told(client, replica, "/info", _TeiInfo):
                _learn(replica, context=tei.max_input_length, slots=tei.max_concurrent_requests)
                replica.texts = tei.max_client_batch_size
        case "litellm":
            found = await _told(client, replica, "/model/info", _LitellmInfo)
            mine = [one for one in found.data if one.model_name == replica.model] if found else []
            lengths = [one.model_info.max_input_tokens for one in mine if one.model_info.max_input_tokens]
            _learn(replica, context=min(lengths, default=None))
        case _:
            pass


async def _ask_sglang(client: Client, replica: Replica) -> None:
    info = await _told(client, replica, "/get_server_info", _SglangInfo)
    if info is None:
        return
    own = [one.effective_max_running_requests_per_dp for one in info.internal_states]
    known = [slots for slots in own if slots]
    _learn(replica, slots=min(known) * info.dp_size if known else info.max_running_requests)


async def _ask_ollama(client: Client, replica: Replica) -> None:
    loaded = await _told(client, replica, "/api/ps", _OllamaLoaded)
    for model in loaded.models if loaded else []:
        if _same(model.name, replica) and model.context_length:
            _learn(replica, context=model.context_length)
            return
    asked = msgspec.json.encode({"model": replica.model})
    shown = await _told(client, replica, "/api/show", _OllamaShown, asked)
    if shown is None:
        return
    lines = [line.split() for line in shown.parameters.splitlines()]
    own = [int(line[1]) for line in lines if line[:1] == ["num_ctx"] and line[-1].isdigit()]
    trained = [
        value
        for name, value in shown.model_info.items()
        if name.endswith(".context_length") and isinstance(value, int)
    ]
    _learn(replica, context=next(iter([*own, *trained]), None))


def _same(name: str, replica: Replica) -> bool:
    """Whether that is its model; Ollama's names have a tag that may be left out."""
    wanted = replica.model
    return name == wanted or (":" not in wanted and name == f"{wanted}:latest")


def _find(listed: _Models, replica: Replica) -> _Model | None:
    own = next((one for one in listed.data if one.id == replica.model), None)
    return own or next((one for one in listed.data if _same(one.id, replica)), None)


def _doubt(replica: Replica, listed: _Models | None, own: _Model | None) -> None:
    """A list without its model: it may be another's server by now. LiteLLM's may have patterns in it."""
    names = [one.id for one in listed.data] if listed else []
    if own is not None or not names or any("*" in name for name in names):
        replica.doubt = None
        return
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    words = (
        f"It does not list '{replica.model}', but {', '.join(name[:100] for name in names[:SHOWN])}{more}: "
        "set upstream_model to the name that it has there, or start it with that model."
    )
    replica.doubt = Trouble(words, replica.doubt.since if replica.doubt else time.time())


def _learn(
    replica: Replica, *, context: int | None = None, slots: int | None = None, dialect: Dialect | None = None
) -> None:
    if context and replica.may_learn("context"):
        replica.context = context
    if slots and replica.may_learn("slots"):
        replica.slots = slots
    if dialect and replica.may_learn("dialect"):
        replica.dialect = dialect


def _unwell(status: int, *, refusals: bool = False) -> str | None:
    if refusals and status in {401, 403}:
        return refused(status)
    if status == 503:
        return "It says that it cannot answer yet (status 503): it loads its weights, or look at its own log."
    return f"It answers with status {status}: look at its own log." if status >= 500 else None


async def _told(client: Client, replica: Replica, path: str, kind: type[T], body: bytes = b"") -> T | None:
    """What it says at a path below its root, None where it does not say that."""
    status, answer = await _get(client, replica, replica.address.root + path, body)
    return _decoded(answer, kind) if status == 200 else None


def _decoded(answer: bytes, kind: type[T]) -> T | None:
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return msgspec.json.decode(answer, type=kind)
    return None


async def _get(client: Client, replica: Replica, path: str, body: bytes = b"") -> tuple[int, bytes]:
    method = "POST" if body else "GET"
    exchange = client.exchange(replica.address, method, path, body=body, secret=replica.secret)
    try:
        await exchange.open()
        return exchange.status, await (
            exchange.read_all() if exchange.status == 200 else exchange.read_error()
        )
    finally:
        exchange.close()
