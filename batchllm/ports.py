"""The doors to the world. What decides never opens one; what waits is handed one.

Each has a fake in `batchllm.testing`, so that users can test their jobs the way that this project tests itself.
"""

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import pyarrow as pa

from batchllm.records import (
    AnswerValue,
    BadRow,
    Failure,
    JournalRecord,
    Reading,
    Request,
    Response,
    Row,
)


class Source(Protocol):
    """Rows in, streamed."""

    def scan(self) -> "Scan":
        """Read everything once: count, digest, key faults. Raises InputDataError, InputMissingError."""

    def mark(self) -> "Marked":
        """Read everything once, without parsing where that can be: digest, and what each row is known by."""

    def hold_to(self, marks: "RowMarks", /) -> None:
        """From now on each row that `chosen` and `batches` give has to be of its mark in `marks`, by ordinal.

        They raise InputDataError for another one, before it is given out.
        """

    def chosen(self, wanted: bytearray, file_rows: Sequence[int], /) -> Iterator[Sequence[Row | BadRow]]:
        """Of what `batches` gives, the rows whose byte in `wanted` (by ordinal) is 1; `file_rows` is of `mark`."""

    def check_unchanged(self) -> None:
        """Raises InputDataError when the input is not what it was when the source was opened."""

    def stamps(self) -> Sequence[object]:
        """What tells cheaply whether the input is still the same, as JSON values; nothing is read for it."""

    def batches(self) -> Iterator[Sequence[Row | BadRow]]:
        """All rows in input order, in batches of bounded bytes; ordinals count from 0 over all files."""

    def peek(self, rows: int) -> Sequence[Row]:
        """The first readable rows, for checks before anything is spent."""

    @property
    def column_names(self) -> tuple[str, ...] | None:
        """All columns where the format tells (Parquet, CSV, frames); None for JSONL."""

    @property
    def shape(self) -> "Shape": ...


class Shape(Protocol):
    """The pinned types of what travels from the input to the output."""

    @property
    def key(self) -> pa.Field | None: ...
    @property
    def carry(self) -> tuple[pa.Field, ...]: ...


class Scan(Protocol):
    @property
    def rows(self) -> int: ...
    @property
    def digest(self) -> str: ...
    @property
    def file_rows(self) -> Sequence[int]: ...


class Marked(Protocol):
    """An input as `Source.mark` saw it: equal marks of two inputs mean equal rows."""

    @property
    def digest(self) -> str: ...
    @property
    def marks(self) -> "array[int]": ...
    @property
    def rows(self) -> int: ...
    @property
    def basis(self) -> str: ...
    @property
    def file_rows(self) -> Sequence[int]: ...


class RowMarks(Protocol):
    """The marks of an input's rows, by ordinal; 0 is like no other."""

    @property
    def rows(self) -> int: ...
    @property
    def read(self) -> Callable[[int, int], pa.Array]:
        """Those from the first ordinal up to the second one, as uint64."""


class Task(Protocol):
    """Row → content of a request; reply → answers; answers → columns."""

    kind: str
    path: str  # under the lane's base_url, such as "/chat/completions"
    content_field: str  # of the body: "messages", "prompt", "input"
    is_packed: bool  # several rows a request
    answer_fields: tuple[pa.Field, ...]
    template_columns: frozenset[str]  # what its templates read of a row

    def content(self, row: Row) -> object:
        """What to send for this row. Raises RowError."""

    def texts(self, content: object) -> Sequence[str]:
        """The texts in it that count as prompt tokens."""

    def fixed_tokens(self, ruler: "Ruler", /) -> int:
        """What each request counts beside its content: definitions of tools."""

    def other_tokens(self, content: object, ruler: "Ruler", /) -> int:
        """What of the content counts and is no text: pictures, calls of tools."""

    def read(self, reply: object, request: Request) -> Reading | Failure:
        """Judge a parsed reply of status 200: nothing is an answer until shape, count and order are right."""

    def columns(self, values: Sequence[AnswerValue]) -> list[pa.Array]:
        """Kept answers → one array for each of `answer_fields`."""


class Ruler(Protocol):
    """Counts, before anything is sent, what is no text."""

    def tools(self, tools: Sequence[Mapping[str, Any]], /) -> int: ...

    def picture(self, url: str, detail: Literal["auto", "low", "high"], /) -> int: ...

    def words(self, text: str, /) -> int: ...

    def too_long(self, texts: Sequence[str], /) -> str | None:
        """Why no model reads all of what a row asks; None where one may."""


class ImageFiles(Protocol):
    """Files that rows name."""

    def read(self, path: str, most_bytes: int) -> bytes:
        """The whole file. Raises RowInputError: missing, unreadable, no file, or larger than `most_bytes`."""


class Provider(Protocol):
    """One lane's wire."""

    async def send(self, path: str, body: bytes, deadline_s: float) -> Response | Failure:
        """POST `body`; whatever happens below HTTP comes back as a Failure. Ends within `deadline_s`."""

    def drop_idle(self) -> None:
        """Close connections that no call uses: after a pause nobody knows whether they still are."""

    async def close(self) -> None: ...


class Recorder(Protocol):
    """Where records go. Bounded: when `room` does not return, nothing more may be dispatched."""

    def put(self, records: Sequence[JournalRecord]) -> None: ...

    @property
    def has_room(self) -> bool:
        """Whether `room` would return at once. Raises what `room` raises."""

    async def room(self) -> None: ...

    async def expose(self, calls: int, usd: float | None) -> None:
        """So many calls may be out from now on, worth so much at most: what a hard kill may pay for in vain.

        Returns when that is safe; None is an unknown price.
        """

    def watch(self, committed: Callable[[int], None]) -> None:
        """`committed` hears, on the loop's thread, how many of the records put so far are safe."""
