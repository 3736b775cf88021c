"""What the simulated provider has seen: the other side's books, by which a runner is checked.

Counters always; every text and time only when asked for, because ten million of them would fill the memory of a
rehearsal. The file is JSON lines in order of arrival, one `write` each, appended: what was decided before a kill is on
the disk's side of the kill.
"""

import os
from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import orjson

from batchllm.errors import InvariantError, OutputError, StorageError

SHOWN_CHARACTERS: Final = 80


class LedgerEntry(NamedTuple):
    """One request. `status` is None for one that is never answered; `tokens` are those that it will be billed for.

    `verdict`: accepted, refused (by a limit), rejected (the request itself is wrong). `texts` are the texts asked
    about: each prompt or input; for chat the last text of the user. `at_s` is the arrival on the monotonic clock, which
    is one for all processes of a machine; `latency_s` how long the answer takes.
    """

    at_s: float
    path: str
    verdict: str
    status: int | None
    fault: str | None = None
    attempt: int = 0
    digest: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    texts: tuple[str, ...] = ()
    latency_s: float = 0.0

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(slots=True)
class LedgerDetails:
    """Each accepted request: when it came; and how often each text was billed."""

    billed: Counter[str] = field(default_factory=Counter)
    accepted_at_s: "array[float]" = field(default_factory=lambda: array("d"))


class Ledger:
    """Counters to read; `note` is for the provider.

    `accepted` ones were let in by the limits, whatever became of them: `answered` counts the replies to them that were
    sent whole (faults too), `abandoned` those that were not: cut, or the client left first. `refused` is by a limit,
    `rejected` what was wrong in itself. Tokens are those billed.
    """

    def __init__(self, path: Path | None = None, *, keeps_details: bool = True) -> None:
        self.path = path
        self.accepted = 0
        self.refused = 0
        self.rejected = 0
        self.answered = 0
        self.abandoned = 0
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.faults: Counter[str] = Counter()
        self._details = LedgerDetails() if keeps_details else None
        self._file: int | None = None

    @property
    def billed(self) -> Counter[str]:
        """How often each text was billed."""
        return self._kept().billed

    @property
    def accepted_at_s(self) -> "array[float]":
        """Monotonic times of the accepted requests, in order of arrival."""
        return self._kept().accepted_at_s

    def open(self) -> None:
        """Raises OutputError."""
        if self.path is None or self._file is not None:
            return
        try:
            self._file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise OutputError(
                f"The ledger {self.path} cannot be opened: {error.strerror}.",
                remedy="Give a file in a folder that exists and may be written to.",
            ) from error

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def note(self, entry: LedgerEntry) -> None:
        """Raises StorageError."""
        if self._file is not None:
            self._write(self._file, entry)
        match entry.verdict:
            case "accepted":
                self._count_accepted(entry)
            case "refused":
                self.refused += 1
            case _:
                self.rejected += 1

    def summary(self) -> str:
        """One line for people."""
        parts = [f"{self.accepted} accepted", f"{self.refused} refused", f"{self.rejected} rejected"]
        parts += [f"{count} {kind}" for kind, count in sorted(self.faults.items())]
        return f"{', '.join(parts)}; {self.prompt_tokens + self.completion_tokens} tokens billed"

    def _count_accepted(self, entry: LedgerEntry) -> None:
        self.accepted += 1
        self.prompt_tokens += entry.prompt_tokens
        self.completion_tokens += entry.completion_tokens
        if entry.fault is not None:
            self.faults[entry.fault] += 1
        if self._details is not None:
            self._details.accepted_at_s.append(entry.at_s)
            if entry.tokens:
                self._details.billed.update(entry.texts)

    def _kept(self) -> LedgerDetails:
        if self._details is None:
            raise InvariantError(
                "This ledger keeps counters only.", remedy="Start the provider with keeps_details=True."
            )
        return self._details

    def _write(self, file: int, entry: LedgerEntry) -> None:
        line = orjson.dumps(
            {
                "at_s": entry.at_s,
                "path": entry.path,
                "verdict": entry.verdict,
                "status": entry.status,
                "fault": entry.fault,
                "attempt": entry.attempt,
                "digest": entry.digest,
                "rows": len(entry.texts),
                "prompt_tokens": entry.prompt_tokens,
                "completion_tokens": entry.completion_tokens,
                "latency_s": entry.latency_s,
                "text": entry.texts[-1][:SHOWN_CHARACTERS] if entry.texts else "",
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )
        try:
            written = os.write(file, line)
        except OSError as error:
            raise self._lost(error.strerror) from error
        if written != len(line):
            raise self._lost("the disk took half a line")

    def _lost(self, reason: str | None) -> StorageError:
        return StorageError(
            f"The ledger {self.path} cannot be written: {reason}.",
            remedy="Make room on the disk and start the simulator again.",
        )
