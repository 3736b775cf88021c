"""A consensus once more from what an output keeps: by other rules, or by the same ones; nobody is asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from batchllm.clock import Clock, SystemClock
from batchllm.consensus.kinds import fits
from batchllm.consensus.motion import Motion, allowed_labels, motion_of, usual_column
from batchllm.consensus.reading import Record, open_record
from batchllm.engine.agreeing import Agreeing
from batchllm.errors import Fault, JobError
from batchllm.journal import OutputLock, StoredJob, stored_job
from batchllm.journal.manifest import Manifest
from batchllm.spec.consensus import Consensus
from batchllm.spec.models import Job, TaskSpec, parse_task
from batchllm.wiring.consensus import Told, kind_faults, name_faults, voter_faults
from batchllm.wiring.nested import lanes_beside

#: The first column of the answers, of each task.
_FIRST_ANSWERS = frozenset({"content", "contents", "flagged", "embedding"})
_LAST_ANSWER = "finish_reason"


@dataclass(frozen=True, slots=True)
class Kept:
    """What an output tells of itself. `answers`: columns of the task; `carried`: columns of the input."""

    record: Record
    task: TaskSpec | None
    key: pa.Field | None
    carried: tuple[pa.Field, ...]
    answers: tuple[pa.Field, ...]


def recompute(
    out: Path,
    section: Consensus,
    *,
    job: Job | None = None,
    clock: Clock | None = None,
    file: str = "--set",
) -> dict[str, Any]:
    """What agreement.json holds. `job` None: as the record knows it. Raises JobError, StorageError, LockedError."""
    clock = clock or SystemClock()
    manifest = open_record(out)
    with OutputLock.acquire(out, about={"started": clock.wall_s(), "job": manifest.job_name}):
        kept = kept_of(out, open_record(out), job)
        motion = _motion(kept, section, file)
        agreeing = Agreeing(
            record=kept.record,
            motion=motion,
            beside=lanes_beside(section, out),
            job=manifest.job_name,
            key=kept.key,
            carried=kept.carried,
            now_s=clock.wall_s(),
        )
        return agreeing.run()


def kept_key(out: Path) -> str | None:
    """The key column of an output; None where its rows are known by their place."""
    schema = Record(out, open_record(out), ()).schema
    return schema.field(0).name if schema.get_field_index("row") == 1 else None


def kept_of(out: Path, manifest: Manifest, job: Job | None) -> Kept:
    """To be called with the lock held."""
    stored = stored_job(out)
    lanes: Sequence[str]
    if job is not None:
        lanes = [lane.name or lane.provider for lane in job.providers]
    else:
        known = orjson.loads(stored.sections["lanes"]) if stored is not None else None
        lanes = [lane.name for lane in manifest.lanes if known is None or lane.name in known]
    task = job.task if job is not None else None
    if task is None and stored is not None:
        task = parse_task(stored.sections["task"])
    record = Record(
        out, manifest, tuple(lanes), manifest.samples, spreads=not _is_every_lane(manifest, stored, job)
    )
    schema = record.schema
    row = schema.get_field_index("row")
    first = next((at for at, name in enumerate(schema.names) if name in _FIRST_ANSWERS and at > row), row + 1)
    last = schema.get_field_index(_LAST_ANSWER)
    return Kept(
        record,
        task,
        schema.field(0) if row == 1 else None,
        tuple(schema.field(at) for at in range(row + 1, first)),
        tuple(schema.field(at) for at in range(first, last)),
    )


def _is_every_lane(manifest: Manifest, stored: StoredJob | None, job: Job | None) -> bool:
    """Whether each lane answers each row."""
    if job is not None:
        return job.routing == "all"
    if stored is not None:
        return "every lane" in stored.sections["routing"]
    return manifest.slots > manifest.samples


def _motion(kept: Kept, section: Consensus, file: str) -> Motion:
    names = [one.name for one in kept.answers]
    wanted = section.over or usual_column(names, kept.task)
    if not kept.record.voters:
        raise JobError(
            file, [Fault("consensus", "the output has one answer to a row: nothing to agree with")]
        )
    if wanted is None or wanted not in names:
        message = "which column holds the votes?" if wanted is None else f"there is no column {wanted!r}"
        raise JobError(file, [Fault("consensus.over", message, f"say one of {', '.join(names)}")])
    column = kept.record.schema.field(wanted)
    motion = motion_of(section, column, kept.record.voters, allowed_labels(kept.task, wanted))
    if motion is None or not fits(motion.kind, column.type):
        message = f"the column {wanted} is {column.type}, which holds no such votes"
        raise JobError(file, [Fault("consensus.kind", message, "say another kind, or over")])
    told: list[Told] = [*voter_faults(section, motion.voters), *kind_faults(section, motion)]
    carried = [one.name for one in kept.carried]
    if section.gold is not None and section.gold not in carried:
        told.append(
            ("gold", f"{section.gold} was not carried", f"carried are: {', '.join(carried) or 'none'}")
        )
    faults = [Fault(f"consensus.{path}", message, remedy) for path, message, remedy in told]
    key = None if kept.key is None else kept.key.name
    remedy = "the output was made so: rename it in the input, and start the job with --new-run"
    faults += [Fault(path, message, remedy) for path, message in name_faults(section, key, carried)]
    if faults:
        raise JobError(file, faults)
    return motion
