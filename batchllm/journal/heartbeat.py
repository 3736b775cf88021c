"""OUT/.batchllm/status.json: how a run is, by its own account, for whoever asks while it goes on or after a kill.

Replaced as a whole and never fsynced: it is of use to those who look now, and nothing is made from it. Where the disk
has no room for a new file the old one is written over in its place, whose blocks are there already. The folder is held
by its descriptor, so that a folder that is moved away takes its file along, and another one that stands in its place
gets none.

It holds counts, times, money, names of lanes and classes of failures, and no text of rows, prompts, answers or
providers: it is for monitoring, which is read by others than those who may read the output.
"""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import orjson

from batchllm.errors import StorageError
from batchllm.journal.files import NO_SPACE, Layout, storage_fault

FORMAT = 1
FILE = "status.json"
_DRAFT = "status.new"
#: A disk gives blocks of so many bytes: written over, whole ones need no more of them.
_BLOCK = 4096
_MOST_BYTES = 1 << 20
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class LaneBeat:
    """`state` is one of running, paced, waiting, resting, probing, dead; `until`, since 1970, ends the wait.

    `at_once`: how many calls may be in flight at the moment; `rpm` and `tpm` as told or learned, None when unknown.
    """

    name: str
    state: str
    reason: str = ""
    until: float | None = None
    in_flight: int = 0
    at_once: int = 0
    rpm: float | None = None
    tpm: float | None = None
    answered: int = 0
    refused: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Beat:
    """How a run was at `written`. What ends in `_s` is a span or of the machine's monotonic clock, else since 1970.

    `state` is one of starting, running, waiting, paused, draining, writing, agreeing, done, stopped, failed; of the
    last three `code` is the exit code. `turned_s`: when the event loop last turned, None while there is none. `unsaved`
    outcomes wait for their commit, the first of them for `unsaved_s`. Counts are of all runs, in units of one answer;
    `rate` is answers a second. `spent_usd` is what counts against `budget_usd`, or else what all runs have cost.
    """

    job: str
    version: str
    pid: int
    host: str
    boot: str
    started: float
    state: str
    since: float
    written: float
    written_s: float
    reason: str = ""
    until: float | None = None
    turned_s: float | None = None
    code: int | None = None
    slots: int = 1
    total: int = 0
    ok: int = 0
    failed: int = 0
    skipped: int = 0
    rate: float | None = None
    left_s: float | None = None
    cost_usd: float | None = None
    spent_usd: float | None = None
    budget_usd: float | None = None
    reserved_usd: float | None = None
    unsaved: int = 0
    unsaved_s: float = 0.0
    in_flight: int = 0
    simulated: bool = False
    lanes: tuple[LaneBeat, ...] = ()
    more_lanes: int = 0
    format: int = FORMAT


class BeatFile:
    """Where beats are written to. What goes wrong with that is nobody's trouble: `write` then returns False."""

    def __init__(self, out: Path) -> None:
        """Raises StorageError where there is no such folder."""
        state = Layout(out).state
        try:
            self._folder = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise storage_fault("open", state, error) from error

    def write(self, beat: Beat) -> bool:
        data = encoded(beat)
        try:
            self._replace(data)
        except OSError as error:
            return error.errno in NO_SPACE and self._write_over(data)
        return True

    def close(self) -> None:
        os.close(self._folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _replace(self, data: bytes) -> None:
        with suppress(FileNotFoundError):
            os.unlink(_DRAFT, dir_fd=self._folder)
        try:
            self._store(data, os.O_CREAT | os.O_EXCL)
            os.rename(_DRAFT, FILE, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        except OSError:
            with suppress(OSError):  # what went wrong is raised; an empty draft hurts nobody
                os.unlink(_DRAFT, dir_fd=self._folder)
            raise

    def _store(self, data: bytes, how: int, name: str = _DRAFT) -> None:
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | how
        descriptor = os.open(name, flags, 0o600, dir_fd=self._folder)
        try:
            os.fchmod(descriptor, 0o600)
            if os.pwrite(descriptor, data, 0) < len(data):
                raise OSError(min(NO_SPACE), "written in part")
            os.ftruncate(descriptor, len(data))
        finally:
            os.close(descriptor)

    def _write_over(self, data: bytes) -> bool:
        try:
            self._store(data, 0, FILE)
        except OSError:
            return False
        return True


def encoded(beat: Beat) -> bytes:
    """JSON, filled up with spaces to whole blocks."""
    data = orjson.dumps(beat)
    return data + b" " * (-(len(data) + 1) % _BLOCK) + b"\n"


def read_beat(out: Path) -> Beat | None:
    """None where no run has left one. Raises StorageError for one that cannot be read, or is of another format."""
    path = Layout(out).state / FILE
    data: bytes | None = b""
    for _ in range(3):  # while the disk is full it is written over in its place
        before, data = data, _bytes(path)
        if data is None:
            return None
        if data == before:
            break
    try:
        return parsed(orjson.loads(data or b""))
    except (orjson.JSONDecodeError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise StorageError(
            f"{path} is damaged, or of another version: {type(error).__name__}: {error}",
            remedy="the next run writes it anew",
        ) from error


def boot_id() -> str:
    """What tells one start of this machine from another; empty where the system has no such thing."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""


def _bytes(path: Path) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_fault("read", path, error) from error
    with os.fdopen(descriptor, "rb") as file:
        return file.read(_MOST_BYTES)


def parsed(said: Mapping[str, Any]) -> Beat:
    """Raises LookupError, TypeError or ValueError for what is no beat."""
    if said["format"] != FORMAT:
        raise ValueError(f"format {said['format']}, and this version of batchllm reads {FORMAT}")
    lanes = tuple(LaneBeat(**_typed(LaneBeat, lane)) for lane in said["lanes"])
    return Beat(**{**_typed(Beat, {**said, "lanes": ()}), "lanes": lanes})


def _typed(kind: type, said: Mapping[str, Any]) -> dict[str, Any]:
    """Each value is of the type of its field."""
    known: Mapping[str, Any] = kind.__annotations__
    for name, value in said.items():
        if name not in known or not _is_of(value, known[name]):
            raise TypeError(f"{name} is {value!r}")
    return dict(said)


def _is_of(value: object, wanted: Any) -> bool:
    match wanted:
        case _ if wanted is float or wanted == float | None:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            return is_number or (value is None and wanted is not float)
        case _ if wanted == int | None:
            return value is None or isinstance(value, int)
        case _ if wanted in (int, str, bool):
            return isinstance(value, wanted)
    return isinstance(value, tuple)
