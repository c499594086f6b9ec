"""The part of the OpenAPI document on replicas at run time: for operators."""

from __future__ import annotations

from typing import Any

from scibox.wire.admin.replicas import (
    AdminReplica,
    AdminReplicaList,
    AdminReplicaRemoved,
    NewReplicaRequest,
    ReplicaChangeRequest,
)

from .admin import TAG, request_body
from .stored import Get, place, query

TYPES = (NewReplicaRequest, ReplicaChangeRequest, AdminReplica, AdminReplicaList, AdminReplicaRemoved)
NEW_EXAMPLE = {"model": "chat", "url": "http://gpu2:8000/v1"}
_ONE = ("400", "401", "403", "404", "409", "503")
_WRITTEN = ("408", "413", "415")


def paths(get: Get) -> dict[str, Any]:
    """The paths."""

    def replica(operation: str, summary: str, *errors: str, answer: str = "AdminReplica") -> dict[str, Any]:
        return get(operation, TAG, answer, summary, *errors)

    no = {"type": "boolean", "default": False}
    now = query("now", no, "Cut its calls, instead of letting them finish.")
    force = query("force", no, "Also the last one of its model that takes calls.")
    return {
        "/admin/v1/replicas": {
            "get": replica(
                *("listReplicas", "The replicas, and how they are.", "401", "403", "503"),
                answer="AdminReplicaList",
            ),
            "post": {
                **replica("addReplica", "One more replica of a model.", *_ONE, *_WRITTEN),
                "requestBody": request_body("NewReplicaRequest", NEW_EXAMPLE),
            },
        },
        "/admin/v1/replicas/{replica_id}": {
            "parameters": [place("replica_id")],
            "patch": {
                **replica("changeReplica", "Drain a replica, or give it calls again.", *_ONE, *_WRITTEN),
                "requestBody": request_body("ReplicaChangeRequest", {"draining": True}),
            },
            "delete": {
                **replica(
                    "removeReplica", "Drain an added one for good.", *_ONE, answer="AdminReplicaRemoved"
                ),
                "parameters": [now, force],
            },
        },
    }
