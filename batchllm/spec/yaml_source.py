"""YAML text → plain data, and the place of every key and value.

PyYAML's scanner and parser are used as they are; what comes after them is ours, because its composer and safe
constructor would keep the last of two equal keys, expand aliases without bound, recurse as deep as the file says,
and read `no`, `1:30`, `0123` and `1e3` by the rules of YAML 1.1. Here a scalar means what YAML 1.2's core schema
says, every bound is checked while reading, and what is wrong but local (a tag, a key given twice, a number that
JSON cannot hold) is noted while the rest is still read, so that one look at the file shows all of its faults.

The pure Python scanner is the one used even where libyaml is there: the two word their errors differently, and a
job file of the largest size allowed takes it about two seconds, a usual one some milliseconds.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from yaml.error import Mark, MarkedYAMLError
from yaml.events import (
    AliasEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
)
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.scanner import Scanner

from batchllm.errors import Fault, InvariantError, JobError
from batchllm.spec.faults import Parts, Place, dotted, in_order, literal, quoted, syntax_fault

if TYPE_CHECKING:
    from yaml._yaml import Mark as CMark  # the stubs name it beside the other

MAX_BYTES = 1 << 20
MAX_DEPTH = 64
MAX_VALUES = 100_000  # aliases expanded: 342 bytes of nested aliases can stand for a billion values

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: Mapping[str, bool | None] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_MIN_INT, _MAX_INT = -(2**63), 2**64 - 1  # what JSON writers and Arrow hold
#: Line breaks of YAML 1.1 that YAML 1.2 counts as ordinary characters; PyYAML still breaks lines at them.
_OLD_BREAKS = "\x85\u2028\u2029"
_NODE_EVENTS = (AliasEvent, ScalarEvent, SequenceStartEvent, MappingStartEvent)
_EMPTY = Fault("", "the file is empty", "the README shows a job to start from")


@dataclass(frozen=True, slots=True)
class Document:
    """`places` point at a scalar's value, else at the key (or list item) that holds it; `key_places` at keys.

    `faults` are those that left the rest readable. At and under the paths in `blind` the data is a stand-in:
    what else is found wrong there is a consequence and not worth saying.
    """

    data: object
    places: Mapping[str, Place] = field(default_factory=dict)
    key_places: Mapping[str, Place] = field(default_factory=dict)
    faults: tuple[Fault, ...] = ()
    blind: frozenset[str] = frozenset()


class ScalarError(ValueError):
    """A plain scalar that stands for no value we can hold."""


def core_scalar(text: str) -> str | int | float | bool | None:
    """What an unquoted scalar means in YAML 1.2's core schema. Raises ScalarError."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return _integer(text)
    if _FLOAT.fullmatch(text):
        return checked_number(float(text))
    if _NOT_FINITE.fullmatch(text):
        raise ScalarError(f"{text} is no number that JSON can hold")
    return text


def _integer(text: str) -> int | float:
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    if base != 10:
        return checked_number(int(text[2:], base))
    # Python refuses to convert more than 4300 digits; 22 hold every number that passes.
    short = text.lstrip("+-").lstrip("0")[:22] or "0"
    return checked_number(-int(short) if text.startswith("-") else int(short))


def checked_number(number: float) -> int | float:
    """A number that JSON and Arrow can hold. Raises ScalarError."""
    if isinstance(number, int):
        if not _MIN_INT <= number <= _MAX_INT:
            raise ScalarError("a whole number of more than 64 bits")
    elif not math.isfinite(number):
        raise ScalarError("a number beyond what JSON can hold")
    return number


def whole_text(text: str) -> str:
    """Join the surrogate pairs of JSON's escapes ("\\ud83d\\ude00"). Raises ScalarError for half a pair."""
    if text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text):
        return text
    try:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError:
        raise ScalarError("half a character (a lone surrogate)") from None


def parse(raw: bytes, file: str) -> Document:
    """Raises JobError where nothing sensible can be read on: encoding, syntax, bounds, an empty file."""
    if len(raw) > MAX_BYTES:
        message = f"the file is larger than {MAX_BYTES:,} bytes"
        raise JobError(file, [Fault("", message, "rows belong into the input file")])
    text, breaks = _shelter_breaks(_decoded(raw, file))
    faults: list[Fault] = []
    try:
        composer = _Composer(_opened(text), text, breaks, faults)
        data, places, key_places = _Expansion().run(composer.root())
    except _FatalError as error:
        if not any((known.line, known.remedy) == (error.fault.line, error.fault.remedy) for known in faults):
            faults.append(error.fault)
        raise JobError(file, in_order(faults)) from None
    return Document(data, places, key_places, tuple(faults), frozenset(composer.blind))


