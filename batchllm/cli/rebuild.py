"""`batchllm rebuild JOB`: a lost or damaged journal, made anew from the parts."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchllm.cli.run import told_to_machines

if TYPE_CHECKING:
    from batchllm.journal.rebuilding import Rebuilt


@click.command("rebuild", short_help="Make a lost or damaged journal anew from the parts.")
@click.argument("job", type=click.Path(path_type=Path))
@click.option(
    "--drop-missing",
    is_flag=True,
    help="Give up parts that are missing or damaged: their rows are asked, and paid for, again.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, for machines.")
def rebuild_command(job: Path, drop_missing: bool, as_json: bool) -> None:
    """Make the journal of JOB, a YAML file, anew from the parts that lie in its output; nothing is sent.

    Every part is read and checked. A journal that is whole stays; a damaged one is moved aside, not removed. After
    it `batchllm run JOB` goes on and sends what is missing. Answers that were in no part yet cannot be known.
    """
    import json

    from batchllm.engine.repair import rebuild_job
    from batchllm.spec.loading import load_job

    with told_to_machines(as_json):
        done = rebuild_job(load_job(job, environ=dict(os.environ)), drops_missing=drop_missing)
    click.echo(json.dumps(_as_mapping(done)) if as_json else _as_text(done))


def _as_text(done: "Rebuilt") -> str:
    if not done.did_something:
        return f"{done.out}: nothing to rebuild: its journal and its parts are whole"
    what = "a new journal was made" if done.is_new else "the journal was kept"
    lines = [f"{done.out}: {what}: {done.ok:,} answers and {done.failed:,} failures in {done.parts:,} parts"]
    if done.dropped:
        cost = "" if done.dropped_usd is None else f", which costs about {done.dropped_usd:,.4g} USD"
        lines.append(
            f"  {len(done.dropped)} parts given up: {done.dropped_rows:,} rows are asked again{cost}"
        )
    if done.salvaged:
        lines.append(f"  {done.salvaged:,} of them come from the old journal, which could be read")
    if done.unknown_answers:
        lines.append(
            f"  {done.unknown_answers:,} answers that the last manifest counts were in the lost journal alone:"
            " they are asked again"
        )
    elif done.is_new and not done.salvaged:
        lines.append(
            "  answers that were in the lost journal alone, if any, cannot be known: they are asked again"
        )
    if not done.had_manifest:
        lines.append(
            "  without a manifest only columns, lanes, models and the prompts of the first rows could be compared"
            " with the job: that its params are the same is for you to know"
        )
    lines += [f"  moved aside: {path}" for path in done.moved]
    lines.append("  now `batchllm run JOB` goes on where the parts end")
    return "\n".join(lines)


def _as_mapping(done: "Rebuilt") -> dict[str, object]:
    return {
        "type": "rebuild",
        "out": str(done.out),
        "did": "nothing" if not done.did_something else "new journal" if done.is_new else "parts given up",
        "ok": done.ok,
        "failed": done.failed,
        "parts": done.parts,
        "dropped": [f"{part.kind}/{part.name}" for part in done.dropped],
        "dropped_rows": done.dropped_rows,
        "dropped_usd": done.dropped_usd,
        "salvaged": done.salvaged,
        "unknown_answers": done.unknown_answers,
        "moved": [str(path) for path in done.moved],
    }
