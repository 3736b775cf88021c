"""A consensus without a run: of a job file, of an output, or of an output and files of votes."""

import glob
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from batchllm.clock import SystemClock
from batchllm.engine.offline import Tools, agree_offline
from batchllm.engine.publishing import read_agreement
from batchllm.engine.recomputing import kept_key, recompute
from batchllm.errors import Fault, InputMissingError, JobError
from batchllm.spec.consensus import Consensus
from batchllm.spec.faults import Places, translate
from batchllm.spec.loading import LoadedJob, LoadedVotes, load_any, load_any_mapping
from batchllm.spec.overrides import apply_overrides
from batchllm.spec.strict import Strict


class _Kept(Strict):
    consensus: Consensus


def consensus_of(
    target: Path,
    *,
    job: Path | None = None,
    overrides: Sequence[str] = (),
    votes: Sequence[str] = (),
    environ: Mapping[str, str],
    say: Callable[[str], None],
) -> tuple[dict[str, Any], Path]:
    """What agreement.json holds, and the output folder. Raises a BatchllmError for whatever keeps it from that."""
    tools = Tools(SystemClock(), say)
    if not target.is_dir():
        loaded = load_any(target, overrides=overrides, environ=environ)
        if isinstance(loaded, LoadedVotes):
            if votes:
                message = "--votes puts files beside the votes of an output, and this is a job"
                raise JobError(loaded.file, [loaded.fault("consensus.votes", message, "name them here")])
            return agree_offline(loaded, tools), Path(str(loaded.job.output.path))
        return _of_job(loaded, Path(str(loaded.job.output.path)), votes, tools)
    if job is not None:
        other = load_any(job, overrides=overrides, environ=environ)
        if isinstance(other, LoadedVotes):
            raise JobError(other.file, [other.fault("consensus.votes", "these votes are not of that output")])
        return _of_job(other, target, votes, tools)
    told = read_agreement(target)
    if told is not None and told.get("offline"):
        return _offline_again(target, told["offline"], overrides, votes, environ, tools)
    section = _section({} if told is None else told["given"], overrides)
    return _of_output(target, section, None, votes, tools), target


def _of_job(loaded: LoadedJob, out: Path, votes: Sequence[str], tools: Tools) -> tuple[dict[str, Any], Path]:
    section = loaded.job.consensus or Consensus()
    return _of_output(out, section, loaded, votes, tools), out


def _of_output(
    out: Path, section: Consensus, job: LoadedJob | None, votes: Sequence[str], tools: Tools
) -> dict[str, Any]:
    if not votes:
        if job is None:
            return recompute(out, section, clock=tools.clock)
        return recompute(out, section, job=job.job, clock=tools.clock, file=job.file)
    if not (out / "manifest.json").exists():
        raise InputMissingError(f"{out} has no manifest: no run has come to an end there")
    given = section.model_dump(mode="json", by_alias=True, exclude_unset=True)
    for asking in ("judge", "stop_early", "similarity"):
        given.pop(asking, None)
    if isinstance(given.get("ties"), dict):
        del given["ties"]
    data: dict[str, object] = {
        "name": out.resolve().name or "consensus",
        "consensus": {**given, "votes": [glob.escape(str(out)), *votes]},
        "output": {"path": str(out)},
    }
    key = kept_key(out)
    if key is not None:
        data["input"] = {"key": key}
    loaded = load_any_mapping(data, folder=Path.cwd(), environ={})
    if not isinstance(loaded, LoadedVotes):
        raise JobError("--votes", [Fault("consensus.votes", "no votes were named")])
    return agree_offline(loaded, tools)


def _offline_again(
    out: Path,
    kept: Mapping[str, object],
    overrides: Sequence[str],
    votes: Sequence[str],
    environ: Mapping[str, str],
    tools: Tools,
) -> tuple[dict[str, Any], Path]:
    """An output that was made of files of votes, by its own settings."""
    changed = apply_overrides(kept, overrides)
    if changed.faults:
        raise JobError("--set", list(changed.faults))
    data = dict(changed.data)
    section = data.get("consensus")
    if votes and isinstance(section, dict):
        data["consensus"] = {**section, "votes": [*section.get("votes", []), *votes]}
    data["output"] = {**_mapping(data.get("output")), "path": str(out.absolute())}
    loaded = load_any_mapping(data, folder=Path.cwd(), environ=environ, file=str(out))
    if not isinstance(loaded, LoadedVotes):
        raise JobError(str(out), [Fault("consensus.votes", "there are no votes any more")])
    return agree_offline(loaded, tools), out


def _section(given: Mapping[str, object], overrides: Sequence[str]) -> Consensus:
    changed = apply_overrides({"consensus": dict(given)}, overrides)
    faults = list(changed.faults)
    others = [name for name in changed.data if name != "consensus"]
    faults += [
        Fault(name, "only consensus can be changed here: its answers are kept as they are") for name in others
    ]
    if faults:
        raise JobError("--set", faults)
    try:
        section = _Kept.model_validate(changed.data).consensus
    except ValidationError as error:
        raise JobError("--set", translate(error, changed.data, Places(overridden=changed.paths))) from None
    if section.votes is not None:
        message = "the votes are those of the output"
        raise JobError("--set", [Fault("consensus.votes", message, "--votes PATH puts others beside them")])
    return section


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
