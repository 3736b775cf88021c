"""`batchllm status JOB_OR_OUT`: how is the run?"""

import os
from pathlib import Path

import click

from batchllm.cli.run import told_to_machines


@click.command("status", short_help="How a run is: rows, time left, money, lanes; for health checks, too.")
@click.argument("job", metavar="JOB_OR_OUT", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, for machines.")
@click.option(
    "--max-age",
    "max_age_s",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="From which age of its last heartbeat a run counts as stalled.",
)
def status_command(job: Path, as_json: bool, max_age_s: float) -> int:
    """Say how the run of a job (a YAML file), or of an output folder, is. Nothing is written, no run is disturbed.

    The exit code is 0 when a run is at work, also while it waits, or when all is done; 1 when it is stalled, or ended
    with something to be mended; 75 when nobody is at work and `batchllm run` would go on; 66 for a folder that is no
    output.
    """
    import json

    from batchllm.engine.glance import glance
    from batchllm.report.status import as_mapping, as_text

    with told_to_machines(as_json):
        found, now = glance(_output_of(job), max_age_s=max_age_s)
    click.echo(json.dumps(as_mapping(found, now)) if as_json else as_text(found, now))
    return found.code


def _output_of(target: Path) -> Path:
    """Of a job there may be none yet; a folder has to be one."""
    if target.is_dir() or not (target.exists() or target.suffix in (".yaml", ".yml", ".json")):
        from batchllm.engine.glance import check_is_output

        check_is_output(target)
        return target
    from batchllm.spec.output import output_of

    return output_of(target, dict(os.environ))
