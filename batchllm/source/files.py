"""One file of the input: its bytes, and that it stays the same while it is read.

What the file was when the source was opened (size, time, inode) is the reference: every pass compares before and
after, so that rows of two versions of a file never mix.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

import pyarrow as pa

from batchllm.errors import InputDataError, InputMissingError

Format = Literal["jsonl", "csv", "parquet"]
Compression = Literal["gzip", "zstd"]

_FEED_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What tells one version of a file from another; `sha256` and `rows` are known once it was scanned."""

    path: str
    bytes: int
    mtime_ns: int
    inode: int
    sha256: str | None = None
    rows: int | None = None

    def is_like(self, other: "FileStamp") -> bool:
        """The same, as far as the file system can tell without reading."""
        return (self.path, self.bytes, self.mtime_ns, self.inode) == (
            other.path,
            other.bytes,
            other.mtime_ns,
            other.inode,
        )


class Stream(Protocol):
    """What is read of a file: pyarrow's streams and Python's both fit."""

    def read(self, size: int, /) -> bytes: ...
    def close(self) -> None: ...


class Store(Protocol):
    """Where a file lies."""

    def stamp(self) -> FileStamp: ...
    def open(self) -> Stream: ...
    def open_random(self) -> pa.NativeFile: ...


@dataclass(frozen=True, slots=True)
class LocalStore:
    path: str

    def stamp(self) -> FileStamp:
        found = Path(self.path).stat()
        return FileStamp(printable(self.path), found.st_size, found.st_mtime_ns, found.st_ino)

    def open(self) -> BinaryIO:
        return Path(self.path).open("rb", buffering=0)

    def open_random(self) -> pa.NativeFile:
        return pa.OSFile(self.path, "rb")


@dataclass(frozen=True, slots=True)
class InputFile:
    """One file of the input. `label` is its short name in messages and places."""

    path: str
    label: str
    compression: Compression | None
    stamp: FileStamp
    store: Store

    @property
    def is_random(self) -> bool:
        """Whether any part of its text can be read for itself, and cheaply."""
        return self.compression is None and isinstance(self.store, LocalStore)

    def check_unchanged(self) -> None:
        with named_faults(self.path):
            now = self.store.stamp()
        if not now.is_like(self.stamp):
            raise changed(self.path)

    @contextmanager
    def text_stream(self, tap: Callable[[bytes], object] | None = None) -> Iterator[Stream]:
        """The bytes, unpacked; `tap` sees each byte that was read of the file, as it lies on disk."""
        with named_faults(self.path), closing(_Tap(self.store.open(), tap)) as raw:
            if self.compression is None:
                yield raw
                return
            with pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), self.compression) as unpacked:
                yield unpacked

    def feed(self, tap: Callable[[bytes], object]) -> None:
        """Show all bytes as they lie on disk."""
        with named_faults(self.path), closing(self.store.open()) as raw:
            while data := raw.read(_FEED_BYTES):
                tap(data)


class _Tap:
    """A stream that shows what passes to someone else as well."""

    def __init__(self, stream: Stream, tap: Callable[[bytes], object] | None) -> None:
        self._stream = stream
        self._tap = tap
        self.closed = False

    def readable(self) -> bool:
        return True

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        if self._tap is not None:
            self._tap(data)
        return data

    def close(self) -> None:
        self.closed = True
        self._stream.close()


def changed(path: str) -> InputDataError:
    return InputDataError(
        f"{path} changed while it was read",
        remedy="start again when nothing writes to it any more; what is finished is kept",
    )


@contextmanager
def named_faults(path: str, remedy: str = "check that it is whole, or make it again") -> Iterator[None]:
    """What the file system and pyarrow raise, with the file's name and a remedy."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputMissingError(f"{path} is not there any more", remedy="start again") from error
    except PermissionError as error:
        raise InputDataError(
            f"{path} may not be read by this user", remedy="give read permission (folders: r and x)"
        ) from error
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        lines = reason.strip().splitlines() or [type(error).__name__]
        raise InputDataError(f"{path} cannot be read: {lines[0]}", remedy=remedy) from error


def printable(path: str) -> str:
    """A file name may hold bytes that are no text; reports and JSON may not."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")
