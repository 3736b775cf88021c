"""Columns of values → votes as codes or numbers; what is no vote has a reason.

Values are taken by their dictionary: each different one is looked at once, however often it was given, so that a
million rows cost a few look-ups and no object for each vote. A code below 0 is no vote: `-1 - n` stands for the n-th of
`reasons`, of which the first, "", is a vote that is missing.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from batchllm.carry import is_list
from batchllm.consensus.votes import MISSING, Codes, Numbers
from batchllm.errors import RowError
from batchllm.prompt import Template, TemplateError
from batchllm.spec.consensus import VoteKind

Whys = npt.NDArray[np.int16]

#: Between the labels of a set while it is text; where a label holds it, the set is JSON.
_SEPARATOR = "\x1f"
_TRUTH = {"true": "true", "yes": "true", "false": "false", "no": "false"}
#: Different reasons that are told apart; of others it is said only that they are no votes.
_MOST_REASONS = 200
NO_VALUE = "the answer has no value there"
#: Numbers whose squares are still numbers, and whole ones that are told from their neighbours.
_LARGEST, _LARGEST_WHOLE = 1e150, 2.0**53


class _NoVoteError(Exception):
    """This value is no vote; why, in a few words."""


@dataclass(slots=True)
class Vocabulary:
    """The values met so far, by their codes. `labels`: all that there may be, in their order; empty: any."""

    kind: VoteKind
    labels: tuple[str, ...] = ()
    normalise: Template | None = None
    reasons: list[str] = field(default_factory=lambda: [""])
    _codes: dict[str, int] = field(default_factory=dict)
    _known: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind != "labels":
            self._codes = {label: at for at, label in enumerate(self.labels)}

    def codes(self, column: pa.Array) -> Codes:
        """The code of each value; below 0 where it is no vote."""
        texts = _texts(column)
        encoded = texts if types.is_dictionary(texts.type) else texts.dictionary_encode()
        places = [self._code(text) for text in encoded.dictionary.to_pylist()]
        table = np.array([*places, self._refused(NO_VALUE)], np.int32)
        indices = pc.fill_null(encoded.indices.cast(pa.int64()), len(places))
        found: Codes = table[indices.to_numpy(zero_copy_only=False)]
        return found

    def reason_of(self, codes: Codes) -> Whys:
        """Places in `reasons`; 0 of votes that are cast."""
        return np.where(codes < MISSING, MISSING - codes, 0).astype(np.int16)

    def numbers(self, column: pa.Array) -> tuple[Numbers, Whys]:
        """Numbers as they are, text parsed; NaN with its reason where that is no finite number."""
        numbers = _as_numbers(column) + 0.0  # -0.0 is 0
        whys = np.zeros(len(numbers), np.int16)
        bad = ~np.isfinite(numbers)
        large = ~bad & (np.abs(numbers) > (_LARGEST_WHOLE if types.is_integer(column.type) else _LARGEST))
        if bad.any() or large.any():
            numbers[bad | large] = np.nan
            if large.any():
                whys[large] = MISSING - self._refused("is too large to be counted with")
            is_null = column.is_null().to_numpy(zero_copy_only=False)
            if bad.any():
                whys[bad] = MISSING - self._refused("is no finite number")
            whys[is_null] = MISSING - self._refused(NO_VALUE)
        return numbers, whys

    @property
    def values(self) -> list[str]:
        """The value of each code so far."""
        return list(self._codes)

    def in_order(self) -> tuple[tuple[str, ...], Codes]:
        """The values in their order, and the place there of each code so far.

        Labels that the job names come first, in its order; others by their text, so that the order does not depend on
        which answer came first.
        """
        values = list(self._codes)
        named = len(self.labels) if self.kind != "labels" else 0
        order = [*range(named), *sorted(range(named, len(values)), key=values.__getitem__)]
        place = np.empty(len(values), np.int32)
        place[order] = np.arange(len(values), dtype=np.int32)
        return tuple(values[at] for at in order), place

    def _code(self, text: str | None) -> int:
        if text is None:
            return self._refused(NO_VALUE)
        known = self._known.get(text)
        if known is None:
            try:
                value = self._value(text)
                known = self._codes.setdefault(value, len(self._codes))
            except _NoVoteError as error:
                known = self._refused(str(error))
            self._known[text] = known
        return known

    def _refused(self, reason: str) -> int:
        if reason not in self.reasons:
            if len(self.reasons) >= _MOST_REASONS:
                reason = "is no vote"
            if reason not in self.reasons:
                self.reasons.append(reason)
        return MISSING - self.reasons.index(reason)

    def _value(self, text: str) -> str:
        if self.normalise is not None and self.kind != "labels":
            text = self._normalised(text)
        if self.kind == "boolean":
            return _truth(text)
        if self.kind == "labels":
            return self._set(text)
        if self.labels and text not in self._codes:
            raise _NoVoteError(f"{_shown(text)} is none of the labels")
        return text

    def _set(self, text: str) -> str:
        members = text.split(_SEPARATOR)[2:] if text[:1] == _SEPARATOR else _members(text)
        labels = [self._normalised(label) for label in members]
        strange = [label for label in labels if self.labels and label not in self.labels]
        if strange:
            raise _NoVoteError(f"{_shown(strange[0])} is none of the labels")
        return set_text(labels)

    def _normalised(self, text: str) -> str:
        if self.normalise is None:
            return text
        try:
            rendered = self.normalise.render({"value": text})
        except RowError as error:
            raise _NoVoteError(str(error)) from None
        if not rendered:
            raise _NoVoteError("normalise leaves nothing of it")
        return rendered


def vocabulary(kind: VoteKind, labels: Sequence[str] | None, normalise: str | None) -> Vocabulary:
    """Raises TemplateError."""
    template = None if normalise is None else Template(normalise, where="consensus.normalise")
    if template is not None and template.columns - {"value"}:
        strange = min(template.columns - {"value"})
        raise TemplateError(f"it reads {strange!r}, and there is only value", 1, "consensus.normalise")
    if kind == "boolean":
        return Vocabulary(kind, ("false", "true"), template)
    return Vocabulary(kind, tuple(labels or ()), template)


def set_text(labels: Sequence[str]) -> str:
    """A set of labels as one text: JSON, sorted, each once."""
    return json.dumps(sorted(set(labels)), ensure_ascii=False, separators=(",", ":"))


def _texts(column: pa.Array) -> pa.Array:
    """Values as text, no two of them alike; a set begins with the separator."""
    kind = column.type
    if is_list(kind):
        return _joined(column)
    if types.is_dictionary(kind):
        return column if not types.is_large_string(kind.value_type) else column.cast(pa.string())
    return column.cast(pa.string())


def _joined(column: pa.Array) -> pa.Array:
    lists = column.cast(pa.list_(pa.string()))
    if pc.any(pc.match_substring(lists.values, _SEPARATOR)).as_py():
        texts = [None if one is None else json.dumps(one) for one in lists.to_pylist()]
        return pa.array(texts, pa.string())
    separator = pa.scalar(_SEPARATOR)
    values = pc.binary_join_element_wise(separator, lists.values, "")
    marked = pa.ListArray.from_arrays(lists.offsets, values, mask=lists.is_null())
    return pc.binary_join_element_wise(separator, pc.binary_join(marked, ""), "")


def _members(text: str) -> list[str]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(label, str) for label in found):
        raise _NoVoteError("is no JSON list of texts")
    return found


def _truth(text: str) -> str:
    known = _TRUTH.get(text.strip().lower())
    if known is None:
        raise _NoVoteError(f"{_shown(text)} is neither true nor false")
    return known


def _as_numbers(column: pa.Array) -> Numbers:
    if types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if not (types.is_string(column.type) or types.is_large_string(column.type)):
        numbers = column.cast(pa.float64(), safe=False)
    else:
        import polars as pl

        series = pl.Series(values=column)
        numbers = series.str.strip_chars().cast(pl.Float64, strict=False).to_arrow()
    return np.array(pc.fill_null(numbers, float("nan")).to_numpy(zero_copy_only=False), np.float64)


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return f'"{line}"' if len(line) <= 40 else f'"{line[:39]}…"'
