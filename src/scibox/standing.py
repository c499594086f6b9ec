"""A way that is there: its replica, and the child of ours behind it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from scibox.config import Deployment, Model
from scibox.core.types import Dialect, Thinking
from scibox.engines import fake, llama, vllm
from scibox.engines.embedder import settings as embedder
from scibox.engines.supervisor import Command, EngineEvent, Supervisor
from scibox.plans import Way
from scibox.router.replica import EmbeddingRules, Replica
from scibox.upstream.address import Address

Report = Callable[[EngineEvent], None]

# Calls of an embedding model that a child of ours is sent at the same time; it takes their texts in turns. So
# many searches of a few dozen LLM tokens fill what it computes at once (512); what comes beyond waits in the
# fair queue.
_EMBEDDING_SLOTS = 16
_DIALECTS: Mapping[str, Dialect] = {"llama": "llama", "fake": "vllm"}  # the fake takes whatever comes


@dataclass(frozen=True, slots=True)
class Standing:
    """A way that is there: its replica, and the child behind it if that is ours."""

    replica: Replica
    child: Supervisor | None


def stand(way: Way, path: Path, report: Report) -> Standing:
    """The replica of a way, and its child, which is not started yet; `path` is for its socket."""
    deployment = way.deployment
    if deployment.url is not None:
        replica = Replica(
            address=replace(Address.parse(deployment.url), headers=_headers(deployment)),
            model=deployment.upstream_model or way.model,
            secret=way.secret,
            id=way.id,
            context=way.context,
            dialect=deployment.dialect,
            thinking=way.reasoning,
            slots=_slots(way),
        )
        return Standing(replica, None)
    if deployment.engine == "vllm":
        return _stand_vllm(way, path, report)
    command, context = _command(way, path)
    replica = Replica(
        address=Address.parse(f"unix:{path}"),
        model=way.model,
        id=way.id,
        context=context,
        is_local=True,
        counts=True,
        dialect=_DIALECTS.get(deployment.engine or "", "openai"),
        thinking=_thinking(way),
        slots=_slots(way),
    )
    return Standing(replica, Supervisor(way.model, command, path, report=report))


def _stand_vllm(way: Way, path: Path, report: Report) -> Standing:
    secret = secrets.token_urlsafe(32)
    replica = Replica(
        address=Address.parse(f"unix:{path}"),
        model=way.model,
        secret=secret,
        id=way.id,
        context=way.context or way.deployment.context,
        is_local=True,
        dialect="vllm",
        kind="vllm",
        thinking=way.reasoning,
        slots=_slots(way),
    )
    child = Supervisor(
        way.model,
        _vllm_command(way, path, secret),
        path,
        report=report,
        ready_timeout_s=way.start_s,
        grace_s=vllm.GRACE_S,
    )
    return Standing(replica, child)


def _vllm_command(way: Way, path: Path, secret: str) -> Command:
    own = way.deployment
    assert own.weights, "the configuration says so"
    return vllm.command(
        vllm.Settings(
            socket=str(path),
            weights=own.weights,
            name=way.model,
            secret=secret,
            command=own.command or ("vllm",),
            tensor_parallel=own.tensor_parallel,
            gpu_memory=own.gpu_memory,
            context=own.context,
            slots=own.slots,
            quantization=own.quantization,
            options=own.options,
            environment=own.environment,
        )
    )


def rules(model: Model, ways: Iterable[Way]) -> EmbeddingRules:
    """How texts for this model are treated; its vectors are known by what they depend on."""
    identities = [
        (way.identity, way.deployment.pooling)
        if way.weights
        else (_engine(way.deployment), way.deployment.url, way.deployment.upstream_model or model.name)
        for way in ways
    ]
    return EmbeddingRules(
        prefix=model.prefix or "",
        query_prefix=model.query_prefix,
        passage_prefix=model.passage_prefix,
        token_ids=model.token_ids or "cl100k_base",
        is_matryoshka=model.matryoshka,
        identity=msgspec.json.encode([model.revision, identities]),
    )


def _command(way: Way, path: Path) -> tuple[Command, int | None]:
    """How to start a child of ours, and the context of one call there, in LLM tokens."""
    weights, deployment = way.weights, way.deployment
    if weights is None:
        settings = fake.Settings(socket=str(path), name=way.model)
        return Command("scibox.engines.fake", msgspec.json.encode(settings)), settings.context
    if weights.engine == "embedder":
        assert deployment.batch_tokens, "written in by `plan`"
        return embedder.command(
            embedder.Settings(
                socket=str(path),
                weights=str(weights.path),
                name=way.model,
                threads=deployment.threads or _cores(),
                batch_tokens=deployment.batch_tokens,
            )
        ), weights.context
    assert deployment.slots, "written in by `plan`"
    assert deployment.context, "written in by `plan`"
    assert deployment.batch, "written in by `plan`"
    context = min(deployment.context, weights.context or deployment.context)
    return llama.command(
        llama.Settings(
            socket=str(path),
            weights=str(weights.path),
            name=way.model,
            threads=deployment.threads or _cores(),
            slots=deployment.slots,
            context=context,
            batch=deployment.batch,
            embedding=way.kind == "embedding",
            pooling=deployment.pooling,
        )
    ), context


def _slots(way: Way) -> int | None:
    """Calls at the same time, as a child of ours is told it; None: what the server says of itself."""
    is_own = way.deployment.url is None and way.deployment.engine != "vllm"
    return _EMBEDDING_SLOTS if is_own and way.kind == "embedding" else way.deployment.slots


def _thinking(way: Way) -> Thinking | None:
    """llama.cpp's chat template can be asked; what the operator states wins."""
    return None if way.reasoning == "auto" and way.deployment.engine == "llama" else way.reasoning


def _engine(deployment: Deployment) -> str | None:
    return f"vllm {deployment.weights}" if deployment.engine == "vllm" else deployment.engine


def _headers(deployment: Deployment) -> tuple[tuple[str, str], ...]:
    named = {"openai-organization": deployment.organization, "openai-project": deployment.project}
    return tuple((name, value) for name, value in named.items() if value)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
