"""The gateway in one process, in front of the shipped fake engine: real sockets, no weights."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import httpx

from scibox.core import secret
from scibox.core.conditions import Condition
from scibox.core.entries import Entry, Opened
from scibox.core.errors import ModelNotFound, NotFound, OperatorError
from scibox.core.events import Event
from scibox.core.limits import Windows
from scibox.core.types import NO_LIMITS, Dialect, Key, ModelCard, Owner, Price, Thinking
from scibox.core.types import Limits as Allowed
from scibox.engines.fake import FakeEngine
from scibox.gate.desk import LocalDesk
from scibox.gate.gate import Gate
from scibox.gate.keyring import KeyRing, unavailable
from scibox.gate.repeats import LocalRepeats
from scibox.http import app, server
from scibox.http.ending import Ending
from scibox.http.front import Front
from scibox.http.protocol import Patience
from scibox.ledger.journal import Journal
from scibox.ledger.reports import Reports
from scibox.router.replica import Deployment, EmbeddingRules, Replica, Route
from scibox.router.router import Deadlines, Router
from scibox.router.vectors import Packing, Vectors
from scibox.service.admin import Admin
from scibox.service.batches import Batches
from scibox.service.directory import Directory
from scibox.service.disk import Disk
from scibox.service.files import Files, Limits
from scibox.service.office import Office
from scibox.service.pipeline import Pipeline
from scibox.service.revocation import Revocation
from scibox.service.runner import Runner
from scibox.service.status import Status
from scibox.service.usage import Usage
from scibox.service.work import Pace, Tools
from scibox.store.entries import LEDGER, EntryStore
from scibox.store.keys import KeyStore, Known
from scibox.store.links import DatabaseAway
from scibox.store.revoked import Revoked
from scibox.store.shelf import Shelf
from scibox.store.sql import Sql
from scibox.store.vectors import VectorCache
from scibox.upstream.address import Address
from scibox.upstream.client import Client
from scibox.wire.admin.replicas import AdminReplica, AdminReplicaList, AdminReplicaRemoved, NewReplicaRequest
from scibox.wire.admin.status import Reloaded
from scibox.wire.faces import FACES

SECRET = secret.compose([7] * secret.RANDOM_CHARS)
LIMITED = secret.compose([8] * secret.RANDOM_CHARS)
REVOKED = secret.compose([9] * secret.RANDOM_CHARS)
EXPIRED = secret.compose([10] * secret.RANDOM_CHARS)
COLLEAGUE = secret.compose([13] * secret.RANDOM_CHARS)
STRANGER = secret.compose([11] * secret.RANDOM_CHARS)
PACE = Pace(4, (0.01, 0.02, 0.04))
OPERATOR = secret.compose([12] * secret.RANDOM_CHARS)
CHAT = {"model": "chatty", "messages": [{"role": "user", "content": "hello there"}]}


def key(name: str, owner: str = "team", **more: object) -> Key:
    whole = {"role": "member", "last_four": "abcd", "created_at": 1_700_000_000.0, **more}
    return Key(f"key_{name}", owner, name, **whole)  # type: ignore[arg-type]


KEYS = {
    secret.digest(SECRET): key("full"),
    secret.digest(LIMITED): key("limited", models=frozenset({"vectors"})),
    secret.digest(REVOKED): key("revoked", revoked_at=1_700_000_100.0),
    secret.digest(EXPIRED): key("expired", expires_at=1_700_000_100.0),
    secret.digest(COLLEAGUE): key("colleague"),
    secret.digest(STRANGER): key("stranger", owner="others"),
    secret.digest(OPERATOR): key("operator", owner="operator", role="operator"),
}


class Notebook(Journal):
    """A journal that shows what it was given."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, lambda event: None)
        self.begun: list[Opened] = []
        self.entries: list[Entry] = []

    def opened(self, record: Opened) -> None:
        self.begun.append(record)
        super().opened(record)

    def ended(self, entry: Entry) -> None:
        self.entries.append(entry)
        super().ended(entry)


@dataclass
class Rig:
    """A running gateway."""

    client: httpx.AsyncClient
    port: int
    engine: FakeEngine
    gate: Gate
    door: app.Door
    front: Front
    connections: Collection[object]
    runner: Runner
    shelf: Shelf
    ring: KeyRing
    store: KeyStore
    folder: Path
    desk: LocalDesk
    journal: Notebook
    events: list[Event] = field(default_factory=list)

    @property
    def entries(self) -> list[Entry]:
        return self.journal.entries

    @property
    def ended(self) -> list[Entry]:
        return [event for event in self.events if isinstance(event, Entry)]

    async def until_idle(self, seconds: float = 5.0) -> None:
        async with asyncio.timeout(seconds):
            while self.gate.in_flight or self.engine.in_flight:
                await asyncio.sleep(0.005)


