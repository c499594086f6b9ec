from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from scibox.engines.child import EXIT_BAD_SETTINGS, EXIT_CANNOT_LOAD, EXIT_ORPHANED

PROGRAM = """
import time
import msgspec
from scibox.engines.child import begin, fail

class Settings(msgspec.Struct, frozen=True):
    word: str

settings = begin(Settings)
if settings.word == "fail":
    fail("These weights are made of sand.")
print(settings.word, flush=True)
time.sleep(60)
"""

Child = subprocess.Popen[bytes]


@pytest.fixture
def child() -> Iterator[Child]:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        yield process
        process.kill()


def tell(child: Child, line: bytes) -> None:
    assert child.stdin is not None
    child.stdin.write(line)
    child.stdin.flush()


def hear(child: Child) -> bytes:
    assert child.stdout is not None
    return child.stdout.readline()


def test_settings_come_from_one_line(child: Child) -> None:
    tell(child, b'{"word": "hello"}\n')

    assert hear(child) == b"hello\n"
    assert child.poll() is None


def test_ends_when_stdin_ends(child: Child) -> None:
    tell(child, b'{"word": "hello"}\n')
    hear(child)
    assert child.stdin is not None

    child.stdin.close()

    assert child.wait(timeout=1.0) == EXIT_ORPHANED


def test_leaves_ctrl_c_to_its_parent(child: Child) -> None:
    tell(child, b'{"word": "hello"}\n')
    hear(child)

    child.send_signal(signal.SIGINT)

    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(timeout=0.3)
    child.terminate()
    assert child.wait(timeout=1.0) == -signal.SIGTERM


@pytest.mark.parametrize("line", [b"not json\n", b'{"word": 7}\n', b"{}\n", b"\xff\n"])
def test_bad_settings_end_it_with_a_sentence(child: Child, line: bytes) -> None:
    tell(child, line)

    assert child.wait(timeout=10.0) == EXIT_BAD_SETTINGS
    assert child.stderr is not None
    assert child.stderr.read().startswith(b"scibox: The engine's settings cannot be read: ")


def test_a_failure_of_its_own_ends_it_with_its_sentence(child: Child) -> None:
    tell(child, b'{"word": "fail"}\n')

    assert child.wait(timeout=10.0) == EXIT_CANNOT_LOAD
    assert child.stderr is not None
    assert child.stderr.read() == b"scibox: These weights are made of sand.\n"