def _decoded(raw: bytes, file: str) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        offset = error.start
        line_start = raw.rfind(b"\n", 0, offset) + 1
        column = len(raw[line_start:offset].decode().removeprefix("\ufeff")) + 1
        is_utf16 = raw.startswith((b"\xff\xfe", b"\xfe\xff"))
        remedy = "it looks like UTF-16; save it as UTF-8" if is_utf16 else "save it as UTF-8"
        message = f"not UTF-8: byte 0x{raw[offset]:02x} at offset {offset}"
        place = raw.count(b"\n", 0, offset) + 1, column
        raise JobError(file, [Fault("", message, remedy, *place)]) from None
    if not text.strip():
        raise JobError(file, [_EMPTY])
    return text


def _shelter_breaks(text: str) -> tuple[str, dict[int, str]]:
    """Put characters of private use, absent from the text, in the place of YAML 1.1's old line breaks."""
    present = [mark for mark in _OLD_BREAKS if mark in text]
    if not present:
        return text, {}
    spare = (code for code in range(0xE000, 0xF900) if chr(code) not in text)
    back = {code: mark for mark, code in zip(present, spare, strict=False)}
    return text.translate({ord(mark): code for code, mark in back.items()}), back


class _FatalError(Exception):
    """Nothing sensible can be read on."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        super().__init__(fault.message)


def _fatal(place: Place, message: str, remedy: str = "", parts: Parts = ()) -> _FatalError:
    return _FatalError(Fault(dotted(parts[:4]), message, remedy, *place))


class _Events(Reader, Scanner, Parser):
    """PyYAML's text → events, without its composer, resolver and constructor."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)


@dataclass(slots=True)
class _Scalar:
    value: str | int | float | bool | None
    place: Place
    is_plain: bool = False


@dataclass(slots=True)
class _Items:
    children: "list[_Node]"
    place: Place


@dataclass(slots=True)
class _Entries:
    children: "list[tuple[str, Place, _Node]]"
    place: Place


@dataclass(slots=True)
class _Alias:
    target: "_Node"
    place: Place


_Node: TypeAlias = _Scalar | _Items | _Entries | _Alias


def _place(mark: "Mark | CMark | None") -> Place:
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _opened(text: str) -> _Events:
    try:
        return _Events(text)
    except ReaderError as error:
        before = text[: error.position]
        place = before.count("\n") + 1, len(before) - before.rfind("\n")
        remedy = "remove it, or write it as an escape in double quotes"
        raise _fatal(place, f"the character U+{error.character:04X} cannot stand in YAML", remedy) from None


