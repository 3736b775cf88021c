"""`batchllm check JOB`: would each lane answer? Asked before anything depends on it."""

import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchllm.cli.run import told_to_machines
from batchllm.errors import CredentialsError, JobError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from batchllm.checkup import LaneReport
    from batchllm.wiring import CheckedJob

_MARKS = {"ok": "✓", "failed": "✗", "unknown": "-"}


@click.command("check")
@click.argument("job", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key, as with run.")
@click.option("--spend", is_flag=True, help="Send the first row to each lane, with a short answer.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a lane, also on a terminal.")
def check_command(job: Path, overrides: tuple[str, ...], spend: bool, as_json: bool) -> int:
    """Check JOB and ask each of its lanes: is the key accepted, is the model there, which limits hold?

    Those that a consensus asks beside the voters are among them. Nothing is spent without --spend. The exit code is 0
    when every lane would answer, 77 for a key, 69 for a provider or model that is not there, 78 for a wrong job.
    """
    with told_to_machines(as_json):
        from batchllm.checkup import overall

        checked = _checked(job, overrides)
        reports = _reports(checked, spends=spend)
    for note in checked.notes:
        click.echo(f"batchllm: {note}", err=True)
    if as_json or not sys.stdout.isatty():
        click.echo("\n".join(as_line(report) for report in reports))
    else:
        from rich.console import Console

        Console(highlight=False).print(as_table(reports))
    return overall(reports)


def _checked(job: Path, overrides: tuple[str, ...]) -> "CheckedJob":
    from batchllm.clock import SystemClock
    from batchllm.provider.overlay import open_catalogue
    from batchllm.spec.loading import load_job
    from batchllm.wiring import check

    environ = dict(os.environ)
    try:
        loaded = load_job(job, overrides=overrides, environ=environ)
        return check(loaded, catalogue=open_catalogue(environ), environ=environ, clock=SystemClock())
    except JobError as error:
        if all(fault.path.endswith(".api_key") for fault in error.faults):
            raise CredentialsError(error.message) from None
        raise


def _reports(checked: "CheckedJob", *, spends: bool) -> "tuple[LaneReport, ...]":
    """Of all lanes of the job, and of those that are asked beside them."""
    import asyncio

    from batchllm.checkup import check_lanes, rehearsals
    from batchllm.clock import SystemClock
    from batchllm.engine.simulators import simulators_of
    from batchllm.provider.overlay import open_catalogue

    environ, clock = dict(os.environ), SystemClock()
    jobs = rehearsals(checked, catalogue=open_catalogue(environ), environ=environ, clock=clock)

    async def asked(base_urls: "Sequence[Mapping[int, str]]") -> "tuple[LaneReport, ...]":
        found = await asyncio.gather(
            *(
                check_lanes(job, base_urls=urls, environ=environ, clock=clock, spends=spends)
                for job, urls in zip(jobs, base_urls, strict=True)
            )
        )
        return tuple(report for reports in found for report in reports)

    with ExitStack() as stack:
        urls = [stack.enter_context(simulators_of(job.checked.lanes)) for job in jobs]
        return asyncio.run(asked(urls))


def as_line(report: "LaneReport") -> str:
    import json

    findings = {
        finding.step.value: {"state": finding.state.value, "text": finding.text}
        | ({"remedy": finding.remedy} if finding.remedy else {})
        for finding in report.findings
    }
    return json.dumps(
        {
            "lane": report.name,
            "place": report.place,
            "provider": report.provider,
            "model": report.model,
            "ok": report.ok,
            "code": int(report.exit_code),
            "findings": findings,
        },
        ensure_ascii=False,
    )


def as_table(reports: "tuple[LaneReport, ...]") -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("lane", overflow="fold")
    table.add_column("", no_wrap=True)
    table.add_column("step", no_wrap=True)
    table.add_column("found", overflow="fold")
    for report in reports:
        title = f"{report.name}\n{report.model}"
        if not report.place.startswith("providers."):
            title += f"\n({report.place})"
        for finding in report.findings:
            told = f"{finding.text}\n→ {finding.remedy}" if finding.remedy else finding.text
            table.add_row(
                Text(title), Text(_MARKS[finding.state.value]), Text(finding.step.value), Text(told)
            )
            title = ""
    return table
