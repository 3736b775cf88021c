"""One part, held against what is known of it: its size, every byte of it, its rows, its columns."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batchllm.errors import BatchllmError, StorageError
from batchllm.journal.database import Counts
from batchllm.journal.identity import column_changes
from batchllm.journal.parts import PartInfo, open_part


@contextmanager
def inspected(path: Path, part: PartInfo) -> Iterator[pq.ParquetFile]:
    """A part that is what it is said to be, open for reading. Raises StorageError, without a remedy."""
    check_bytes(path, part)
    with open_part(path) as file:
        rows = file.metadata.num_rows
        if rows != part.rows:
            raise StorageError(f"it has {rows:,} rows instead of {part.rows:,}")
        yield file


def check_bytes(path: Path, part: PartInfo) -> None:
    if path.is_symlink():
        raise StorageError("it is a symbolic link, and not the file that was written")
    if not path.is_file():
        raise StorageError(f"it is missing, with {part.rows:,} rows")
    size = path.stat().st_size
    if size != part.bytes:
        raise StorageError(f"it has {size:,} bytes instead of {part.bytes:,}")
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise StorageError(f"it cannot be read: {error.strerror or error}") from error
    if found != part.sha256:
        raise StorageError(f"its bytes are not those that were written{_damage(path)}")


def _damage(path: Path) -> str:
    """Where the damage is, as far as the pages' own checksums tell."""
    try:
        with open_part(path) as file:
            for number in range(file.metadata.num_row_groups):
                try:
                    file.read_row_group(number)
                except (OSError, pa.ArrowException) as error:
                    return f" (row group {number}: {error})"
    except BatchllmError:
        return " (it is no whole Parquet file)"
    return " (it can be read: somebody wrote another one in its place, or its footer is damaged)"


def same_schema(file: pq.ParquetFile, schema: pa.Schema | None) -> pa.Schema:
    """The schema of the table, which the first part decides where nothing else does. Raises StorageError."""
    found = file.schema_arrow.remove_metadata()
    if schema is None:
        return found
    changes = column_changes(schema, found)
    if changes:
        raise StorageError(f"its columns are not those of its table: {'; '.join(changes)}")
    return schema


def usage_sums(batch: pa.RecordBatch | pa.Table) -> Counts:
    """What lines of usage/ add to the totals."""
    cost = batch.column("cost_usd")
    billed = batch.column("billed")
    unpriced = pc.and_(pc.is_null(cost), pc.equal(billed, "yes"))
    return Counts(
        attempts=batch.num_rows,
        prompt_tokens=pc.sum(batch.column("prompt_tokens")).as_py() or 0,
        completion_tokens=pc.sum(batch.column("completion_tokens")).as_py() or 0,
        cost_usd=pc.sum(cost).as_py() or 0.0,
        unpriced=pc.sum(unpriced).as_py() or 0,
        uncertain=pc.sum(pc.equal(billed, "unknown")).as_py() or 0,
    )
