"""`/v1/files` and `/v1/batches` as clients meet them: shapes, pages, bounds, bad input, other owners."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from jobs import CHAT, jsonl, line, start, until_over, upload

from rig import LIMITED, SECRET, STRANGER, rig
from scibox.core.admission import Wish
from scibox.service.files import Limits

SMALL = Limits(max_file_bytes=1000, max_owner_bytes=2500, keep_s=3600.0)


async def test_a_file_is_stored_listed_read_and_removed() -> None:
    content = "привет\n".encode() * 1000
    async with rig() as r:
        made = (await upload(r.client, content, "вход.jsonl")).json()
        got = (await r.client.get(f"/v1/files/{made['id']}")).json()
        listed = (await r.client.get("/files")).json()
        read = await r.client.get(f"/v1/files/{made['id']}/content")
        head = await r.client.head(f"/v1/files/{made['id']}/content")
        removed = (await r.client.delete(f"/v1/files/{made['id']}")).json()
        gone = await r.client.get(f"/v1/files/{made['id']}/content")

    assert re.fullmatch(r"file-[0-9a-f]{24}", made["id"])
    assert made == got == listed["data"][0]
    assert made["bytes"] == len(content)
    assert (made["object"], made["purpose"], made["filename"]) == ("file", "batch", "вход.jsonl")
    assert made["expires_at"] - made["created_at"] == 3600
    assert read.content == content
    assert head.headers["content-length"] == str(len(content))
    assert read.headers["content-type"] == "application/octet-stream"
    assert read.headers["x-content-type-options"] == "nosniff"
    assert removed == {"id": made["id"], "object": "file", "deleted": True}
    assert gone.status_code == 404


async def test_lists_come_in_pages() -> None:
    async with rig() as r:
        ids = [(await upload(r.client, b"x", f"{n}.jsonl")).json()["id"] for n in range(5)]
        get = r.client.get
        newest = (await get("/v1/files", params={"limit": 2})).json()
        rest = (await get("/v1/files", params={"limit": 3, "after": newest["last_id"]})).json()
        oldest = (await get("/v1/files", params={"limit": 2, "order": "asc"})).json()
        none = (await get("/v1/files", params={"purpose": "batch_output"})).json()
        batches = [(await start(r.client, jsonl([line("a")])))["id"] for _ in range(3)]
        page = (await get("/v1/batches", params={"limit": 2})).json()
        last = (await get("/v1/batches", params={"after": page["last_id"]})).json()

    assert [file["id"] for file in newest["data"]] == ids[:2:-1]
    assert (newest["first_id"], newest["last_id"], newest["has_more"]) == (ids[4], ids[3], True)
    assert ([file["id"] for file in rest["data"]], rest["has_more"]) == (ids[2::-1], False)
    assert [file["id"] for file in oldest["data"]] == ids[:2]
    assert none == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    assert [batch["id"] for batch in page["data"]] == batches[:0:-1]
    assert ([batch["id"] for batch in last["data"]], last["has_more"]) == ([batches[0]], False)


@pytest.mark.parametrize(
    ("path", "query", "param"),
    [
        ("/v1/files", "limit=0", "limit"),
        ("/v1/files", "limit=10001", "limit"),
        ("/v1/files", "limit=%D9%A3", "limit"),
        ("/v1/files", "limit=9999999999999999999999", "limit"),
        ("/v1/files", "order=up", "order"),
        ("/v1/files", "afer=x", "afer"),
        ("/v1/batches", "limit=101", "limit"),
        ("/v1/batches", "order=asc", "order"),
    ],
)
async def test_a_wrong_query_is_named(path: str, query: str, param: str) -> None:
    async with rig() as r:
        answer = await r.client.get(f"{path}?{query}")

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"purpose": "assistants"}, "purpose"),
        ({"purpose": ""}, "purpose"),
        ({"purpos": "batch"}, "purpos"),
        ({"purpose": "batch", "expires_after[anchor]": "created_at"}, "expires_after[seconds]"),
        (
            {"purpose": "batch", "expires_after[anchor]": "now", "expires_after[seconds]": "3600"},
            "expires_after[anchor]",
        ),
        (
            {"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "60"},
            "expires_after[seconds]",
        ),
        ({"purpose": "batch" * 2000}, "purpose"),
    ],
)
async def test_a_wrong_field_of_an_upload_is_named_and_nothing_is_kept(
    tmp_path: Path, fields: dict[str, str], param: str
) -> None:
    async with rig(data=tmp_path) as r:
        answer = await r.client.post("/v1/files", data=fields, files={"file": ("a", b"content")})
        await until_empty(tmp_path / "files")

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param


async def until_empty(folder: Path) -> None:
    async with asyncio.timeout(5):
        while folder.exists() and any(folder.iterdir()):
            await asyncio.sleep(0.01)


async def test_how_long_a_file_is_kept_can_be_said() -> None:
    async with rig() as r:
        fields = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "7200"}
        made = (await upload(r.client, b"x", **fields)).json()

    assert made["expires_at"] - made["created_at"] == 7200


def form(*parts: tuple[str, bytes], boundary: str = "xYz", end: bool = True) -> bytes:
    """A form as bytes: each part's disposition and content."""
    head = b""
    body = b"".join(
        f"--{boundary}\r\ncontent-disposition: form-data; {name}\r\n\r\n".encode() + content + b"\r\n"
        for name, content in parts
    )
    return head + body + (f"--{boundary}--\r\n".encode() if end else b"")


