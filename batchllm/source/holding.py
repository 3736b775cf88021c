"""Rows are held to the marks that the record has of them, as they are read.

A run may be killed at any moment, and somebody may have written to its input before that: answers would then belong
to other bytes than the marks tell of, and nobody would know. So each row is compared when it is read, before anything
is asked for it. Whatever the record holds was read from what its marks are of, however the run ended.
"""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from batchllm.ports import RowMarks
from batchllm.records import BadRow, Row
from batchllm.source.files import changed
from batchllm.source.marks import marks_of

_UNKNOWN = pa.scalar(0, pa.uint64())


class Held:
    """Compares rows with `marks`, by ordinal. A mark of 0, of either, tells nothing and is passed over."""

    def __init__(self, marks: RowMarks) -> None:
        self._marks = marks

    def check(self, path: str, ordinals: Sequence[int], found: bytes) -> None:
        """`found`: the marks of the rows of `ordinals` (ascending), eight bytes each. Raises InputDataError."""
        if not len(ordinals):
            return
        first, end = ordinals[0], ordinals[-1] + 1
        if end > self._marks.rows:
            raise changed(path)
        expected = self._marks.read(first, end)
        if end - first > len(ordinals):
            expected = expected.take(pc.subtract(pa.array(ordinals, pa.int64()), first))
        now = pa.Array.from_buffers(pa.uint64(), len(ordinals), [None, pa.py_buffer(found)])
        if expected.equals(now):
            return
        is_known = pc.and_(pc.not_equal(expected, _UNKNOWN), pc.not_equal(now, _UNKNOWN))
        if pc.any(pc.and_(is_known, pc.not_equal(expected, now))).as_py():
            raise changed(path)

    def check_rows(self, path: str, rows: Sequence[Row | BadRow]) -> None:
        """Rows that were made already, where marks are of those."""
        self.check(path, [row.ordinal for row in rows], b"".join(marks_of([rows])))
