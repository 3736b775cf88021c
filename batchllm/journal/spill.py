"""Where answers go that are paid for and that the journal cannot take any more: a file in another folder.

After a failed fsync, or on a disk that stays full, what is still in memory cannot be committed. It is written to
`$BATCHLLM_SPILL_DIR`, or the folder for temporary files, and the next start of the same journal takes it in.

    line    BATCHLLM-SPILL 1
    frame   length, CRC-32, JSON: the run, the totals before the commit that failed, the lanes' numbers, how many
            records that commit had
    frames  one for each record

A commit that failed may be on the disk nevertheless, as a whole. The totals tell: they are those of before, or those
with that commit, or, when a start was cut off after it took everything in, those with all of it. Any others, or another
run in between, belong to a journal that went on without the file, and has paid for its rows again.
"""

import base64
import os
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from batchllm.errors import StorageError
from batchllm.journal.files import open_new, sync
from batchllm.journal.lines import storable
from batchllm.records import AttemptRecord, JournalRecord, RowDone, RowFailed, RowRef, RowSkipped

SPILL_FOLDER = "BATCHLLM_SPILL_DIR"
_MAGIC = b"BATCHLLM-SPILL 1\n"
_FRAME = struct.Struct("<II")
_KINDS: dict[str, type[JournalRecord]] = {
    "done": RowDone,
    "failed": RowFailed,
    "attempt": AttemptRecord,
    "skipped": RowSkipped,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}


class Spilled(NamedTuple):
    """What `run` left. `ok` and `attempts` are the journal's totals; it may have the first `unsure` records."""

    run: int
    ok: int
    attempts: int
    numbers: Sequence[int]
    unsure: int
    records: Sequence[JournalRecord]

    def missing(self, last_run: int, ok: int, attempts: int) -> Sequence[JournalRecord] | None:
        """Which of the records a journal with these totals lacks; None when it has gone on without them."""
        for known in (0, self.unsure, len(self.records)) if last_run == self.run else (len(self.records),):
            oks, calls = _tally(self.records[:known])
            if (self.ok + oks, self.attempts + calls) == (ok, attempts):
                return self.records[known:]
        return None


def _tally(records: Sequence[JournalRecord]) -> tuple[int, int]:
    kinds = [type(record) for record in records]
    return kinds.count(RowDone), kinds.count(AttemptRecord)


def spill_folder(environ: Mapping[str, str]) -> Path:
    return Path(environ.get(SPILL_FOLDER) or tempfile.gettempdir())


def spill_path(folder: Path, journal_id: str) -> Path:
    return folder / f"batchllm-spill-{journal_id}"


def write_spill(path: Path, spilled: Spilled) -> None:
    """On disk when this returns. Raises OSError, also when the file is there already; leaves no half of one."""
    header = {
        "run": spilled.run,
        "ok": spilled.ok,
        "attempts": spilled.attempts,
        "numbers": list(spilled.numbers),
        "unsure": spilled.unsure,
        "records": len(spilled.records),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = open_new(path, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(_MAGIC)
            file.write(_frame(orjson.dumps(header)))
            for record in storable(spilled.records):
                file.write(_frame(_packed(record)))
            file.flush()
            sync(file.fileno())
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


def read_spill(path: Path) -> Spilled | None:
    """None when there is none. Raises StorageError for one that is not this user's, or not whole."""
    data = _read_own(path)
    if data is None:
        return None
    try:
        header, *packed = _frames(data)
        told = orjson.loads(header)
        records = [_unpacked(text) for text in packed]
        spilled = Spilled(told["run"], told["ok"], told["attempts"], told["numbers"], told["unsure"], records)
        count = told["records"]
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, str(error)) from error
    if len(records) != count:
        raise _damaged(path, f"{len(records)} of {count} records are there")
    return spilled


def _read_own(path: Path) -> bytes | None:
    """Others may write to a folder for temporary files; what they put there is not taken in."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _foreign(path) from error
    with os.fdopen(descriptor, "rb") as file:
        if os.fstat(file.fileno()).st_uid != os.geteuid():
            raise _foreign(path)
        return file.read()


def _damaged(path: Path, how: str) -> StorageError:
    return StorageError(
        f"{path} holds answers of an earlier run and is damaged: {how}",
        remedy="remove it to go on without them: they are paid for again",
    )


def _foreign(path: Path) -> StorageError:
    return StorageError(
        f"{path} would hold answers of an earlier run, and is not a file of this user",
        remedy=f"find out who put it there and remove it; {SPILL_FOLDER} names a folder of your own",
    )


def _frame(payload: bytes) -> bytes:
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


def _frames(data: bytes) -> Iterator[bytes]:
    if not data.startswith(_MAGIC):
        raise ValueError("it does not begin as one")
    place = len(_MAGIC)
    while place < len(data):
        if place + _FRAME.size > len(data):
            raise ValueError("it ends too early")
        length, crc = _FRAME.unpack_from(data, place)
        payload = data[place + _FRAME.size : place + _FRAME.size + length]
        if len(payload) != length or zlib.crc32(payload) != crc:
            raise ValueError(f"its checksum does not fit at byte {place}")
        yield payload
        place += _FRAME.size + length


def _packed(record: JournalRecord) -> bytes:
    return orjson.dumps([_NAMES[type(record)], *map(_plain, record)])


def _plain(value: object) -> object:
    match value:
        case bytes():
            return {"bytes": base64.b64encode(value).decode()}
        case RowRef():
            return [_plain(part) for part in value]
    return value


def _unpacked(text: bytes) -> JournalRecord:
    name, *packed = orjson.loads(text)
    kind: Callable[..., JournalRecord] = _KINDS[name]
    values: list[Any] = [_value(value) for value in packed]
    if name != "attempt":
        values[0] = RowRef(*values[0])
    return kind(*values)


def _value(value: object) -> object:
    match value:
        case {"bytes": str(text)}:
            return base64.b64decode(text)
        case list():
            return [_value(part) for part in value]
    return value
