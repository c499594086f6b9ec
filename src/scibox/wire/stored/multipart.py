"""`multipart/form-data` (RFC 7578) with one file in it, read piece by piece: the file is never held whole.

The splitting is python-multipart's; the bounds on everything but the file's content are here.
"""

from __future__ import annotations

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from scibox.core.errors import InvalidRequest

MOST_PARTS = 20
MOST_FIELD_BYTES = 4096
OVERHEAD_BYTES = 2**17  # what a form may have beside the content of its file


class Form:
    """One form on its way. `fields` fill up; `filename` is None until the file's part has begun."""

    def __init__(self, content_type: str) -> None:
        kind, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if kind != b"multipart/form-data" or not boundary:
            raise InvalidRequest(
                "Send the file as multipart/form-data with the parts 'purpose' and 'file'.",
                param="file",
                code="not_a_form",
            )
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.is_whole = False
        self._content: list[bytes] = []
        self._header = [b"", b""]
        self._disposition = b""
        self._name: str | None = None  # of the field that is being read; None within the file
        self._value = bytearray()
        self._parts = 0
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._part_begin,
                    "on_header_begin": self._header_begin,
                    "on_header_field": lambda data, start, end: self._header_piece(0, data[start:end]),
                    "on_header_value": lambda data, start, end: self._header_piece(1, data[start:end]),
                    "on_header_end": self._header_end,
                    "on_headers_finished": self._headers_finished,
                    "on_part_data": lambda data, start, end: self._part_data(data[start:end]),
                    "on_part_end": self._part_end,
                    "on_end": self._end,
                },
            )
        except FormParserError as error:
            raise _malformed(error) from None

    def feed(self, received: bytes) -> bytes:
        """Take bytes of the body; returns what of them belongs to the file's content."""
        try:
            self._parser.write(received)
        except FormParserError as error:
            raise _malformed(error) from None
        content = b"".join(self._content)
        self._content.clear()
        return content

    def close(self) -> None:
        """The body is over."""
        if not self.is_whole:
            raise InvalidRequest(
                "The form breaks off before its last boundary; send it again.", code="malformed_form"
            )
        if self.filename is None:
            raise InvalidRequest("Missing field 'file'.", param="file")

    def _part_begin(self) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise InvalidRequest(f"The form has more than {MOST_PARTS} parts.", code="malformed_form")
        self._disposition = b""
        self._value.clear()

    def _header_begin(self) -> None:
        self._header = [b"", b""]

    def _header_piece(self, at: int, piece: bytes) -> None:
        self._header[at] += piece

    def _header_end(self) -> None:
        if self._header[0].strip().lower() == b"content-disposition":
            self._disposition = self._header[1]

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")[:80]
        if not name:
            raise InvalidRequest("A part of the form has no name.", code="malformed_form")
        if name in self.fields or (name == "file" and self.filename is not None):
            raise InvalidRequest(f"'{name}' is in the form more than once.", param=name)
        if name != "file":
            self._name = name
        elif b"filename" not in options:
            raise InvalidRequest("The part 'file' must be a file with a name.", param="file")
        else:
            self._name = None
            self.filename = options[b"filename"].decode("utf-8", "replace")

    def _part_data(self, piece: bytes) -> None:
        if self._name is None:
            self._content.append(piece)
        elif len(self._value) + len(piece) > MOST_FIELD_BYTES:
            raise InvalidRequest(f"'{self._name}' is longer than {MOST_FIELD_BYTES} bytes.", param=self._name)
        else:
            self._value += piece

    def _part_end(self) -> None:
        if self._name is not None:
            self.fields[self._name] = self._value.decode("utf-8", "replace")

    def _end(self) -> None:
        self.is_whole = True


def _malformed(error: FormParserError) -> InvalidRequest:
    return InvalidRequest(f"The form cannot be read: {error}.", code="malformed_form")
