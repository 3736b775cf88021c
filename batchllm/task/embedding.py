"""Embedding: the texts of several rows → one request; the reply → one vector a row, as float32 bytes.

Vectors are placed by their index, never by their order, and a reply with one too few or too many is none at all:
both have put vectors to the wrong texts elsewhere. A vector that is no vector (NaN, all zeros) sends the request
back in halves, so that one text does not cost its neighbours their answers.

Both forms are read, whichever was asked for, since some servers ignore the word. In base64 a vector never is a list
of Python floats: one of 1,536 takes a sixth of the CPU that the same numbers take as text, most of it for making the
floats.

Signed bytes (Perplexity's `base64_int8`) become the same numbers as float32. A string of bytes does not tell what it
holds, so a lane that asks for them reads its replies with a task made by `of_signed_bytes`.
"""

import binascii
import math
import sys
from array import array
from collections.abc import Sequence
from copy import copy

import pyarrow as pa
import pyarrow.compute as pc

from batchllm.errors import InvariantError
from batchllm.ports import Ruler
from batchllm.prompt import Template
from batchllm.records import Action, Answer, AnswerValue, Failure, FailureCode, Reading, Request, Row
from batchllm.spec import models
from batchllm.task.packed import row_text, texts_of
from batchllm.task.reply import Envelope, open_envelope

_FLOAT_BYTES = 4
#: Vectors that are checked at a time: enough to make Arrow's call cheap, and a small copy of a large reply.
_CHECKED_TOGETHER = 64


class EmbeddingTask:
    """`dimensions` is the width of the vectors. Raises TemplateError."""

    kind = "embedding"
    path = "/embeddings"
    content_field = "input"
    is_packed = True

    def __init__(self, spec: models.EmbeddingTask, dimensions: int) -> None:
        self._text = Template(spec.text, where="task.text")
        self._dimensions = dimensions
        self._packed = _packed
        self.template_columns = self._text.columns
        self.answer_fields: tuple[pa.Field, ...] = (
            pa.field("embedding", pa.list_(pa.float32(), dimensions)),
        )

    def of_signed_bytes(self) -> "EmbeddingTask":
        """The same task for a lane whose replies hold base64 of signed bytes."""
        other = copy(self)
        other._packed = _packed_bytes
        return other

    def content(self, row: Row) -> object:
        """The row's text; a request holds a list of them."""
        return row_text(self._text, row, "embed")

    def texts(self, content: object) -> Sequence[str]:
        return texts_of(content)

    def fixed_tokens(self, _ruler: Ruler, /) -> int:
        return 0

    def other_tokens(self, _content: object, _ruler: Ruler, /) -> int:
        return 0

    def read(self, reply: object, request: Request) -> Reading | Failure:
        envelope = open_envelope(reply)
        if isinstance(envelope, Failure):
            return envelope
        placed = _placed(envelope, len(request.rows))
        if isinstance(placed, Failure):
            return placed
        vectors: list[bytes] = []
        for at, given in enumerate(placed):
            vector = self._packed(given)
            if not vector:
                return envelope.malformed(f"vector {at} is neither a list of numbers nor base64 of them")
            if len(vector) != self._dimensions * _FLOAT_BYTES:
                return self._wrong_width(vector, envelope)
            vectors.append(vector)
        fault = _fault(vectors)
        if fault is not None:
            action = Action.SPLIT if len(vectors) > 1 else Action.AGAIN
            return envelope.turn_down(action, FailureCode.MALFORMED, fault)
        return envelope.accept(tuple(map(Answer, vectors)))

    def columns(self, values: Sequence[AnswerValue]) -> list[pa.Array]:
        size = self._dimensions * _FLOAT_BYTES
        if any(not isinstance(value, bytes) or len(value) != size for value in values):
            raise InvariantError(f"a kept vector is not {self._dimensions} float32 numbers")
        numbers = _numbers(b"".join(value for value in values if isinstance(value, bytes)))
        return [pa.FixedSizeListArray.from_arrays(numbers, self._dimensions)]

    def _wrong_width(self, vector: bytes, envelope: Envelope) -> Failure:
        width, rest = divmod(len(vector), _FLOAT_BYTES)
        got = f"{width:,} numbers" if not rest else f"{len(vector):,} bytes, which are no float32 numbers"
        message = (
            f"the vector has {got}, the job expects {self._dimensions:,}: "
            "set task.dimensions to what the model gives, or take a model of this width"
        )
        return envelope.turn_down(Action.ELSEWHERE, FailureCode.CAPABILITY, message)


def _placed(envelope: Envelope, rows: int) -> list[object] | Failure:
    """The vectors as sent, in the order of the rows."""
    data = envelope.body.get("data")
    if not isinstance(data, list):
        return envelope.malformed("the reply has no list of vectors (data)")
    if len(data) != rows:
        return envelope.malformed(f"the reply has {len(data):,} vectors for {rows:,} texts")
    by_index: dict[int, object] = {}
    for entry in data:
        index = entry.get("index") if isinstance(entry, dict) else None
        if type(index) is not int or not 0 <= index < rows:
            return envelope.malformed(f"a vector has no index from 0 to {rows - 1}, so its text is not known")
        if index in by_index:
            return envelope.malformed(f"two vectors have the index {index}")
        by_index[index] = entry.get("embedding")
    return [by_index[index] for index in range(rows)]


def _packed_bytes(given: object) -> bytes | None:
    """As `_packed`, where base64 holds signed bytes."""
    if not isinstance(given, str):
        return _packed(given)
    try:
        packed = binascii.a2b_base64(given, strict_mode=True)
    except (binascii.Error, ValueError):
        return None
    numbers = pa.Array.from_buffers(pa.int8(), len(packed), [None, pa.py_buffer(packed)]).cast(pa.float32())
    return bytes(numbers.buffers()[1])[: len(packed) * _FLOAT_BYTES]


def _packed(given: object) -> bytes | None:
    """Little-endian float32; nothing for what is no vector."""
    if isinstance(given, str):
        try:
            return binascii.a2b_base64(given, strict_mode=True)
        except (binascii.Error, ValueError):
            return None
    if not isinstance(given, list) or not set(map(type, given)) <= {float, int}:
        return None
    try:
        numbers = array("f", given)
    except OverflowError:
        return None
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tobytes()


def _fault(vectors: Sequence[bytes]) -> str | None:
    """The first vector that says nothing. All have the same size, and there is at least one."""
    for start in range(0, len(vectors), _CHECKED_TOGETHER):
        some = vectors[start : start + _CHECKED_TOGETHER]
        if not math.isfinite(_sum(b"".join(some))):
            at = next(at for at, vector in enumerate(some, start) if not math.isfinite(_sum(vector)))
            return f"vector {at} holds NaN or infinity"
    nothing = bytes(len(vectors[0]))
    empty = next((at for at, vector in enumerate(vectors) if vector == nothing), None)
    return None if empty is None else f"vector {empty} is all zeros"


def _sum(packed: bytes) -> float:
    """Not finite when one number is not: Arrow adds up in double precision, which float32 cannot overflow."""
    total = pc.sum(_numbers(packed)).as_py()
    return 0.0 if total is None else float(total)


def _numbers(packed: bytes) -> pa.Array:
    return pa.Array.from_buffers(pa.float32(), len(packed) // _FLOAT_BYTES, [None, pa.py_buffer(packed)])
