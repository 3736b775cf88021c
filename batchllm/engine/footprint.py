"""How much disk a job is going to need, as far as that can be known before the first answer.

Vectors have a width, so that a disk which cannot hold them is refused before anything is spent. How long texts will be
nobody knows: for them there is a word of warning, and the run pauses should the disk get full after all.
"""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from batchllm.journal.files import full_disk, size_text
from batchllm.ports import Task

#: Vectors hardly compress: 7 to 10 % with zstd on those of current models.
_LEAST_SHARE = 0.8
#: An answer of some 250 tokens with its lines in output/ and usage/, before compression.
_LIKELY_BYTES = 1_500


def least_bytes(task: Task, answers: int) -> int:
    """What so many answers take at the least."""
    return int(answers * _width(task) * 4 * _LEAST_SHARE)


def likely_bytes(task: Task, answers: int) -> int:
    """What they may take: all of it twice, when the parts are put in order at the end."""
    return 2 * answers * (_width(task) * 4 + _LIKELY_BYTES)


def check_room(out: Path, task: Task, answers: int, free: int | None, say: Callable[[str], None]) -> None:
    """Raise FullDiskError where `answers` more cannot fit; say it where they may not."""
    least, likely = least_bytes(task, answers), likely_bytes(task, answers)
    if free is None:
        return
    if free < least:
        raise full_disk(
            out, f"{answers:,} vectors of {_width(task):,} numbers do not fit on the disk of {out}", least
        )
    if free < likely:
        say(
            f"the disk of {out} has {size_text(free)} free, and {answers:,} answers may take {size_text(likely)};"
            " should it get full, the run pauses until there is space"
        )


def _width(task: Task) -> int:
    """How many numbers an answer has; 0 when it is no vector."""
    return sum(
        field.type.list_size for field in task.answer_fields if pa.types.is_fixed_size_list(field.type)
    )
