"""`batchllm run JOB`: the main command."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from batchllm.errors import BatchllmError, OutOfMemoryError, is_out_of_memory

if TYPE_CHECKING:
    from batchllm.events import RunStats
    from batchllm.report.summary import RunSummary
    from batchllm.spec.loading import LoadedVotes


@click.command("run", short_help="Run a job: rows in, answers out as Parquet.")
@click.argument("job", type=click.Path(path_type=Path))
@click.option(
    "--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key: providers.0.limits.rpm=60"
)
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N rows; a later run goes on."
)
@click.option("--retry-failed", is_flag=True, help="Only the rows that an earlier run gave up.")
@click.option(
    "--only-missing", is_flag=True, help="Only rows without an outcome: changed rows keep their answers."
)
@click.option(
    "--new-run", is_flag=True, help="All rows again for a changed job; the old record is put aside."
)
@click.option("--keep-old", is_flag=True, help="Keep the answers of the job before it was changed.")
@click.option(
    "--progress",
    type=click.Choice(["auto", "panel", "none"]),
    default="auto",
    show_default=True,
    help="The live panel; auto: on a terminal.",
)
@click.option("--json", "as_json", is_flag=True, help="End with one JSON object on stdout, for machines.")
@click.option("-v", "--verbose", is_flag=True, help="The whole summary also when stdout is no terminal.")
@click.option("-q", "--quiet", is_flag=True, help="No summary.")
def run_command(
    job: Path,
    overrides: tuple[str, ...],
    limit: int | None,
    retry_failed: bool,
    only_missing: bool,
    new_run: bool,
    keep_old: bool,
    progress: str,
    as_json: bool,
    verbose: bool,
    quiet: bool,
) -> int:
    """Run JOB, a YAML file.

    Rows that an earlier run has finished are not sent again: after a stop or a crash, run the same command. The exit
    code is 0 when every row is answered, 3 when some failed, 130 after Ctrl-C; the README has the whole table.
    """
    _refuse_pairs(
        limit=limit, retry_failed=retry_failed, only_missing=only_missing, new_run=new_run, keep_old=keep_old
    )
    from batchllm.engine.local import execute
    from batchllm.engine.options import Options
    from batchllm.spec.loading import LoadedVotes, load_any

    shows_panel = progress == "panel" or (progress == "auto" and sys.stderr.isatty())
    screen = _Screen(shows_panel=shows_panel)
    options = Options(
        limit=limit,
        retries_failed=retry_failed,
        only_missing=only_missing,
        new_run=new_run,
        keep_old=keep_old,
        watch=screen.watch,
        say=screen.say,
    )
    with told_to_machines(as_json):
        loaded = load_any(job, overrides=overrides, environ=dict(os.environ))
        if isinstance(loaded, LoadedVotes):
            _refuse_asking(
                limit=limit is not None,
                retry_failed=retry_failed,
                only_missing=only_missing,
                new_run=new_run,
                keep_old=keep_old,
            )
        summary = _agreed(loaded) if isinstance(loaded, LoadedVotes) else execute(loaded, options)
    with _outliving_its_reader():
        _print(summary, as_json=as_json, whole=verbose or sys.stdout.isatty(), quiet=quiet)
    return summary.exit_code


def _agreed(loaded: "LoadedVotes") -> "RunSummary":
    """Of votes that are there already."""
    from batchllm.clock import SystemClock
    from batchllm.engine.offline import Tools, agree_offline, summary_of
    from batchllm.engine.options import BEAT_S

    told = agree_offline(loaded, Tools(SystemClock(), say, BEAT_S))
    return summary_of(loaded, told, cwd=Path.cwd(), python=Path(sys.executable))


def _refuse_pairs(
    *, limit: int | None, retry_failed: bool, only_missing: bool, new_run: bool, keep_old: bool
) -> None:
    if retry_failed and only_missing:
        raise click.UsageError(
            "--retry-failed and --only-missing: rows that failed, or rows without an outcome?"
        )
    if retry_failed and limit is not None:
        raise click.UsageError("--retry-failed takes all rows that failed: it goes without --limit")
    if new_run and (keep_old or retry_failed or only_missing):
        raise click.UsageError("--new-run asks all rows again: it goes with none of the others")


def _refuse_asking(**options: bool) -> None:
    """What says which rows to ask has no meaning where the votes are there already."""
    given = [f"--{name.replace('_', '-')}" for name, is_given in options.items() if is_given]
    if given:
        raise click.UsageError(f"{', '.join(given)}: a job with consensus.votes asks nothing")


@contextmanager
def _outliving_its_reader() -> Iterator[None]:
    """The run is over and its code stands, whether or not anybody can read what it says (`| head`, a full disk)."""
    try:
        yield
    except OSError as error:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, sys.stdout.fileno())
        os.close(devnull)
        if not isinstance(error, BrokenPipeError):
            say(f"the summary could not be printed: {error.strerror or error}")


@contextmanager
def told_to_machines(as_json: bool) -> Iterator[None]:
    """With `--json`, the same last object where a command could not start or go on."""
    try:
        yield
    except BatchllmError as error:
        if as_json:
            _print_error(error)
        raise
    except Exception as error:
        if as_json and is_out_of_memory(error):
            _print_error(OutOfMemoryError())
        raise


def _print_error(error: BatchllmError) -> None:
    import json

    said = {"type": "exit", "code": int(error.exit_code), "reason": error.message, "remedy": error.remedy}
    with _outliving_its_reader():
        click.echo(json.dumps(said))


class _Screen:
    """Where single lines go: above the panel while there is one, which would overwrite them."""

    def __init__(self, *, shows_panel: bool) -> None:
        self._shows_panel = shows_panel
        self._say_above: Callable[[str], None] | None = None

    @contextmanager
    def watch(self, stats: "RunStats", title: str) -> Iterator[None]:
        if not self._shows_panel:
            yield
            return
        from batchllm.cli.progress import panel

        with panel(stats, title) as say_above:
            self._say_above = say_above
            try:
                yield
            finally:
                self._say_above = None

    def say(self, text: str) -> None:
        if self._say_above is None:
            say(text)
        else:
            self._say_above(f"batchllm: {text}")


def say(text: str) -> None:
    with suppress(OSError):  # a terminal that has gone; what is said here changes nothing
        click.echo(f"batchllm: {text}", err=True)


def _print(summary: "RunSummary", *, as_json: bool, whole: bool, quiet: bool) -> None:
    import json

    from batchllm.report.summary import as_mapping, line, page, trouble

    if summary.exit_code and not as_json and not whole:
        say(trouble(summary))
    if as_json:
        click.echo(json.dumps(as_mapping(summary)))
    elif not quiet:
        click.echo(page(summary) if whole else line(summary))
