"""A JSON Schema → one value that fits it, drawn by hash: the same request gets the same value.

Understood: `enum`, `const`, the seven types (one or several), bounds of numbers, strings and arrays, `multipleOf`,
`items`, `prefixItems`, `uniqueItems`, `properties`, `required`, `anyOf`, `oneOf`, `allOf`, `$ref` into the same
schema, and the common `format`s. Not understood: `pattern`, `not`, `if`, and other conditions on the whole; an answer
rule serves those.
"""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from hashlib import blake2b
from math import ceil, floor
from typing import Final

#: Below this only what is required is made, and of several ways the one that ends soonest.
SHALLOW_DEPTH: Final = 4
#: A schema that still goes on here requires itself and has no finite value.
DEEPEST: Final = 64
#: An answer beyond these would be larger than any model gives; a mistyped bound should not take all the memory.
MOST_VALUES: Final = 100_000
MOST_CHARACTERS: Final = 1_000_000
_WORDS: Final = (
    "amber", "basin", "cedar", "delta", "ember", "fable", "grove", "haven", "inlet", "jetty", "kiosk", "lunar",
    "maple", "nectar", "orbit", "prism", "quartz", "ridge", "sable", "tidal", "umbra", "velvet", "willow", "zephyr",
)  # fmt: skip


class SchemaError(Exception):
    """No value can be made for this schema; the message says why."""


class Draws:
    """Whole numbers from a digest, one after the other."""

    def __init__(self, digest: bytes) -> None:
        self._digest = digest
        self._block = 0
        self._pool = b""

    def below(self, count: int) -> int:
        """0 ≤ drawn < count."""
        if len(self._pool) < 8:
            self._pool = blake2b(self._block.to_bytes(8, "big"), key=self._digest, digest_size=64).digest()
            self._block += 1
        number = int.from_bytes(self._pool[:8], "big")
        self._pool = self._pool[8:]
        return number % count


def make_instance(schema: Mapping[str, object] | bool, digest: bytes) -> object:
    """Raises SchemaError."""
    return _Maker(schema, Draws(digest)).make(schema, 0)


