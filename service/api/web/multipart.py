"""multipart/form-data as it streams in (RFC 7578): parts in the order in which they come, never a whole body in memory.

Turns the push of `python_multipart` into a pull, so that a slow store slows the client down. Does not depend on the
fields of any form.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import Enum

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.domain.errors import InvalidRequest, TooLarge

PARTS_LIMIT = 32
FIELD_LIMIT_BYTES = 16 * 1024
IDLE_SECONDS = 60.0  # after which a silent client counts as disconnected


def boundary_of(content_type: str) -> bytes:
    """The boundary in a Content-Type header. Raises InvalidRequest for anything but multipart/form-data with one."""
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise InvalidRequest(
            "Invalid Content-Type header: a file is sent as multipart/form-data with a boundary "
            "(curl: -F file=@train.jsonl -F purpose=fine-tune)."
        )
    return boundary


def sent_twice(name: str) -> InvalidRequest:
    """The error for a form with two values for one field, as for a JSON body with a key twice."""
    return InvalidRequest(f"'{name}' is in the form of your request twice. Send it once.", param=name)


class End(Enum):
    """What has ended."""

    PART = "part"
    FORM = "form"


@dataclass
class Part:
    """One part of a form; `filename` is None for a field. Its bytes come from `chunks`, once."""

    name: str
    filename: str | None
    content_type: str
    _reader: "FormReader" = field(repr=False)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The part's bytes. Raises InvalidRequest when the form breaks off."""
        while isinstance(event := await self._reader.next_event(), bytes):
            yield event

    async def text(self) -> str:
        """The part as a short text. Raises InvalidRequest for a long one or one that is not UTF-8."""
        content = b""
        async for chunk in self.chunks():
            content += chunk
            if len(content) > FIELD_LIMIT_BYTES:
                raise InvalidRequest(f"The form field '{self.name}' is too long.", param=self.name)
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"The form field '{self.name}' is not UTF-8 text.", param=self.name) from error


class FormReader:
    """Reads a form from `stream`, at most `limit_bytes` of it."""

    def __init__(self, stream: AsyncIterator[bytes], boundary: bytes, limit_bytes: int) -> None:
        self._stream = stream
        self._left_bytes = limit_bytes
        self._events: deque[Part | bytes | End] = deque()
        self._headers: dict[str, str] = {}
        self._header = (bytearray(), bytearray())
        self._parts = 0
        self._names: set[str] = set()
        self._chunk = b""  # what the parser is given
        self._within_data = False  # all of it was a part's bytes up to its end
        try:
            self._parser = self._make_parser(boundary)
        except FormParserError as error:
            raise _broken(str(error)) from error

    async def parts(self) -> AsyncIterator[Part]:
        """Every part; parts that the caller did not read are skipped.

        Raises InvalidRequest for a broken form, and for a second part of a name: which of the two counts is not said.
        """
        while (event := await self.next_event()) is not End.FORM:
            if isinstance(event, Part):
                if event.name in self._names:
                    raise sent_twice(event.name)
                self._names.add(event.name)
                yield event

    async def next_event(self) -> Part | bytes | End:
        """The next event of the form. Raises InvalidRequest where it breaks off."""
        while not self._events:
            chunk = await self._next_chunk()
            if chunk is None:
                raise _broken("it ends before its last boundary")
            self._feed(chunk)
        return self._events.popleft()

    async def _next_chunk(self) -> bytes | None:
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                return await anext(self._stream, None)
        except TimeoutError as error:
            raise InvalidRequest(f"The upload stopped: nothing came for {IDLE_SECONDS:.0f} seconds.") from error

    def _feed(self, chunk: bytes) -> None:
        self._left_bytes -= len(chunk)
        if self._left_bytes < 0:
            raise TooLarge("The form is larger than its file may be.", param="file", code="file_too_large")
        if self._within_data and b"\r" not in chunk:  # where no CR is, no boundary is or begins (RFC 2046, 5.1.1)
            self._events.append(chunk)
            return
        self._chunk, self._within_data = chunk, False
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _broken(str(error)) from error

    def _make_parser(self, boundary: bytes) -> MultipartParser:
        return MultipartParser(
            boundary,
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": lambda data, start, end: self._header[0].extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._header[1].extend(data[start:end]),
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": lambda: self._events.append(End.PART),
                "on_end": lambda: self._events.append(End.FORM),
            },
        )

    def _on_part_begin(self) -> None:
        self._headers = {}
        self._parts += 1
        if self._parts > PARTS_LIMIT:
            raise InvalidRequest(f"The form has more than {PARTS_LIMIT} parts.")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(data[start:end])
        self._within_data = data is self._chunk and end == len(data)  # else the rest may begin a boundary

    def _on_header_end(self) -> None:
        name, value = self._header
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1").replace("\x00", "")
        self._header = (bytearray(), bytearray())

    def _on_headers_finished(self) -> None:
        kind, options = parse_options_header(self._headers.get("content-disposition", ""))
        if kind != b"form-data" or b"name" not in options:
            raise _broken("a part has no name")
        filename = options.get(b"filename")
        content_type = self._headers.get("content-type", "application/octet-stream")
        name = _text(options[b"name"])
        self._events.append(Part(name, None if filename is None else _text(filename), content_type, self))


def _text(value: bytes) -> str:
    """The bytes of a name as browsers and SDKs send it: UTF-8, without the NUL that no database stores."""
    return value.decode("utf-8", "replace").replace("\x00", "")


def _broken(why: str) -> InvalidRequest:
    return InvalidRequest(f"The multipart form cannot be read: {why}.")
