"""Sizes of the record, and the doors by which tests bring disaster."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from batchllm.journal.files import Fault, free_bytes, no_fault
from batchllm.journal.parts import Sizes
from batchllm.journal.space import DiskRules
from batchllm.journal.writer import QueueLimits


@dataclass(frozen=True, slots=True)
class Tuning:
    """`fault` is called at each named point of the protocols."""

    queue: QueueLimits = field(default_factory=QueueLimits)
    sizes: Sizes = field(default_factory=Sizes)
    fault: Fault = no_fault
    free_bytes: Callable[[Path], int | None] = free_bytes
    max_page_count: int | None = None
    disk: DiskRules = field(default_factory=DiskRules)
