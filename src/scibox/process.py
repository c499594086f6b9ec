"""The service as a process: its folder for sockets, its terminal, its threads and tasks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
GARBAGE_OBJECTS = 20_000


@contextlib.contextmanager
def sockets_folder() -> Iterator[Path]:
    """A private folder for the engines' sockets; short, since a socket's path has at most 107 bytes."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    for stale in base.glob("scibox-*-*"):  # of a service that was killed
        pid = stale.name.split("-")[1]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            shutil.rmtree(stale, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"scibox-{os.getpid()}-", dir=base))  # mode 0700
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def quicken() -> None:
    """Spare each call what Python does for programs that it knows nothing of; when all parts have been made.

    What is there now stays, so the collector of cycles need not look at it again; calls leave none, so it
    need not come after every 700 objects. The loop need not hear of each asynchronous generator (2 µs, six in
    a call): it would only close those that nobody has closed, and here each one is (ARCHITECTURE, law 4).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GARBAGE_OBJECTS, 20, 20)
    sys.set_asyncgen_hooks(None, None)


async def first_of(*waits: Coroutine[None, None, object], within_s: float | None = None) -> int | None:
    """Which of these ended first (the others are cancelled), or None at the end of the time."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        done, _ = await asyncio.wait(tasks, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for index, task in enumerate(tasks):
        if task in done:
            task.result()
            return index
    return None


def program() -> str:
    """How to call this program from the same folder: by name where it is on the PATH, else by its path."""
    called = Path(sys.argv[0])
    if called.name != "scibox":
        return "scibox"
    on_path = shutil.which("scibox")
    is_same = on_path is not None and Path(on_path).resolve() == called.resolve()
    return "scibox" if is_same else os.path.relpath(called)


def say(text: str) -> None:
    """To the person at the terminal, if there still is one."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def has_terminal() -> bool:
    """Whether a terminal controls this process; one that was closed does not any more."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


async def aside(work: Callable[[], T]) -> T:
    """Its result, from a thread that holds nobody up when the service ends: a download may take hours."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(value: T | None, error: BaseException | None) -> None:
        if result.cancelled():
            return
        if error is not None:
            result.set_exception(error)
        else:
            result.set_result(value)  # type: ignore[arg-type] # without an error there is a value

    def run() -> None:
        value, failure = None, None
        try:
            value = work()
        except BaseException as error:  # whatever it is, it belongs to whoever waits
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is gone
            loop.call_soon_threadsafe(settle, value, failure)

    threading.Thread(target=run, daemon=True, name="aside").start()
    return await result
