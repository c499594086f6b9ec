"""`POST /v1/rerank` (Jina's and Cohere's shape) and `POST /v1/score` (vLLM's).

Both are calls for embeddings: the cosine of a query's and a document's vectors is their score, as in vLLM. A
model of kind `rerank` is asked itself, and its answer is told in the same shape.
"""

from __future__ import annotations

import base64
from array import array
from dataclasses import dataclass
from operator import mul
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from scibox.core.errors import InvalidRequest, SciBoxError, UpstreamBroken
from scibox.core.types import Call, Embedding, Purpose, Text

from . import body, errors
from .embeddings import MAX_TEXTS, refuse_empty
from .face import AsIs, Asked

Name = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=256,
        description="Honoured. A name from `GET /v1/models`, of an embedding or a rerank model.",
    ),
]
Limit = Annotated[
    Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None,
    Meta(description="Honoured. As for embeddings; the header `x-scibox-truncated` lists what was cut."),
]
User = Annotated[str | None, Meta(description="No effect. Calls are accounted to the key.")]


class Document(Struct):
    """A document to rank."""

    text: str


class RerankRequest(Struct):
    """Order documents by how well they answer a query."""

    model: Name
    query: Annotated[str, Meta(description="Honoured. What is looked for.")]
    documents: Annotated[
        list[str | Document], Meta(min_length=1, description="Honoured. Texts, or objects with a `text`.")
    ]
    top_n: Annotated[
        Annotated[int, Meta(ge=1)] | None, Meta(description="Honoured. Only the best so many.")
    ] = None
    return_documents: Annotated[
        bool | None, Meta(description="Honoured. Give each document's text back beside its score.")
    ] = None
    truncate_prompt_tokens: Limit = None
    user: User = None


class ScoreRequest(Struct):
    """Score pairs of texts: one with one, one with many, or many with as many."""

    model: Name
    text_1: Annotated[
        str | Annotated[list[str], Meta(min_length=1)], Meta(description="Honoured. A text, or a list.")
    ]
    text_2: Annotated[
        str | Annotated[list[str], Meta(min_length=1)],
        Meta(description="Honoured. A text or a list; as many as `text_1`, or `text_1` is one."),
    ]
    truncate_prompt_tokens: Limit = None
    user: User = None


class Ranked(Struct, omit_defaults=True):
    """One document by its place in the request."""

    index: int
    relevance_score: float
    document: Document | None = None


class RerankUsage(Struct):
    """LLM tokens."""

    prompt_tokens: int
    total_tokens: int


class Rerank(Struct):
    """The documents, the best first."""

    id: str
    model: str
    results: list[Ranked]
    usage: RerankUsage


class Score(Struct):
    """The score of one pair, in the order of the request."""

    index: int
    score: float
    object: Literal["score"] = "score"


class Scores(Struct):
    """Scores."""

    id: str
    model: str
    data: list[Score]
    usage: RerankUsage
    object: Literal["list"] = "list"


class RerankFace:
    """`/rerank`."""

    def parse(self, request_id: str, raw: bytes) -> Asked:
        """A call for the vectors of the query and the documents."""
        request, fields = body.decode(raw, _reranks)
        body.refuse_unknown(fields, RERANK_FIELDS)
        documents = [item if isinstance(item, str) else item.text for item in request.documents]
        texts = [_text(request.query, "query", "query")]
        texts += [_text(text, f"documents[{at}]", "passage") for at, text in enumerate(documents)]
        kept = ("query", "top_n", "truncate_prompt_tokens")
        native = {name: fields[name] for name in kept if fields.get(name, b"null") != b"null"}
        native["documents"] = msgspec.json.encode(documents)
        call = _call(request_id, request, texts, "/rerank", native)
        reply = RerankReply(
            request_id, request.model, documents, request.top_n, bool(request.return_documents)
        )
        return Asked(call, reply)

    def error(self, error: SciBoxError, request_id: str) -> bytes:
        """OpenAI's shape."""
        return errors.render(error)


class ScoreFace:
    """`/score`."""

    def parse(self, request_id: str, raw: bytes) -> Asked:
        """A call for the vectors of both sides."""
        request, fields = body.decode(raw, _scores)
        body.refuse_unknown(fields, SCORE_FIELDS)
        left, right = _list(request.text_1), _list(request.text_2)
        if len(left) != len(right) and len(left) != 1:
            raise InvalidRequest(
                f"'text_1' has {len(left)} texts and 'text_2' {len(right)}; give one 'text_1', or as many.",
                param="text_1",
            )
        texts = [_text(text, _where("text_1", request.text_1, at), "query") for at, text in enumerate(left)]
        texts += [
            _text(text, _where("text_2", request.text_2, at), "passage") for at, text in enumerate(right)
        ]
        kept = ("text_1", "text_2", "truncate_prompt_tokens")
        native = {name: fields[name] for name in kept if fields.get(name, b"null") != b"null"}
        call = _call(request_id, request, texts, "/score", native)
        return Asked(call, ScoreReply(request_id, request.model, len(left), len(right)))

    def error(self, error: SciBoxError, request_id: str) -> bytes:
        """OpenAI's shape."""
        return errors.render(error)