@dataclass
class Models:
    """Models that are all well."""

    routes: list[Route]
    is_ready: bool = True

    def answering(self) -> list[str]:
        return self.names()

    def names(self) -> list[str]:
        return [route.card.name for route in self.routes]

    def conditions(self) -> list[Condition]:
        return []


class Nobodies:
    """A fleet for a rig, which has no configuration to add to."""

    async def listed(self) -> AdminReplicaList:
        return AdminReplicaList([])

    async def add(self, asked: NewReplicaRequest) -> AdminReplica:
        raise ModelNotFound("a rig has no configuration", param="model")

    async def drain(self, replica_id: str, is_draining: bool, force: bool) -> AdminReplica:
        raise NotFound("a rig has no replicas that are known by an id")

    async def remove(self, replica_id: str, now: bool, force: bool) -> AdminReplicaRemoved:
        raise NotFound("a rig has no replicas that are known by an id")


async def reload() -> Reloaded:
    raise OperatorError("a rig has no configuration")


@contextlib.contextmanager
def socket_folder() -> Iterator[Path]:
    """A folder with a short path: a Unix socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="scibox-test-") as folder:
        yield Path(folder)


def office_of(
    pipeline: Pipeline, ring: KeyRing, folder: Path, now: Callable[[], float]
) -> tuple[Office, KeyStore]:
    """The operator's use cases, on a store that has `KEYS`."""
    store = KeyStore(f"sqlite://{folder}/keys.db")
    store.add((known, digest) for digest, known in KEYS.items())

    async def refresh() -> None:
        try:
            ring.replace(store.load()[1])
        except DatabaseAway:
            raise unavailable() from None

    revocation = Revocation(store, Revoked(folder / "revoked"), ring.end)
    return Office(Admin(store, revocation, lambda: pipeline.directory.names, now, ring.keys), refresh), store


