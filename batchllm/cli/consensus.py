"""`batchllm consensus JOB_OR_OUT`: what the answers that are kept agree on, by these rules or by others."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from batchllm.cli.run import say, told_to_machines


@click.command("consensus", short_help="What kept answers, or files of votes, agree on.")
@click.argument("target", metavar="JOB_OR_OUT", type=click.Path(path_type=Path))
@click.option(
    "--job", type=click.Path(path_type=Path), help="A job file whose consensus section holds, for OUT."
)
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override: consensus.rule=plurality"
)
@click.option("--votes", multiple=True, metavar="PATH", help="Votes from elsewhere beside those of OUT.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, for machines.")
def consensus_command(
    target: Path, job: Path | None, overrides: tuple[str, ...], votes: tuple[str, ...], as_json: bool
) -> int:
    """Compute the consensus of JOB (a YAML file) or of an output folder once more, and replace OUT/consensus.

    Nothing is sent: what judges and lanes asked in ties have answered before is used where it fits. The settings are
    those of the job file, else those that the output's consensus was made with. A job file with consensus.votes needs
    no run at all.
    """
    import json

    from batchllm.engine.consensus import consensus_of
    from batchllm.report.agreement import agreement_page

    if job is not None and target.is_file():
        raise click.UsageError(
            f"--job gives an output other settings, and {target} is a file: name the folder"
        )
    with told_to_machines(as_json):
        told, out = consensus_of(
            target, job=job, overrides=overrides, votes=votes, environ=dict(os.environ), say=say
        )
    if as_json:
        click.echo(json.dumps(as_mapping(told, out)))
    else:
        click.echo(agreement_page(told, str(out)))
    return 0


def as_mapping(told: Mapping[str, Any], out: Path) -> dict[str, object]:
    """One object; the whole of it is in agreement.json."""
    names = (
        "job",
        "rows",
        "counts",
        "agreement",
        "consensus",
        "voters",
        "comparisons",
        "cost",
        "calls",
        "judge",
    )
    return {"type": "consensus", "out": str(out), **{name: told.get(name) for name in names}}
