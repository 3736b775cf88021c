"""The job file → a `Job` with its paths resolved, or every fault of it at once, each with its place.

Checks that need several keys run on the plain data, not on the `Job`, and pass over what has the wrong type: so they
report beside the faults of types and not only after those are mended. What needs more than the job file (rows,
catalogue, templates) is checked elsewhere and gets its place from `LoadedJob.fault`.
"""

import os
import re
import stat
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Generic

from pydantic import BaseModel, ValidationError

from batchllm.errors import Fault, InputMissingError, JobError
from batchllm.spec.env import connection_faults
from batchllm.spec.faults import Parts, Place, Places, dotted, in_order, quoted, translate
from batchllm.spec.models import Job
from batchllm.spec.offline import ASKING_KEYS, VotesJob
from batchllm.spec.overrides import apply_overrides
from batchllm.spec.paths import AnyJob, JobPaths, Origin, child_of
from batchllm.spec.schema import job_shape
from batchllm.spec.yaml_source import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_VALUES,
    Document,
    ScalarError,
    checked_number,
    parse,
    whole_text,
)

_LANE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: The cheapest model sold costs some thousandths of a dollar for a million tokens, the dearest some hundreds.
_MIN_PRICE_USD, _MAX_PRICE_USD = 0.0001, 100_000


@dataclass(frozen=True)
class Loaded(Generic[AnyJob]):
    """`places` maps a dotted path to line and column, from 1; empty for a job built in Python.

    `folder` is where relative paths begin.
    """

    job: AnyJob
    file: str
    places: Mapping[str, Place]
    overridden: frozenset[str] = frozenset()
    folder: Path = Path()

    def fault(self, path: str, message: str, remedy: str = "") -> Fault:
        """A fault found later, with the place of `path` or of the nearest thing around it that has one."""
        return Places(self.places, overridden=self.overridden).fault(path, message, remedy)


@dataclass(frozen=True)
class LoadedJob(Loaded[Job]):
    """A job that asks."""

    job: Job


@dataclass(frozen=True)
class LoadedVotes(Loaded[VotesJob]):
    """A job whose votes are there already."""

    job: VotesJob


def load_job(path: Path, *, overrides: Sequence[str] = (), environ: Mapping[str, str]) -> LoadedJob:
    """Raises InputMissingError where no file can be read, JobError with all that is wrong in it."""
    return _asking(load_any(path, overrides=overrides, environ=environ))


def load_any(
    path: Path, *, overrides: Sequence[str] = (), environ: Mapping[str, str]
) -> LoadedJob | LoadedVotes:
    """A job that asks, or one with `consensus.votes`. Raises as `load_job` does."""
    raw = _read(path)
    origin = Origin(str(path), path.parent.resolve(), environ)
    return _load(parse(raw, origin.file), overrides, origin)


def load_mapping(
    data: Mapping[str, object], *, folder: Path, environ: Mapping[str, str], file: str = "<job>"
) -> LoadedJob:
    """A job built in Python; paths are relative to `folder`. Parts of it may be models already."""
    return _asking(load_any_mapping(data, folder=folder, environ=environ, file=file))


def load_any_mapping(
    data: Mapping[str, object], *, folder: Path, environ: Mapping[str, str], file: str = "<job>"
) -> LoadedJob | LoadedVotes:
    """The same for a job that may have `consensus.votes`."""
    copy = _PlainCopy()
    plain = copy.of(data)
    document = Document(
        plain, faults=tuple(copy.faults), blind=frozenset(fault.path for fault in copy.faults)
    )
    return _load(document, (), Origin(file, folder.resolve(), environ))


def _asking(loaded: LoadedJob | LoadedVotes) -> LoadedJob:
    if isinstance(loaded, LoadedJob):
        return loaded
    remedy = "`batchllm run` and `batchllm consensus` carry it out"
    fault = loaded.fault("consensus.votes", "with votes that are there already nothing is asked", remedy)
    raise JobError(loaded.file, [fault])


def _load(document: Document, overrides: Sequence[str], origin: Origin) -> LoadedJob | LoadedVotes:
    if not isinstance(document.data, dict):
        message = "expected a mapping at the top of the job"
        line, column = document.places.get("", (0, 0))
        raise JobError(origin.file, [Fault("", message, _top_keys(), line, column)])
    changed = apply_overrides(document.data, overrides)
    places = _places(document, changed.paths)
    faults = [*document.faults, *changed.faults]
    found: list[Fault] = []
    job: Job | VotesJob | None = None
    model, data, misplaced = _model(changed.data)
    try:
        job = model.model_validate(data)
    except ValidationError as error:
        found = translate(error, data, places)
    paths = JobPaths(origin)
    others = (*misplaced, *paths.resolve(data), *job_faults(data, origin.environ))
    found += [places.placed(fault) for fault in others]
    faults += [fault for fault in found if not _is_under(fault.path, document.blind)]
    if faults or job is None:
        raise JobError(origin.file, in_order(faults))
    if isinstance(job, Job):
        return LoadedJob(paths.put_into(job), origin.file, places.values, places.overridden, origin.folder)
    return LoadedVotes(paths.put_into(job), origin.file, places.values, places.overridden, origin.folder)


