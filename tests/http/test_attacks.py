"""Requests that two readers could read in two ways (RFC 9112, 11.2): 400, closed, nothing after them is read."""

import asyncio
import json

import pytest
from http_raw import CHUNKED, GET, GOOD, KEY, POST, hear, say

from rig import CHAT, SECRET, rig
from scibox.engines.fake_script import Script

SECOND = POST + b"content-length: %d\r\n\r\n" % len(GOOD) + GOOD  # what an attacker would smuggle


def length(value: bytes) -> bytes:
    return POST + b"content-length: " + value + b"\r\n\r\n"


def coding(line: bytes) -> bytes:
    return POST + line + b"\r\n\r\n0\r\n\r\n"


def chunks(body: bytes) -> bytes:
    return CHUNKED + body


ATTACKS = {
    "length and chunks": POST + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": POST + b"transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
    "the same length twice": POST + b"content-length: 5\r\ncontent-length: 5\r\n\r\nhello",
    "a list of lengths": length(b"5, 5") + b"hello",
    "a signed length": length(b"+5") + b"hello",
    "a negative length": length(b"-5") + b"hello",
    "a hexadecimal length": length(b"0x5") + b"hello",
    "a length in two words": length(b"5 5") + b"hello",
    "an empty length": length(b"") + b"hello",
    "a length over 64 bits": length(b"9" * 30) + b"hello",
    "space before the colon": POST + b"content-length : 5\r\n\r\nhello",
    "space before the coding's colon": coding(b"transfer-encoding : chunked"),
    "identity": coding(b"transfer-encoding: identity"),
    "identity after chunked": coding(b"transfer-encoding: chunked, identity"),
    "another coding": coding(b"transfer-encoding: xchunked"),
    "gzip in chunks": coding(b"transfer-encoding: gzip, chunked"),
    "chunked twice": coding(b"transfer-encoding: chunked, chunked"),
    "two codings": coding(b"transfer-encoding: chunked\r\ntransfer-encoding: identity"),
    "the same coding twice": coding(b"transfer-encoding: chunked\r\ntransfer-encoding: chunked"),
    "a vertical tab before the coding": coding(b"transfer-encoding:\x0bchunked"),
    "a quoted coding": coding(b'transfer-encoding: "chunked"'),
    "chunks in HTTP/1.0": coding(b"transfer-encoding: chunked").replace(b"HTTP/1.1", b"HTTP/1.0", 1),
    "a size that is none": chunks(b"zz\r\nhello\r\n"),
    "a negative size": chunks(b"-5\r\nhello\r\n0\r\n\r\n"),
    "a size with 0x": chunks(b"0x5\r\nhello\r\n0\r\n\r\n"),
    "a size over 64 bits": chunks(b"f" * 17 + b"\r\nhello\r\n"),
    "space after the size": chunks(b"5 \r\nhello\r\n0\r\n\r\n"),
    "bare LF after the size": chunks(b"5\nhello\r\n0\r\n\r\n"),
    "bare LF in an extension": chunks(b"5;a\nb\r\nhello\r\n0\r\n\r\n"),
    "bare LF after a chunk": chunks(b"5\r\nhello\n0\r\n\r\n"),
    "a chunk longer than its size": chunks(b"5\r\nhelloXX0\r\n\r\n"),
    "bare LF at the end of chunks": chunks(b"5\r\nhello\r\n0\r\n\n"),
    "bare LF everywhere": b"GET /health HTTP/1.1\nhost: x\n\n",
    "bare LF after a header": b"GET /health HTTP/1.1\r\nhost: x\nfoo: bar\r\n\r\n",
    "bare LF after the headers": b"GET /health HTTP/1.1\r\nhost: x\r\n\n",
    "bare CR in a header": b"GET /health HTTP/1.1\r\nhost: x\rfoo: bar\r\n\r\n",
    "a folded header": b"GET /health HTTP/1.1\r\nhost: x\r\nfoo: a\r\n b\r\n\r\n",
    "a folded first header": b"GET /health HTTP/1.1\r\n host: x\r\n\r\n",
    "NUL in a value": b"GET /health HTTP/1.1\r\nhost: x\r\nfoo: a\x00b\r\n\r\n",
    "NUL in a name": b"GET /health HTTP/1.1\r\nhost: x\r\nf\x00o: ab\r\n\r\n",
    "DEL in a value": b"GET /health HTTP/1.1\r\nhost: x\r\nfoo: a\x7fb\r\n\r\n",
    "no colon": b"GET /health HTTP/1.1\r\nhost: x\r\nfoo\r\n\r\n",
    "no name": b"GET /health HTTP/1.1\r\nhost: x\r\n: foo\r\n\r\n",
    "a name beyond ASCII": b"GET /health HTTP/1.1\r\nhost: x\r\nf\xc3\xb6o: ab\r\n\r\n",
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /health HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n",
    "the target names another host": b"GET http://other/health HTTP/1.1\r\nhost: x\r\n\r\n",
    "the target names a user": b"GET http://x@other/health HTTP/1.1\r\nhost: x\r\n\r\n",
    "the target has no path": b"GET http://x HTTP/1.1\r\nhost: x\r\n\r\n",
    "a target of another scheme": b"GET ftp://x/health HTTP/1.1\r\nhost: x\r\n\r\n",
    "a target without a slash": b"GET health HTTP/1.1\r\nhost: x\r\n\r\n",
    "a target beyond ASCII": b"GET /h\xc3\xa9 HTTP/1.1\r\nhost: x\r\n\r\n",
    "CONNECT": b"CONNECT x:443 HTTP/1.1\r\nhost: x:443\r\n\r\n",
    "an unknown method": b"FOO /health HTTP/1.1\r\nhost: x\r\n\r\n",
    "HTTP/0.9": b"GET /health\r\n\r\n",
    "HTTP/1.2": b"GET /health HTTP/1.2\r\nhost: x\r\n\r\n",
    "HTTP/2.0": b"GET /health HTTP/2.0\r\nhost: x\r\n\r\n",
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(32),
    "a body in the next request": length(b"3").replace(b"content-length", b"content_length") + b"abc",
}
DEFAULT_REACHES = {"a body in the next request"}  # the first request is sound: an empty body


