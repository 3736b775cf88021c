"""`batchllm reparse JOB`: kept answers, read again by a changed schema, for nothing."""

import os
from pathlib import Path

import click

from batchllm.cli.run import told_to_machines


@click.command("reparse", short_help="Read kept answers again, by a changed schema, for nothing.")
@click.argument("job", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, for machines.")
def reparse_command(job: Path, as_json: bool) -> None:
    """Read the answers of JOB, a YAML file, again, by its task.schema, task.truncated and task.filtered as they
    are now.

    Nothing is sent. Answers that fit get the schema's columns; those that do not go to failures/ with their text, and
    failures whose text fits now become answers. The record is then that of the job as it is now.
    """
    import json
    from dataclasses import asdict

    from batchllm.engine.repair import reparse_job
    from batchllm.spec.loading import load_job

    with told_to_machines(as_json):
        loaded = load_job(job, environ=dict(os.environ))
        done = reparse_job(loaded, say=lambda text: click.echo(f"batchllm: {text}", err=True))
    out = loaded.job.output.path
    if as_json:
        click.echo(json.dumps({"type": "reparse", "out": str(out), **asdict(done)}))
        return
    click.echo(
        f"{out}: {done.answers:,} answers fit, {done.became_answers:,} failures became answers,"
        f" {done.turned_down:,} answers became failures, {done.failures:,} failures stay"
    )
    if not done.complete:
        click.echo("  rows are pending still: `batchllm run JOB` goes on")
    elif done.turned_down:
        click.echo("  `batchllm run JOB --retry-failed` asks again for what does not fit")
