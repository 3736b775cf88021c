"""`--set key.path=value`: changes to a job from the command line.

The value is one scalar, or a flow list or mapping ([...], {...}); quotes make it text. Anything else is taken
literally, so that what a shell user means by `input.path=*.jsonl` or `task.prompt=Label this: {{ text }}` needs no
second layer of quotes. A lane can be named instead of counted.
"""

import copy
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from batchllm.errors import Fault, JobError
from batchllm.spec.faults import OverrideFault, Parts, dotted, nearest, quoted
from batchllm.spec.yaml_source import MAX_DEPTH, ScalarError, core_scalar, parse

_SEGMENT = r'(?:"(?:[^"\\]|\\.)*"|[^."=\s]+)'
_OVERRIDE = re.compile(rf"\s*(?P<path>{_SEGMENT}(?:\.{_SEGMENT})*)\s*=(?P<value>.*)", re.DOTALL)
_FORM = "write --set key.path=value, such as --set providers.0.limits.rpm=100"


@dataclass(frozen=True, slots=True)
class Overridden:
    """The data with what could be set; `paths` were set or made on the way."""

    data: dict[str, object]
    paths: frozenset[str]
    faults: tuple[Fault, ...]


class _OverrideError(Exception):
    def __init__(self, path: str, message: str, remedy: str = "") -> None:
        self.fault = OverrideFault(path, message, remedy)
        super().__init__(message)


def apply_overrides(data: Mapping[str, object], overrides: Iterable[str]) -> Overridden:
    """In order, so that the last of two for one key wins. `data` is left as it is."""
    changed = copy.deepcopy(dict(data))
    paths: set[str] = set()
    faults: list[Fault] = []
    for override in overrides:
        try:
            segments, text = _split(override)
            paths |= _assign(changed, segments, text)
        except _OverrideError as error:
            faults.append(error.fault)
    return Overridden(changed, frozenset(paths), tuple(faults))


def _split(override: str) -> tuple[list[str], str]:
    found = _OVERRIDE.fullmatch(override)
    if found is None:
        shown = quoted(re.split(r"[=:\s]", override)[0])  # what follows may be a key: "api_key: sk-..."
        problem = "is no key path" if "=" in override else "has no ="
        raise _OverrideError("", f"{shown} {problem}", _FORM)
    segments = [_unquoted(segment) for segment in re.findall(_SEGMENT, found["path"].strip())]
    if len(segments) > MAX_DEPTH:
        raise _OverrideError("", f"the key path is deeper than {MAX_DEPTH} levels")
    return segments, found["value"]


def _unquoted(segment: str) -> str:
    if not segment.startswith('"'):
        return segment
    try:
        return str(json.loads(segment))
    except ValueError:
        raise _OverrideError("", f"{quoted(segment)} is no quoted key", _FORM) from None


def _assign(data: dict[str, object], segments: list[str], text: str) -> set[str]:
    """Set one value in place; the paths that are new. Nothing is changed when it raises."""
    holder: object = data
    parts: Parts = ()
    made: set[str] = set()
    for at, segment in enumerate(segments):
        step = _step(holder, segment, parts)
        parts = (*parts, step)
        if at == len(segments) - 1 or _get(holder, step) is None:
            return made | _put(holder, parts, segments[at + 1 :], text)
        holder = _get(holder, step)
    return made


def _put(holder: object, parts: Parts, rest: list[str], text: str) -> set[str]:
    """Set `rest` under the last of `parts`, with a mapping made for each key on the way."""
    if rest and parts == ("providers",):
        raise _OverrideError("providers", "the job has no providers to change")
    whole: Parts = (*parts, *rest)
    value = _value(text, dotted(whole))
    for key in reversed(rest):
        value = {key: value}
    step = parts[-1]
    match holder, step:
        case dict(), _:
            holder[step] = value
        case list(), int():
            holder[step] = value
    return {dotted(whole[:n]) for n in range(len(parts), len(whole) + 1)}


def _get(holder: object, step: str | int) -> object:
    if isinstance(holder, dict):
        return holder.get(step)
    return holder[step] if isinstance(holder, list) and isinstance(step, int) else None


def _step(holder: object, segment: str, parts: Parts) -> str | int:
    """The key or index that a segment of the path means in `holder`."""
    if isinstance(holder, dict):
        return segment
    path = dotted(parts)
    if not isinstance(holder, list):
        raise _OverrideError(dotted((*parts, segment)), f"{path} is a single value and holds no keys")
    if re.fullmatch(r"[0-9]{1,6}", segment):
        if int(segment) < len(holder):
            return int(segment)
        held = f"{len(holder)} (0 to {len(holder) - 1})" if holder else "0"
        raise _OverrideError(dotted((*parts, segment)), f"{path} has no item {segment}; it has {held}")
    if parts == ("providers",):
        return _lane_index(holder, segment)
    raise _OverrideError(dotted((*parts, segment)), f"{path} is a list", f"give an index: {path}.0")


def _lane_index(lanes: list[object], wanted: str) -> int:
    """By name, else by provider."""
    known: list[str] = []
    for key in ("name", "provider"):
        called = [lane.get(key) if isinstance(lane, dict) else None for lane in lanes]
        found = [at for at, name in enumerate(called) if name == wanted]
        if len(found) == 1:
            return found[0]
        if found:
            where = " and ".join(f"providers.{at}" for at in found)
            message = f"{quoted(wanted)} means {where}"
            raise _OverrideError(dotted(("providers", wanted)), message, "give the index, or the lane's name")
        known += [name for name in called if isinstance(name, str)]
    near = nearest(wanted, known)
    remedy = f"did you mean {near}?" if near else f"lanes here: {', '.join(dict.fromkeys(known))}"
    raise _OverrideError(dotted(("providers", wanted)), "no lane has this name or provider", remedy)


def _value(text: str, path: str) -> object:
    """Raises _OverrideError. The text is never repeated in a fault: it may be a key."""
    bare = text.strip()
    # A template begins like a flow mapping, but no flow mapping begins like a template.
    is_flow = bare.startswith(("[", "{", '"', "'")) and not bare.startswith("{{")
    try:
        raw = bare.encode()
        if not is_flow:
            return core_scalar(bare)
        document = parse(raw, "--set")
    except UnicodeEncodeError:
        raise _OverrideError(path, "the value is not UTF-8") from None
    except ScalarError as error:
        raise _OverrideError(path, str(error), "put it in quotes if it is text") from None
    except JobError as error:
        raise _flow_error(path, error.faults[0]) from None
    if document.faults:
        raise _flow_error(path, document.faults[0])
    return document.data


def _flow_error(path: str, fault: Fault) -> _OverrideError:
    whole = f"{path}.{fault.path}" if fault.path else path
    return _OverrideError(whole, f"{fault.message} (character {fault.column} of the value)", fault.remedy)
