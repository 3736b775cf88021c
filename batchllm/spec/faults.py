"""How a fault of the job file is said: in the words of the file, at its place, with what to do.

pydantic reports in Python's words (`float_type`, `union_tag_invalid`), once for each branch of a union, and with the
tag of a union in the path. Here each path gets one fault. What was expected is said from the JSON Schema of that
path, so that a new key of the models needs no new sentence; what was found is said from the data, except where it
may be a secret.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, TypeAlias

from batchllm.errors import Fault
from batchllm.spec.schema import Shape, homes, job_shape, shape_at, under

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic_core import ErrorDetails
    from yaml.error import MarkedYAMLError

Place: TypeAlias = tuple[int, int]
Parts: TypeAlias = tuple[str | int, ...]

MAX_FAULTS = 100  # a page of them is read, a book is not

_BARE_SEGMENT = re.compile(r"[^\s.\"'\\=]{1,100}")
_SECRET_KEYS = frozenset({"api_key", "base_url", "headers"})
_PATTERNS = {
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$": "a name of at most 100 letters, digits, '.', '_' and '-', "
    "beginning with a letter or digit",
    r"^[A-Za-z0-9_-]{1,64}$": "a name of at most 64 letters, digits, '_' and '-'",
}
_NOUNS = {"string": "text", "number": "a number", "integer": "a whole number", "boolean": "true or false"}
_PLURALS = {"string": "text", "number": "numbers", "integer": "whole numbers", "object": "mappings"}


def dotted(parts: Sequence[str | int]) -> str:
    """`providers.0.limits.rpm`; a key that is no plain word stands in quotes, so that a terminal is safe."""
    return ".".join(_segment(str(part)) for part in parts)


def _segment(text: str) -> str:
    return text if _BARE_SEGMENT.fullmatch(text) and text.isprintable() else quoted(text, 100)


def quoted(text: str, max_length: int = 60) -> str:
    """As a JSON string, cut to a readable length."""
    return literal(text if len(text) <= max_length else text[: max_length - 1] + "…")


def literal(value: object) -> str:
    """As JSON, with nothing in it that a terminal would obey."""
    text = json.dumps(value, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(value)


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that was most likely meant."""
    spellings = {name.lower().replace("-", "_"): name for name in known}
    found = get_close_matches(word.lower().replace("-", "_"), spellings, n=1, cutoff=0.65)
    return spellings[found[0]] if found else None


class OverrideFault(Fault):
    """A fault of a value that the command line gave: it stands in no file."""

    __slots__ = ()

    def text(self, file: str) -> str:  # noqa: ARG002 - the job file is not where it is
        return super().text("--set")


@dataclass(frozen=True, slots=True)
class Places:
    """Where things stand. `overridden` holds the paths that the command line set or made."""

    values: Mapping[str, Place] = field(default_factory=dict)
    keys: Mapping[str, Place] = field(default_factory=dict)
    overridden: frozenset[str] = frozenset()

    def fault(self, path: str, message: str, remedy: str = "", *, is_at_key: bool = False) -> Fault:
        """With the place of `path`, or of the nearest thing around it that has one."""
        if is_at_key and path in self.keys and path not in self.overridden:
            return Fault(path, message, remedy, *self.keys[path])
        around = path
        while around and around not in self.overridden and around not in self.values:
            around = around.rpartition(".")[0]
        if around in self.overridden:
            return OverrideFault(path, message, remedy)
        return Fault(path, message, remedy, *self.values.get(around, (0, 0)))

    def placed(self, fault: Fault) -> Fault:
        return self.fault(fault.path, fault.message, fault.remedy)


def in_order(faults: Iterable[Fault]) -> list[Fault]:
    """By place; what has none comes last, and of very many the first stand for all."""
    ordered = sorted(faults, key=lambda fault: (not fault.line, fault.line, fault.column))
    more = len(ordered) - MAX_FAULTS
    return [*ordered[:MAX_FAULTS], Fault("", f"and {more} more faults")] if more > 0 else ordered


