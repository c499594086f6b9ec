"""The clients that are proven to work: where each lives, the programs it is tried with, and what they do.

A program does several things and tells a line about each (`programs/telling.py`). What the things are is read
from the program itself, so that nothing it does can be without a rule (`rules.py`) or without a test.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from clients import venvs

HERE = Path(__file__).parent
_THING = {
    ".py": re.compile(r"^@thing\n(?:async )?def (\w+)", re.MULTILINE),
    ".mjs": re.compile(r"^await thing\(\"(\w+)\"", re.MULTILINE),
}
_OPENAI = ("openai_chat.py", "openai_more.py", "openai_responses.py", "openai_batch.py")


@dataclass(frozen=True, slots=True)
class Client:
    """One client in one version. `package` is what its version is known by."""

    name: str
    environment: str
    package: str
    programs: tuple[str, ...]

    @property
    def in_node(self) -> bool:
        """Whether it runs in Node.js."""
        return self.environment == "node"

    def things(self) -> list[tuple[str, str]]:
        """Program and name of everything it does."""
        return [(program, thing) for program in self.programs for thing in things_of(program)]


CLIENTS = (
    Client("openai, oldest 1.x", "openai-oldest", "openai", _OPENAI),
    Client("openai, last 1.x", "openai-last-1", "openai", _OPENAI),
    Client("openai, newest", "openai-newest", "openai", _OPENAI),
    Client("anthropic", "anthropic", "anthropic", ("anthropic_client.py",)),
    Client("langchain-openai", "langchain", "langchain-openai", ("langchain_client.py",)),
    Client("llama-index", "llama-index", "llama-index-llms-openai-like", ("llama_index_client.py",)),
    Client("pydantic-ai", "pydantic-ai", "pydantic-ai-slim", ("pydantic_ai_client.py",)),
    Client("instructor", "instructor", "instructor", ("instructor_client.py",)),
    Client("litellm", "litellm", "litellm", ("litellm_client.py",)),
    Client("llm", "llm", "llm", ("llm_client.py",)),
    Client("haystack", "haystack", "haystack-ai", ("haystack_client.py",)),
    Client("openai for Node.js", "node", "openai", ("openai_client.mjs",)),
    Client("AI SDK", "node", "ai", ("ai_client.mjs",)),
)


def file_of(program: str) -> Path:
    """Where a program lies."""
    return HERE / ("node" if program.endswith(".mjs") else "programs") / program


def things_of(program: str) -> list[str]:
    """The names of what a program does, in its order."""
    path = file_of(program)
    return _THING[path.suffix].findall(path.read_text("utf-8"))


def version_of(client: Client) -> str:
    """The version that is tried; "newest" where it is what the registry has that day."""
    if client.in_node:
        [version] = re.findall(
            rf'"{client.package}": "([\d.]+)"', (HERE / "node" / "package.json").read_text("utf-8")
        )
        return version
    lock = venvs.LOCKS / f"{client.environment}.txt"
    if not lock.exists():
        return "newest"
    [version] = re.findall(rf"^{re.escape(client.package)}==(\S+)", lock.read_text("utf-8"), re.MULTILINE)
    return version