@contextlib.asynccontextmanager
async def rig(  # noqa: PLR0915 - it joins what app.py joins
    *,
    deadlines: Deadlines | None = None,
    heartbeat_s: float = 10.0,
    max_body_bytes: int = 2**20,
    remote: bool = False,
    fallback: bool = False,
    tokenizer: Literal["llama", "vllm"] | None = "llama",
    patience: Patience | None = None,
    cors_origins: tuple[str, ...] = ("*",),
    aliases: Mapping[str, str] | None = None,
    dialect: Dialect | None = "openai",
    thinking: Thinking | None = "auto",
    data: Path | None = None,
    limits: Limits | None = None,
    pace: Pace = PACE,
    now: Callable[[], float] = time.time,
    rules: EmbeddingRules | None = None,
    packing: Packing | None = None,
    cache_file: Path | None = None,
    ranker: bool = False,
    second: bool = False,
    keys: Mapping[str, Key] | None = None,
    owners: Mapping[str, Owner] | None = None,
    slots: int | None = None,
    patience_s: float = 60.0,
    model_limits: Allowed = NO_LIMITS,
    owner_limits: Allowed = NO_LIMITS,
    price: Price | None = None,
    queues: tuple[int, int] = (1_000, 200),
    **vectors_replica: Any,
) -> AsyncIterator[Rig]:
    """A gateway with the models `chatty` (alias `gpt-test`) and `vectors`, both on one fake engine.

    `remote`: the engine is no child of ours; `fallback`: a dead replica stands before the engine; `tokenizer`:
    how that engine's tokenizer is asked; `dialect` and `thinking` of the replica: None where it is to be asked.
    `rules`, `packing` and further fields of its replica are for `vectors`; `cache_file` switches its cache on.
    `ranker`: one more model, of kind `rerank`; `second`: one more for chat, `spare`. `keys` (by digest)
    are there beside the usual ones, `owners` by name; `slots` of the replica of `chatty`; `queues`: how many may wait for a model, and of an owner;
    `model_limits`, `owner_limits` and `price` are of both models.
    """
    with socket_folder() as folder:
        address = "http://127.0.0.1:0" if remote else f"unix:{folder}/fake.sock"
        async with FakeEngine(address, name="fake-model") as engine:
            where = engine.address if engine.address.startswith("unix:") else f"{engine.address}/v1"
            chatty, vectors = (
                Replica(
                    Address.parse(where),
                    "fake-model",
                    "upstream-secret",
                    context,
                    not remote,
                    counts=tokenizer == "llama",
                    dialect="vllm" if tokenizer == "vllm" else dialect,
                    thinking=thinking,
                )
                for context in (8192, 512)
            )
            vectors = replace(vectors, **vectors_replica)
            dead = Replica(
                Address.parse(f"unix:{folder}/nobody.sock"), "fake-model", counts=tokenizer == "llama"
            )
            events: list[Event] = []
            chatty = replace(chatty, slots=slots)
            ring = KeyRing(Known(KEYS | dict(keys or {}), dict(owners or {})))
            client = Client(1.0)
            router = Router(client, deadlines or Deadlines(5.0, 5.0, 20.0))
            limited: Any = {"limits": model_limits, "owner_limits": owner_limits, "price": price}
            before = (dead,) if fallback else ()
            routes = [
                Route(ModelCard("chatty", "chat", "scibox", 1, 8192, **limited), alone(*before, chatty)),
                Route(
                    ModelCard("vectors", "embedding", "scibox", 1, vectors.context, 32, **limited),
                    alone(*before, vectors),
                    rules or EmbeddingRules(),
                ),
                *([Route(ModelCard("ranker", "rerank", "scibox", 1), alone(vectors))] if ranker else ()),
                *(
                    [Route(ModelCard("spare", "chat", "scibox", 1, 8192), alone(replace(chatty)))]
                    if second
                    else ()
                ),
            ]
            directory = Directory(routes, aliases or {"gpt-test": "chatty"})
            journal = Notebook(folder / "journal")
            bounds = {"queue_per_model": queues[0], "queue_per_owner": queues[1]}
            desk = LocalDesk(directory.slots, Windows(), time.monotonic, now, **bounds)
            sql = Sql(f"sqlite://{folder}/ledger.db", LEDGER)
            usage = Usage(Reports(folder / "journal", EntryStore(sql), now), now)
            gate = Gate(
                ring,
                desk,
                journal,
                events.append,
                clock=time.monotonic,
                now=now,
                patience_s=patience_s,
                background_calls=pace.concurrency,
            )
            remembered = 2**24 if cache_file else 0
            cache = VectorCache(remembered, cache_file, remembered, lambda message: None)
            tools = Tools(
                pipeline=Pipeline(
                    gate,
                    directory,
                    router,
                    Vectors(router, cache, packing or Packing()),
                ),
                faces=FACES,
                shelf=Shelf(data or folder),
                disk=Disk(),
                pace=pace,
                limits=limits or Limits(2**20, 2**22, 3600.0),
                max_line_bytes=max_body_bytes,
                emit=events.append,
                now=now,
            )
            runner = Runner(tools)
            office, store = office_of(tools.pipeline, ring, folder, now)
            files = Files(tools.shelf, tools.disk, tools.limits, now)
            door = app.Door(
                pipeline=tools.pipeline,
                files=files,
                batches=Batches(tools, files, runner.wake),
                office=office,
                usage=usage,
                emit=events.append,
                status=Status(gate, Models(routes), "0"),
                reload=reload,
                fleet=Nobodies(),
                ending=Ending(),
                repeats=LocalRepeats(60.0, 2**20, time.monotonic),
                heartbeat_s=heartbeat_s,
                max_body_bytes=max_body_bytes,
                cors_origins=cors_origins,
            )
            listen = server.Listen("127.0.0.1", 0, patience=patience or Patience())
            sock = server.bind(listen)
            web = server.server(front := app.build(door), listen)
            task = asyncio.create_task(web.serve(sockets=[sock]))
            running = asyncio.gather(runner.run(), gate.watch())
            port = sock.getsockname()[1]
            try:
                async with httpx.AsyncClient(
                    base_url=f"http://127.0.0.1:{port}",
                    headers={"authorization": f"Bearer {SECRET}"},
                    timeout=15,
                ) as http:
                    connections = web.server_state.connections
                    more = (
                        front,
                        connections,
                        runner,
                        tools.shelf,
                        ring,
                        store,
                        folder,
                        desk,
                        journal,
                        events,
                    )
                    yield Rig(http, port, engine, gate, door, *more)
            finally:
                await runner.stop(2.0)
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
                await server.stop(web, task)
                client.close()
                cache.close()
                sock.close()
                tools.disk.close()
                tools.shelf.close()
                journal.close()
                usage.close()
                sql.close()
                office.close()
                store.close()


def alone(*replicas: Replica) -> tuple[Deployment, ...]:
    """A deployment of each."""
    return tuple(Deployment((replica,)) for replica in replicas)
