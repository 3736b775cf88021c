"""Which files hold votes, and by which name each voter goes.

    votes.parquet            one voter, or those of its column `voter` (or `lane`, with `sample` beside it)
    folder/                  its Parquet files together are one such file
    an output                one voter, whichever lanes it was spread over; its lanes where each answered each row
    votes/*.parquet          what matches the first wildcard is one of these, called by what it matched there

So `runs/*/output/*.parquet` has a voter for each folder in runs/, whose votes are in all files of it that match. Files
of an output's own folder `output` are that output, however they were named.
"""

import glob
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from batchllm.errors import InputDataError, InputMissingError
from batchllm.journal.manifest import Manifest, read_manifest

_VOTER_COLUMNS = ("voter", "lane")
_ESCAPED = re.compile(r"\[[*?[]\]")
_WILD = re.compile(r"[*?[]")
_SHOWN = 10
#: Of endings that others write: what makes a frame of such a file.
_READERS = {".jsonl": "read_ndjson", ".ndjson": "read_ndjson", ".json": "read_json", ".csv": "read_csv"}
_ONE_VOTER = (
    "the files of a folder are one file of votes; name files one by one where they are of several voters"
)


@dataclass(frozen=True, slots=True)
class VoteFile:
    """One of the places that hold votes. `voter_column` None: all votes are `name`'s.

    `skipped`: files of what an output did not ask its lanes, since the votes before had settled the row.
    """

    path: str
    name: str
    parts: tuple[Path, ...]
    schema: pa.Schema
    voter_column: str | None
    skipped: tuple[Path, ...] = ()

    @property
    def has_samples(self) -> bool:
        return self.voter_column == "lane" and "sample" in self.schema.names

    def frame(self, columns: Sequence[str]) -> pl.DataFrame:
        """The first column is the ids'. Raises InputDataError."""
        names = [name for name in dict.fromkeys(columns) if name in self.schema.names]
        return self._read(self.parts, names)

    def skipped_frame(self, columns: Sequence[str]) -> pl.DataFrame:
        """Of those of the columns that say who was not asked about which row."""
        return self._read(self.skipped, columns)

    def _read(self, parts: Sequence[Path], names: Sequence[str]) -> pl.DataFrame:
        try:
            return _with_whole_ids(pl.scan_parquet(list(parts), glob=False).select(names).collect(), names[0])
        except (pl.exceptions.PolarsError, OSError) as error:
            odd = _unlike(parts, names)
            if odd is not None:
                message, remedy = odd
                raise InputDataError(message, remedy=remedy) from error
            raise InputDataError(f"{self.path} cannot be read: {error}", remedy="write it anew") from error


def find_votes(paths: Sequence[str]) -> tuple[VoteFile, ...]:
    """In the order named, those of a pattern by their paths. Raises InputMissingError, InputDataError."""
    return _told_apart([file for path in paths for file in _found(path)])


def _found(text: str) -> list[VoteFile]:
    literal = Path(text) if Path(text).exists() else Path(_unescaped(text))
    if literal.exists() or not _is_wild(text):
        return [_vote_file(literal)]
    matched = [Path(name) for name in sorted(glob.glob(text, recursive=True))]  # noqa: PTH207  # may be absolute
    if not matched:
        raise InputMissingError(f"{_unescaped(text)} matches no file or folder", remedy=_look_around(text))
    depth = next(at for at, part in enumerate(Path(text).parts) if _is_wild(part))
    is_deep = Path(text).parts[depth] == "**"
    homes: dict[Path, list[Path]] = {}
    for path in matched:
        if is_deep and path.is_dir():
            continue
        home = _owner(path.parent) or (path.parent if is_deep else Path(*path.parts[: depth + 1]))
        homes.setdefault(home, []).append(path)
    return [
        _vote_file(home) if members == [home] else _together(home, members) for home, members in homes.items()
    ]


def _is_wild(text: str) -> bool:
    """Whether it is a pattern; what is escaped in it stands for itself."""
    return bool(_WILD.search(_ESCAPED.sub("", text)))


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: found[0][1], text)


def _look_around(pattern: str) -> str:
    fixed = Path()
    for part in Path(pattern).parts:
        if _is_wild(part):
            break
        fixed /= _unescaped(part)
    if not fixed.is_dir():
        return f"there is no folder {fixed}"
    names = sorted(path.name for path in fixed.iterdir())
    more = ", …" if len(names) > _SHOWN else ""
    return f"in {fixed} there is: {', '.join(names[:_SHOWN]) or 'nothing'}{more}"


def _vote_file(path: Path) -> VoteFile:
    if not path.exists():
        raise InputMissingError(
            f"there are no votes at {path}", remedy="consensus.votes names files and folders"
        )
    if path.is_dir():
        out = path if (path / "manifest.json").exists() else _owner(path)
        return _folder(path) if out is None else _output(out)
    out = _owner(path.parent)
    has_voters = out is None or _has_voters(read_manifest(out))
    return _with_schema(str(path), path.stem, [path], may_have_voters=has_voters)


def _owner(folder: Path) -> Path | None:
    """The output whose answers are in this folder."""
    out = folder.parent
    return out if folder.name == "output" and (out / "manifest.json").exists() else None


def _output(out: Path) -> VoteFile:
    manifest = read_manifest(out)
    found = _with_schema(
        str(out), out.name, _listed_parts(out, manifest), may_have_voters=_has_voters(manifest)
    )
    return replace(found, skipped=_skipped_parts(out, manifest))


