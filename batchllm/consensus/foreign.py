"""Votes from elsewhere: Parquet files, folders of them, and outputs of earlier runs, joined by key or row.

Rows are those of the input where the job has one, else all that any file has, in the order in which they are met.
"""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from batchllm.consensus.kinds import column_words, fits, kind_of
from batchllm.consensus.normalising import Vocabulary
from batchllm.consensus.poll import Ballots, Poll, State, Voter
from batchllm.consensus.vote_files import VoteFile, find_votes
from batchllm.errors import InputDataError
from batchllm.spec.consensus import VoteKind

_SHOWN = 5
#: What holds the votes where the job does not say.
_USUAL_COLUMNS = ("label", "value", "vote", "content")
#: Whose vote a line is, in the frames here; no column of a file.
_WHOSE = "\0whose"
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Known:
    """The rows of an input that the job names: its ids, what is right, and what travels."""

    ids: pl.Series
    table: pa.Table


@dataclass(slots=True)
class Elections:
    """Votes of several files. `by`: the column that tells which row a line is of. `notes` say what did not match."""

    files: tuple[VoteFile, ...]
    over: str
    by: str
    gold: str | None = None
    carried: tuple[str, ...] = ()
    known: Known | None = None
    notes: list[str] = field(default_factory=list)
    _frames: list[pl.DataFrame] = field(default_factory=list)
    _ids: pl.Series | None = None

    @property
    def kind(self) -> VoteKind | None:
        """By the type of the first file's column."""
        return kind_of(self.files[0].schema.field(self.over).type)

    @property
    def key(self) -> pa.Field | None:
        if self.by == "row":
            return None
        return pa.field(self.by, self._all_ids().to_arrow().type)

    @property
    def carried_fields(self) -> tuple[pa.Field, ...]:
        if self.known is not None:
            return tuple(self.known.table.schema.field(name) for name in self.carried)
        homes = {name: file for file in reversed(self.files) for name in file.schema.names}
        return tuple(pa.field(name, _plain(homes[name].schema.field(name).type)) for name in self.carried)

    def check(self, kind: VoteKind) -> None:
        """Raises InputDataError for columns that are missing or of another type."""
        for file in self.files:
            found = file.schema.field(self.over).type
            if not fits(kind, found):
                raise InputDataError(
                    f"{file.path}: the column {self.over!r} is {found}, which holds no {kind} votes",
                    remedy=f"votes of that kind are {column_words(kind)}; give the votes one type, or say"
                    " consensus.kind",
                )
        homes = {name for file in self.files for name in file.schema.names}
        there = set(self.known.table.schema.names) if self.known is not None else homes
        for name in ([] if self.gold is None else [self.gold], self.carried):
            for column in name:
                if column not in there:
                    raise InputDataError(
                        f"no file of votes has a column {column!r}", remedy=_nearest(column, sorted(there))
                    )

    def poll(self, vocabulary: Vocabulary) -> Poll:
        """Raises InputDataError when ids match nowhere, or a voter votes twice on a row."""
        ids = self._all_ids()
        shared = _shared([ids, *(frame.get_column(self.by) for frame in self._frames)])
        frames = [_casts(frame, self.by, shared) for frame in self._frames]
        names = self._names(frames)
        voters = tuple(dict.fromkeys(name for some in names for name in some))
        ballots = Ballots(len(ids), voters, vocabulary, has_gold=self.gold is not None)
        index = _casts(pl.DataFrame({self.by: ids, "": np.arange(len(ids))}), self.by, shared)
        for file, frame, called in zip(self.files, frames, names, strict=True):
            rows, lines = self._placed(file, frame, index)
            whose = frame.get_column(_WHOSE).to_physical().to_numpy() if file.voter_column else None
            place = np.array([voters.index(name) for name in called], np.int64)
            voted = np.zeros(len(rows), np.int64) if whose is None else whose[lines].astype(np.int64)
            _check_once(file, rows, place[voted], ids, voters)
            votes = _arrow(frame.get_column(self.over).gather(lines))
            is_there = _is_there(votes)
            ballots.vote(rows[is_there], place[voted][is_there], votes.filter(pa.array(is_there)))
            if file.skipped and file.voter_column == "lane":
                self._skip(file, frame, index, place, ballots)
            if self.gold in frame.columns and self.known is None:
                right = _arrow(frame.get_column(self.gold).gather(lines))
                self._tell_gold(file, rows[ballots.is_other_gold(rows, right)])
                ballots.note_gold(rows, right)
        if self.known is not None and self.gold is not None:
            ballots.note_gold(np.arange(len(ids)), self.known.table.column(self.gold).combine_chunks())
        row_usd = np.full(len(ids), np.nan)
        return ballots.poll(tuple(Voter(name) for name in voters), row_usd, rest=State.ABSENT)

    def _skip(
        self, file: VoteFile, frame: pl.DataFrame, index: pl.DataFrame, place: Rows, ballots: Ballots
    ) -> None:
        """What an output did not ask, as its votes had settled: those lanes have seen the harder rows alone."""
        sample = ["sample"] if file.has_samples else []
        ids = frame.get_column(self.by).dtype
        lines = _casts(file.skipped_frame([self.by, "lane", *sample]), self.by, ids)
        known = frame.get_column(_WHOSE).unique(maintain_order=True).cast(pl.String)
        voter = pl.DataFrame({_WHOSE: known, "place": place})
        found = (
            lines.with_columns(_voter_of(file).alias(_WHOSE))
            .join(index, on=self.by, how="inner")
            .join(voter, on=_WHOSE, how="inner")
        )
        ballots.skip(found.get_column("").to_numpy(), found.get_column("place").to_numpy())

    def first_value(self) -> tuple[str, object]:
        """The first vote that is no null, and where it is; None where all are."""
        self._all_ids()
        for file, frame in zip(self.files, self._frames, strict=True):
            found = frame.get_column(self.over).drop_nulls()
            if len(found):
                return file.path, found.to_list()[0]
        return self.files[0].path, None

    def listed(self, rows: Rows) -> str:
        """The first ids of these rows."""
        return _listed(self._all_ids().gather(rows[: _SHOWN + 1]))

    def identities(self, fields: Sequence[pa.Field], step: int) -> Iterator[pa.Table]:
        """Key and carried columns of all rows in their order, `step` rows a table."""
        whole = self._identity(fields)
        for first in range(0, whole.num_rows, step):
            piece = whole.slice(first, step)
            rows = pa.array(np.arange(first, first + piece.num_rows))
            yield piece if "row" in piece.schema.names else piece.append_column("row", rows)

    def _identity(self, fields: Sequence[pa.Field]) -> pa.Table:
        ids = self._all_ids()
        names = [*(["row"] if self.by == "row" else []), *(one.name for one in fields if one.name != "row")]
        if self.known is not None:
            return self.known.table.select(names)
        frame = pl.DataFrame({self.by: ids})
        for name in self.carried:
            home = next(at for at, file in enumerate(self.files) if name in file.schema.names)
            found = _casts(self._frames[home], self.by, ids.dtype).select(self.by, name)
            frame = frame.join(found.unique(self.by, keep="first"), on=self.by, how="left")
        return frame.to_arrow().select(names)

    def _all_ids(self) -> pl.Series:
        if self._ids is None:
            self._frames = [file.frame(self._columns(file)) for file in self.files]
            self._ids = self.known.ids if self.known is not None else self._met()
        return self._ids

    def _met(self) -> pl.Series:
        """All ids, each once: rows in their order, keys as they are met."""
        ids_of = [frame.get_column(self.by).drop_nulls() for frame in self._frames]
        met = pl.concat([ids.cast(_shared(ids_of)) for ids in ids_of])
        ids = met.unique(maintain_order=True)
        if not len(ids):
            raise InputDataError(
                "the files of votes have no rows", remedy="look at what consensus.votes names"
            )
        return ids.sort() if self.by == "row" else ids

    def _columns(self, file: VoteFile) -> list[str]:
        voter = [] if file.voter_column is None else [file.voter_column]
        sample = ["sample"] if file.has_samples else []
        gold = [] if self.gold is None else [self.gold]
        return [self.by, *voter, *sample, self.over, *gold, *self.carried]

    def _names(self, frames: list[pl.DataFrame]) -> list[list[str]]:
        """The voters of each file; those of the same name in several files are told apart by the file's."""
        named: list[list[str]] = []
        for at, file in enumerate(self.files):
            if file.voter_column is None:
                named.append([file.name])
                continue
            frames[at] = frames[at].with_columns(_voter_of(file).alias(_WHOSE))
            met = frames[at].get_column(_WHOSE).unique(maintain_order=True)
            frames[at] = frames[at].with_columns(pl.col(_WHOSE).cast(pl.Enum(met)))
            named.append(met.to_list())
        counts: dict[str, int] = {}
        for name in (name for some in named for name in some):
            counts[name] = counts.get(name, 0) + 1
        return [
            [f"{file.name}/{name}" if counts[name] > 1 and file.name != name else name for name in some]
            for file, some in zip(self.files, named, strict=True)
        ]

    def _placed(self, file: VoteFile, frame: pl.DataFrame, index: pl.DataFrame) -> tuple[Rows, Rows]:
        """The row of each line that has one, and those lines; the others are counted and told."""
        found = frame.select(self.by).join(index, on=self.by, how="left", maintain_order="left")
        numbers = found.get_column("")
        lines = np.flatnonzero(numbers.is_not_null().to_numpy())
        rows = numbers.drop_nulls().to_numpy().astype(np.int64)
        strange = found.filter(pl.col("").is_null()).get_column(self.by)
        if strange.null_count():
            self.notes.append(
                f"{file.path}: {_counted(strange.null_count(), 'line')} without a {self.by!r}, left out"
            )
        self._tell(file, strange.drop_nulls().unique(maintain_order=True), is_all=not len(lines))
        missing = len(index) - len(np.unique(rows))
        if missing:
            without = index.filter(~pl.col("").is_in(pl.Series(np.unique(rows)).implode()))
            listed = _listed(without.get_column(self.by))
            self.notes.append(f"{file.path} has no vote for {missing:,} of {len(index):,} rows: {listed}")
        return rows, lines

    def _tell_gold(self, file: VoteFile, rows: Rows) -> None:
        if len(rows):
            where = f"{file.path}: the gold of {_counted(len(rows), 'line')} is not that of a file before it"
            self.notes.append(f"{where}, which counts: {self.listed(rows)}")

    def _tell(self, file: VoteFile, strange: pl.Series, *, is_all: bool) -> None:
        if not len(strange):
            return
        are = "is" if len(strange) == 1 else "are"
        told = f"{file.path}: {_counted(len(strange), 'value')} of {self.by!r} {are} no row of the input: "
        told += _listed(strange)
        if is_all:
            raise InputDataError(
                told, remedy="join by a column whose values are the same in all files (input.key)"
            )
        self.notes.append(told)


def open_votes(paths: Sequence[str], *, over: str | None, key: str | None) -> Elections:
    """Find the files and see that each has what is needed. Raises InputMissingError, InputDataError."""
    files = find_votes(paths)
    chosen = over or _usual_column(files)
    by = key or "row"
    files = tuple(_without_voters(file, {chosen, by}) for file in files)
    for file in files:
        for column, what in ((chosen, "consensus.over"), (by, "input.key")):
            if column not in file.schema.names:
                hint = "name the column that tells rows apart in input.key" if column == "row" else ""
                raise InputDataError(
                    f"{file.path} has no column {column!r}" + ("" if column == "row" else f" ({what})"),
                    remedy=hint or _nearest(column, file.schema.names),
                )
        _check_types(file, by)
    return Elections(files, chosen, by)


def _without_voters(file: VoteFile, columns: AbstractSet[str]) -> VoteFile:
    """A column that is the ids' or the votes' does not say who votes."""
    return replace(file, voter_column=None) if file.voter_column in columns else file


def _check_types(file: VoteFile, by: str) -> None:
    """Raises InputDataError for ids and names of voters that are none."""
    found = file.schema.field(by).type
    if by == "row" and not pa.types.is_integer(found):
        raise InputDataError(
            f"{file.path}: the column 'row' is {found}, and rows are whole numbers",
            remedy="name the column that tells rows apart in input.key",
        )
    for column in (by, file.voter_column):
        if column is not None and pa.types.is_nested(file.schema.field(column).type):
            raise InputDataError(
                f"{file.path}: the column {column!r} is {file.schema.field(column).type}, which names nothing",
                remedy="names are text or numbers",
            )


def _usual_column(files: Sequence[VoteFile]) -> str:
    for name in _USUAL_COLUMNS:
        if all(name in file.schema.names for file in files):
            return name
    for name in _USUAL_COLUMNS:  # of the file that lacks it the next check tells
        if any(name in file.schema.names for file in files):
            return name
    raise InputDataError(
        f"{files[0].path}: which column holds the votes?",
        remedy=f"say it in consensus.over; columns: {', '.join(files[0].schema.names[:30])}",
    )


def _check_once(file: VoteFile, rows: Rows, voters: Rows, ids: pl.Series, names: Sequence[str]) -> None:
    cells = rows * len(names) + voters
    found, first, counts = np.unique(cells, return_index=True, return_counts=True)
    if len(found) == len(cells):
        return
    at = first[counts > 1][0]
    raise InputDataError(
        f"{file.path} has {counts[counts > 1][0]} votes of {names[voters[at]]} for {ids[int(rows[at])]!r}",
        remedy="keep one of each; a file of several voters tells them apart in a column voter",
    )


def _shared(ids: Sequence[pl.Series]) -> pl.DataType:
    """A type in which ids of several can be compared."""
    kinds = {some.dtype for some in ids}
    return next(iter(kinds)) if len(kinds) == 1 else pl.String()


def _casts(frame: pl.DataFrame, by: str, kind: pl.DataType) -> pl.DataFrame:
    return frame if frame.get_column(by).dtype == kind else frame.with_columns(pl.col(by).cast(kind))


def _arrow(series: pl.Series) -> pa.Array:
    found = series.to_arrow()
    return found.cast(_plain(found.type))


def _plain(kind: pa.DataType) -> pa.DataType:
    """The types of this package's tables in the place of polars' views and large strings."""
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_list(kind):
        return pa.list_(_plain(kind.value_type))
    return kind


def _is_there(votes: pa.Array) -> npt.NDArray[np.bool_]:
    return np.asarray(votes.is_valid().to_numpy(zero_copy_only=False), np.bool_)


def _voter_of(file: VoteFile) -> pl.Expr:
    voter = pl.col(file.voter_column or "").cast(pl.String).fill_null("?")
    return pl.format("{}#{}", voter, pl.col("sample")) if file.has_samples else voter


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _listed(ids: pl.Series) -> str:
    shown = ", ".join(str(one) for one in ids.head(_SHOWN).to_list())
    return shown + (", …" if len(ids) > _SHOWN else "")


def _nearest(word: str, names: Sequence[str]) -> str:
    near = get_close_matches(word, names, 1)
    hint = f"did you mean {near[0]}? " if near else ""
    return f"{hint}columns: {', '.join(names[:30])}"