@pytest.mark.parametrize("name", [name for name in ATTACKS if name not in DEFAULT_REACHES])
async def test_what_can_be_read_in_two_ways_is_refused_and_nothing_after_it_is_read(name: str) -> None:
    async with rig() as r:
        heard = await say(r.port, ATTACKS[name] + SECOND, silence_s=5)
        healthy = await r.client.get("/health")
        await r.until_idle()

    head, _, body = heard.data.partition(b"\r\n\r\n")
    assert heard.statuses == [400]
    assert heard.is_closed
    assert json.loads(body)["error"]["code"] == "malformed_http"
    assert b"x-request-id: req_" in head
    assert not r.engine.requests
    assert healthy.status_code == 200


async def test_a_request_without_a_length_has_no_body() -> None:
    """What looks like one is the next request, and none."""
    async with rig() as r:
        heard = await say(r.port, ATTACKS["a body in the next request"] + SECOND, silence_s=5)

    assert heard.statuses == [400]
    assert heard.is_closed
    assert not r.engine.requests


@pytest.mark.parametrize("cut", range(1, 60, 7))
async def test_an_attack_in_pieces_is_one_too(cut: int) -> None:
    raw = ATTACKS["length and chunks"]
    async with rig() as r:
        heard = await say(r.port, raw[:cut], raw[cut:] + SECOND, silence_s=5)

    assert heard.statuses == [400]
    assert not r.engine.requests


@pytest.mark.parametrize(
    "raw",
    [
        b"\r\n\r\n" + GET,  # RFC 9112, 2.2: empty lines before a request are ignored
        b"GET http://x/health HTTP/1.1\r\nhost: X\r\n\r\n",
        b"GET /health HTTP/1.0\r\n\r\n",
        b"GET //health HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /health#top HTTP/1.1\r\nhost:x\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHOST:\t x \t\r\nx-odd: \xff\xfe tab\there\r\n\r\n",
    ],
)
async def test_odd_but_sound_requests_are_answered(raw: bytes) -> None:
    async with rig() as r:
        heard = await say(r.port, raw)

    assert heard.statuses == [200]


