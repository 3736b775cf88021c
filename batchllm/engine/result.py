"""`batchllm.run`: the same engine for Python, with what came out as lazy frames."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from batchllm.clock import SystemClock
from batchllm.engine.local import execute
from batchllm.engine.offline import Tools, agree_offline, summary_of
from batchllm.engine.options import BEAT_S, Options
from batchllm.engine.own_thread import in_own_thread
from batchllm.engine.publishing import read_agreement
from batchllm.errors import InputMissingError
from batchllm.report.summary import RunSummary, as_mapping, page
from batchllm.spec.loading import LoadedJob, LoadedVotes, load_any, load_any_mapping
from batchllm.spec.models import Job

if TYPE_CHECKING:
    import polars as pl

_NO_PATH = "rows"


@dataclass(frozen=True, slots=True)
class Result:
    """What a run left behind. The frames are lazy: nothing is read before `.collect()`."""

    summary: RunSummary
    path: Path

    @property
    def output(self) -> "pl.LazyFrame":
        """A line for each answer."""
        return self._scan("output")

    @property
    def failures(self) -> "pl.LazyFrame":
        """A line for each row that was given up, with its class and message."""
        return self._scan("failures")

    @property
    def usage(self) -> "pl.LazyFrame":
        """A line for each HTTP call, with its tokens and cost."""
        return self._scan("usage")

    @property
    def consensus(self) -> "pl.LazyFrame":
        """A line for each row with what its answers agree on, where the job has a consensus."""
        return self._scan("consensus")

    @property
    def agreement(self) -> dict[str, Any]:
        """How well the answers agree, and how good they are: consensus/agreement.json."""
        found = read_agreement(self.path)
        if found is None:
            raise InputMissingError(
                f"{self.path} has no consensus", remedy="give the job a consensus section"
            )
        return found

    @property
    def ok(self) -> bool:
        """Every row is answered."""
        return self.summary.exit_code == 0

    def __str__(self) -> str:
        return page(self.summary)

    def to_dict(self) -> dict[str, object]:
        return as_mapping(self.summary)

    def _scan(self, table: str) -> "pl.LazyFrame":
        import polars as pl

        paths = sorted((self.path / table).glob("*.parquet"))
        if not paths:
            remedy = "give the job a consensus section" if table == "consensus" else "run the job to its end"
            raise InputMissingError(f"{self.path} holds no {table} table", remedy=remedy)
        return pl.scan_parquet(paths, glob=False)  # a folder's name may look like a pattern


def run(
    job: str | os.PathLike[str] | Job | Mapping[str, object],
    *,
    rows: object | None = None,
    limit: int | None = None,
    overrides: Sequence[str] = (),
    folder: str | os.PathLike[str] | None = None,
) -> Result:
    """Run a job to its end and return what came out.

    `job` is the path of a job file, a Job, or a mapping with the same keys. `rows` takes the place of `input.path`:
    a polars, pyarrow or pandas frame, or a list of dicts. `folder` is what relative paths of a Job or mapping are
    relative to (default: the current one). Raises a BatchllmError where the command line would end with an error;
    rows that failed do not raise: look at `.ok` and `.failures`. Also works inside a running event loop.
    """
    if limit is not None and limit < 1:
        raise ValueError(f"limit is how many rows to run, at least 1; here: {limit}")
    loaded = _loaded(job, rows is not None, overrides, Path(folder) if folder is not None else Path.cwd())
    if isinstance(loaded, LoadedVotes):
        if limit is not None:
            raise ValueError("limit is how many rows to ask, and with consensus.votes none is asked")
        told = agree_offline(loaded, Tools(SystemClock(), beat_s=BEAT_S), frame=rows)
        summary = summary_of(loaded, told, cwd=Path.cwd(), python=Path(sys.executable))
        return Result(summary, Path(str(loaded.job.output.path)))
    options = Options(limit=limit)
    summary = in_own_thread(lambda: execute(loaded, options, frame=rows), options.remote)
    return Result(summary, Path(str(loaded.job.output.path)))


def _loaded(
    job: str | os.PathLike[str] | Job | Mapping[str, object],
    has_rows: bool,
    overrides: Sequence[str],
    folder: Path,
) -> LoadedJob | LoadedVotes:
    environ = dict(os.environ)
    if isinstance(job, str | os.PathLike):
        return load_any(Path(job), overrides=overrides, environ=environ)
    if overrides:
        raise TypeError("overrides go with a job file; change the Job or the mapping itself")
    if isinstance(job, Job):
        data: dict[str, object] = job.model_dump(by_alias=True, exclude_unset=True)
    else:
        data = dict(job)
    if has_rows:
        given = data.get("input")
        data["input"] = {"path": _NO_PATH, **(given if isinstance(given, Mapping) else {})}
    return load_any_mapping(data, folder=folder, environ=environ)
