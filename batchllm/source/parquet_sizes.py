"""How many rows of a Parquet file may be decoded at once.

A file of 463 bytes can hold 2 GB: one long text in a dictionary, and two thousand references to it. How far rows may
expand is therefore worked out before they are read: a text is at most as long as the longest one in its column's
dictionary, and the count of values tells how long lists are. A column that claims to unpack to more than a thousand
times its size is refused, for a page is unpacked as a whole.
"""

from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import types

from batchllm.errors import InputDataError
from batchllm.source.rows import MAX_BATCH_ROWS

_DECODED_BYTES = 32 << 20  # the decoder itself takes about four times as much
_BOMB_BYTES = 256 << 20
_BOMB_FACTOR = 1000
_SMALL_BYTES = 64 << 10
_BUFFER_BYTES = 1 << 20
_PAGE_HEADER_BYTES = 64
_LENGTH_BYTES = 4  # before each text of a dictionary page
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}


def rows_at_once(
    where: str,
    parquet: pq.ParquetFile,
    source: pa.NativeFile,
    group: int,
    columns: Collection[str],
    most: int = MAX_BATCH_ROWS,
) -> int:
    """`most`, or fewer where that many rows of this row group might exceed the bound; at least one."""
    found = parquet.metadata.row_group(group)
    row_bytes = 0
    for at in range(found.num_columns):
        path = parquet.schema.column(at).path
        if any(path == name or path.startswith(f"{name}.") for name in columns):
            column = _Column(parquet, source, group, at)
            column.refuse_bomb(where)
            row_bytes += column.row_bytes(found.num_rows)
    return max(1, min(most, _DECODED_BYTES // max(1, row_bytes)))


class _Column:
    """One column of one row group, as its metadata describes it."""

    def __init__(self, parquet: pq.ParquetFile, source: pa.NativeFile, group: int, at: int) -> None:
        self._source = source
        self._group = group
        self._described = parquet.schema.column(at)
        self._chunk = parquet.metadata.row_group(group).column(at)

    def refuse_bomb(self, where: str) -> None:
        unpacked = self._chunk.total_uncompressed_size
        if unpacked > _BOMB_BYTES and unpacked > _BOMB_FACTOR * self._chunk.total_compressed_size:
            raise InputDataError(
                f"{where}: column {self._described.path} unpacks to {unpacked:,} bytes, "
                f"more than {_BOMB_FACTOR} times its size",
                remedy="if it is meant to be so, write the file again with smaller row groups",
            )

    def row_bytes(self, rows: int) -> int:
        values_a_row = -(-self._chunk.num_values // max(1, rows))
        return int(values_a_row * self._value_bytes())

    def _value_bytes(self) -> int:
        kind = self._described.physical_type
        if kind in _WIDTHS:
            return _WIDTHS[kind]
        if kind == "FIXED_LEN_BYTE_ARRAY":
            return int(self._described.length)
        mean = int(self._chunk.total_uncompressed_size // max(1, self._chunk.num_values))
        if not any("DICTIONARY" in encoding for encoding in self._chunk.encodings):
            return mean
        return max(mean, self._longest_in_dictionary())

    def _longest_in_dictionary(self) -> int:
        """At most the whole dictionary; where that is much, and the column is flat, the dictionary is read."""
        # Some writers leave the dictionary's place out; it is before the data then.
        start = self._chunk.dictionary_page_offset or self._chunk.data_page_offset
        page_bytes = first_page_bytes(self._source.read_at(_PAGE_HEADER_BYTES, start))
        if page_bytes is None:
            return int(self._chunk.total_uncompressed_size)
        if page_bytes <= _SMALL_BYTES or self._described.max_repetition_level or "." in self._described.path:
            return page_bytes
        longest = self._read_dictionary(page_bytes)
        return page_bytes if longest is None else longest

    def _read_dictionary(self, page_bytes: int) -> int | None:
        """The length of its longest text; None when what came is not the whole dictionary page."""
        name = self._described.path
        # Without a buffer the reader takes in the whole column chunk, all texts of the row group, to see one page.
        reader = pq.ParquetFile(
            self._source, pre_buffer=False, buffer_size=_BUFFER_BYTES, read_dictionary=[name]
        )
        batches = reader.iter_batches(1, row_groups=[self._group], columns=[name], use_threads=False)
        first = next(batches, None)
        column = None if first is None else first.column(0)
        if column is None or not types.is_dictionary(column.type):
            return None
        lengths = pc.binary_length(column.dictionary)
        whole = (pc.sum(lengths).as_py() or 0) + _LENGTH_BYTES * len(lengths)
        return int(pc.max(lengths).as_py() or 0) if whole == page_bytes else None


def first_page_bytes(header: bytes) -> int | None:
    """The unpacked size that a page header states; None when it is none (an encrypted column).

    Thrift's compact form: field 1 (the page's type) and field 2 (its unpacked size), each a byte 0x15 and a zigzag
    varint. https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
    """
    size = -1
    at = 0
    for _ in range(2):
        if header[at : at + 1] != b"\x15":
            return None
        number = shift = 0
        for byte in header[at + 1 :]:
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        at += 1 + shift // 7
        size = (number >> 1) ^ -(number & 1)
    return size if size >= 0 else None
