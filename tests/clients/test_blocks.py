from __future__ import annotations

import pytest

from clients.blocks import Block, adapt, extract


def test_a_block_knows_its_language_name_heading_and_line() -> None:
    markdown = "# Title\n\ntext\n\n## 2.1 Part ##\n\n```bash list-models\ncurl x\n\ncurl y\n```\n"

    assert extract(markdown) == [Block("bash", "list-models", "2.1 Part", 7, "curl x\n\ncurl y\n")]


def test_a_comment_in_code_is_no_heading() -> None:
    markdown = "# Real\n```python\n# not a heading\n```\n```python\npass\n```\n"

    assert [block.heading for block in extract(markdown)] == ["Real", "Real"]


def test_a_shorter_or_other_fence_inside_is_code() -> None:
    markdown = "````text\n```bash\n~~~~\n```\n````\n"

    assert [block.code for block in extract(markdown)] == ["```bash\n~~~~\n```\n"]


def test_inline_code_at_the_start_of_a_line_opens_nothing() -> None:
    assert extract("```one``` and two\n") == []


def test_a_fence_without_an_end_is_an_error_that_names_its_line() -> None:
    with pytest.raises(ValueError, match="line 3"):
        extract("text\n\n```bash\ncurl x\n")


def test_adapting_replaces_both_hosts_and_the_placeholder_and_nothing_else() -> None:
    code = 'get("https://llm.t1v.scibox.tech/v1", "<YOUR_TOKEN>")  # http://45.145.191.148:4000/v1, <OTHER>\n'

    assert adapt(code, "http://127.0.0.1:9", "sk-1") == (
        'get("http://127.0.0.1:9/v1", "sk-1")  # http://127.0.0.1:9/v1, <OTHER>\n'
    )


def test_adapting_our_own_code_changes_nothing() -> None:
    code = 'curl "$SCIBOX_BASE_URL/models" -H "Authorization: Bearer $SCIBOX_API_KEY"\n'

    assert adapt(code, "http://127.0.0.1:9", "sk-1") == code
