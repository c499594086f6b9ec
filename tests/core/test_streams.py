"""A stream's life: it begins, it ends once, and only one that has finished is whole."""

from __future__ import annotations

import pytest

from scibox.core.errors import Draining, InvalidRequest, SciBoxError, UpstreamBroken, UpstreamTimeout
from scibox.core.streams import Course, Misstep, ending_of
from scibox.core.types import Ending


@pytest.mark.parametrize("ending", list(Ending))
def test_only_a_finished_stream_is_whole(ending: Ending) -> None:
    course = Course()
    course.begin()
    course.end(ending)

    assert course.is_over
    assert course.is_whole is (ending is Ending.FINISHED)


@pytest.mark.parametrize("first", list(Ending))
@pytest.mark.parametrize("second", list(Ending))
def test_a_stream_ends_once(first: Ending, second: Ending) -> None:
    course = Course()
    course.begin()
    course.end(first)

    with pytest.raises(Misstep):
        course.end(second)
    with pytest.raises(Misstep):
        course.begin()
    assert course.ending is first


def test_nothing_has_finished_of_which_nothing_was_said() -> None:
    course = Course()

    with pytest.raises(Misstep):
        course.end(Ending.FINISHED)
    course.end(Ending.CLIENT_GONE)
    assert not course.is_whole


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (UpstreamTimeout("late"), Ending.DEADLINE),
        (UpstreamBroken("cut"), Ending.UPSTREAM_ERROR),
        (InvalidRequest("no"), Ending.REFUSED),
        (Draining("ends"), Ending.REFUSED),
        (SciBoxError("ours"), Ending.UPSTREAM_ERROR),
        (ValueError("a bug"), Ending.INTERNAL_ERROR),
    ],
)
def test_how_an_error_ends_a_stream(error: Exception, ending: Ending) -> None:
    assert ending_of(error)[0] is ending