def _folder(path: Path) -> VoteFile:
    return _with_schema(str(path), path.name, sorted(path.glob("*.parquet")), may_have_voters=True)


def _together(home: Path, members: Sequence[Path]) -> VoteFile:
    """What of a home matches. Of an output's files only those that its manifest lists are votes."""
    parts: list[Path] = []
    skipped: list[Path] = []
    has_voters = True
    for path in members:
        found = [_vote_file(path)] if path.is_dir() else []
        parts += found[0].parts if found else [path]
    for out in dict.fromkeys(filter(None, (_owner(part.parent) for part in parts))):
        manifest = read_manifest(out)
        listed = set(_listed_parts(out, manifest))
        parts = [part for part in parts if part.parent != out / "output" or part in listed]
        has_voters = has_voters and _has_voters(manifest)
        skipped += _skipped_parts(out, manifest)
    name = home.name if home.is_dir() else home.stem
    return replace(_with_schema(str(home), name, parts, may_have_voters=has_voters), skipped=tuple(skipped))


def _listed_parts(out: Path, manifest: Manifest | None) -> list[Path]:
    return [] if manifest is None else [out / part.path for part in manifest.parts["output"]]


def _skipped_parts(out: Path, manifest: Manifest | None) -> tuple[Path, ...]:
    listed = () if manifest is None else manifest.parts.get("skipped", ())
    return tuple(out / part.path for part in listed)


def _has_voters(manifest: Manifest | None) -> bool:
    """Where each row has one answer, its lane is no voter."""
    return manifest is not None and manifest.slots > 1


def _with_schema(text: str, name: str, parts: Sequence[Path], *, may_have_voters: bool) -> VoteFile:
    if not parts:
        raise InputMissingError(f"{text} holds no Parquet files", remedy="consensus.votes reads Parquet only")
    try:
        schema = pq.read_schema(parts[0])
    except (OSError, pa.ArrowException) as error:
        raise InputDataError(
            f"{parts[0]} cannot be read as Parquet: {error}", remedy=_conversion(parts[0])
        ) from error
    column = next((one for one in _VOTER_COLUMNS if one in schema.names), None)
    return VoteFile(text, name, tuple(parts), schema, column if may_have_voters else None)


def _conversion(path: Path) -> str:
    """How a file becomes one that is read here."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        return "consensus.votes reads Parquet only; write it anew"
    return (
        "consensus.votes reads Parquet only; this makes one of it:"
        f" python -c \"import polars; polars.{reader}('{path}').write_parquet('{path.with_suffix('.parquet').name}')\""
    )


def _unlike(parts: Sequence[Path], names: Sequence[str]) -> tuple[str, str] | None:
    """Which of several files lacks a column, or has it as another type than the first; and what to do."""
    first: pa.Schema | None = None
    for path in parts:
        try:
            schema = pq.read_schema(path)
        except (OSError, pa.ArrowException) as error:
            return f"{path} cannot be read as Parquet: {error}", "write it anew, or take it out of the folder"
        first = first or schema
        for name in names:
            if name not in schema.names:
                return f"{path} has no column {name!r}, which {parts[0].name} beside it has", _ONE_VOTER
            if schema.field(name).type != first.field(name).type:
                said = f"{schema.field(name).type}, and {first.field(name).type} in {parts[0].name}"
                return f"{path}: the column {name!r} is {said} beside it", _ONE_VOTER
    return None


def _told_apart(files: Sequence[VoteFile]) -> tuple[VoteFile, ...]:
    """Files of one name are called by as much of their paths as tells them apart. Raises InputDataError."""
    _refuse_repeats(files)
    told = []
    for file in files:
        rivals = [Path(other.path) for other in files if other is not file and other.name == file.name]
        told.append(replace(file, name=_longer_name(Path(file.path), file.name, rivals)))
    return tuple(told)


def _refuse_repeats(files: Iterable[VoteFile]) -> None:
    seen: set[Path] = set()
    for file in files:
        parts = {part.resolve() for part in file.parts}
        if parts & seen:
            raise InputDataError(
                f"{file.path} is named twice in consensus.votes", remedy="its votes would count twice"
            )
        seen |= parts


def _longer_name(path: Path, name: str, rivals: Sequence[Path]) -> str:
    """`name` with as many of its folders before it as no rival has; with its ending where that is all that differs."""
    if any(path.parent == rival.parent for rival in rivals):
        name = path.name
    for depth in range(len(path.parent.parts) + 1):
        folders = path.parent.parts[len(path.parent.parts) - depth :]
        if all(
            rival.parent.parts[len(rival.parent.parts) - depth :] != folders or path.parent == rival.parent
            for rival in rivals
        ):
            return "/".join([*folders, name])
    return str(path)


def _with_whole_ids(frame: pl.DataFrame, by: str) -> pl.DataFrame:
    """Whole numbers that are written as floats, as pandas does where one is missing, are whole numbers."""
    ids = frame.get_column(by)
    if not ids.dtype.is_float():
        return frame
    numbers = ids.fill_nan(None)
    known = numbers.drop_nulls()
    is_whole = bool(((known == known.round()) & (known.abs() < 2**53)).all())
    return frame.with_columns(numbers.cast(pl.Int64)) if is_whole else frame
