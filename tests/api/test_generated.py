"""schemathesis against our own document: no 5xx, and every answer is one that the document has.

Its cases begin with the document's examples, which the models of the rig can answer. It lives in an environment
of its own (`schemathesis.txt`): it brings a pytest plugin, Werkzeug and requests, and ours should not.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

from clients import venvs
from clients.setting import ROOT
from rig import OPERATOR, rig
from scibox.wire.document import openapi

IS_LONG = os.environ.get("SCIBOX_TEST_LONG") == "1"
CASES = 500 if IS_LONG else 15
WITHIN_S = 7_200 if IS_LONG else 540  # a hundred seconds where nobody else works
LOCK = Path(__file__).with_name("schemathesis.txt")
ALIASES = {
    openapi.CHAT_EXAMPLE["model"]: "chatty",
    openapi.EMBEDDING_EXAMPLE["model"]: "vectors",
}
# No schema can say all that is refused with 400 (e.g. that `top_logprobs` needs `logprobs`).
NOT_CHECKED = "positive_data_acceptance"


@pytest.fixture(scope="module")
def schemathesis() -> Path:
    """The program; its environment is made once and kept while its lock stays the same."""
    folder = ROOT / ".cache" / "schemathesis"
    venv = venvs.Venv("schemathesis", folder / "venv")
    done = folder / "complete.txt"
    if not done.exists() or done.read_text() != LOCK.read_text():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            make = f"'{sys.executable}' -m venv '{venv.folder}' && pip install --no-deps -r '{LOCK}'"
            venvs.install(venv, make, ROOT)
        except venvs.NoRegistryError as error:
            pytest.skip(f"{error}: schemathesis needs one for its first run")
        done.write_text(LOCK.read_text())
    return venv.bin / "schemathesis"


@pytest.mark.slow
@pytest.mark.timeout(WITHIN_S + 60)
async def test_generated_requests_bring_no_5xx_and_only_answers_that_the_document_has(
    schemathesis: Path, tmp_path: Path
) -> None:
    async with rig(aliases=ALIASES) as r:
        process = await asyncio.create_subprocess_exec(
            *(str(schemathesis), "run", f"http://127.0.0.1:{r.port}/openapi.json"),
            *("--header", f"Authorization: Bearer {OPERATOR}", "--seed", "1", "--no-color"),
            *("--phases", "examples,coverage,fuzzing", "--max-examples", str(CASES)),
            *("--exclude-checks", NOT_CHECKED, "--continue-on-failure"),
            *("--exclude-operation-id", "revokeOwnKey"),  # it would be the end of all others
            cwd=tmp_path,
            env={**os.environ, "NO_PROXY": "127.0.0.1", "PYTHONPATH": ""},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(WITHIN_S):
                said, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        crashes = [event for event in r.events if "failed" in str(event)]
        asked = {(request.method, request.path) for request in r.engine.requests}
        await r.until_idle()

    assert process.returncode == 0, said.decode()[-20_000:]
    assert not crashes
    # It reached the engine, so it was not refused at the door all the time.
    assert {("POST", "/v1/chat/completions"), ("POST", "/v1/embeddings")} <= asked


def test_its_examples_are_models_of_the_rig() -> None:
    named = {example["model"] for example in _examples() if "model" in example}

    assert named <= set(ALIASES)


def _examples() -> list[dict[str, object]]:
    found = []
    for item in openapi.document("0")["paths"].values():
        content = item.get("post", {}).get("requestBody", {}).get("content", {})
        found += [kind["example"] for kind in content.values() if "example" in kind]
    return found