class _Maker:
    def __init__(self, root: object, draws: Draws) -> None:
        self._root = root
        self._draws = draws
        self._made = 0
        self._by_type: dict[str, Callable[[Mapping[str, object], int], object]] = {
            "object": self._object,
            "array": self._array,
            "string": self._string,
            "integer": self._integer,
            "number": self._number,
            "boolean": lambda _schema, _depth: bool(self._draws.below(2)),
            "null": lambda _schema, _depth: None,
        }

    def make(self, schema: object, depth: int) -> object:
        self._made += 1
        if self._made > MOST_VALUES:
            raise SchemaError(f"it asks for more than {MOST_VALUES} values")
        schema = self._resolved(schema, depth)
        if "const" in schema:
            return schema["const"]
        choices = schema.get("enum")
        if isinstance(choices, list):
            if not choices:
                raise SchemaError("enum is empty")
            return choices[self._draws.below(len(choices))]
        for name in ("anyOf", "oneOf"):
            branches = schema.get(name)
            if isinstance(branches, list) and branches:
                rest = {key: value for key, value in schema.items() if key != name}
                return self.make(_merged(rest, self._branch(branches, depth)), depth + 1)
        kind = self._type(schema, depth)
        make = self._by_type.get(kind)
        if make is None:
            raise SchemaError(f"type {kind!r} is unknown")
        return make(schema, depth)

    def _resolved(self, schema: object, depth: int) -> Mapping[str, object]:
        """The schema without `$ref` and `allOf` at its top."""
        if depth > DEEPEST:
            raise SchemaError("it requires itself without end")
        for _ in range(DEEPEST):
            if schema is True:
                return {"type": "string"}
            if not isinstance(schema, Mapping):
                raise SchemaError(
                    "a part of the schema is no object" if schema is not False else "false fits nothing"
                )
            reference = schema.get("$ref")
            parts = schema.get("allOf")
            if isinstance(reference, str):
                rest = {key: value for key, value in schema.items() if key != "$ref"}
                schema = _merged(rest, self._target(reference))
            elif isinstance(parts, list):
                merged: Mapping[str, object] = {key: value for key, value in schema.items() if key != "allOf"}
                for part in parts:
                    merged = _merged(merged, self._resolved(part, depth + 1))
                schema = merged
            else:
                return schema
        raise SchemaError("$ref leads back to itself")

    def _target(self, reference: str) -> object:
        if not reference.startswith("#"):
            raise SchemaError(f"$ref {reference!r} points out of the schema")
        found: object = self._root
        for step in reference.removeprefix("#").split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, Mapping) and name in found:
                found = found[name]
            elif isinstance(found, Sequence) and name.isdigit() and int(name) < len(found):
                found = found[int(name)]
            else:
                raise SchemaError(f"$ref {reference!r} points to nothing")
        return found

    def _branch(self, branches: Sequence[object], depth: int) -> object:
        if depth >= SHALLOW_DEPTH:
            return min(branches, key=_weight)
        return branches[self._draws.below(len(branches))]

    def _type(self, schema: Mapping[str, object], depth: int) -> str:
        kind = schema.get("type")
        if isinstance(kind, str):
            return kind
        if isinstance(kind, list) and kind:
            if depth >= SHALLOW_DEPTH and "null" in kind:
                return "null"
            return str(kind[self._draws.below(len(kind))])
        for name, keys in _TELLING_KEYS.items():
            if any(key in schema for key in keys):
                return name
        return "string"

    def _object(self, schema: Mapping[str, object], depth: int) -> object:
        properties = schema.get("properties")
        known = properties if isinstance(properties, Mapping) else {}
        required = schema.get("required")
        wanted = [name for name in required if isinstance(name, str)] if isinstance(required, list) else []
        names = [name for name in known if depth < SHALLOW_DEPTH or name in wanted]
        names += [name for name in wanted if name not in known]
        return {name: self.make(known.get(name, True), depth + 1) for name in names}

    def _array(self, schema: Mapping[str, object], depth: int) -> object:
        first = schema.get("prefixItems")
        fixed = first if isinstance(first, list) else []
        low = max(_whole(schema, "minItems", 0), 0)
        high = _whole(schema, "maxItems", max(low, len(fixed), 0 if depth >= SHALLOW_DEPTH else 3))
        if high < low:
            raise SchemaError("maxItems is below minItems")
        rest = schema.get("items", True)
        if rest is False:
            high = min(high, len(fixed))
        floor_ = min(max(low, len(fixed)), high)
        spread = high - floor_ + 1 if depth < SHALLOW_DEPTH else 1
        count = floor_ + self._draws.below(min(spread, 3))
        if count > MOST_VALUES:
            raise SchemaError(f"it asks for more than {MOST_VALUES} values")
        items = [fixed[number] if number < len(fixed) else rest for number in range(count)]
        made = [self.make(item, depth + 1) for item in items]
        return self._distinct(made, rest, low, depth) if schema.get("uniqueItems") is True else made

    def _distinct(self, made: Sequence[object], item: object, low: int, depth: int) -> object:
        kept: list[object] = []
        for value in made:
            if value not in kept:
                kept.append(value)
        for _ in range(100 * low):
            if len(kept) >= low:
                return kept
            value = self.make(item, depth + 1)
            if value not in kept:
                kept.append(value)
        if len(kept) < low:
            raise SchemaError("uniqueItems asks for more different values than were found")
        return kept

    def _string(self, schema: Mapping[str, object], _depth: int) -> object:
        make = _FORMATS.get(str(schema.get("format")))
        if make is not None:
            return make(self._draws.below)
        draw = self._draws.below
        text = f"{_word(draw)} {_word(draw)} {draw(1000)}"
        low = _whole(schema, "minLength", 0)
        high = _whole(schema, "maxLength", max(low, len(text)))
        if high < low:
            raise SchemaError("maxLength is below minLength")
        if low > MOST_CHARACTERS:
            raise SchemaError(f"minLength is above {MOST_CHARACTERS}")
        if len(text) < low:
            text = (text + " ") * (low // len(text) + 1)
        return text[:high]

    def _integer(self, schema: Mapping[str, object], _depth: int) -> object:
        step = _step(schema)
        unit = step.numerator if step is not None else 1  # the least whole multiple of p/q is p
        low, high = _bounds(schema, 1)
        first = ceil(low / unit)
        last = floor(high / unit)
        if last < first:
            raise SchemaError("no integer lies within its bounds")
        return (first + self._draws.below(last - first + 1)) * unit

    def _number(self, schema: Mapping[str, object], _depth: int) -> object:
        step = _step(schema)
        low, high = _bounds(schema, 0)
        if step is not None:
            first, last = ceil(Fraction(str(low)) / step), floor(Fraction(str(high)) / step)
            first += first * step == _number(schema, "exclusiveMinimum")
            last -= last * step == _number(schema, "exclusiveMaximum")
            if last < first:
                raise SchemaError("no number lies within its bounds")
            return self._multiple(first, last - first + 1, step)
        if high < low:
            raise SchemaError("no number lies within its bounds")
        share = (1 + self._draws.below(998)) / 1000  # never an end: it may be excluded
        value = low + (high - low) * share
        rounded = round(value, 3)
        return rounded if low < rounded < high else value

    def _multiple(self, first: int, count: int, step: Fraction) -> float:
        """Validators divide floats, and to some of them 0.3 is no multiple of 0.1: one whose quotient is whole."""
        drawn = self._draws.below(count)
        for tried in range(min(count, 16)):
            value = float((first + (drawn + tried) % count) * step)
            if (value / float(step)).is_integer():
                return value
        return float((first + drawn) * step)


Draw = Callable[[int], int]


def _word(draw: Draw) -> str:
    return _WORDS[draw(len(_WORDS))]


def _date(draw: Draw) -> str:
    return f"20{draw(30):02d}-{1 + draw(12):02d}-{1 + draw(28):02d}"


def _time(draw: Draw) -> str:
    return f"{draw(24):02d}:{draw(60):02d}:{draw(60):02d}Z"


def _uuid(draw: Draw) -> str:
    text = f"{draw(1 << 62):016x}{draw(1 << 62):016x}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-8{text[17:20]}-{text[20:]}"


_FORMATS: Final[Mapping[str, Callable[[Draw], str]]] = {
    "date": _date,
    "time": _time,
    "date-time": lambda draw: f"{_date(draw)}T{_time(draw)}",
    "duration": lambda draw: f"PT{1 + draw(59)}M",
    "uuid": _uuid,
    "email": lambda draw: f"{_word(draw)}{draw(1000)}@example.com",
    "hostname": lambda draw: f"{_word(draw)}.example.com",
    "uri": lambda draw: f"https://example.com/{_word(draw)}",
    "uri-reference": lambda draw: f"https://example.com/{_word(draw)}",
    "ipv4": lambda draw: f"192.0.2.{draw(256)}",
    "ipv6": lambda draw: f"2001:db8::{draw(65_536):x}",
}
_TELLING_KEYS: Final = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "prefixItems", "minItems", "maxItems"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}


