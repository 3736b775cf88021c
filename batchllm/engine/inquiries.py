"""What the lanes that are asked beside the voters are asked: the rows of their jobs.

A row that was answered before stays in, although it may not be open any more: it would leave the record otherwise, and
be paid for again if it came back.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from batchllm.consensus.concluding import Decided
from batchllm.consensus.late import BACKWARD, FORWARD, Answered, RowNames, candidate_text
from batchllm.consensus.poll import Poll
from batchllm.consensus.similarity import merged
from batchllm.consensus.votes import LabelVotes
from batchllm.errors import RowError
from batchllm.ports import Source, Task
from batchllm.records import Row
from batchllm.source import frame_source
from batchllm.source.subset import Subset
from batchllm.wiring.nested import CANDIDATES, KEY, LETTERS, PROMPT, TEXT

_NOTHING_CARRIED = b"[]"
_CANDIDATES = pa.field(CANDIDATES, pa.list_(pa.string()))
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Inquiry:
    """The rows that the voters had, and the task."""

    source: Source
    task: Task


def embedding_source(poll: Poll) -> Source:
    """Each different text of rows in which votes differ."""
    texts = (
        []
        if not isinstance(poll.votes, LabelVotes)
        else [poll.votes.values[at] for at in _differing(poll.votes)]
    )
    table = pa.table({KEY: pa.array(map(text_key, texts), pa.string()), TEXT: pa.array(texts, pa.string())})
    return frame_source(table, key=KEY, carry=(), needed=frozenset({TEXT}))


def vectors_of(poll: Poll, record: Answered, threshold: float) -> Poll:
    """The poll with texts that are close as one value; a text without a vector is like no other."""
    if not isinstance(poll.votes, LabelVotes):
        return poll
    lines = record.read("output", [KEY, "embedding"])
    vectors = lines.column("embedding").combine_chunks()
    width = vectors.type.list_size if len(vectors) else 1
    flat = np.asarray(vectors.flatten().to_numpy(zero_copy_only=False), np.float32).reshape(-1, width)
    keys = pa.array([text_key(text) for text in poll.votes.values], pa.string())
    at = pc.index_in(keys, lines.column(KEY).combine_chunks()).fill_null(len(flat))
    whole = np.concatenate([flat, np.zeros((1, width), np.float32)])
    found = whole[np.asarray(at.to_numpy(zero_copy_only=False))]
    return replace(poll, votes=merged(poll.votes, found, threshold))


def escalation_source(
    inquiry: Inquiry, wanted: Bools, names: RowNames, record: Answered | None, *, again: bool = False
) -> Source:
    """Rows as the voters had them. `again`: what failed is asked once more, so that only open rows may be among it."""
    chosen = bytearray(wanted.astype(np.uint8).tobytes())
    if record is not None:
        for row in names.places(record.answered_keys if again else record.keys).tolist():
            if 0 <= row < len(chosen):
                chosen[row] = 1

    def made(row: Row) -> Iterator[tuple[str, Mapping[str, object], bytes]]:
        yield name_of(row), row.values, _NOTHING_CARRIED

    return Subset(inquiry.source, chosen, made, KEY)


def judging_source(
    inquiry: Inquiry, before: Decided, wanted: Bools, names: RowNames, record: Answered | None
) -> Source:
    """Rows with their candidates, in both orders."""
    shown = {} if record is None else _shown_before(names, record)
    chosen = bytearray(wanted.astype(np.uint8).tobytes())
    for row in shown:
        if 0 <= row < len(chosen):
            chosen[row] = 1

    def made(row: Row) -> Iterator[tuple[str, Mapping[str, object], bytes]]:
        listings = (
            _in_both_orders(candidates(before, row.ordinal)) if wanted[row.ordinal] else shown[row.ordinal]
        )
        values = {**row.values, PROMPT: _prompt(inquiry.task, row)}
        for order, listed in listings.items():
            yield name_of(row) + order, {**values, CANDIDATES: listed}, orjson.dumps([listed])

    return Subset(inquiry.source, chosen, made, KEY, (_CANDIDATES,))


def candidates(before: Decided, row: int) -> list[str]:
    """The values that lead a row, or all that were voted for where one leads alone; those with most votes first."""
    made, votes = before.decisions, before.poll.votes
    cells = votes.codes[row] if isinstance(votes, LabelVotes) else votes.numbers[row]
    cast, counts = np.unique(cells[votes.cast[row]], return_counts=True)
    leading = made.leading[made.offsets[row] : made.offsets[row + 1]]
    if len(leading) < 2:
        leading = cast[np.argsort(-counts, kind="stable")]
    return [candidate_text(before.poll, cell) for cell in leading[: len(LETTERS)]]


def name_of(row: Row) -> str:
    return str(row.ordinal if row.key is None else row.key)


def text_key(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _in_both_orders(texts: list[str]) -> dict[str, list[str]]:
    return {FORWARD: texts, BACKWARD: texts[::-1]}


def _shown_before(names: RowNames, record: Answered) -> dict[int, dict[str, list[str]]]:
    """Of each row that the judge has answered about what it was shown, by the orders that have their answer."""
    lines = record.read("output", [KEY, CANDIDATES])
    keys = lines.column(KEY).cast(pa.string()).combine_chunks()
    rows = names.places(pc.utf8_slice_codeunits(keys, 0, -len(FORWARD))).tolist()
    orders = pc.utf8_slice_codeunits(keys, -len(FORWARD)).to_pylist()
    found: dict[int, dict[str, list[str]]] = {}
    for row, order, texts in zip(rows, orders, lines.column(CANDIDATES).to_pylist(), strict=True):
        found.setdefault(row, {})[order] = texts
    return found


def _differing(votes: LabelVotes) -> list[int]:
    """The values of rows in which there is more than one."""
    codes, cast = votes.codes, votes.cast
    low = np.where(cast, codes, np.iinfo(np.int32).max).min(axis=1)
    differ = codes.max(axis=1) > low
    found = np.unique(codes[differ])
    return [int(code) for code in found if code >= 0]


def _prompt(task: Task, row: Row) -> str:
    """What the voters were asked; empty where the row cannot be asked at all."""
    try:
        return "\n\n".join(task.texts(task.content(row)))
    except RowError:
        return ""
