"""What is learnt of a replica when a call first needs it."""

from __future__ import annotations

from pathlib import Path

from rig import socket_folder
from scibox.core.types import Call
from scibox.engines.fake import FakeEngine
from scibox.router.learning import MAX_LEARNT, learn
from scibox.router.replica import Replica
from scibox.router.tokenizer import Tokenizer
from scibox.upstream.address import Address
from scibox.upstream.client import Client


def call(variables: int) -> Call:
    fields = {"chat_template_kwargs": b'{"level":%d}' % variables}
    return Call("r", "chat", "m", "/chat/completions", fields)


async def test_what_is_remembered_of_a_template_is_bounded() -> None:
    with socket_folder() as folder:
        async with FakeEngine(f"unix:{Path(folder)}/e.sock", prompt_end="<think>\n") as fake:
            replica = Replica(
                Address.parse(fake.address), "m", is_local=True, counts=True, dialect="llama", thinking=None
            )
            client = Client(1.0)
            for variables in range(MAX_LEARNT + 5):
                target = await learn(client, Tokenizer(client), call(variables), replica)
                assert target.thinking == "opened"
            client.close()

    assert 0 < len(replica.opens) <= MAX_LEARNT
    assert replica.thinking is None