def _merged(first: Mapping[str, object], second: object) -> Mapping[str, object]:
    """Both conditions in one: properties and required names add up, for all else the second one counts."""
    if second is True:
        return first
    if not isinstance(second, Mapping):
        raise SchemaError(
            "a part of the schema is no object" if second is not False else "false fits nothing"
        )
    merged = {**first, **second}
    ours, theirs = first.get("properties"), second.get("properties")
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        merged["properties"] = {**ours, **theirs}
    needed, more = first.get("required"), second.get("required")
    if isinstance(needed, list) and isinstance(more, list):
        merged["required"] = [*needed, *(name for name in more if name not in needed)]
    return merged


def _weight(branch: object) -> int:
    """How soon a branch ends: null first, what nests last."""
    if not isinstance(branch, Mapping):
        return 1
    if branch.get("type") == "null" or "const" in branch:
        return 0
    if "$ref" in branch or branch.get("type") in ("object", "array") or "properties" in branch:
        return 2
    return 1


def _number(schema: Mapping[str, object], name: str) -> float | None:
    value = schema.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _step(schema: Mapping[str, object]) -> Fraction | None:
    value = _number(schema, "multipleOf")
    if value is None:
        return None
    if value <= 0:
        raise SchemaError("multipleOf is not above 0")
    return Fraction(str(value))


def _whole(schema: Mapping[str, object], name: str, default: int) -> int:
    value = _number(schema, name)
    return default if value is None else int(value)


def _bounds(schema: Mapping[str, object], gap: int) -> tuple[float, float]:
    """Lowest and highest allowed value; `gap` is how far an excluded bound lies from an allowed one (integers: 1)."""
    lows = [
        low
        for low in (_number(schema, "minimum"), _shifted(schema, "exclusiveMinimum", gap))
        if low is not None
    ]
    highs = [
        high
        for high in (_number(schema, "maximum"), _shifted(schema, "exclusiveMaximum", -gap))
        if high is not None
    ]
    if lows and highs:
        return max(lows), min(highs)
    if lows:
        return max(lows), max(lows) + 100
    if highs:
        return min(highs) - 100, min(highs)
    return 0, 100


def _shifted(schema: Mapping[str, object], name: str, gap: int) -> float | None:
    """The nearest allowed value to an excluded bound; of a fractional bound the whole numbers do the rest."""
    value = _number(schema, name)
    if value is None:
        return None
    return value + gap if value == int(value) else value
