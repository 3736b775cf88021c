"""What of a job decides an answer, as canonical text, and what changed between two jobs.

A finished row is reused only while this text is the same. What is not in it (limits, timeouts, retries, keys,
headers, prices, budget, paths, the job's name, a simulator's latency and faults) may change freely between runs. Nor is
`params_unsupported`: where both of its values can run at all, they send the same.
Lanes go by name, so that their order is free too; addresses and templates stand as they are written, with their
`${NAME}`, so that the text holds no secret and does not depend on the machine.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping

from batchllm.spec.faults import dotted, literal
from batchllm.spec.lanes import LaneSpec, Simulation
from batchllm.spec.models import Job

_SHOWN_CHARACTERS = 80
_ABSENT = object()
#: Keys of a task that say which texts are answers. A schema is sent along, too; what was kept can be read by another.
_READING = frozenset({"filtered", "schema", "truncated"})
#: Forms in which the same vectors travel: any of them is read, so they are no difference.
_SAME_VECTORS = frozenset({"float", "base64"})


def semantic_sections(job: Job) -> dict[str, str]:
    """Section → canonical JSON (sorted keys, compact): `task`, `lanes`, `routing`, `key`, `carry`, `columns`.

    A key without a value is left out, so that a later version's new option does not change an old job's text.
    """
    return {
        "task": _canonical(job.task.model_dump(mode="json", by_alias=True, exclude_none=True)),
        "lanes": _canonical(
            {lane.name or lane.provider: _lane(lane, job.task.type) for lane in job.providers}
        ),
        "routing": _canonical(_answers_a_row(job)),
        "key": _canonical(job.input.key),
        "carry": _canonical(job.output.carry),
        "columns": _canonical(job.input.columns),
    }


def fingerprint(sections: Mapping[str, str]) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(_canonical(dict(sections)).encode()).hexdigest()


def differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """A line for each value that differs, such as `task.params.temperature: 0 → 0.7`; empty when none does."""
    lines: list[str] = []
    for section in dict.fromkeys((*new, *old)):
        before, after = _value(old, section), _value(new, section)
        lines += _compare((section,), before, after)
    return lines


def differs_in_reading_only(old: Mapping[str, str], new: Mapping[str, str]) -> bool:
    """Whether the same was asked, and only what counts as an answer to it is different."""
    return old != new and not differences(_without_reading(old), _without_reading(new))


def _without_reading(sections: Mapping[str, str]) -> dict[str, str]:
    task = _value(sections, "task")
    if not isinstance(task, dict):
        return dict(sections)
    asked = {name: value for name, value in task.items() if name not in _READING}
    return {**sections, "task": _canonical(asked)}


def _lane(lane: LaneSpec, kind: str) -> dict[str, object]:
    facts: dict[str, object] = {"provider": lane.provider, "model": lane.model}
    if lane.api == "responses":  # chat is what jobs that do not say so have always asked
        facts["api"] = lane.api
    if lane.base_url is not None:
        facts["base_url"] = lane.base_url
    extra_body = dict(lane.extra_body)
    if kind == "embedding" and str(extra_body.get("encoding_format")) in _SAME_VECTORS:
        del extra_body["encoding_format"]
    if extra_body:
        facts["extra_body"] = extra_body
    if lane.omit:
        facts["omit"] = sorted(set(lane.omit))
    if lane.catalogue:
        facts["catalogue"] = lane.catalogue
    if lane.provider == "simulator":
        simulation = lane.simulate or Simulation()
        told = {"answers", "seed", "dimensions"} | ({"profile"} if simulation.profile else set())
        told |= {"noise"} if simulation.noise else set()
        facts["simulate"] = simulation.model_dump(mode="json", include=told)
    return facts


def _answers_a_row(job: Job) -> str:
    lanes = "every lane" if job.routing == "all" else "one lane"
    return f"{lanes}, {job.samples} samples" if job.samples > 1 else lanes


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _value(sections: Mapping[str, str], section: str) -> object:
    """The section's data. Text that is no JSON was written by no version of ours and is compared as text."""
    if section not in sections:
        return _ABSENT
    try:
        return json.loads(sections[section])
    except ValueError:
        return sections[section]


def _compare(parts: tuple[str | int, ...], old: object, new: object) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted({*old, *new}):
            yield from _compare((*parts, key), old.get(key, _ABSENT), new.get(key, _ABSENT))
    elif isinstance(old, list) and isinstance(new, list):
        for at in range(max(len(old), len(new))):
            before = old[at] if at < len(old) else _ABSENT
            yield from _compare((*parts, at), before, new[at] if at < len(new) else _ABSENT)
    elif _canonical_or_absent(old) != _canonical_or_absent(new):
        yield f"{dotted(parts)}: {' → '.join(_shown_pair(old, new))}"


def _canonical_or_absent(value: object) -> str | None:
    """JSON tells true from 1, which Python's == does not."""
    return None if value is _ABSENT else _canonical(value)


def _shown_pair(old: object, new: object) -> tuple[str, str]:
    """Both sides, cut around the first character that differs, so that the change itself is in sight."""
    is_plain = all(isinstance(side, str) and side and side.isprintable() for side in (old, new))
    before, after = (str(old), str(new)) if is_plain else (_shown(old), _shown(new))
    same = next((at for at, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), 0)
    start = max(0, same - _SHOWN_CHARACTERS // 2) if max(len(before), len(after)) > _SHOWN_CHARACTERS else 0
    return _cut(before, start), _cut(after, start)


def _cut(text: str, start: int) -> str:
    end = start + _SHOWN_CHARACTERS
    return ("…" if start else "") + text[start:end] + ("…" if len(text) > end else "")


def _shown(value: object) -> str:
    if value is _ABSENT:
        return "(none)"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return f"{value:.0f}"
    return literal(value)
