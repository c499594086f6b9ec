"""`response_format`: text, any JSON object, or JSON that a schema describes.

`strict` is checked and changes nothing: the schema holds either way, since decoding is constrained by it.
OpenAI's strict mode takes only schemas whose objects are closed and whose properties are all required; here
every schema is taken that can be enforced.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

from msgspec import Meta, Raw, field

from .body import Strict

# Python's `$` would take a line feed at the end.
Identifier = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_-]{1,64}(?!\n)$")]
Schema = Annotated[Raw, Meta(extra_json_schema={"type": "object"}, description="A JSON schema.")]
AnySchema = Annotated[
    Raw, Meta(extra_json_schema={"type": ["object", "null"]}, description="A JSON schema, or null for none.")
]


class TextFormat(Strict, frozen=True, tag_field="type", tag="text"):
    """Text: the default."""


class JsonObjectFormat(Strict, frozen=True, tag_field="type", tag="json_object"):
    """Any JSON object; with `schema` (llama-server's way) one that the schema describes."""

    schema: AnySchema = field(default_factory=Raw)


class NamedSchema(Strict, frozen=True):
    """A JSON schema and its name."""

    name: Identifier
    schema: Schema
    description: str | None = None
    strict: bool | None = None


class JsonSchemaFormat(Strict, frozen=True, tag_field="type", tag="json_schema"):
    """JSON that the schema describes."""

    json_schema: NamedSchema


ResponseFormat: TypeAlias = TextFormat | JsonObjectFormat | JsonSchemaFormat
