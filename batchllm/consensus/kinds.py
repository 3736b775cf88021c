"""What a vote is, by the type of its column; and the Arrow type in which it is written again.

label      text, as it is
number     a number, or text that is one
boolean    true or false, or text that is one of true, false, yes, no
labels     a list of texts, or a JSON list of them as text: a set, so that neither order nor repeats count
text       text, compared after `normalise` or by its meaning
vector     a list of numbers, compared by cosine
"""

import pyarrow as pa
from pyarrow import types

from batchllm.carry import is_list, is_text
from batchllm.spec.consensus import VoteKind

_WORDS: dict[VoteKind, str] = {
    "label": "text, whole numbers, or true and false",
    "number": "numbers, or text",
    "boolean": "true and false, or text",
    "labels": "lists of texts, or text",
    "text": "text",
    "vector": "vectors",
}


def kind_of(kind: pa.DataType) -> VoteKind | None:
    """What the votes of a column are where the job does not say; None where they can be nothing."""
    if is_text(kind) or types.is_dictionary(kind):
        return "label"
    if types.is_boolean(kind):
        return "boolean"
    if is_number(kind):
        return "number"
    if is_list(kind):
        return "labels" if is_text(kind.value_type) else "vector" if is_number(kind.value_type) else None
    return None


def fits(kind: VoteKind, column: pa.DataType) -> bool:
    """Whether votes of this kind can be read from a column of this type."""
    if types.is_dictionary(column):
        return fits(kind, column.value_type)
    if is_text(column):
        return kind != "vector"
    if is_list(column):
        return kind_of(column) == kind
    others: dict[VoteKind, bool] = {
        "label": bool(types.is_integer(column) or types.is_boolean(column)),
        "number": is_number(column),
        "boolean": bool(types.is_boolean(column)),
    }
    return others.get(kind, False)


def column_words(kind: VoteKind) -> str:
    """Which columns hold such votes, in the words of a message."""
    return _WORDS[kind]


def is_number(kind: pa.DataType) -> bool:
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind))


def value_type(kind: VoteKind) -> pa.DataType:
    """Of a vote in the table of the consensus. The value of a vector is the name of the voter whose it is."""
    match kind:
        case "number":
            return pa.float64()
        case "boolean":
            return pa.bool_()
        case "labels":
            return pa.list_(pa.string())
        case _:
            return pa.string()
