"""The format of a file, by its name; and which files of a folder are the input."""

import os
from collections.abc import Sequence

from batchllm.errors import InputDataError, InputMissingError
from batchllm.source.files import Compression, Format

_FORMATS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_COMPRESSIONS: dict[str, Compression] = {".gz": "gzip", ".zst": "zstd"}
ENDINGS = "known endings: .jsonl, .ndjson, .csv (also with .gz or .zst), .parquet, .pq"


def format_of(name: str) -> tuple[Format | None, Compression | None]:
    """By the name's ending."""
    stem, ending = os.path.splitext(name.lower())  # noqa: PTH122  # of a name, which may be a URI's
    compression = _COMPRESSIONS.get(ending)
    if compression is not None:
        ending = os.path.splitext(stem)[1]  # noqa: PTH122
    return _FORMATS.get(ending), compression


def pick_from_folder(
    folder: str, names: Sequence[str], declared: Format | None, *, has_folders: bool
) -> list[str]:
    """The input files among a folder's: those of one format; hidden ones and markers such as _SUCCESS are none."""
    names = [name for name in names if not name.startswith((".", "_"))]
    known = {name: kind for name in names if (kind := format_of(name)[0]) is not None}
    if declared is not None:
        picked = [name for name in names if known.get(name) == declared] or [
            name for name in names if name not in known
        ]
        if not picked:
            raise _nothing_in(folder, f"no {declared} file", names, has_folders=has_folders)
        return picked
    kinds = sorted(set(known.values()))
    if len(kinds) > 1:
        examples = ", ".join(next(name for name in known if known[name] == kind) for kind in kinds)
        raise InputDataError(
            f"{folder} holds files of several formats: {examples}",
            remedy=f"name one kind with a pattern such as {folder}/*.{kinds[0]}, or say input.format",
        )
    if known:
        return list(known)
    if names:
        raise InputDataError(
            f"{folder} holds no file of a known format, but {names[0]}",
            remedy=f"say input.format; {ENDINGS}",
        )
    raise _nothing_in(folder, "no input file", names, has_folders=has_folders)


def _nothing_in(folder: str, lacks: str, names: Sequence[str], *, has_folders: bool) -> InputMissingError:
    if has_folders and not names:
        return InputMissingError(
            f"{folder} holds only folders, and they are not searched",
            remedy=f"name the files with a pattern such as {folder}/**/*.parquet",
        )
    but = f", but {names[0]}" if names else ""
    return InputMissingError(
        f"{folder} holds {lacks}{but}",
        remedy=f"{ENDINGS}; names that begin with . or _ are passed over",
    )