def _model(
    data: Mapping[str, object],
) -> tuple[type[Job] | type[VotesJob], Mapping[str, object], list[Fault]]:
    """Which job this is meant to be, without what does not belong to it."""
    if child_of(data, "consensus").get("votes") is None:
        return Job, data, []
    message = "nothing is asked with consensus.votes, so this is of no use"
    faults = [
        Fault(name, message, "leave it out, or consensus.votes") for name in data if name in ASKING_KEYS
    ]
    return VotesJob, {name: value for name, value in data.items() if name not in ASKING_KEYS}, faults


def _top_keys() -> str:
    return f"keys here: {', '.join(job_shape().keys)}"


def _places(document: Document, overridden: frozenset[str]) -> Places:
    """Without those of values that the command line has replaced."""
    values, keys = (
        {path: at for path, at in places.items() if not _is_under(path, overridden)}
        for places in (document.places, document.key_places)
    )
    return Places(values, keys, overridden)


def _is_under(path: str, roots: frozenset[str]) -> bool:
    """Whether `path` is one of `roots` or lies inside one."""
    if not roots:
        return False
    while path and path not in roots:
        path = path.rpartition(".")[0]
    return path in roots


def _read(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            with path.open("rb") as file:
                return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputMissingError(f"no job file {path}", remedy=_near_files(path)) from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise InputMissingError(f"the job file {path} cannot be read: {reason}") from None
    if stat.S_ISDIR(mode):
        message = f"{path} is a folder, and a job is a file"
        raise InputMissingError(message, remedy=_listed(_job_files(path), path))
    raise InputMissingError(f"the job file {path} is no regular file", remedy="save it to a file first")


def _near_files(path: Path) -> str:
    if not path.parent.is_dir():
        return f"there is no folder {path.parent}"
    names = _job_files(path.parent)
    near = get_close_matches(path.name, names, n=3)
    if near:
        return f"did you mean {' or '.join(str(path.parent / name) for name in near)}?"
    return _listed(names, path.parent)


def _listed(names: list[str], folder: Path) -> str:
    if not names:
        return f"there is no .yaml file in {folder}; the README shows a job to start from"
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return f"jobs in {folder}: {', '.join(names[:8])}{more}"


def _job_files(folder: Path) -> list[str]:
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:  # the folder may not be listed: there is nothing to suggest
        return []
    return sorted(name for name in names if name.isprintable() and name.endswith((".yaml", ".yml", ".json")))


class _PlainCopy:
    """What a YAML file could have held; for everything else a fault and a stand-in. Bounded as a file is."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []
        self._values = 0

    def of(self, value: object, parts: Parts = ()) -> object:
        self._values += 1
        if len(parts) > MAX_DEPTH or self._values > MAX_VALUES:
            bounds = f"{MAX_DEPTH} levels and {MAX_VALUES:,} values"
            return self._refused(parts[:4], f"more than {bounds}; does it hold itself?")
        if isinstance(value, BaseModel):
            value = value.model_dump(by_alias=True, exclude_unset=True)
        if isinstance(value, Mapping):
            return self._mapping(value, parts)
        if isinstance(value, list | tuple):
            return [self.of(item, (*parts, at)) for at, item in enumerate(value)]
        return self._scalar(value, parts)

    def _scalar(self, value: object, parts: Parts) -> object:
        try:
            match value:
                case None | bool():
                    return value
                case int() | float():
                    return checked_number(value)
                case str():
                    return whole_text(str.__str__(value))
                case os.PathLike():
                    return whole_text(os.fsdecode(value))
        except ScalarError as error:
            return self._refused(parts, str(error))
        name = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        return self._refused(parts, f"a job holds plain values only, found {name}")

    def _mapping(self, value: Mapping[object, object], parts: Parts) -> dict[str, object]:
        for key in value:
            if not isinstance(key, str):
                self._refused(parts, f"the key {quoted(repr(key))} is not text")
        texts = ((str.__str__(key), item) for key, item in value.items() if isinstance(key, str))
        return {key: self.of(item, (*parts, key)) for key, item in texts}

    def _refused(self, parts: Parts, message: str) -> str:
        fault = Fault(dotted(parts), message)
        if fault not in self.faults:
            self.faults.append(fault)
        return ""


def job_faults(data: Mapping[str, object], environ: Mapping[str, str]) -> Iterator[Fault]:
    """What no single key shows. Pure; the faults have no place yet."""
    lanes = _lanes(data)
    everywhere: dict[Parts, Mapping[str, object]] = {("providers", at): lane for at, lane in lanes.items()}
    for place, lane in {**everywhere, **consensus_lanes(data)}.items():
        yield from connection_faults(place, lane, environ)
        yield from _price_faults(place, lane)
        yield from _simulation_faults(place, lane)
        if lane.get("provider") == "custom" and lane.get("base_url") is None:
            remedy = "such as base_url: http://localhost:8000/v1"
            yield Fault(dotted((*place, "base_url")), "provider: custom needs a base_url", remedy)
    yield from _name_faults(lanes)
    carry = child_of(data, "output").get("carry")
    if isinstance(carry, list):
        for at, column in enumerate(carry):
            if column in carry[:at]:
                yield Fault(dotted(("output", "carry", at)), f"{quoted(str(column))} is carried twice")


def _lanes(data: Mapping[str, object]) -> dict[int, Mapping[str, object]]:
    listed = data.get("providers")
    found = enumerate(listed) if isinstance(listed, list) else ()
    return {at: lane for at, lane in found if isinstance(lane, dict)}


def consensus_lanes(data: Mapping[str, object]) -> dict[Parts, Mapping[str, object]]:
    """Lanes that the consensus asks beside the voters, by their place."""
    places: tuple[Parts, ...] = (("judge", "lane"), ("ties", "escalate"), ("similarity", "embed"))
    found: dict[Parts, Mapping[str, object]] = {}
    for holder, key in places:
        lane = child_of(child_of(data, "consensus"), str(holder)).get(str(key))
        if isinstance(lane, dict):
            found["consensus", holder, key] = lane
    return found


def _name_faults(lanes: Mapping[int, Mapping[str, object]]) -> Iterator[Fault]:
    """A lane's name is a column's value and a key of the manifest: one lane each, and plain."""
    first: dict[str, int] = {}
    for at, lane in lanes.items():
        key = "provider" if lane.get("name") is None else "name"
        name = lane.get(key)
        if not isinstance(name, str) or not name:
            continue
        path = dotted(("providers", at, key))
        if not _LANE_NAME.fullmatch(name):
            expected = "at most 64 letters, digits, '.', '_' and '-', beginning with a letter or digit"
            yield Fault(path, f"a lane's name is {expected}; found {quoted(name)}")
        elif name in first:
            other = f"providers.{first[name]}"
            remedy = "give each a name:" if key == "provider" else "give it another name"
            yield Fault(path, f"two lanes are called {name}: this one and {other}", remedy)
        first.setdefault(name, at)


def _price_faults(place: Parts, lane: Mapping[str, object]) -> Iterator[Fault]:
    for key, usd in child_of(lane, "price").items():
        if not isinstance(usd, int | float) or isinstance(usd, bool):
            continue
        path = dotted((*place, "price", key))
        if 0 < usd < _MIN_PRICE_USD:
            remedy = f"give USD for a million tokens: {usd * 1e6:g}"
            yield Fault(path, f"{usd:g} looks like the price of one token", remedy)
        elif usd > _MAX_PRICE_USD:
            yield Fault(
                path, f"no model costs {usd:g} USD for a million tokens", "give USD for a million tokens"
            )


def _simulation_faults(place: Parts, lane: Mapping[str, object]) -> Iterator[Fault]:
    simulation = child_of(lane, "simulate")
    latency = child_of(simulation, "latency")
    median_s, p99_s = latency.get("median_s", 0.1), latency.get("p99_s")
    if isinstance(median_s, int | float) and isinstance(p99_s, int | float) and p99_s < median_s:
        path = dotted((*place, "simulate", "latency", "p99_s"))
        yield Fault(path, f"{p99_s:g} is less than median_s ({median_s:g})")
    elif median_s == 0 and isinstance(p99_s, int | float) and p99_s > 0:
        path = dotted((*place, "simulate", "latency", "median_s"))
        yield Fault(
            path, "a log-normal with a median of 0 is 0 everywhere", "leave p99_s out, or set a median"
        )
    answers = simulation.get("answers")
    for number, rule in enumerate(answers if isinstance(answers, list) else ()):
        pattern = rule.get("pattern") if isinstance(rule, dict) else None
        problem = _pattern_problem(pattern) if isinstance(pattern, str) else None
        if problem:
            path = dotted((*place, "simulate", "answers", number, "pattern"))
            yield Fault(path, f"no regular expression: {problem}")


def _pattern_problem(pattern: str) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # what a later Python may read otherwise is none of the job's faults
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return str(error)
    return None
