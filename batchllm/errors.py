"""Every way that a run can stop, each with its own exit code.

    BatchllmError                      1   unclassified: a bug
    ├── JobError                      78   the job file is wrong: every fault with its place
    ├── ChangedJobError               78   the job differs from the one that the output was made with
    ├── InputDataError                65   the rows are wrong (duplicate key, unreadable file, changed input)
    ├── InputMissingError             66   no such input
    ├── NoProviderError               69   no lane is left that could answer
    ├── InvariantError                70   a promise of ours is broken; nothing is hidden
    ├── OutOfMemoryError              71   the system gives this process no more memory
    ├── OutputError                   73   the output cannot be created
    ├── StorageError                  74   I/O error
    │   └── FullDiskError             74   no space; what could not be written may be tried again
    ├── LockedError                   75   another run holds the output
    ├── CredentialsError              77   the key is missing or was rejected
    └── RowError                       -   one row cannot be asked; it becomes a line in failures/
        └── RowInputError              -   what it brings along is wrong (an image), and not how it is written

A message says what is wrong and where; `remedy` says what to do about it and is printed after it.
Codes not raised as errors stand in `ExitCode`.
"""

import errno
from dataclasses import dataclass
from enum import IntEnum


class ExitCode(IntEnum):
    OK = 0
    BUG = 1
    USAGE = 2
    ROWS_FAILED = 3
    LIMIT_STOPPED = 4
    DATA = 65
    NO_INPUT = 66
    UNAVAILABLE = 69
    SOFTWARE = 70
    SYSTEM = 71
    CANT_CREATE = 73
    IO = 74
    TEMPFAIL = 75
    NO_PERMISSION = 77
    CONFIG = 78
    HANGUP = 129
    INTERRUPTED = 130
    TERMINATED = 143


class BatchllmError(Exception):
    """Base of all; `str(error)` is the message with its remedy."""

    exit_code: ExitCode = ExitCode.BUG

    def __init__(self, message: str, *, remedy: str = "") -> None:
        self.message = message
        self.remedy = remedy
        super().__init__(f"{message}\n  {remedy}" if remedy else message)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong with a job file.

    `line` and `column` count from 1 and are 0 when the fault has no place in a file (a job built in Python);
    `path` is the dotted way to the key, such as `providers.0.limits.rpm`.
    """

    path: str
    message: str
    remedy: str = ""
    line: int = 0
    column: int = 0

    def text(self, file: str) -> str:
        place = f"{file}:{self.line}:{self.column}" if self.line else file
        where = f" {self.path}:" if self.path else ""
        tail = f" ({self.remedy})" if self.remedy else ""
        return f"{place}:{where} {self.message}{tail}"


class JobError(BatchllmError):
    exit_code = ExitCode.CONFIG

    def __init__(self, file: str, faults: list[Fault]) -> None:
        self.file = file
        self.faults = faults
        super().__init__("\n".join(fault.text(file) for fault in faults))


class ChangedJobError(BatchllmError):
    exit_code = ExitCode.CONFIG


class InputDataError(BatchllmError):
    exit_code = ExitCode.DATA


class InputMissingError(BatchllmError):
    exit_code = ExitCode.NO_INPUT


class NoProviderError(BatchllmError):
    exit_code = ExitCode.UNAVAILABLE


class ModelMissingError(NoProviderError):
    """`nearest` holds listed models that may have been meant, best first."""

    def __init__(self, message: str, *, remedy: str = "", nearest: tuple[str, ...] = ()) -> None:
        super().__init__(message, remedy=remedy)
        self.nearest = nearest


class RateLimitedError(NoProviderError):
    """`retry_after_s`: how long the provider wants to be left alone; None where it does not say."""

    def __init__(self, message: str, *, remedy: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after_s = retry_after_s


class QuotaError(NoProviderError):
    pass


class SettingsError(BatchllmError):
    exit_code = ExitCode.CONFIG


class RequestRefusedError(BatchllmError):
    """`content`: what had arrived of an answer that was then turned down; it may have been paid for."""

    exit_code = ExitCode.DATA

    def __init__(self, message: str, *, remedy: str = "", content: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.content = content


class InvariantError(BatchllmError):
    exit_code = ExitCode.SOFTWARE


class OutOfMemoryError(BatchllmError):
    """What Python and Arrow raise then, as something that a user can do something about."""

    exit_code = ExitCode.SYSTEM

    def __init__(self) -> None:
        super().__init__(
            "the system gives this process no more memory or threads",
            remedy="give it more (ulimit -v and -u, the container's limits), or let less be in flight at a time"
            " (limits.concurrency of the lanes, task.inputs_per_request), and start again: what was committed is kept"
            " and not paid again",
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Python has words alone for threads and libraries that do not fit."""
    match error:
        case MemoryError():
            return True
        case OSError():
            return error.errno == errno.ENOMEM
        case RuntimeError():
            return str(error) == "can't start new thread"
        case ImportError():
            return "failed to map segment" in str(error)
    return False


class OutputError(BatchllmError):
    exit_code = ExitCode.CANT_CREATE


class StorageError(BatchllmError):
    exit_code = ExitCode.IO


class FullDiskError(StorageError):
    """Nothing of what was refused has been written, and nothing is damaged: with more space it can be tried again."""


class LockedError(BatchllmError):
    exit_code = ExitCode.TEMPFAIL


class CredentialsError(BatchllmError):
    exit_code = ExitCode.NO_PERMISSION


class RowError(BatchllmError):
    """One row cannot be asked (a template that names a missing value, text that is no text)."""


class RowInputError(RowError):
    """What the row brings along cannot be sent (an image that is missing, or none)."""
