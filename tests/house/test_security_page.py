"""The page on security says what is true of secrets (PROMISES K1): its expression and its checksum find every one."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from scibox.core import secret

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text("utf-8")
numbers = st.lists(st.integers(0, 61), min_size=secret.RANDOM_CHARS, max_size=secret.RANDOM_CHARS)


def block(language: str) -> str:
    [found] = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


EXPRESSION = block("regex").strip()


def program() -> dict[str, Callable[..., object]]:
    names: dict[str, Callable[..., object]] = {}
    exec(block("python"), names)
    return names


SCANNER = program()


def test_the_expression_is_that_of_the_code_everywhere() -> None:
    assert secret.PATTERN.pattern == EXPRESSION
    assert tomllib.loads(block("toml"))["rules"][0]["regex"] == EXPRESSION
    assert EXPRESSION in block("python")


@given(st.text(max_size=40), numbers, st.text(max_size=40))
def test_every_secret_is_found_whatever_stands_around_it(before: str, chosen: list[int], after: str) -> None:
    made = secret.compose(chosen)

    assert made in re.findall(EXPRESSION, before + made + after)
    assert made in SCANNER["secrets_in"](before + made + after)  # type: ignore[operator]


@given(numbers, st.integers(0, secret.LENGTH - 1), st.characters())
def test_one_altered_character_is_no_secret_to_the_page_and_to_the_service(
    chosen: list[int], at: int, character: str
) -> None:
    made = secret.compose(chosen)
    altered = made[:at] + character + made[at + 1 :]

    assert secret.is_well_formed(altered) == (altered == made)
    assert SCANNER["secrets_in"](altered) == ([made] if altered == made else [])


def test_the_parts_of_a_secret_are_as_the_page_has_them() -> None:
    sizes = [int(size) for size in re.findall(r"^\| [^|]+ \| (\d+) \|", PAGE.split("```")[0], re.MULTILINE)]

    assert sizes == [len(secret.PREFIX), secret.RANDOM_CHARS, secret.CHECK_CHARS]
    assert f'ALPHABET = "{secret.ALPHABET}"' in block("python")
    assert "178 bits" in PAGE
    assert 2**178 < 62**secret.RANDOM_CHARS < 2**179