@dataclass(frozen=True, slots=True)
class RerankReply(AsIs):
    """Vectors of the query and the documents, or a rerank model's own answer, as a ranking."""

    request_id: str
    model: str
    documents: list[str]
    top_n: int | None
    with_documents: bool

    def whole(self, body: bytes) -> bytes:
        """The ranking."""
        answer = _read(body)
        if answer.results is not None:
            if any(not 0 <= item.index < len(self.documents) for item in answer.results):
                raise UpstreamBroken("The model server ranked a document that was not sent; try again.")
            scores = [(item.relevance_score, item.index) for item in answer.results]
        else:
            query, *documents = _vectors(answer)
            scores = [(_cosine(query, vector), index) for index, vector in enumerate(documents)]
        scores.sort(key=lambda pair: (-pair[0], pair[1]))
        results = [
            Ranked(index, score, Document(self.documents[index]) if self.with_documents else None)
            for score, index in scores[: self.top_n]
        ]
        return msgspec.json.encode(
            Rerank(_id("rerank", self.request_id), answer.model or self.model, results, _usage(answer))
        )


@dataclass(frozen=True, slots=True)
class ScoreReply(AsIs):
    """Vectors of both sides, or a model's own scores, as scores."""

    request_id: str
    model: str
    left: int
    right: int

    def whole(self, body: bytes) -> bytes:
        """The scores."""
        answer = _read(body)
        if answer.data and answer.data[0].embedding is None:
            scores = [item.score for item in answer.data if item.score is not None]
            if len(scores) != max(self.left, self.right):
                raise UpstreamBroken("The model server answered with another number of scores; try again.")
        else:
            vectors = _vectors(answer)
            left, right = vectors[: self.left], vectors[self.left :]
            scores = [
                _cosine(left[0] if self.left == 1 else left[at], vector) for at, vector in enumerate(right)
            ]
        told = [Score(at, score) for at, score in enumerate(scores)]
        return msgspec.json.encode(
            Scores(_id("score", self.request_id), answer.model or self.model, told, _usage(answer))
        )


class _Item(Struct):
    embedding: str | None = None
    score: float | None = None


class _Result(Struct):
    index: int
    relevance_score: float


class _Usage(Struct):
    prompt_tokens: int | None = None
    total_tokens: int | None = None


class _Answer(Struct):
    """Embeddings (ours, base64), a rerank model's ranking, or its scores."""

    model: str | None = None
    data: list[_Item] | None = None
    results: list[_Result] | None = None
    usage: _Usage | None = None


RERANK_FIELDS = frozenset(RerankRequest.__struct_fields__)
SCORE_FIELDS = frozenset(ScoreRequest.__struct_fields__)
_reranks = msgspec.json.Decoder(RerankRequest)
_scores = msgspec.json.Decoder(ScoreRequest)
_answers = msgspec.json.Decoder(_Answer)


def _call(
    request_id: str,
    request: RerankRequest | ScoreRequest,
    texts: list[Text],
    path: str,
    native: dict[str, bytes],
) -> Call:
    if len(texts) > MAX_TEXTS:
        raise InvalidRequest(
            f"These are {len(texts)} texts; send at most {MAX_TEXTS:,} in one call.",
            param=texts[-1].where.partition("[")[0],
        )
    if request.truncate_prompt_tokens == 0:
        raise InvalidRequest(
            "'truncate_prompt_tokens' must be at least 1, or -1 for the model's limit.",
            param="truncate_prompt_tokens",
        )
    return Call(
        request_id=request_id,
        kind="rerank",
        model=request.model,
        path=path,
        fields=native,
        items=len(texts),
        embedding=Embedding(tuple(texts), as_base64=True, truncate=request.truncate_prompt_tokens),
    )


def _text(text: str, where: str, purpose: Purpose) -> Text:
    refuse_empty(text, where)
    return Text(text, where, purpose)


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _where(name: str, value: str | list[str], at: int) -> str:
    return name if isinstance(value, str) else f"{name}[{at}]"


def _read(raw: bytes) -> _Answer:
    try:
        return _answers.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise UpstreamBroken("The model server's answer could not be read; try again.") from None


def _vectors(answer: _Answer) -> list[array[float]]:
    return [array("f", base64.b64decode(item.embedding or "")) for item in answer.data or ()]


def _cosine(left: array[float], right: array[float]) -> float:
    """Both are of unit length."""
    product: float = sum(map(mul, left, right))
    return max(-1.0, min(1.0, product))


def _usage(answer: _Answer) -> RerankUsage:
    told = answer.usage or _Usage()
    prompt_tokens = told.prompt_tokens or told.total_tokens or 0
    return RerankUsage(prompt_tokens, prompt_tokens)


def _id(kind: str, request_id: str) -> str:
    return f"{kind}-{request_id.removeprefix('req_')}"
