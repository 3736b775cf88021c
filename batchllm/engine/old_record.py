"""An output that has a record already: another job's answers are never taken for this one's."""

from pathlib import Path

from batchllm.engine.again import price_again
from batchllm.engine.identity import way_of_reading
from batchllm.engine.options import Options
from batchllm.errors import ChangedJobError
from batchllm.journal import StoredJob, put_aside, read_manifest, stored_job
from batchllm.journal.files import Layout
from batchllm.spec.fingerprint import differences, semantic_sections
from batchllm.wiring import CheckedJob


def meet_old_record(checked: CheckedJob, options: Options, out: Path) -> None:
    """Answers of another job are refused, put aside or kept, as the options say. Raises ChangedJobError."""
    before = stored_job(out)
    if before is None or options.keep_old:
        return
    changes = differences(before.sections, semantic_sections(checked.job))
    if options.new_run:
        _put_aside(options, out, is_changed=bool(changes))
    elif changes:
        raise ChangedJobError(
            f"the answers in {out} were made with another job:\n    " + "\n    ".join(changes),
            remedy=_ways_on(before, checked),
        )


def _put_aside(options: Options, out: Path, *, is_changed: bool) -> None:
    manifest = read_manifest(out)
    if not is_changed and (manifest is None or not manifest.complete):
        options.say(
            "the record is of this very job and not complete, so --new-run goes on with it; to begin once more,"
            f" move {out} away"
        )
        return
    where = put_aside(Layout(out), options.clock.wall_s())
    options.say(f"the old record was put aside: {where}; remove it when it is not needed any more")


def _ways_on(before: StoredJob, checked: CheckedJob) -> str:
    again = price_again(before.counts, checked.lanes)
    reparse = way_of_reading(before.sections, semantic_sections(checked.job))
    return (
        f"{reparse}undo the change; or start with --new-run: all rows again, {again}, and the old record is put"
        f" aside; or with --keep-old: the {before.counts.ok:,} answers stay as they are, and only rows without an"
        " outcome are asked"
    )
