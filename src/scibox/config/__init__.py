"""One TOML file and the environment to frozen records; unknown names are errors that name the nearest."""

from scibox.config.changes import Changes, changes, refuse_restarts
from scibox.config.load import check, load
from scibox.config.records import (
    Config,
    ConfigError,
    Deadlines,
    Deployment,
    Embedder,
    Engine,
    Llama,
    Model,
    Problem,
    Server,
)
from scibox.core.types import Kind

__all__ = [
    "Changes",
    "Config",
    "ConfigError",
    "Deadlines",
    "Deployment",
    "Embedder",
    "Engine",
    "Kind",
    "Llama",
    "Model",
    "Problem",
    "Server",
    "changes",
    "check",
    "load",
    "refuse_restarts",
]
