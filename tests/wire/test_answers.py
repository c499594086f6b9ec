import json

import pytest

from scibox.core.errors import (
    ContextTooLong,
    InvalidRequest,
    SciBoxError,
    UpstreamBroken,
    UpstreamBusy,
    UpstreamMisconfigured,
    UpstreamUnavailable,
)
from scibox.core.types import Usage
from scibox.wire import answers, sse
from scibox.wire.orders import Reading

DELTA = b'{"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}'
END = b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
LAST = b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":5,"total_tokens":8}}'


def test_a_stream_passes_byte_for_byte() -> None:
    stream = answers.Stream(Reading(wants_usage=False))

    chunks = list(stream.feed(sse.render(DELTA) + sse.render(END) + sse.DONE))

    assert [chunk.data for chunk in chunks] == [sse.render(DELTA), sse.render(END), sse.DONE]
    assert stream.finished
    stream.close()


def test_an_event_that_need_not_change_is_not_decoded() -> None:
    """But for the first one, which tells whether this is a stream of answers at all."""
    no_json = sse.render(b'{"choices": [ "delta" this was never JSON ]}')

    first, second = answers.Stream(Reading(thinking="auto")).feed(sse.render(DELTA) + no_json)

    assert (first.data, second.data) == (sse.render(DELTA), no_json)


@pytest.mark.parametrize("wanted", [True, False])
def test_the_usage_chunk_is_counted_and_shown_only_if_asked_for(wanted: bool) -> None:
    [chunk] = answers.Stream(Reading(wants_usage=wanted)).feed(sse.render(LAST))

    assert chunk.usage == Usage(3, 5)
    assert chunk.data == (sse.render(LAST) if wanted else b"")


def test_an_answer_that_quotes_the_words_is_not_mistaken() -> None:
    said = json.dumps({"choices": [{"delta": {"content": '"usage" and "error"'}}]}).encode()

    [chunk] = answers.Stream(Reading(wants_usage=False)).feed(sse.render(said))

    assert chunk.data == sse.render(said)
    assert chunk.usage is None


def test_a_stream_without_done_is_cut() -> None:
    stream = answers.Stream(Reading(wants_usage=False))
    list(stream.feed(sse.render(DELTA)))

    with pytest.raises(UpstreamBroken) as caught:
        stream.close()

    assert caught.value.code == "upstream_broke_off"


@pytest.mark.parametrize("garbage", [b"<html>", b'{"choices":', b"null", b'{"usage": x}'])
def test_garbage_in_a_stream_is_an_error(garbage: bytes) -> None:
    with pytest.raises(UpstreamBroken):
        list(answers.Stream(Reading(wants_usage=False)).feed(sse.render(garbage)))


def test_what_came_before_the_garbage_is_delivered() -> None:
    chunks = answers.Stream(Reading(wants_usage=False)).feed(sse.render(DELTA) + sse.render(b"<html>"))

    assert next(chunks).data == sse.render(DELTA)
    with pytest.raises(UpstreamBroken):
        next(chunks)


def test_an_error_in_a_stream_is_an_error() -> None:
    with pytest.raises(UpstreamBroken, match="out of memory"):
        list(
            answers.Stream(Reading(wants_usage=False)).feed(
                sse.render(b'{"error":{"message":"out of memory"}}')
            )
        )


def test_nothing_follows_the_end() -> None:
    stream = answers.Stream(Reading(wants_usage=False))

    assert len(list(stream.feed(sse.render(END) + sse.DONE + sse.render(DELTA)))) == 2


def test_a_whole_answer() -> None:
    body = b'{"choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}'

    chunk = answers.whole(body, Reading())

    assert (chunk.data, chunk.usage) == (body, Usage(1, 2))


@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b"[]", b'{"error":{"message":"x"}}', b"\xff"])
def test_what_is_no_answer_is_an_error(body: bytes) -> None:
    with pytest.raises(UpstreamBroken):
        answers.whole(body, Reading())


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, b'{"error":{"message":"bad","type":"invalid_request_error"}}', InvalidRequest),
        (400, b'{"error":{"message":"too long","type":"exceed_context_size_error"}}', ContextTooLong),
        (400, b'{"error":{"message":"the model\'s maximum context length is 5"}}', ContextTooLong),
        (
            500,
            b'{"error":{"message":"input (900 tokens) is too large to process. increase"}}',
            ContextTooLong,
        ),
        (400, b'{"object":"error","message":"This model\'s maximum context length is 5"}', ContextTooLong),
        (422, b'{"detail":[{"loc":["body"],"msg":"field required"}]}', InvalidRequest),
        (401, b"", UpstreamMisconfigured),
        (403, b"", UpstreamMisconfigured),
        (404, b'{"error":"no such model"}', UpstreamMisconfigured),
        (429, b"", UpstreamBusy),
        (500, b"<html>", UpstreamBroken),
        (503, b'{"error":{"message":"Loading model"}}', UpstreamUnavailable),
    ],
)
def test_refusals_of_a_replica_in_our_words(status: int, body: bytes, expected: type[SciBoxError]) -> None:
    error = answers.refusal(status, body)

    assert type(error) is expected
    assert error.status not in {401, 403, 404}
    assert error.message.endswith(".")


