"""The configuration as frozen records: every setting, its default and its bounds.

Nothing here reads anything. `docs/reference/configuration.md` is checked against this file.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

from scibox.core.errors import OperatorError
from scibox.core.types import NO_LIMITS, Dialect, Kind, Limits, Price, Thinking, TokenIds

Engine = Literal["llama", "embedder", "vllm", "fake"]
Pooling = Literal["mean", "cls", "last"]


@dataclass(frozen=True, slots=True)
class Between:
    """The inclusive bounds of a number."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Pairs:
    """A table of names that are not ours: `texts` only, or numbers and true and false too."""

    texts: bool


Port = Annotated[int, Between(1, 65_535)]
Count = Annotated[int, Between(1, 2**31 - 1)]
Threads = Annotated[int, Between(1, 1_024)]
Slots = Annotated[int, Between(1, 1_024)]
Workers = Annotated[int, Between(1, 64)]
Replicas = Annotated[int, Between(1, 64)]
Money = Annotated[float, Between(0.0, 1e9)]
Seconds = Annotated[float, Between(0.001, 7 * 86_400)]
Days = Annotated[float, Between(0.01, 3_650)]
FileBytes = Annotated[int, Between(1_024, 2**40)]
Bytes = Annotated[int, Between(0, 2**44)]
Texts = Annotated[int, Between(1, 10_000)]
Share = Annotated[float, Between(0.01, 1.0)]
Options = Annotated[tuple[tuple[str, str | int | float | bool], ...], Pairs(texts=False)]
Environment = Annotated[tuple[tuple[str, str], ...], Pairs(texts=True)]
BodyBytes = Annotated[int, Between(1_024, 2**31 - 1)]


@dataclass(frozen=True, slots=True)
class Server:
    """The address callers use, and how the door behaves."""

    host: str = "127.0.0.1"
    port: Port = 4000
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    heartbeat_s: Seconds = 10.0
    max_body_bytes: BodyBytes = 16 * 2**20
    header_s: Seconds = 10.0
    body_s: Seconds = 30.0
    keep_alive_s: Seconds = 75.0
    drain_s: Seconds = 30.0
    workers: Workers = 1
    cors_origins: tuple[str, ...] = ("*",)

    @property
    def url(self) -> str:
        """Where a program on this machine finds the service."""
        host = "127.0.0.1" if self.host in {"0.0.0.0", "::"} else self.host  # noqa: S104 - compared, not bound
        host = f"[{host}]" if ":" in host else host
        return f"{'https' if self.tls_certificate else 'http'}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long a replica may take, in seconds."""

    connect_s: Seconds = 5.0
    first_chunk_s: Seconds = 300.0
    next_chunk_s: Seconds = 120.0
    total_s: Seconds = 3600.0


@dataclass(frozen=True, slots=True)
class Routing:
    """How the servers of others are looked after."""

    health_every_s: Seconds = 5.0


@dataclass(frozen=True, slots=True)
class Llama:
    """Defaults of every deployment on the llama engine; None is the engine's own choice."""

    threads: Threads | None = None
    slots: Slots = 8
    context: Count = 3072
    batch: Count = 128


@dataclass(frozen=True, slots=True)
class Embedder:
    """Defaults of every deployment on the embedder; None is the engine's own choice."""

    threads: Threads | None = None
    batch_tokens: Count = 512


@dataclass(frozen=True, slots=True)
class Vllm:
    """What holds for every deployment on the engine vllm."""

    start_s: Seconds = 3600.0


@dataclass(frozen=True, slots=True)
class Files:
    """Bounds of what callers store for batches, and what batches store for them."""

    max_file_bytes: FileBytes = 100 * 2**20
    max_owner_bytes: FileBytes = 2 * 2**30
    keep_days: Days = 30.0


@dataclass(frozen=True, slots=True)
class Batches:
    """How batches run beside other calls."""

    concurrency: Slots = 2


@dataclass(frozen=True, slots=True)
class Gate:
    """How calls wait that cannot start now, and how many may; whether holders may renew their secrets."""

    patience_s: Seconds = 60.0
    queue_per_model: Count = 1_000
    queue_per_owner: Count = 200
    upstream_slots: Slots = 128
    repeat_keep_s: Seconds = 3600.0
    repeat_bytes: Bytes = 64 * 2**20
    holders_rotate: bool = False


@dataclass(frozen=True, slots=True)
class Ledger:
    """What is kept of calls. `strict`: a call's entry is on the disk itself before its answer is complete."""

    strict: bool = False
    keep_days: Days = 90.0