class _Composer:
    """Events → nodes. Depth is bounded before the recursion, and so is the number of values."""

    def __init__(self, events: _Events, text: str, breaks: Mapping[int, str], faults: list[Fault]) -> None:
        self.faults = faults
        self.blind: set[str] = set()
        self._events = events
        self._text = text
        self._breaks = breaks
        self._anchors: dict[str, _Node | None] = {}  # None: still open
        self._values = 0

    def root(self) -> _Node:
        while not isinstance(self._peek(), _NODE_EVENTS):
            if isinstance(self._next(), StreamEndEvent):
                raise _FatalError(_EMPTY)
        node = self._node((), 1)
        self._next()
        if not isinstance(self._peek(), StreamEndEvent):
            place = _place(self._peek().start_mark)
            raise _fatal(place, "a second document begins here", "one job a file; remove the line ---")
        return node

    def _peek(self) -> Event:
        try:
            event: Event = self._events.peek_event()  # type: ignore[no-untyped-call] # the stubs say nothing
        except MarkedYAMLError as error:
            raise _FatalError(syntax_fault(error, self._text)) from None
        except (ValueError, OverflowError):
            # An escape beyond Unicode, or a directive with a number of thousands of digits.
            place = _place(self._events.get_mark())
            raise _fatal(place, "a number or escape that stands for no character") from None
        return event

    def _next(self) -> Event:
        event = self._peek()
        self._events.get_event()  # type: ignore[no-untyped-call] # as above
        return event

    def _note(self, parts: Parts, place: Place, message: str, remedy: str) -> None:
        self.faults.append(Fault(dotted(parts), message, remedy, *place))
        self.blind.add(dotted(parts))

    def _node(self, parts: Parts, depth: int) -> _Node:
        event = self._next()
        place = _place(event.start_mark)
        self._values += 1
        if self._values > MAX_VALUES:
            raise _fatal(place, f"more than {MAX_VALUES:,} values", "rows belong into the input file", parts)
        if depth > MAX_DEPTH:
            raise _fatal(place, f"nested deeper than {MAX_DEPTH} levels", "", parts)
        if isinstance(event, AliasEvent):
            return self._alias(event, parts, place)
        self._refuse_tag(event, parts, place)
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            self._anchors[anchor] = None
        node = self._content(event, parts, depth)
        if anchor is not None:
            self._anchors[anchor] = node
        return node

    def _alias(self, event: AliasEvent, parts: Parts, place: Place) -> _Node:
        name = str(event.anchor)
        target = self._anchors.get(name)
        if target is None:
            problem = "stands inside what it names" if name in self._anchors else "names nothing before it"
            remedy = "text that begins with * needs quotes"
            self._note(parts, place, f"the alias *{name[:40]} {problem}", remedy)
            return _Scalar("", place)
        return _Alias(target, place)

    def _refuse_tag(self, event: Event, parts: Parts, place: Place) -> None:
        tag = getattr(event, "tag", None)
        if tag is not None:
            name = str(tag).replace("tag:yaml.org,2002:", "!!")
            remedy = "write the value alone; text that begins with ! needs quotes"
            self._note(parts, place, f"tags such as {quoted(name, 40)} are refused", remedy)

    def _content(self, event: Event, parts: Parts, depth: int) -> _Node:
        place = _place(event.start_mark)
        if isinstance(event, SequenceStartEvent):
            items: list[_Node] = []
            while not isinstance(self._peek(), SequenceEndEvent):
                items.append(self._node((*parts, len(items)), depth + 1))
            self._next()
            return _Items(items, place)
        if isinstance(event, MappingStartEvent):
            return _Entries(self._entries(parts, depth), place)
        if isinstance(event, ScalarEvent):
            return self._scalar(event, parts, place)
        raise InvariantError(f"the YAML parser sent {event!r} where a value must stand")

    def _entries(self, parts: Parts, depth: int) -> list[tuple[str, Place, _Node]]:
        entries: list[tuple[str, Place, _Node]] = []
        first_places: dict[str, Place] = {}
        while not isinstance(self._peek(), MappingEndEvent):
            place = _place(self._peek().start_mark)
            key = self._key(self._node(parts, depth + 1), parts, place)
            value = self._node(parts if key is None else (*parts, key), depth + 1)
            if key is None:
                continue
            if key in first_places:
                message = "this key is given twice, first at line {}, column {}".format(*first_places[key])
                self.faults.append(Fault(dotted((*parts, key)), message, "remove one of them", *place))
                continue
            first_places[key] = place
            entries.append((key, place, value))
        self._next()
        return entries

    def _key(self, node: _Node, parts: Parts, place: Place) -> str | None:
        scalar = node.target if isinstance(node, _Alias) else node
        if not isinstance(scalar, _Scalar):
            what = "list" if isinstance(scalar, _Items) else "mapping"
            remedy = 'a template goes into quotes: "{{ column }}"'
            self._note(parts, place, f"a {what} cannot be a key", remedy)
            return None
        if scalar.is_plain and scalar.value == "<<":
            self._note(parts, place, "merge keys (<<) are not supported", "write the keys out")
            return None
        if not isinstance(scalar.value, str):
            written = literal(scalar.value)
            self._note(parts, place, f"the key {written} is not text", f'write "{written}" in quotes')
            return None
        return scalar.value

    def _scalar(self, event: ScalarEvent, parts: Parts, place: Place) -> _Scalar:
        text = str(event.value).translate(self._breaks)
        is_plain = bool(event.implicit[0])
        try:
            return _Scalar(core_scalar(text) if is_plain else whole_text(text), place, is_plain)
        except ScalarError as error:
            self._note(parts, place, str(error), "put it in quotes if it is text" if is_plain else "")
            return _Scalar("", place)


class _Expansion:
    """Nodes → data and places. Each use of an alias is a copy of its own, and is counted."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._key_places: dict[str, Place] = {}
        self._values = 0

    def run(self, root: _Node) -> tuple[object, dict[str, Place], dict[str, Place]]:
        self._places[""] = root.place
        return self._value(root, (), 1), self._places, self._key_places

    def _value(self, node: _Node, parts: Parts, depth: int) -> object:
        self._values += 1
        if self._values > MAX_VALUES:
            raise _fatal(node.place, f"the aliases stand for more than {MAX_VALUES:,} values", "", parts)
        if depth > MAX_DEPTH:
            raise _fatal(node.place, f"nested deeper than {MAX_DEPTH} levels", "", parts)
        match node:
            case _Alias(target):
                return self._value(target, parts, depth)
            case _Scalar(value):
                return value
            case _Items(children):
                return [self._item(child, (*parts, at), depth) for at, child in enumerate(children)]
            case _Entries(children=entries):
                return {key: self._entry(place, child, (*parts, key), depth) for key, place, child in entries}

    def _item(self, node: _Node, parts: Parts, depth: int) -> object:
        self._places[dotted(parts)] = node.place
        return self._value(node, parts, depth + 1)

    def _entry(self, key_place: Place, node: _Node, parts: Parts, depth: int) -> object:
        path = dotted(parts)
        self._key_places[path] = key_place
        self._places[path] = key_place if isinstance(node, _Items | _Entries) else node.place
        return self._value(node, parts, depth + 1)
