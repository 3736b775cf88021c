"""A renewal that is committed, and whose parts are still those of the input before.

A changed input is taken up in two steps, so that the first new row is asked before ten million known ones have moved:

    1  the renewal is written to a file and fsynced; one transaction makes input, totals and counts those of the new
       input, and notes the file
    2  parts are written anew, and one transaction puts them in the place of the old ones and takes the note away

Between the two, parts and manifest are wholly of the old input and the journal's lines wholly of the new one: nothing
is drained, and the manifest is not replaced. A kill in between leaves just that; the next start does step 2 before
anything else. The note has the checksums of the files, for without them nobody knows which row an answer belongs to.
"""

import hashlib
import uuid
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from batchllm.errors import StorageError
from batchllm.journal.carries import Carries, KeptCarries
from batchllm.journal.files import Layout, mapped_faults, open_new, remove_files, sync_folder
from batchllm.journal.parts import HashingFile
from batchllm.journal.renewal import Changed, Renewal
from batchllm.matching import Places

#: In the journal's table `meta`.
NOTE = "renewal"
PREFIX = "renewal-"
_CARRIES = ".carries"
_WRITTEN_ROWS = 1 << 20
_REMEDY = (
    "put it back from a copy; or run `batchllm rebuild JOB`, which goes back to the input before: what was answered"
    " since is looked up by its key"
)


def keep(layout: Layout, renewal: Renewal) -> str:
    """Write it, to the medium; returns the note. What rows are to carry goes into a file of its own."""
    path = layout.state / f"{PREFIX}{uuid.uuid4().hex}"
    columns = {"place": renewal.places.tail, "old": renewal.changed.old, "new": renewal.changed.new}
    try:
        with mapped_faults("write", path):
            sha256 = _written(path, columns)
    except StorageError:
        with suppress(StorageError):  # the first one is to be heard
            remove_files([path])
        raise
    note: dict[str, Any] = {"name": path.name, "sha256": sha256, "head": renewal.places.head}
    carries = renewal.carries
    if isinstance(carries, Carries) and not carries.is_empty:
        carried = path.with_name(path.name + _CARRIES)
        carries.keep(carried)
        note["carries_sha256"] = _digest(carried)
    sync_folder(layout.state)
    return orjson.dumps(note).decode()


def kept(layout: Layout, note: str) -> Renewal:
    """What the note tells of. Raises StorageError where a file is missing, or not what was written."""
    told = orjson.loads(note)
    path = layout.state / str(told["name"])
    _check(path, told["sha256"])
    carries = kept_carries(layout, note)
    with mapped_faults("read", path), pa.memory_map(str(path)) as file:
        tail, old, new = (_read(file) for _ in range(3))
    return Renewal(Places(int(told["head"]), tail), carries, Changed(old, new))


def kept_carries(layout: Layout, note: str) -> KeptCarries:
    """What rows are to carry. Raises StorageError as above."""
    told = orjson.loads(note)
    if "carries_sha256" not in told:
        return KeptCarries(None)
    path = layout.state / (str(told["name"]) + _CARRIES)
    _check(path, told["carries_sha256"])
    return KeptCarries(path)


def clear(layout: Layout, note: str | None) -> None:
    """Away with the files of renewals that are done, or were never committed."""
    name = None if note is None else str(orjson.loads(note)["name"])
    with suppress(FileNotFoundError):
        old = [
            path for path in layout.state.glob(f"{PREFIX}*") if name is None or not path.name.startswith(name)
        ]
        remove_files(old)


def _written(path: Path, columns: Mapping[str, pa.Array]) -> str:
    """One stream after the other; returns the checksum."""
    file = HashingFile(open_new(path, 0o600))
    try:
        for name, values in columns.items():
            table = pa.table({name: values})
            with pa.ipc.new_stream(pa.PythonFile(file, mode="w"), table.schema) as writer:
                writer.write_table(table, max_chunksize=_WRITTEN_ROWS)
        file.sync()
    finally:
        file.close()
    return file.sha256()


def _read(file: pa.NativeFile) -> pa.Array:
    """A copy: the file may go while it is in use."""
    with pa.ipc.open_stream(file) as reader:
        kind = reader.schema.field(0).type
        return pa.concat_arrays([pa.nulls(0, kind), *_columns(reader)])


def _columns(reader: pa.ipc.RecordBatchStreamReader) -> Iterator[pa.Array]:
    for batch in reader:
        yield batch.column(0)


def _check(path: Path, sha256: str) -> None:
    if path.is_symlink() or not path.is_file():
        raise StorageError(
            f"{path} is missing: it tells where rows stand in the changed input", remedy=_REMEDY
        )
    if _digest(path) != sha256:
        raise StorageError(
            f"{path} is damaged: it is not what was written, and tells where rows stand in the changed input",
            remedy=_REMEDY,
        )


def _digest(path: Path) -> str:
    with mapped_faults("read", path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