PURPOSE, FILE = ('name="purpose"', b"batch"), ('name="file"; filename="a.jsonl"', b"content")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (form(PURPOSE), "file"),
        (form(FILE), "purpose"),
        (form(PURPOSE, ('name="file"', b"content")), "file"),
        (form(PURPOSE, ('name="file"; filename=""', b"content")), "file"),
        (form(PURPOSE, ('name="file"; filename="a\tb"', b"content")), "file"),
        (form(PURPOSE, (f'name="file"; filename="{"a" * 256}"', b"content")), "file"),
        (form(PURPOSE, FILE, FILE), "file"),
        (form(PURPOSE, PURPOSE, FILE), "purpose"),
        (form(PURPOSE, FILE, ("", b"x")), None),
        (form(PURPOSE, FILE, end=False), None),
        (form(PURPOSE, FILE)[:-4], None),
        (form(*[PURPOSE] * 30), "purpose"),
        (form(PURPOSE, FILE, boundary="other"), None),
        (b"", None),
        (b'{"purpose":"batch"}', None),
        (b"--xYz\r\n" + b"a: b\r\n" * 100, None),
        (b"--xYz\r\n" + b"a" * 100_000, None),
    ],
)
async def test_a_malformed_form_is_refused_and_nothing_is_kept(
    tmp_path: Path, body: bytes, param: str | None
) -> None:
    async with rig(data=tmp_path) as r:
        headers = {"content-type": "multipart/form-data; boundary=xYz"}
        answer = await r.client.post("/v1/files", content=body, headers=headers)
        await until_empty(tmp_path / "files")

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert answer.json()["error"]["message"].endswith(".")


@pytest.mark.parametrize(
    "kind", ["", "application/json", "multipart/form-data", "multipart/form-data; boundary="]
)
async def test_what_is_no_form_is_refused(kind: str) -> None:
    async with rig() as r:
        answer = await r.client.post("/v1/files", content=form(PURPOSE, FILE), headers={"content-type": kind})

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "not_a_form"