async def test_a_trailer_is_no_header() -> None:
    """Else a secret, or a length, could be added behind a proxy's back."""
    head = CHUNKED.replace(KEY, b"")
    body = b"%x\r\n%b\r\n0\r\n%b\r\n" % (len(GOOD), GOOD, KEY)
    async with rig() as r:
        heard = await say(r.port, head + body)
        with_key = await say(r.port, CHUNKED + body)

    assert heard.statuses == [401]
    assert with_key.statuses == [200]


@pytest.mark.parametrize(
    "raw",
    [
        b"GET /health HTTP/1.1\r\nhost: x\r\nfoo: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET /health HTTP/1.1\r\nhost: x\r\nfoo: " + b"a" * 5_000_000,
        b"GET /health HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 300 + b"\r\n",
        b"GET /health HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 500_000,
        b"GET /" + b"a" * 5_000_000,
        b"GET /health HTTP/1.1\r\nhost: x\r\n" + b"a" * 5_000_000,
    ],
    ids=["long value", "endless value", "many", "endless many", "endless target", "endless name"],
)
async def test_huge_headers_are_refused_and_not_collected(raw: bytes) -> None:
    async with rig() as r:
        heard = await say(r.port, raw, silence_s=5)

    assert heard.statuses == [431]
    assert heard.is_closed
    assert b'"headers_too_large"' in heard.data


@pytest.mark.parametrize(
    "body",
    [
        b"2\r\n{}\r\n0\r\nfoo: " + b"a" * 5_000_000,
        b"2;" + b"a" * 5_000_000,
        b"2\r\n{}\r\n0\r\n" + b"a: b\r\n" * 500_000,
    ],
    ids=["trailer", "extension", "trailers"],
)
async def test_what_stands_around_chunks_is_bounded(body: bytes) -> None:
    async with rig() as r:
        heard = await say(r.port, CHUNKED + body, silence_s=5)

    assert heard.statuses == [400]
    assert heard.is_closed


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with rig() as r:
        models = GET.replace(b"/health", b"/nothing")
        heard = await say(r.port, GET + models + SECOND + GET)

    assert heard.statuses == [200, 404, 200, 200]
    assert not heard.is_closed


async def test_more_pipelined_requests_than_anybody_needs_end_the_connection() -> None:
    async with rig() as r:
        heard = await say(r.port, GET * 5_000, silence_s=5)

    assert heard.is_closed
    assert set(heard.statuses) == {200}
    assert len(heard.statuses) <= 20


async def test_garbage_behind_a_running_stream_neither_breaks_into_it_nor_is_answered() -> None:
    body = json.dumps({**CHAT, "stream": True}).encode()
    request = (
        POST.replace(b"embeddings", b"chat/completions") + b"content-length: %d\r\n\r\n" % len(body) + body
    )
    async with rig() as r:
        r.engine.script = Script(chunk_delay_s=0.05)
        heard = await say(r.port, request, b"no http at all\r\n\r\n", silence_s=5)

    assert heard.statuses == [200]
    assert heard.data.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
    assert heard.is_closed


async def test_a_body_that_breaks_off_after_the_answer_gets_no_second_answer() -> None:
    async with rig() as r:
        heard = await say(r.port, CHUNKED.replace(KEY, b""), b"5\r\nhelloXX\r\n", silence_s=5)

    assert heard.statuses == [401]
    assert heard.is_closed


async def test_a_client_that_has_pipelined_and_leaves_ends_its_call() -> None:
    body = json.dumps(CHAT).encode()
    call = POST.replace(b"embeddings", b"chat/completions") + b"content-length: %d\r\n\r\n" % len(body) + body
    async with rig() as r:
        r.engine.script = Script(chunk_delay_s=5)
        _, writer = await asyncio.open_connection("127.0.0.1", r.port)
        writer.write(call + GET)
        while not r.engine.in_flight:
            await asyncio.sleep(0.01)
        writer.close()
        await r.until_idle(3)

        assert r.engine.abandoned == 1


