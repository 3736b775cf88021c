"""`batchllm verify JOB-or-OUT`: is what lies there what was put there?"""

import os
from pathlib import Path

import click

from batchllm.cli.run import told_to_machines
from batchllm.errors import ExitCode


@click.command("verify", short_help="Check an output: parts, checksums, counts, journal.")
@click.argument("job", metavar="JOB_OR_OUT", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, for machines.")
def verify_command(job: Path, as_json: bool) -> int:
    """Check the output of a job (a YAML file), or an output folder. Nothing is written, nothing is sent.

    Every part must be there with the bytes that were written, every row once and in its place, and manifest, journal
    and parts must agree on what there is. The exit code is 0 when they do, 74 when something is damaged, 66 when
    there is nothing, 75 while a run is at work.
    """
    import json

    from batchllm.journal.audit import audit
    from batchllm.report.audit import as_mapping, as_text

    with told_to_machines(as_json):
        found = audit(job if job.is_dir() else _output_of(job))
    click.echo(json.dumps(as_mapping(found)) if as_json else as_text(found))
    return ExitCode.OK if found.is_whole else ExitCode.IO


def _output_of(job: Path) -> Path:
    from batchllm.spec.loading import load_job

    return Path(str(load_job(job, environ=dict(os.environ)).job.output.path))