def stream(*events: bytes, wanted: bool = True) -> list[bytes]:
    raw = b"".join(map(sse.render, events)) + sse.DONE
    return [chunk.data for chunk in answers.Stream(Reading(wants_usage=wanted)).feed(raw) if chunk.data]


def test_a_stream_that_says_it_is_done_but_finished_nothing_is_cut() -> None:
    with pytest.raises(UpstreamBroken) as caught:
        stream(DELTA, LAST)

    assert caught.value.code == "upstream_broke_off"


def test_words_in_an_answer_are_no_finish_reason() -> None:
    said = json.dumps({"choices": [{"delta": {"content": '"finish_reason":"stop"'}, "finish_reason": None}]})
    with pytest.raises(UpstreamBroken):
        stream(said.encode())


@pytest.mark.parametrize("end", [END, END.replace(b":", b": ")])
def test_a_stream_may_have_more_after_its_finish_reason(end: bytes) -> None:
    odd = b'{"choices":[],"system_fingerprint":"x"}'

    assert stream(DELTA, end, DELTA, DELTA, odd, LAST) == [
        *map(sse.render, (DELTA, end, DELTA, DELTA, LAST)),
        sse.DONE,
    ]


def test_choices_are_never_empty_but_with_usage() -> None:
    first = b'{"choices":[],"prompt_filter_results":[]}'

    assert stream(first, DELTA, b'{"choices": [], "x": 1}', END) == [
        *map(sse.render, (DELTA, END)),
        sse.DONE,
    ]


@pytest.mark.parametrize(
    "first",
    [
        b'{"choices":5}',
        b'{"choices":[5]}',
        b'{"choices":[{"delta":"text"}]}',
        b'{"choices":[{"index":"0","delta":{}}]}',
        b'{"choices":[{"delta":{},"finish_reason":1}]}',
        b'{"choices":null}',
        b'{"detail":"Not Found"}',
        b'{"usage":"many","choices":[]}',
        b"{}",
    ],
)
def test_what_is_no_event_is_an_error(first: bytes) -> None:
    with pytest.raises(UpstreamBroken):
        stream(first)
    with pytest.raises(UpstreamBroken):
        stream(DELTA, b'{"detail":"delta"}')


def test_what_usage_says_of_reasoning_passes() -> None:
    usage = b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":5,"completion_tokens_details":{"reasoning_tokens":3}}}'

    assert stream(END, usage)[1] == sse.render(usage)


def test_null_usage_on_every_event_is_not_decoded() -> None:
    data = b'{"choices":[{"index":0,"delta":{"content":"hi"}}],"usage":null,"broken": x}'

    assert stream(DELTA, data, END)[1] == sse.render(data)


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices":[]}',
        b'{"choices":[5]}',
        b'{"choices":[{"index":0}]}',
        b'{"choices":{}}',
        b'{"data":[]}',
        b'{"data":[1]}',
    ],
)
def test_an_answer_without_an_answer_is_an_error(body: bytes) -> None:
    with pytest.raises(UpstreamBroken):
        answers.whole(body, Reading())


def test_vectors_are_not_searched() -> None:
    assert answers.filters(Reading(is_text=False)) == []


def test_bytes_that_are_no_utf8_are_never_passed_on() -> None:
    broken = DELTA.replace(b'"hi"', b'"\xff"')
    assert broken != DELTA

    with pytest.raises(UpstreamBroken):
        list(answers.Stream(Reading()).feed(sse.render(broken)))
    with pytest.raises(UpstreamBroken):
        answers.whole(b'{"id":"\xff","choices":[{"message":{"content":"a"}}]}', Reading())


def test_usage_is_never_negative() -> None:
    body = b'{"choices":[{"message":{}}],"usage":{"prompt_tokens":-5,"completion_tokens":null}}'

    assert answers.whole(body, Reading()).usage == Usage(0, 0)


@pytest.mark.parametrize("wanted", [True, False])
def test_usage_beside_the_last_choice_is_told_alone_too_where_it_was_asked_for(wanted: bool) -> None:
    both = b'{"id":"a","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":{"prompt_tokens":3}}'

    *_, last, done = answers.Stream(Reading(wants_usage=wanted)).feed(
        sse.render(DELTA + b"") + sse.render(both) + sse.DONE
    )

    assert done.data == sse.DONE
    alone = json.loads(last.data.removeprefix(b"data: "))
    assert (alone["choices"] == []) is wanted
    assert alone["usage"] == {"prompt_tokens": 3}
    assert alone["id"] == "a"


def test_an_event_is_a_delta_when_it_says_something() -> None:
    """Of a stream that breaks off nobody knows the usage, so what it has said is counted."""
    opening = b'{"choices":[{"index":0,"delta":{"role":"assistant","content":null}}]}'
    empty = b'{"choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}'
    word = b'{"choices":[{"index":0,"delta":{"content":"a"}}]}'
    call = b'{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{"}}]}}]}'
    end = b'{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}'
    stream = answers.Stream(Reading())
    events = (opening, empty, word, word, call, end, b"[DONE]")
    chunks = [chunk for event in events for chunk in stream.feed(b"data: " + event + b"\n\n")]

    assert [chunk.deltas for chunk in chunks] == [0, 0, 1, 1, 1, 0, 0]