def described(value: object, *, is_secret: bool = False) -> str:
    """What was found, in the words of a YAML file."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return "a number" if is_secret else str(value)
        case str():
            return "empty text" if not value else "text" if is_secret else f"text {quoted(value)}"
        case list():
            return f"a list of {len(value)}" if value else "an empty list"
        case _:
            return "a mapping"


def expectation(shape: Shape, value: object = None) -> str:
    """What a place takes; the length of a list is said only where `value` is a list."""
    if shape.branches:
        return " or ".join(expectation(branch, value) for branch in shape.branches)
    if shape.is_tagged or shape.kind == "object":
        return "a mapping"
    node = shape.node
    if shape.choices:
        return shape.choices[0] if len(shape.choices) == 1 else f"one of {', '.join(shape.choices)}"
    if shape.kind == "array":
        items = _PLURALS.get(shape.child(0).kind, "values")
        return f"a list of {items}{_length_words(shape) if isinstance(value, list) else ''}"
    if "pattern" in node:
        return _PATTERNS.get(str(node["pattern"]), f"text that matches {node['pattern']}")
    return _NOUNS.get(shape.kind, "a value") + _range_words(node)


def _length_words(shape: Shape) -> str:
    low, high = shape.node.get("minItems", 0), shape.node.get("maxItems")
    return f" ({low} to {high} of them)" if high is not None else f" (at least {low} of them)" if low else ""


def _range_words(node: Mapping[str, object]) -> str:
    above, low, high = node.get("exclusiveMinimum"), node.get("minimum"), node.get("maximum")
    if low is not None and high is not None:
        return f" from {low} to {high}"
    said = [] if above is None else [f"above {above}"]
    said += [] if low is None else [f"of at least {low}"]
    said += [] if high is None else [f"at most {high}"]
    return " " + " and ".join(said) if said else ""


@dataclass(frozen=True, slots=True)
class _Finding:
    """One of pydantic's errors, with the real path and the shape there."""

    kind: str
    parts: Parts
    shape: Shape
    value: object
    message: str


def translate(error: "ValidationError", data: object, places: Places) -> list[Fault]:
    """One fault for each path."""
    findings = [_finding(details, data) for details in error.errors(include_url=False)]
    deep = {finding.parts[:n] for finding in findings for n in range(len(finding.parts))}
    meant = {
        (*finding.parts[:-1], nearest(str(finding.parts[-1]), shape_at(finding.parts[:-1], data).keys))
        for finding in findings
        if finding.kind == "extra_forbidden"
    }
    faults: dict[str, Fault] = {}
    for finding in findings:
        is_other_branch = bool(finding.shape.branches) and finding.parts in deep
        is_misspelt = finding.kind == "missing" and finding.parts in meant
        if not is_other_branch and not is_misspelt:
            fault = _fault(finding, data, places)
            faults.setdefault(fault.path, fault)
    return list(faults.values())


def _finding(details: "ErrorDetails", data: object) -> _Finding:
    """Walk the schema and the data along `loc`, which names tags and branches of unions like keys."""
    shape, value = job_shape(), data
    parts: Parts = ()
    for part in details["loc"]:
        if shape.is_tagged:
            shape = shape.tagged(str(part))
        elif shape.branches:
            shape = shape.branch_for(value)
        else:
            parts, shape, value = (*parts, part), shape.child(part), under(value, part)
    union = shape_at(parts, data)
    context = details.get("ctx", {})
    message = str(context.get("error", details["msg"]))
    return _Finding(details["type"], parts, union if union.branches else shape, details["input"], message)


def _fault(finding: _Finding, data: object, places: Places) -> Fault:
    path = dotted(finding.parts)
    match finding.kind:
        case "extra_forbidden":
            remedy = _key_remedy(finding.parts, shape_at(finding.parts[:-1], data))
            return places.fault(path, "unknown key", remedy, is_at_key=True)
        case "missing":
            return places.fault(path, "this key is missing", _meaning(finding.shape))
        case "union_tag_not_found":
            remedy = f"one of {', '.join(finding.shape.tags)}"
            return places.fault(dotted((*finding.parts, "type")), "this key is missing", remedy)
        case "union_tag_invalid":
            return _tag_fault(finding, places)
        case "value_error":
            return places.fault(path, finding.message)
    is_secret = bool(_SECRET_KEYS.intersection(finding.parts))
    expected = expectation(finding.shape, finding.value)
    # Text where a block should be is not repeated: "- api_key:sk-..." without its space is such text.
    is_hidden = is_secret or (isinstance(finding.value, str) and expected.startswith(("a mapping", "a list")))
    message = f"expected {expected}, found {described(finding.value, is_secret=is_hidden)}"
    return places.fault(path, message, _remedy(finding, is_secret=is_secret))


def _tag_fault(finding: _Finding, places: Places) -> Fault:
    found = under(finding.value, "type")
    near = nearest(found, finding.shape.tags) if isinstance(found, str) else None
    message = f"expected one of {', '.join(finding.shape.tags)}, found {described(found)}"
    path = dotted((*finding.parts, "type"))
    return places.fault(path, message, f"did you mean {near}?" if near else "")


