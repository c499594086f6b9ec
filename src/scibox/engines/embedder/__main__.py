"""`python -m scibox.engines.embedder`: settings on standard input, then serves until its parent goes."""

from __future__ import annotations

import asyncio
import os

import uvicorn
import uvloop

from scibox.engines.child import begin, fail
from scibox.engines.embedder.server import App, Ready
from scibox.engines.embedder.settings import Settings


def main() -> None:
    """Opens the socket first, loads the weights behind it, and says in one line why it cannot."""
    settings = begin(Settings)
    os.environ.setdefault("RAYON_NUM_THREADS", str(settings.threads))  # the tokenizer's threads
    app = App(settings.name)
    config = uvicorn.Config(
        app,
        uds=settings.socket,
        http="httptools",
        ws="none",
        log_level="warning",
        access_log=False,
        timeout_keep_alive=3600,  # one client, the gateway; it closes what it does not need
    )
    server = uvicorn.Server(config)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(server, app, settings))


async def _serve(server: uvicorn.Server, app: App, settings: Settings) -> None:
    serving = asyncio.create_task(server.serve())
    try:
        app.ready = await asyncio.to_thread(_load, settings)
    except Exception as failure:  # a file of any kind may be wrong in any way
        fail(f"The embedder cannot load {settings.weights}: {failure}")
    await serving


def _load(settings: Settings) -> Ready:
    """Imports what is slow to import only now, when the socket is open already."""
    from scibox.engines.embedder import recipe  # noqa: PLC0415
    from scibox.engines.embedder.desk import Desk  # noqa: PLC0415
    from scibox.engines.embedder.encoder import Encoder  # noqa: PLC0415
    from scibox.engines.embedder.splitter import Splitter  # noqa: PLC0415

    how = recipe.read(settings.folder)
    encoder = Encoder(settings.folder, how, settings.threads)
    splitter = Splitter(settings.folder, how.max_tokens)
    desk = Desk(encoder, settings.batch_tokens, how.max_tokens)
    return Ready(splitter, desk, encoder.dimensions, how.max_tokens)


if __name__ == "__main__":
    main()
