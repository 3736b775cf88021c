"""Parsed values → rows: the key, the carried columns, and what is said of a row that cannot be one.

Whole batches are made column by column, without a look at each value; only a batch in which something is odd is made
again row by row, to find out which.
"""

from collections.abc import Callable, Mapping
from itertools import count

import pyarrow as pa
from pyarrow import types

from batchllm.carry import CarryCodec
from batchllm.records import BadRow, Key, Row
from batchllm.source.columns import KeyFault, RowFault, Shape, fit_column
from batchllm.spec.models import ColumnType

MAX_BATCH_ROWS = 512
MAX_BATCH_BYTES = 4 << 20
MAX_CELL_BYTES = 64 << 20

Place = Callable[[int], str]
Values = dict[str, object]


class KeylessRow(BadRow):
    """A row without its key: a failure like others while running, but a fault of the input when it is scanned."""

    __slots__ = ()


def bad_row(ordinal: int, place: str, fault: RowFault) -> BadRow:
    if isinstance(fault, KeyFault):
        return KeylessRow(ordinal, place, str(fault))
    return BadRow(ordinal, place, str(fault), fault.key)


def missing_key(name: str, key: object) -> KeyFault:
    return KeyFault(f'the key column "{name}" is {"empty" if key == "" else "missing or null"}')


class ValueRows:
    """Rows of JSON-like values (JSONL, CSV, lists of dicts)."""

    def __init__(self, shape: Shape, pinned: Mapping[str, ColumnType]) -> None:
        """`pinned`: the type of each column that must fit one, carried or not."""
        self._codec = CarryCodec(shape.carry)
        self._key = None if shape.key is None else shape.key.name
        self._carry = [field.name for field in shape.carry]
        self._pinned = dict(pinned)
        travels = {self._key, *self._carry}
        self._checked = [name for name in pinned if name not in travels]

    def make(self, first: int, parsed: list[Values], place: Place) -> list[Row | BadRow]:
        """`place` tells where the n-th of them stands."""
        try:
            return list(self._rows(first, parsed))
        except RowFault:
            return [self._row(first + at, values, place, at) for at, values in enumerate(parsed)]

    def _row(self, ordinal: int, values: Values, place: Place, at: int) -> Row | BadRow:
        try:
            return self._rows(ordinal, [values])[0]
        except RowFault as fault:
            fault.key = self.key_in(values)
            return bad_row(ordinal, place(at), fault)

    def key_in(self, values: Values) -> Key:
        """The key of a row that is faulty elsewhere; None where it cannot be read."""
        if self._key is None:
            return None
        try:
            (key,) = self._fit(self._key, [values])
        except RowFault:
            return None
        return key if isinstance(key, str | int) and key != "" else None

    def _rows(self, first: int, parsed: list[Values]) -> list[Row]:
        for name in self._checked:
            self._fit(name, parsed)
        keys = [None] * len(parsed) if self._key is None else self._fit(self._key, parsed)
        if self._key is not None and (None in keys or "" in keys):
            raise missing_key(self._key, next(key for key in keys if key is None or key == ""))
        if self._carry:
            columns = [self._fit(name, parsed) for name in self._carry]
            blobs = list(map(self._codec.encode_values, zip(*columns, strict=True)))
        else:
            blobs = [b"[]"] * len(parsed)
        return list(map(Row._make, zip(count(first), keys, parsed, blobs, strict=False)))

    def _fit(self, name: str, parsed: list[Values]) -> list[object]:
        return fit_column(name, self._pinned[name], [values.get(name) for values in parsed])


class BatchMaker:
    """Gathers one batch, in input order; runs of good rows are made together."""

    def __init__(self, rows: ValueRows, first: int, place: Place) -> None:
        """`place` tells where that is, which `add` is told of."""
        self._rows = rows
        self._place = place
        self._next = first
        self._good: list[Values] = []
        self._wheres: list[int] = []
        self._made: list[Row | BadRow] = []
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        return len(self._made) + len(self._good) >= MAX_BATCH_ROWS or self._bytes >= MAX_BATCH_BYTES

    def add(self, where: int, values: Values | RowFault, size_bytes: int) -> None:
        self._bytes += size_bytes
        if isinstance(values, RowFault):
            self._make_good()
            self._made.append(bad_row(self._next, self._place(where), values))
            self._next += 1
        else:
            self._good.append(values)
            self._wheres.append(where)

    def take(self) -> list[Row | BadRow]:
        self._make_good()
        made, self._made, self._bytes = self._made, [], 0
        return made

    def _make_good(self) -> None:
        wheres = self._wheres
        self._made += self._rows.make(self._next, self._good, lambda at: self._place(wheres[at]))
        self._next += len(self._good)
        self._good, self._wheres = [], []


def key_type(kind: pa.DataType) -> pa.DataType | None:
    """What a key of this Arrow type is in the output; None when it cannot be a key."""
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return key_type(kind.value_type)
    if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
        return pa.string()
    return pa.int64() if types.is_integer(kind) else None