@dataclass(frozen=True, slots=True)
class Shared:
    """State that several nodes share; without a URL each node stands alone."""

    database_url: str | None = None
    limits_url: str | None = None
    limits_prefix: str = "scibox"


@dataclass(frozen=True, slots=True)
class Embeddings:
    """How many texts are embedded in one sub-call, and how many vectors are remembered; 0 bytes: none."""

    texts_per_call: Texts = 128
    tokens_per_call: Count = 16_384
    calls_at_once: Slots = 4
    cache_memory_bytes: Bytes = 64 * 2**20
    cache_disk_bytes: Bytes = 512 * 2**20


@dataclass(frozen=True, slots=True)
class Deployment:
    """One way to serve a model: an embedded `engine` with `weights`, or the `url` of an upstream.

    Or it has several `replicas`, each with those; `count` children of one engine are replicas too.
    """

    engine: Engine | None = None
    weights: str | None = None  # a catalogue name, or the absolute path of a .gguf file or an ONNX folder
    threads: Threads | None = None
    slots: Slots | None = None
    context: Count | None = None
    batch: Count | None = None
    batch_tokens: Count | None = None
    pooling: Pooling | None = None  # None: what the weights say
    tensor_parallel: Replicas | None = None
    gpu_memory: Share | None = None
    quantization: str | None = None
    options: Options = ()  # further flags of vLLM, by its names for them
    environment: Environment = ()
    command: tuple[str, ...] = ()  # the program, where it is not "vllm" on the PATH
    url: str | None = None  # without a slash at its end
    upstream_model: str | None = None
    upstream_key_env: str | None = None
    upstream_key_file: Path | None = None
    organization: str | None = None  # for OpenAI's headers of these names
    project: str | None = None
    dialect: Dialect | None = None  # None: what the upstream says of itself
    count: Replicas = 1  # children of the engine
    replicas: tuple[Deployment, ...] = ()  # else it is its own only one

    @property
    def each(self) -> tuple[Deployment, ...]:
        """Its replicas, each as a deployment of one."""
        own = self.replicas or (self,)
        return tuple(replace(one, count=1) for one in own for _ in range(one.count))


@dataclass(frozen=True, slots=True)
class Model:
    """A public name and the deployments that serve it, in the order they are tried."""

    name: str
    kind: Kind
    aliases: tuple[str, ...] = ()
    deployments: tuple[Deployment, ...] = ()
    context: Count | None = None
    dimensions: Count | None = None
    prefix: str | None = None  # before a text to embed whose caller does not say what it is
    query_prefix: str | None = None
    passage_prefix: str | None = None
    token_ids: TokenIds | None = None
    matryoshka: bool = False
    revision: str | None = None
    owned_by: str = "scibox"
    reasoning: Thinking = "auto"
    limits: Limits = NO_LIMITS  # of all callers together
    owner_limits: Limits = NO_LIMITS  # of each owner
    price: Price | None = None
    hedge_after_s: Seconds | None = None  # without a first chunk; then another replica is asked as well
    resume: bool = True  # a streamed answer whose replica dies goes on on another one
    fallback_models: tuple[str, ...] = ()  # public names of models that may stand in for it


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be configured; `source` is the file it came from, None without a file."""

    source: Path | None
    data: Path
    catalogue: Path | None = None  # an operator's own entries, over the shipped ones
    server: Server = field(default_factory=Server)
    deadlines: Deadlines = field(default_factory=Deadlines)
    routing: Routing = field(default_factory=Routing)
    llama: Llama = field(default_factory=Llama)
    embedder: Embedder = field(default_factory=Embedder)
    vllm: Vllm = field(default_factory=Vllm)
    files: Files = field(default_factory=Files)
    batches: Batches = field(default_factory=Batches)
    embeddings: Embeddings = field(default_factory=Embeddings)
    gate: Gate = field(default_factory=Gate)
    ledger: Ledger = field(default_factory=Ledger)
    shared: Shared = field(default_factory=Shared)
    models: tuple[Model, ...] = ()

    def place(self, tables: str) -> str:
        """Where a set of tables is, for `store.sql.Sql`: the shared database, or a file in `data`."""
        return self.shared.database_url or f"sqlite://{self.data.absolute()}/{tables}.db"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with the configuration, where it is ("scibox.toml:12") and what to do."""

    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


class ConfigError(OperatorError):
    """The configuration cannot be used; `problems` has everything found, in order."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems
