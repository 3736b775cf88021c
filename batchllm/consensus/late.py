"""Votes of lanes that were asked for open rows alone, from the records of their own jobs.

A judge is asked twice about each row, with the candidates in both orders: the same verdict twice is its vote, two
different ones are a tie. Whatever it was shown when it was asked counts, so that its answers can be used again where
other rules leave the same rows open.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from batchllm.consensus.concluding import Late
from batchllm.consensus.motion import Motion
from batchllm.consensus.normalising import vocabulary
from batchllm.consensus.poll import Floats, Poll, State, Voter
from batchllm.consensus.reading import calls_usd
from batchllm.consensus.rules import By
from batchllm.consensus.table import STEP_ROWS, Identities
from batchllm.consensus.votes import MISSING, Codes, LabelVotes, Numbers
from batchllm.journal.files import Kind
from batchllm.journal.manifest import Manifest, read_manifest
from batchllm.journal.parts import open_part

#: At the end of a judge's keys: which of the two orders the candidates had.
FORWARD, BACKWARD = "#1", "#2"
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Answered:
    """The record of one nested job. `key`: its column that says what a row is about."""

    out: Path
    manifest: Manifest
    lane: str
    key: str

    def read(self, kind: Kind, names: Sequence[str]) -> pa.Table:
        pieces = []
        for part in self.manifest.parts[kind]:
            with open_part(self.out / part.path) as file:
                pieces.append(file.read(columns=list(names), use_threads=False))
        return pa.concat_tables(pieces).combine_chunks() if pieces else pa.table({name: [] for name in names})

    @property
    def keys(self) -> pa.Array:
        """Of all that was answered or given up."""
        return pa.concat_arrays([self.answered_keys, self._keys("failures")])

    @property
    def answered_keys(self) -> pa.Array:
        return self._keys("output")

    def _keys(self, kind: Kind) -> pa.Array:
        return self.read(kind, [self.key]).column(self.key).cast(pa.string()).combine_chunks()

    @property
    def usd(self) -> float | None:
        return self.manifest.cost_usd


@dataclass(frozen=True, slots=True)
class Judging:
    """What the judge did, for agreement.json. `first_slot`: share of its answers that chose what was shown first."""

    asked: int
    agreed: int
    first_slot: float | None
    usd: float | None

    def told(self) -> dict[str, object]:
        return {
            "asked": self.asked,
            "agreed": self.agreed,
            "first_slot_wins": self.first_slot,
            "cost_usd": self.usd,
        }


def answered(out: Path, lane: str, key: str) -> Answered | None:
    """None where nothing is kept of it."""
    manifest = read_manifest(out) if out.is_dir() else None
    return None if manifest is None else Answered(out, manifest, lane, key)


@dataclass(frozen=True, slots=True)
class RowNames:
    """By what nested jobs call a row: its key, as text, or its place."""

    key: pa.Field | None
    rows: Identities

    def places(self, names: pa.Array) -> Rows:
        """The row of each name; -1 where the input has it no more."""
        if self.key is None:
            return np.array([int(name) if name.isdecimal() else -1 for name in names.to_pylist()], np.int64)
        found = np.full(len(names), -1, np.int64)
        first = 0
        for table in self.rows.identities([self.key], STEP_ROWS):
            keys = table.column(self.key.name).cast(pa.string())
            at = pc.index_in(names, pa.array(keys.combine_chunks())).fill_null(-1)
            there = np.asarray(at.to_numpy(zero_copy_only=False), np.int64)
            found[there >= 0] = there[there >= 0] + first
            first += table.num_rows
        return found


def escalated(poll: Poll, motion: Motion, names: RowNames, record: Answered) -> tuple[Poll, Late]:
    """The votes of the lane that was asked in ties. The poll comes back with values that only that lane gave."""
    lines = record.read("output", [record.key, motion.over, "latency_ms"])
    rows = names.places(lines.column(record.key).cast(pa.string()).combine_chunks())
    known = (rows >= 0) & (rows < poll.rows)
    votes = lines.column(motion.over).combine_chunks().filter(pa.array(known))
    poll, cells, whys, reasons = coded(poll, motion, votes)
    voter = Voter(record.lane, record.lane, record.usd, _times(lines.column("latency_ms")))
    late = _nobody_asked(poll, voter, By.ESCALATED, reasons)
    at = rows[known]
    late.cells[at], late.whys[at] = cells, whys
    late.row_usd[:] = _row_usd(names, record, poll.rows, strip=0)
    late.states[at] = np.where(whys == 0, State.CAST, State.UNREADABLE)
    return poll, _with_failures(late, names, record, strip=0)


def judged(
    poll: Poll, names: RowNames, record: Answered, wanted: npt.NDArray[np.bool_], column: str
) -> tuple[Late, Judging]:
    """The judge's verdicts on the `wanted` rows. `column`: of the candidates that it was shown."""
    lines = record.read("output", [record.key, column, "choice", "latency_ms"])
    keys = lines.column(record.key).cast(pa.string()).combine_chunks()
    rows = names.places(pc.utf8_slice_codeunits(keys, 0, -len(FORWARD)))
    choices = _choices(lines, column)
    orders = pc.ends_with(keys, BACKWARD).to_numpy(zero_copy_only=False).astype(np.int64)
    said: dict[int, dict[int, str | None]] = {}
    first_slot = total = 0
    for row, order, choice, letter in zip(
        rows.tolist(), orders.tolist(), choices, lines.column("choice").to_pylist(), strict=True
    ):
        if 0 <= row < poll.rows and wanted[row]:
            total += 1
            first_slot += letter == "A"
            said.setdefault(row, {})[order] = choice
    voter = Voter(record.lane, record.lane, record.usd, _times(lines.column("latency_ms")))
    late = replace(
        _nobody_asked(poll, voter, By.JUDGE, ("", "the verdict hangs on the order", "it chose no candidate")),
        overrules=True,
    )
    late.row_usd[:] = _row_usd(names, record, poll.rows, strip=len(FORWARD))
    whole = {row: (both[0], both[1]) for row, both in said.items() if len(both) == 2}
    agreed = {row: one for row, (one, other) in whole.items() if one is not None and one == other}
    split = [row for row in whole if row not in agreed]
    late.states[split], late.whys[split] = State.UNREADABLE, [2 if None in whole[row] else 1 for row in split]
    late = _with_failures(late, names, record, strip=len(FORWARD), among=wanted)
    cells = _cells_of_texts(poll, list(agreed.values()))
    at = np.fromiter(agreed, np.int64, len(agreed))
    late.cells[at] = cells
    late.states[at] = np.where(_is_vote(cells), State.CAST, State.UNREADABLE)
    told = Judging(len(whole), len(agreed), first_slot / total if total else None, record.usd)
    return late, told


def coded(
    poll: Poll, motion: Motion, votes: pa.Array
) -> tuple[Poll, Codes | Numbers, npt.NDArray[np.int16], tuple[str, ...]]:
    """Votes from elsewhere as the poll's own codes; it comes back with the values that are new to it."""
    words = vocabulary(motion.kind, motion.labels, motion.section.normalise)
    if not isinstance(poll.votes, LabelVotes):
        numbers, whys = words.numbers(votes)
        return poll, numbers, whys, tuple(words.reasons)
    found = words.codes(votes)
    whys = words.reason_of(found)
    values, place = words.in_order()
    known = {value: at for at, value in enumerate(poll.votes.values)}
    for value in values:
        known.setdefault(value, len(known))
    table = np.array([*(known[value] for value in values), MISSING], np.int32)
    cells = table[np.append(place, np.int32(MISSING))[np.maximum(found, MISSING)]]
    votes_with = LabelVotes(poll.votes.voters, tuple(known), poll.votes.codes)
    return replace(poll, votes=votes_with), cells, whys, tuple(words.reasons)


def candidate_text(poll: Poll, cell: float) -> str:
    """A value as a judge is shown it, from which it is known again."""
    if isinstance(poll.votes, LabelVotes):
        return poll.votes.values[int(cell)]
    return repr(float(cell))


def _cells_of_texts(poll: Poll, texts: Sequence[str]) -> Codes | Numbers:
    """Values as a judge was shown them → codes or numbers; none where there is no such value any more."""
    if isinstance(poll.votes, LabelVotes):
        known: Mapping[str, int] = {value: at for at, value in enumerate(poll.votes.values)}
        return np.array([known.get(text, MISSING) for text in texts], np.int32)
    return np.array([float(text) for text in texts], np.float64)


def _choices(lines: pa.Table, column: str) -> list[str | None]:
    """What each answer chose; None for a letter that no candidate had."""
    letters = lines.column("choice").to_pylist()
    places = [-1 if letter is None else "ABCDEFGH".find(letter) for letter in letters]
    shown = lines.column(column).to_pylist()
    return [
        texts[at] if texts is not None and 0 <= at < len(texts) else None
        for texts, at in zip(shown, places, strict=True)
    ]


def failed_among(names: RowNames, record: Answered, wanted: npt.NDArray[np.bool_], *, strip: int = 0) -> int:
    """How many rows of the nested job were given up that are about one of these."""
    lines = record.read("failures", [record.key])
    rows = _places(names, lines.column(record.key), strip)
    known = rows[(rows >= 0) & (rows < len(wanted))]
    return int(np.count_nonzero(wanted[known]))


def _nobody_asked(poll: Poll, voter: Voter, by: By, reasons: Sequence[str]) -> Late:
    is_label = isinstance(poll.votes, LabelVotes)
    cells = np.full(poll.rows, MISSING, np.int32) if is_label else np.full(poll.rows, np.nan)
    states = np.full(poll.rows, State.NOT_ASKED, np.uint8)
    whys, usd = np.zeros(poll.rows, np.int16), np.zeros(poll.rows)
    return Late(voter, cells, states, list(reasons), whys, usd, by)


def _with_failures(
    late: Late,
    names: RowNames,
    record: Answered,
    *,
    strip: int,
    among: npt.NDArray[np.bool_] | None = None,
) -> Late:
    """Rows that were given up there. `strip`: characters at the end of a key that are not the row's."""
    lines = record.read("failures", [record.key, "class"])
    if not lines.num_rows:
        return late
    rows = _places(names, lines.column(record.key), strip)
    reasons = list(late.reasons)
    for row, reason in zip(rows.tolist(), lines.column("class").to_pylist(), strict=True):
        if not 0 <= row < len(late.states) or (among is not None and not among[row]):
            continue
        if reason not in reasons:
            reasons.append(reason)
        late.states[row], late.whys[row] = State.FAILED, reasons.index(reason)
    return replace(late, reasons=reasons)


def _row_usd(names: RowNames, record: Answered, rows: int, *, strip: int) -> Floats:
    """What all calls for each row cost; of calls that several rows share, what their answers' lines say."""
    usd = np.zeros(rows)
    calls = record.read("usage", ["row", "rows", "cost_usd", "billed"])
    place = _place_of_ordinals(names, record, strip)
    if not calls.num_rows or not len(place):
        return usd
    costs = calls_usd(calls)
    if pc.any(pc.greater(calls.column("rows"), 1)).as_py():
        calls = record.read("output", ["row", "cost_usd"])
        costs = _numbers(calls.column("cost_usd"))
    asked = _ordinals(pc.fill_null(calls.column("row"), -1))
    at = np.where((asked >= 0) & (asked < len(place)), place[np.minimum(asked, len(place) - 1)], -1)
    is_there = (at >= 0) & (at < rows)
    np.add.at(usd, at[is_there], costs[is_there])
    return usd


def _place_of_ordinals(names: RowNames, record: Answered, strip: int) -> Rows:
    """The row that each row of the nested input is about; -1 for those of which nothing is kept."""
    kinds: Sequence[Kind] = ("output", "failures")
    lines = pa.concat_tables(
        [record.read(kind, [record.key, "row"]) for kind in kinds], promote_options="default"
    )
    ordinals = _ordinals(lines.column("row"))
    place = np.full(1 + int(ordinals.max(initial=-1)), -1, np.int64)
    place[ordinals] = _places(names, lines.column(record.key), strip)
    return place


def _places(names: RowNames, column: pa.ChunkedArray, strip: int) -> Rows:
    keys = column.cast(pa.string()).combine_chunks()
    return names.places(pc.utf8_slice_codeunits(keys, 0, -strip) if strip else keys)


def _ordinals(column: pa.ChunkedArray) -> Rows:
    return np.asarray(column.cast(pa.int64()).to_numpy(), np.int64)


def _is_vote(cells: Codes | Numbers) -> npt.NDArray[np.bool_]:
    return np.asarray(cells != MISSING if cells.dtype.kind == "i" else ~np.isnan(cells))


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    return np.asarray(pc.fill_null(column, float("nan")).to_numpy(), np.float64)


def _times(column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    return np.asarray(column.drop_null().to_numpy(), np.float32)
