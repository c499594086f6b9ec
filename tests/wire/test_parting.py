"""Where reasoning ends and the answer begins: the text alone."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scibox.wire.parting import Parting, part

# Pieces that look like tags, and text around them.
TEXTS = st.lists(
    st.sampled_from(
        ["<think>", "</think>", "<", "</", "<th", "think>", ">", "\n", " ", "\n\n", "a", "б", "x < y", "`"]
    ),
    max_size=12,
).map("".join)


def parts(
    text: str, cuts: list[int], *, is_open: bool = False, reason: str = "stop", words: bool = False
) -> tuple[str, str]:
    """Reasoning and content of a text given in the pieces between the cuts."""
    parting = Parting(is_open)
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    given = [parting.feed(text[start:end]) for start, end in pairwise(edges)]
    given.append(parting.end(reason, words))
    return "".join(r for r, _ in given), "".join(c for _, c in given)


def pieces(text: str) -> list[int]:
    return list(range(len(text)))


@pytest.mark.parametrize(
    ("text", "reasoning", "content"),
    [
        ("Red", "", "Red"),
        ("<think>I muse</think>Red", "I muse", "Red"),
        ("\n <think>\nI muse\n</think>\n\nRed", "I muse", "Red"),
        ("<think>\n\n</think>\n\nRed", "", "Red"),
        ("<think></think>Red", "", "Red"),
        ("<think>a</think>Use <think> and </think>!\n", "a", "Use <think> and </think>!\n"),
        ("Use <think>a</think> b", "", "Use <think>a</think> b"),
        ("a </think> b", "", "a </think> b"),
        ("</think>\n\nRed", "", "Red"),
        ("<think>1 < 2 </ 3 <think> 4</think>ok", "1 < 2 </ 3 <think> 4", "ok"),
        ("<table>", "", "<table>"),
        ("  indented", "", "  indented"),
        ("<", "", "<"),
        ("", "", ""),
        (" \n", "", " \n"),
        ("<think>never closed", "never closed", ""),
        ("<think>never closed </thi", "never closed </thi", ""),
    ],
)
def test_the_parts_of_a_text(text: str, reasoning: str, content: str) -> None:
    assert parts(text, []) == (reasoning, content)
    assert parts(text, pieces(text)) == (reasoning, content)


@pytest.mark.parametrize(
    ("text", "reasoning", "content"),
    [
        ("I muse\n</think>\n\nRed", "I muse", "Red"),
        ("\nI muse</think>Red", "I muse", "Red"),
        ("<think>\nI muse</think>Red", "I muse", "Red"),
        ("\n\n</think>\n\nRed", "", "Red"),
        ("I muse </think> say `</think>`", "I muse", "say `</think>`"),
    ],
)
def test_a_block_that_the_template_opened(text: str, reasoning: str, content: str) -> None:
    assert parts(text, [], is_open=True) == (reasoning, content)
    assert parts(text, pieces(text), is_open=True) == (reasoning, content)


@pytest.mark.parametrize("is_open", [True, False])
def test_a_budget_that_ends_inside_leaves_no_content(is_open: bool) -> None:
    text = "<think>\nI muse on < and </th and\n\nmore\n</think>"
    for size in range(2, len(text)):
        reasoning, content = parts(text[:size], pieces(text[:size]), is_open=is_open, reason="length")

        assert content == ""
        assert "".join(reasoning.split()) in "".join(text.split())


def test_a_block_that_ends_with_stop_was_none() -> None:
    """The template opened nothing after all: the caller gets an answer."""
    assert parts("Red\n", [1], is_open=True) == ("Red\n", "Red\n")
    assert part("Red\n", "stop", "opened", has_stop_words=False) == ("", "Red\n")


@pytest.mark.parametrize(("reason", "words"), [("length", False), ("stop", True), ("tool_calls", False)])
def test_a_block_that_was_cut_is_reasoning(reason: str, words: bool) -> None:
    assert parts("I mu", [1], is_open=True, reason=reason, words=words) == ("I mu", "")
    assert part("I mu", reason, "opened", has_stop_words=words) == ("I mu", "")


def test_a_block_that_the_model_opened_itself_is_one() -> None:
    assert parts("<think>I mu", [1], is_open=True) == ("I mu", "")


@pytest.mark.parametrize(
    ("text", "reasoning", "content"),
    [
        ("I muse\n</think>\n\nRed", "I muse", "Red"),
        ("</think>Red", "", "Red"),
        ("The tag `</think>` ends it", "", "The tag `</think>` ends it"),
        ('It is "</think>"', "", 'It is "</think>"'),
        ("Use <think>a</think> b", "", "Use <think>a</think> b"),
        ("<think>a</think>b </think>", "a", "b </think>"),
    ],
)
def test_a_lone_closing_tag_parts_a_whole_text(text: str, reasoning: str, content: str) -> None:
    assert part(text, "stop", "auto", has_stop_words=False) == (reasoning, content)


@given(TEXTS, st.lists(st.integers(0, 200), max_size=8), st.booleans(), st.sampled_from(["stop", "length"]))
@example("<think>\n a </thin", [3, 9, 11], False, "length")
@example(" </th", [1], True, "stop")
def test_any_pieces_give_the_same_parts(text: str, cuts: list[int], is_open: bool, reason: str) -> None:
    assert parts(text, cuts, is_open=is_open, reason=reason) == parts(
        text, [], is_open=is_open, reason=reason
    )


@given(TEXTS, st.sampled_from(["stop", "length"]))
def test_nothing_is_lost_but_tags_and_white_space(text: str, reason: str) -> None:
    reasoning, content = parts(text, pieces(text), reason=reason)

    possible = [
        content,
        f"<think>{reasoning}</think>{content}",
        f"<think>{reasoning}",
        f"</think>{content}",
        reasoning,  # cut in the opening tag
    ]
    assert "".join(text.split()) in ["".join(whole.split()) for whole in possible]


@given(TEXTS)
def test_an_answer_that_has_begun_is_never_touched(text: str) -> None:
    parting = Parting(is_open=False)
    parting.feed("x")

    assert parting.is_decided
    assert parting.feed(text) == ("", text)
    assert parting.end("stop", has_stop_words=False) == ("", "")
