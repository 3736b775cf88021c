"""What SQLite says of the journal's file, in our words: which error it is, and the way out."""

import sqlite3
from pathlib import Path

from batchllm.errors import FullDiskError, StorageError
from batchllm.journal.files import full_disk, lacks_space


def damaged(path: Path, how: str) -> StorageError:
    return StorageError(
        f"the journal {path} is damaged: {how}",
        remedy="put back a copy of the whole .batchllm folder, or run `batchllm rebuild JOB`: it makes a new one from"
        " the parts, which stay readable; nothing was changed",
    )


def no_space(error: sqlite3.Error, path: Path) -> FullDiskError | None:
    """A write that was refused for want of space. SQLite says FULL for ENOSPC, and a write error for a full quota."""
    code = getattr(error, "sqlite_errorcode", 0)
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR_WRITE and lacks_space(path.parent)):
        return full_disk(path, f"cannot write {path}: {error}")
    return None


def database_fault(error: sqlite3.Error, path: Path) -> StorageError:
    """SQLite's words as ours, by result code and never by text."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return full_disk(path, f"cannot write {path}: {error}")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return damaged(path, str(error))
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StorageError(
            f"{path} is locked by another program: {error}",
            remedy="close what has it open (a database browser?) and start again",
        )
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH, sqlite3.SQLITE_CANTOPEN):
        return StorageError(
            f"cannot open {path} for writing: {error} ({name})",
            remedy="mount its disk for writing if it is read-only, and give this user permission (files: r and w,"
            " folders: r, w and x); what was committed is kept",
        )
    return StorageError(
        f"cannot read or write {path}: {error} ({name})",
        remedy="check the disk (space, quota, file size limit, health) and start again:"
        " what was committed is kept and not paid again",
    )
