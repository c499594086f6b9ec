"""What `scibox serve` says to the person at the terminal."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence

from scibox.config import Model


def greeting(version: str, url: str, data: str, secret: str | None) -> str:
    """The first lines; `secret` is the operator's, at the first start only."""
    lines = [f"SciBox {version} listens on {url} (data: {data})"]
    if secret is not None:
        lines += ["", first_key(secret), ""]
    lines.append("Loading the models ...")
    return "\n".join(lines)


def first_key(secret: str) -> str:
    """The operator's secret, at the first start only."""
    return f"First start: this is your operator key. It is shown only now, so keep it:\n\n    {secret}"


def no_keys(reason: str) -> str:
    """At the first start, when the database of keys cannot be asked."""
    return (
        f"\nNo key is known yet, since the database of keys does not work now ({reason}); calls get 503.\n"
        "Start the database, or mend shared.database_url or the disk of the data folder. This service sees\n"
        "it by itself, then makes your operator key and shows it here.\n"
    )


def ready(url: str, secret: str | None, models: Sequence[Model], seconds: float, program: str) -> str:
    """The last lines: commands that work when pasted; `program` is how this one was called."""
    names = ", ".join(model.name for model in models)
    lines = [
        f"Ready after {seconds:.1f} s: {names}",
        "",
        f"  base URL   {url}/v1",
        f"  Swagger    {url}/",
        f"  more keys  {program} keys create NAME",
        "  stop       Ctrl-C",
    ]
    chat = next((model.name for model in models if model.kind == "chat"), None)
    if chat is not None:
        body = {"model": chat, "messages": [{"role": "user", "content": "Name three colours."}]}
        shown = secret or "$SCIBOX_API_KEY"
        lines += [
            "",
            "Try it" + (":" if secret else " (with your key in SCIBOX_API_KEY):"),
            "",
            f'curl {url}/v1/chat/completions -H "Authorization: Bearer {shown}" '
            f'-H "Content-Type: application/json" -d {shlex.quote(json.dumps(body))}',
        ]
    return "\n".join(lines)