async def test_what_follows_a_last_request_is_not_read() -> None:
    async with rig() as r:
        heard = await say(
            r.port, GET.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n") + SECOND, silence_s=5
        )

    assert heard.statuses == [200]
    assert heard.is_closed
    assert not r.engine.requests


async def test_an_offer_to_upgrade_is_ignored_and_the_body_read() -> None:
    """Java's HttpClient offers HTTP/2 with its first request over plain HTTP, POST or not."""
    offer = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAAAAIAAAAB\r\n"
    request = POST + offer + b"content-length: %d\r\n\r\n" % len(GOOD) + GOOD
    async with rig() as r:
        whole = await say(r.port, request + GET)
        pieces = await say(r.port, request[:100], request[100:-10], request[-10:], GET)

    assert whole.statuses == pieces.statuses == [200, 200]
    assert len(r.engine.requests) == 2


BIG = 50_000_000


@pytest.mark.parametrize("has_length", [True, False])
async def test_fifty_megabytes_are_refused_and_the_client_sees_why(has_length: bool) -> None:
    """It goes on sending and reads only then: a reset would have taken the answer away."""
    framing = b"content-length: %d" % BIG if has_length else b"transfer-encoding: chunked"
    piece = b" " * 1_000_000
    async with rig() as r:
        reader, writer = await asyncio.open_connection("127.0.0.1", r.port)
        writer.write(POST + framing + b"\r\n\r\n")
        for _ in range(BIG // len(piece)):
            writer.write(piece if has_length else b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        if not has_length:
            writer.write(b"0\r\n\r\n")
        writer.write(GET)
        heard = await hear(reader, 2)
        writer.close()

    assert heard.statuses == [413, 200]
    assert b'"request_too_large"' in heard.data


async def test_a_length_over_the_limit_is_refused_before_a_byte_of_the_body() -> None:
    async with rig() as r:
        heard = await say(r.port, length(b"%d" % BIG), silence_s=1)

    assert heard.statuses == [413]


@pytest.mark.parametrize("size", [BIG, len(GOOD)])
async def test_a_client_that_asks_first_is_told_to_go_on_or_why_not(size: int) -> None:
    """curl does with bodies over a megabyte. Without 100 no body comes: the connection cannot be used again."""
    head = POST + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % size
    async with rig() as r:
        reader, writer = await asyncio.open_connection("127.0.0.1", r.port)
        writer.write(head)
        first = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        if size == BIG:
            writer.write(SECOND)  # in place of the body
        else:
            writer.write(GOOD)
        heard = await hear(reader, 1)
        writer.close()

    if size == BIG:
        assert first.startswith(b"HTTP/1.1 413 ")
        assert b"connection: close" in first
        assert heard.is_closed
        assert not r.engine.requests
    else:
        assert first == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert heard.statuses == [200]


async def test_http_1_0_knows_no_100() -> None:
    request = POST.replace(
        b"HTTP/1.1", b"HTTP/1.0"
    ) + b"expect: 100-continue\r\ncontent-length: %d\r\n\r\n" % len(GOOD)
    async with rig() as r:
        heard = await say(r.port, request + GOOD)

    assert heard.statuses == [200]


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("path", [b"embeddings", b"chat/completions", b"tokenize", b"detokenize"])
async def test_json_of_any_depth_is_refused_quickly(path: bytes, opening: bytes) -> None:
    async with rig() as r:
        body = b'{"model":"chatty","input":' + opening * 100_000
        began_at = asyncio.get_running_loop().time()
        answer = await r.client.post(f"/v1/{path.decode()}", content=body)
        took_s = asyncio.get_running_loop().time() - began_at

    assert answer.status_code == 400
    assert took_s < 1
    assert not r.engine.requests


async def test_a_refusal_shows_no_secret() -> None:
    async with rig() as r:
        heard = await say(r.port, POST + b"bad header\r\n\r\n", silence_s=5)

    assert SECRET.encode() not in heard.data
