"""docs/clients.md, made of the tests: what a client is said to do there is what a test has seen it do.

PYTHONPATH=tests python -m clients.page    writes the page anew
"""

from __future__ import annotations

from clients import matrix
from clients.setting import ROOT

PAGE = ROOT / "docs" / "clients.md"

# What the things of the programs come under; the columns of the page.
COLUMNS = {
    "chat": ("chat", "command", "roles", "several_turns", "together"),
    "streams": ("stream", "stream_events", "stream_helper", "events", "leaves_a_stream", "leaves_early"),
    "tools": (
        "forced_tool",
        "parse_tool",
        "required_tool",
        "streamed_tool",
        "tool_answered",
        "tools_are_offered",
    ),
    "structured output": (
        "json_object",
        "json_schema",
        "parse",
        "parse_streamed",
        "structured",
        "structured_by_tool",
        "structured_streamed",
    ),
    "Responses": (
        "response",
        "response_errors",
        "response_parse",
        "response_schema",
        "response_stream",
        "response_stream_helper",
        "response_tool",
        "response_tool_stream",
        "responses",
        "responses_structured",
    ),
    "completions": ("completion", "completion_stream"),
    "embeddings": (
        "embeddings",
        "embeddings_as_numbers",
        "embeddings_by_text",
        "long_embedding",
        "nearest",
        "pipeline",
    ),
    "files and batches": (
        "files",
        "batch_of_chats",
        "batch_of_embeddings",
        "batch_refused",
        "batch_cancelled",
    ),
    "errors": ("errors", "errors_in_detail"),
}
# What does not come under one, in words.
ALSO = {
    "cancelled": "cancelling",
    "counted": "counting tokens",
    "eight_streams": "eight streams at once",
    "logprobs": "log-probabilities",
    "models": "the list of models",
    "raw": "the answer's headers",
    "seeded": "seeds",
    "several": "`n` choices",
    "stopped": "stop sequences",
    "timeout": "deadlines",
    "twenty_at_once": "twenty calls at once",
}

HEAD = """# Clients that are proven to work

This page is made of the tests (`PYTHONPATH=tests python -m clients.page`), and a test compares it with them: each client is
run in an environment of its own against the real service with real weights, and each number is how many things of that kind
it did right in the last run of `./check`. What it did stands in its program.

What is proven: streams arrive piece by piece; a tool that must be called is called, with arguments valid against its schema; structured output
is valid against its schema, whatever the model is (the tests' has 135 million parameters); vectors are the service's own, bit for bit
but for decimal shortening; usage adds up; 401, 404 and 400 become the client's own errors.

"""
TAIL = """
An empty cell: the client does not offer it, or the service it stands for has nothing of the kind (Anthropic has no embeddings).
`langchain-openai` also passes the standard tests of `langchain-tests` for chat completions, the Responses API and
embeddings (`programs/langchain_standard.py` names the few that want a wiser model). All versions, also those of what the
clients depend on, are pinned in `tests/clients/environments/` and `tests/clients/node/`; `newest` is what
`pip install --upgrade openai` gives that day.
"""


def render() -> str:
    """The whole page."""
    head = ["client", "version", *COLUMNS, "also", "program"]
    rows = [head, ["---"] * 2 + ["--:"] * len(COLUMNS) + ["---"] * 2]
    rows += [_row(client) for client in matrix.CLIENTS]
    return HEAD + "".join(f"| {' | '.join(row)} |\n" for row in rows) + TAIL


def unplaced() -> set[str]:
    """Things that some client does and this page has no place for."""
    placed = {thing for things in COLUMNS.values() for thing in things} | set(ALSO)
    return {thing for client in matrix.CLIENTS for _, thing in client.things()} ^ placed


def _row(client: matrix.Client) -> list[str]:
    done = [thing for _, thing in client.things()]
    counts = [sum(thing in things for thing in done) for things in COLUMNS.values()]
    also = ", ".join(ALSO[thing] for thing in done if thing in ALSO)
    programs = ", ".join(
        f"[{program}](../{matrix.file_of(program).relative_to(ROOT)})" for program in client.programs
    )
    return [
        client.name,
        matrix.version_of(client),
        *(str(count) if count else "" for count in counts),
        also,
        programs,
    ]


if __name__ == "__main__":
    PAGE.write_text(render(), "utf-8")
