"""A person sees how a download goes, on a terminal and in a log."""

from __future__ import annotations

import io

from scibox.models.progress import Bar, Lines, Progress, progress_on


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def fetch_with(progress: Progress) -> None:
    progress.note("starting")
    progress.start("weights", 10_000_000, 40_000_000)
    progress.advance(20_000_000)
    progress.finish()
    progress.finish()


def test_a_terminal_gets_a_bar() -> None:
    terminal = Terminal()
    progress = progress_on(terminal)

    fetch_with(progress)

    assert isinstance(progress, Bar)
    assert "starting\n" in terminal.getvalue()
    assert "weights:  75%" in terminal.getvalue()


def test_a_log_gets_plain_lines() -> None:
    log = io.StringIO()
    progress = progress_on(log)

    fetch_with(progress)

    assert isinstance(progress, Lines)
    assert log.getvalue().splitlines() == [
        "starting",
        "weights: 10 of 40 MB (25 %)",
        "weights: 30 of 40 MB (75 %)",
    ]


def test_a_size_that_is_not_known_is_not_invented() -> None:
    log = io.StringIO()
    lines = Lines(log)

    lines.start("weights", 0, None)

    assert log.getvalue() == "weights: 0 MB\n"
