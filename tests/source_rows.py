"""What a source yields, flattened."""

from batchllm.records import BadRow, Row
from batchllm.source import FileSource


def rows(source: FileSource) -> list[Row | BadRow]:
    return [row for batch in source.batches() for row in batch]


def values(source: FileSource) -> list[object]:
    return [row.values if isinstance(row, Row) else row.message for row in rows(source)]


def bad(source: FileSource) -> BadRow:
    (found,) = [row for row in rows(source) if isinstance(row, BadRow)]
    return found
