"""One TOML file and the environment to frozen records; unknown names are errors that name the nearest."""

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
    "check",
    "load",
]
