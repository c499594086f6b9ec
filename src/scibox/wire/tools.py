"""`tools` and `tool_choice`: the functions that the model may or must call."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Raw, field

from scibox.core.errors import InvalidRequest
from scibox.core.names import nearest

from .body import Strict
from .constraints import schemas
from .formats import AnySchema, Identifier

MAX_TOOLS = 128


class Function(Strict, frozen=True):
    """What the model reads of a function; its arguments are held to `parameters`, `strict` or not."""

    name: Identifier
    description: str | None = None
    parameters: AnySchema = field(default_factory=Raw)
    strict: bool | None = None


class Tool(Strict, frozen=True):
    """A function that the client runs; other kinds of tools are refused."""

    type: Literal["function"]
    function: Function


class FunctionName(Strict, frozen=True):
    """Which function must be called."""

    name: str


class NamedChoice(Strict, frozen=True):
    """The one function that must be called."""

    type: Literal["function"]
    function: FunctionName


Tools: TypeAlias = Annotated[list[Tool], Meta(max_length=MAX_TOOLS)]
ToolChoice: TypeAlias = Literal["none", "auto", "required"] | NamedChoice


def check(tools: list[Tool] | None, choice: ToolChoice | None) -> None:
    """Raise `InvalidRequest` for what cannot be called, or must be called and is not there."""
    names: list[str] = []
    weight = 0
    for index, tool in enumerate(tools or ()):
        where = f"tools[{index}].function"
        name = tool.function.name
        if name in names:
            raise InvalidRequest(
                f"'{where}.name' is '{name}' for the second time; each function has its own name.",
                param=f"{where}.name",
            )
        names.append(name)
        parameters = bytes(tool.function.parameters)
        if parameters not in {b"", b"null"}:
            weight += schemas.check_object_schema(parameters, f"{where}.parameters")
    if weight > schemas.MAX_WEIGHT:  # they are compiled into one grammar
        raise InvalidRequest(
            f"The parameters in 'tools' are too large together: their schemas may have {schemas.MAX_WEIGHT} "
            "values, and items to be counted, in all. Send fewer tools.",
            param="tools",
            code="unsupported_schema",
        )
    _check_choice(names, choice)


def _check_choice(names: list[str], choice: ToolChoice | None) -> None:
    if choice in {None, "none", "auto"}:
        return
    if not names:
        raise InvalidRequest(
            "'tool_choice' asks for a call, but there are no 'tools'; send them.", param="tool_choice"
        )
    if isinstance(choice, NamedChoice) and choice.function.name not in names:
        wanted = choice.function.name
        close = nearest(wanted, names)
        hint = f" Did you mean '{close}'?" if close else f" There are: {', '.join(names[:10])}."
        raise InvalidRequest(
            f"'tool_choice.function.name' is '{wanted[:80]}', which is none of the 'tools'.{hint}",
            param="tool_choice.function.name",
        )
