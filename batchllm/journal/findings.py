"""What a look at an output folder found: what is there, and what is wrong with it."""

from dataclasses import dataclass, field
from pathlib import Path

from batchllm.journal.database import Counts
from batchllm.journal.files import Kind
from batchllm.journal.manifest import Manifest
from batchllm.journal.parts import PartInfo


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong: in which file, what, and what to do about it. `part` is that of a bad part."""

    path: Path
    message: str
    remedy: str = ""
    part: PartInfo | None = None


@dataclass(slots=True)
class Audit:
    """What was looked at, and what was found."""

    out: Path
    manifest: Manifest | None = None
    has_journal: bool = False
    is_journal_readable: bool = False
    is_manifest_old: bool = False  # the journal has gone on since
    journal_faults: list[Finding] = field(default_factory=list)
    manifest_faults: list[Finding] = field(default_factory=list)
    part_faults: list[Finding] = field(default_factory=list)
    row_faults: list[Finding] = field(default_factory=list)
    strangers: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    files: int = 0
    bytes: int = 0
    rows: dict[Kind, int] = field(default_factory=dict)
    ok: int = 0
    failed: int = 0
    skipped: int = 0
    in_journal: int = 0  # of these, such as are in no part yet
    usage: Counts = field(default_factory=Counts)

    @property
    def findings(self) -> list[Finding]:
        return [
            *self.manifest_faults,
            *self.journal_faults,
            *self.part_faults,
            *self.row_faults,
            *self.strangers,
        ]

    @property
    def is_whole(self) -> bool:
        return not self.findings