def _key_remedy(parts: Parts, shape: Shape) -> str:
    """Where the key belongs, else which key was meant, else which keys there are."""
    *holder, key = parts
    here = ".".join(part for part in holder if isinstance(part, str))
    found = homes(str(key), here)
    if found:
        places = [path.removeprefix(f"{here}.") if here else path for path in found]
        return f"it goes under {' or '.join(path or 'the top level' for path in places)}"
    near = nearest(str(key), shape.keys)
    return f"did you mean {near}?" if near else f"keys here: {', '.join(shape.keys)}"


def _meaning(shape: Shape) -> str:
    """The key's description, else what it takes."""
    return shape.description.rstrip(".") or _keys_words(shape) or expectation(shape)


def _remedy(finding: _Finding, *, is_secret: bool) -> str:
    shape, value = finding.shape, finding.value
    if shape.choices:
        near = nearest(value, shape.choices) if isinstance(value, str) else None
        return f"did you mean {near}?" if near else ""
    kind = "object" if shape.is_tagged else shape.kind
    return (
        _type_remedy(kind, value, is_secret=is_secret) or _keys_words(shape) or shape.description.rstrip(".")
    )


def _keys_words(shape: Shape) -> str:
    if shape.is_tagged:
        return f"a mapping with type: {' or '.join(shape.tags)}"
    return f"keys there: {', '.join(shape.keys)}" if shape.keys else ""


def _type_remedy(kind: str, value: object, *, is_secret: bool) -> str:
    match kind, value:
        case "string", bool() | int() | float():
            return "put it in quotes" if is_secret else f"put it in quotes: {quoted(described(value))}"
        case "number" | "integer", str():
            return _number_remedy(value)
        case "integer", float() if value.is_integer():
            return f"write {value:.0f}"
        case "object" | "array", None:
            return "fill it in, or remove the key"
        case "array", dict():
            return 'begin each item with "- "'
    return ""


def _number_remedy(text: str) -> str:
    if "${" in text:
        return "${...} is read in api_key, base_url, headers and paths only; --set changes other keys"
    bare = re.sub(r"[_,' ]", "", text)
    return f"write {bare}, without quotes" if re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", bare) else ""


@dataclass(frozen=True, slots=True)
class _Syntax:
    """How one of the parser's problems is said; `{line}` is where the construct began."""

    sign: str
    message: str
    remedy: str = ""
    is_placed_at_start: bool = False


_SYNTAX = (
    _Syntax("found unexpected end of stream", "this quote is never closed", is_placed_at_start=True),
    _Syntax("but got '<stream end>'", "this bracket is never closed", is_placed_at_start=True),
    _Syntax("expected ',' or", "expected a comma, or the end of the bracket that opens on line {line}"),
    _Syntax("character '\\t'", "a tab cannot indent", "use spaces"),
    _Syntax("that cannot start any token", "text cannot begin with this character", "put it in quotes"),
    _Syntax("mapping values are not", "a colon where none can stand", 'put text that holds ": " in quotes'),
    _Syntax("sequence entries are not", "a list cannot begin here", 'put "- " on a line of its own'),
    _Syntax("find expected ':'", 'expected "key: value"', "text of several lines goes under key: |"),
    _Syntax(
        "expected <block end>",
        "this does not fit the block that begins on line {line}",
        "indent the keys of a block alike; text that goes on after a quote or bracket needs quotes around all of it",
    ),
    _Syntax("scanning an alias", "text cannot begin with *", "put it in quotes"),
    _Syntax("scanning an anchor", "text cannot begin with &", "put it in quotes"),
    _Syntax("unknown escape character", "an unknown escape", "in double quotes write \\\\ for \\"),
    _Syntax("undefined tag handle", "tags (!...) are refused", "text that begins with ! needs quotes"),
)


def syntax_fault(error: "MarkedYAMLError", text: str) -> Fault:
    mark, begin = error.problem_mark or error.context_mark, error.context_mark or error.problem_mark
    problem = ": ".join(said for said in (error.context, error.problem) if said)
    known = next((entry for entry in _SYNTAX if entry.sign in problem), _Syntax("", problem))
    where = begin if known.is_placed_at_start else mark
    fault = Fault(
        "", known.message.replace("{line}", str(begin.line + 1 if begin else 1)), known.remedy, 1, 1
    )
    if where is None:
        return fault
    lines = text.splitlines()
    line = lines[where.line] if where.line < len(lines) else ""
    return replace(fault, remedy=_quoting(line) or fault.remedy, line=where.line + 1, column=where.column + 1)


def _quoting(line: str) -> str:
    """The two things of a job that look like YAML's brackets and are text."""
    if "{{" in line:
        return 'a template goes into quotes: "{{ column }}"'
    return 'inside brackets ${NAME} goes into quotes: "${NAME}"' if "${" in line else ""