async def test_sizes_are_bounded_for_one_file_and_for_an_owner(tmp_path: Path) -> None:
    async with rig(data=tmp_path, limits=SMALL) as r:
        too_large = await upload(r.client, b"x" * 1001)
        fits = [await upload(r.client, b"x" * 1000) for _ in range(2)]
        full = await upload(r.client, b"x" * 600)
        others = await r.client.post(
            "/v1/files",
            data={"purpose": "batch"},
            files={"file": ("a", b"x" * 1000)},
            headers={"authorization": f"Bearer {STRANGER}"},
        )
        await r.client.delete(f"/v1/files/{fits[0].json()['id']}")
        room_again = await upload(r.client, b"x" * 600)
        kept = sorted(path.stat().st_size for path in (tmp_path / "files").iterdir())

    assert too_large.status_code == 413
    assert too_large.json()["error"]["code"] == "request_too_large"
    assert (full.status_code, full.json()["error"]["code"]) == (400, "storage_limit_reached")
    assert [answer.status_code for answer in [*fits, others, room_again]] == [200] * 4
    assert kept == [600, 1000, 1000]


async def test_uploads_at_once_do_not_pass_the_bound_together() -> None:
    async with rig(limits=SMALL) as r:
        answers = await asyncio.gather(*(upload(r.client, b"x" * 1000) for _ in range(6)))
        left = (await r.client.get("/v1/files")).json()["data"]

    assert sorted(answer.status_code for answer in answers) <= [200, 200, 400, 400, 400, 400]
    assert len(left) == sum(answer.status_code == 200 for answer in answers) <= 2


async def test_an_endless_upload_is_cut_off_and_nothing_is_kept(tmp_path: Path) -> None:
    head = (
        f"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {SECRET}\r\n"
        "content-type: multipart/form-data; boundary=xYz\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    opening = form(FILE, end=False)
    async with rig(data=tmp_path) as r:
        reader, writer = await asyncio.open_connection("127.0.0.1", r.port)
        writer.write(head.encode() + f"{len(opening):x}\r\n".encode() + opening + b"\r\n")
        answer = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
        for _ in range(64):
            if answer.done():
                break
            writer.write(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
            await asyncio.sleep(0)
        status = await asyncio.wait_for(answer, 5)
        writer.close()
        await until_empty(tmp_path / "files")

    assert b" 413 " in status


async def test_a_client_that_leaves_in_an_upload_leaves_nothing_behind(tmp_path: Path) -> None:
    head = (
        f"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {SECRET}\r\n"
        "content-type: multipart/form-data; boundary=xYz\r\ncontent-length: 900000\r\n\r\n"
    )
    async with rig(data=tmp_path) as r:
        _, writer = await asyncio.open_connection("127.0.0.1", r.port)
        writer.write(head.encode() + form(PURPOSE, FILE, end=False) + b"x" * 300_000)
        async with asyncio.timeout(5):
            while not list((tmp_path / "files").glob("*")):
                await asyncio.sleep(0.01)
        writer.close()
        await until_empty(tmp_path / "files")
        listed = (await r.client.get("/v1/files")).json()

    assert listed["data"] == []
    assert not [event for event in r.events if "failed" in str(event)]


async def test_a_client_that_leaves_in_a_download_is_no_failure(tmp_path: Path) -> None:
    async with rig(data=tmp_path, limits=Limits(2**25, 2**26, 3600.0)) as r:
        made = (await upload(r.client, b"x" * 2**24)).json()
        reader, writer = await asyncio.open_connection("127.0.0.1", r.port)
        request = f"GET /v1/files/{made['id']}/content HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {SECRET}\r\n\r\n"
        writer.write(request.encode())
        await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await asyncio.sleep(0.2)
        open_files = [path for path in Path("/proc/self/fd").iterdir() if is_at(path, made["id"])]

    assert open_files == []
    assert not [event for event in r.events if "failed" in str(event)]


def is_at(path: Path, name: str) -> bool:
    try:
        return path.readlink().name == name
    except OSError:
        return False


async def test_a_file_that_a_batch_reads_cannot_be_removed() -> None:
    async with rig(slots=1) as r:
        held = Wish("held", "key", "owner", 1.0, "chatty", "interactive", 1, 1, 0, 1.0, ())
        await r.desk.enter(held, None)  # nothing else starts
        batch = await start(r.client, jsonl([line("a")]))
        refused = await r.client.delete(f"/v1/files/{batch['input_file_id']}")
        r.desk.leave("held", 0)
        await until_over(r.client, batch["id"])
        removed = await r.client.delete(f"/v1/files/{batch['input_file_id']}")

    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "file_in_use")
    assert batch["id"] in refused.json()["error"]["message"]
    assert removed.status_code == 200


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"endpoint": "/v1/models"}, "endpoint"),
        ({"completion_window": "48h"}, "completion_window"),
        ({"input_file_id": None}, "input_file_id"),
        ({"metadata": {"k" * 65: "v"}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"metadata": {str(n): "v" for n in range(17)}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 60}}, "output_expires_after.seconds"),
        ({"window": 1}, "window"),
    ],
)
async def test_a_wrong_batch_is_refused(changes: dict[str, object], param: str) -> None:
    async with rig() as r:
        file = (await upload(r.client, b"x")).json()
        body = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h", **changes}
        answer = await r.client.post("/v1/batches", json=body)
        listed = (await r.client.get("/v1/batches")).json()

    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith(param)
    assert listed["data"] == []


