"""The paths of a job, absolute: found on the plain data, so that their faults are told beside all others."""

import glob
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from batchllm.errors import Fault
from batchllm.spec.env import CONTROL_CHARACTER, expanded
from batchllm.spec.faults import Parts, dotted
from batchllm.spec.models import Job
from batchllm.spec.offline import VotesJob

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_GLOB = re.compile(r"[*?\[]")

AnyJob = TypeVar("AnyJob", Job, VotesJob)


@dataclass(frozen=True, slots=True)
class Origin:
    file: str
    folder: Path
    environ: Mapping[str, str]


class JobPaths:
    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._input: str | list[str] | None = None
        self._output: str | None = None
        self._votes: list[str] = []

    def resolve(self, data: Mapping[str, object]) -> list[Fault]:
        faults: list[Fault] = []
        given = child_of(data, "input").get("path")
        if isinstance(given, list):
            self._input = [self._one(text, ("input", "path", at), faults) for at, text in enumerate(given)]
        elif given is not None:
            self._input = self._one(given, ("input", "path"), faults)
        votes = child_of(data, "consensus").get("votes")
        if isinstance(votes, list):
            self._votes = [
                self._one(text, ("consensus", "votes", at), faults) for at, text in enumerate(votes)
            ]
        output = child_of(data, "output").get("path")
        self._output = None if output is None else self._one(output, ("output", "path"), faults)
        return faults

    def put_into(self, job: AnyJob) -> AnyJob:
        output = self._output or str(self._origin.folder / "out" / job.name)
        update: dict[str, object] = {
            "input": job.input.model_copy(update={"path": self._input}),
            "output": job.output.model_copy(update={"path": output}),
        }
        if self._votes and job.consensus is not None:
            update["consensus"] = job.consensus.model_copy(update={"votes": self._votes})
        return job.model_copy(update=update)

    def _one(self, text: object, parts: Parts, faults: list[Fault]) -> str:
        if not isinstance(text, str):
            return ""
        path = dotted(parts)
        value = expanded(path, text, self._origin.environ)
        if isinstance(value, str) and re.match(r"~(/|$)", value):
            home = expanded(path, "${HOME}", self._origin.environ)
            value = home + value[1:] if isinstance(home, str) else home
        if isinstance(value, list):
            faults += value
            return ""
        if CONTROL_CHARACTER.search(value):
            faults.append(Fault(path, "a path with a line break or another control character in it"))
        return absolute_path(value, self._origin.folder, is_pattern=parts[0] != "output")


def absolute_path(path: str, folder: Path, *, is_pattern: bool) -> str:
    """`path` as seen from `folder`; a URL stays as it is. `*` and its like in the folder's own name match nothing."""
    if _URL.match(path):
        return path
    base = glob.escape(str(folder)) if is_pattern and _GLOB.search(path) else str(folder)
    return os.path.normpath(Path(base, path))


def child_of(data: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = data.get(key)
    return value if isinstance(value, dict) else {}
