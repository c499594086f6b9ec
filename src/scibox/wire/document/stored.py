"""The part of the OpenAPI document on files and batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scibox.wire.stored.batches import BatchList, BatchObject, BatchRequest
from scibox.wire.stored.files import FileDeleted, FileList, FileObject, FileUpload

Get = Callable[..., dict[str, Any]]  # Any: JSON; an operation of its name, tag, answer, summary and errors
Errors = Callable[..., dict[str, Any]]  # the answers of these statuses
TYPES = (FileUpload, FileObject, FileList, FileDeleted, BatchRequest, BatchObject, BatchList)
BATCH_EXAMPLE = {
    "input_file_id": "file-0123456789abcdef01234567",
    "endpoint": "/v1/embeddings",
    "completion_window": "24h",
    "metadata": {"job": "nightly"},
}
_OBJECT = ("400", "401", "404", "503")


def paths(get: Get, errors: Errors) -> dict[str, Any]:
    """The paths of both."""
    return {**_file_paths(get, errors), **_batch_paths(get)}


def _file_paths(get: Get, errors: Errors) -> dict[str, Any]:
    form = {"multipart/form-data": {"schema": _ref("FileUpload")}}
    order = query("order", {"enum": ["asc", "desc"], "default": "desc"}, "By the time of creation.")
    purpose = query("purpose", {"type": "string"}, "Only files of this purpose.")
    one = {"parameters": [place("file_id")]}
    return {
        "/v1/files": {
            "get": {
                **get("listFiles", "Files", "FileList", "The files of this key's owner.", *_OBJECT),
                "parameters": [*page("files", 10_000, 10_000), order, purpose],
            },
            "post": {
                **get("createFile", "Files", "FileObject", "Store a file.", "400", "401", "413", "503"),
                "requestBody": {"required": True, "content": form},
            },
        },
        "/v1/files/{file_id}": {
            **one,
            "get": get("getFile", "Files", "FileObject", "One file.", *_OBJECT),
            "delete": get("deleteFile", "Files", "FileDeleted", "Remove one file.", *_OBJECT),
        },
        "/v1/files/{file_id}/content": {
            **one,
            "get": {
                **get("downloadFile", "Files", "FileObject", "The bytes of one file.", *_OBJECT),
                "responses": {
                    "200": {"description": "The file.", "content": {"application/octet-stream": {}}},
                    **errors(*_OBJECT),
                },
            },
        },
    }


def _batch_paths(get: Get) -> dict[str, Any]:
    body = {"application/json": {"schema": _ref("BatchRequest"), "example": BATCH_EXAMPLE}}
    one = {"parameters": [place("batch_id")]}
    return {
        "/v1/batches": {
            "get": {
                **get("listBatches", "Batches", "BatchList", "The batches of this key's owner.", *_OBJECT),
                "parameters": page("batches", 20, 100),
            },
            "post": {
                **get("createBatch", "Batches", "BatchObject", "Run the lines of a file.", *_OBJECT),
                "requestBody": {"required": True, "content": body},
            },
        },
        "/v1/batches/{batch_id}": {
            **one,
            "get": get("getBatch", "Batches", "BatchObject", "One batch.", *_OBJECT),
        },
        "/v1/batches/{batch_id}/cancel": {
            **one,
            "post": get(
                "cancelBatch", "Batches", "BatchObject", "Stop one batch; what is done stays.", *_OBJECT
            ),
        },
    }


def page(things: str, default: int, most: int) -> list[dict[str, Any]]:
    """The parameters of a list in pages."""
    limit = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return [
        query("limit", limit, f"How many {things} at most."),
        query("after", {"type": "string"}, "An id: what follows it in the list."),
    ]


def query(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    """A parameter of a query."""
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": description}


def place(name: str) -> dict[str, Any]:
    """A parameter of a path."""
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}