async def test_results_are_no_input() -> None:
    async with rig() as r:
        done = await until_over(r.client, (await start(r.client, jsonl([line("a")])))["id"])
        body = {"input_file_id": done["output_file_id"], "endpoint": CHAT, "completion_window": "24h"}
        answer = await r.client.post("/v1/batches", json=body)

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "input_file_id")


def operations(file_id: str, batch_id: str) -> list[tuple[str, str, Any]]:
    """Everything that names an object."""
    body = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}
    return [
        ("GET", f"/v1/files/{file_id}", None),
        ("GET", f"/v1/files/{file_id}/content", None),
        ("DELETE", f"/v1/files/{file_id}", None),
        ("GET", f"/v1/files?after={file_id}", None),
        ("GET", f"/v1/batches/{batch_id}", None),
        ("GET", f"/v1/batches?after={batch_id}", None),
        ("POST", f"/v1/batches/{batch_id}/cancel", None),
        ("POST", "/v1/batches", body),
    ]


async def test_another_owner_sees_nothing_and_learns_nothing() -> None:
    stranger = {"authorization": f"Bearer {STRANGER}"}
    async with rig() as r:
        batch = await until_over(r.client, (await start(r.client, jsonl([line("a"), line("b", n=0)])))["id"])
        theirs = [batch[name] for name in ("input_file_id", "output_file_id", "error_file_id")]
        for file_id in theirs:
            for real, missing in zip(
                operations(file_id, batch["id"]), operations("file-none", "batch_none"), strict=True
            ):
                answers = [
                    await r.client.request(method, path, json=body, headers=stranger)
                    for method, path, body in (real, missing)
                ]
                assert [answer.status_code for answer in answers] == [404, 404], real
                names = [file_id, "file-none"], [batch["id"], "batch_none"]
                told = answers[0].text
                for mine, nobody in names:
                    told = told.replace(mine, nobody)
                assert told == answers[1].text  # the same words as for what never was
        for path in ("/v1/files", "/v1/batches"):
            assert (await r.client.get(path, headers=stranger)).json()["data"] == []
        colleague = {"authorization": f"Bearer {LIMITED}"}  # another key of the same owner
        seen = await r.client.get(f"/v1/files/{theirs[1]}/content", headers=colleague)
        left = (await r.client.get("/v1/files")).json()["data"]

    assert seen.status_code == 200
    assert {file["id"] for file in left} == set(theirs)


async def test_every_operation_needs_a_key() -> None:
    async with rig() as r:
        for method, path, body in [
            *operations("file-x", "batch_x"),
            ("GET", "/files", None),
            ("POST", "/files", {}),
        ]:
            answer = await r.client.request(method, path, json=body, headers={"authorization": ""})

            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "missing_api_key"), path
