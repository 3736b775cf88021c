"""Which files an input is: one, a pattern, a folder, or a list of these; what is wrong is said before a row is read."""

import glob
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from batchllm.errors import InputDataError, InputMissingError
from batchllm.source.columns import nearest
from batchllm.source.files import Format, InputFile, LocalStore, Store, named_faults, printable
from batchllm.source.formats import ENDINGS, format_of, pick_from_folder
from batchllm.source.remote import expand_uri, is_uri


def find_files(
    path: str | Sequence[str], declared: Format | None
) -> tuple[Format | None, tuple[InputFile, ...]]:
    """All files of the input in reading order, and their one format (None: there are no files)."""
    found: list[tuple[str, Store]] = []
    for one in [path] if isinstance(path, str) else path:
        found += expand_uri(one, declared) if is_uri(one) else expand_local(one, declared)
    _refuse_repeats([name for name, _ in found])
    kind = _one_format([name for name, _ in found], declared)
    labels = _labels([name for name, _ in found])
    return kind, tuple(
        _input_file(name, label, kind, store) for (name, store), label in zip(found, labels, strict=True)
    )


def _input_file(name: str, label: str, kind: Format | None, store: Store) -> InputFile:
    compression = format_of(name)[1]
    if kind == "parquet" and compression is not None:
        raise InputDataError(
            f"{name} is a packed Parquet file", remedy="unpack it; Parquet packs its columns itself"
        )
    with named_faults(name):
        stamp = store.stamp()
        store.open().close()
    return InputFile(name, label, compression, stamp, store)


def expand_local(path: str, declared: Format | None) -> list[tuple[str, Store]]:
    try:
        mode = Path(path).stat().st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):
        if glob.has_magic(path):
            return _expand_glob(path)
        raise _missing(path) from None
    except OSError:
        with named_faults(printable(path)):
            raise
    if stat.S_ISDIR(mode):
        return _expand_folder(path, declared)
    _refuse_stream(path, mode)
    return [(printable(path), LocalStore(path))]


def _refuse_stream(path: str, mode: int) -> None:
    """A pipe can be read once only; a run has to read its input again when it is started again."""
    if not stat.S_ISREG(mode):
        raise InputDataError(
            f"{printable(path)} is no regular file (a pipe, terminal or device)",
            remedy="copy what comes out of it to a file, and name that",
        )


def _expand_glob(pattern: str) -> list[tuple[str, Store]]:
    with named_faults(printable(_fixed_part(pattern))):
        names = sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207  # patterns may be absolute
        if not names and Path(_fixed_part(pattern)).is_dir():
            next(
                Path(_fixed_part(pattern)).iterdir(), None
            )  # glob is silent about folders that it may not read
    found: list[tuple[str, Store]] = []
    for name in names:
        mode = Path(name).stat().st_mode
        if not stat.S_ISDIR(mode):
            _refuse_stream(name, mode)
            found.append((printable(name), LocalStore(name)))
    if not found:
        raise InputMissingError(f"{printable(pattern)} matches no file", remedy=_look_around(pattern))
    return found


def _fixed_part(pattern: str) -> str:
    """The folder before the first wildcard."""
    parts = Path(pattern).parts
    first = next(at for at, part in enumerate(parts) if glob.has_magic(part))
    return str(Path(*parts[:first])) if first else "."


def _expand_folder(path: str, declared: Format | None) -> list[tuple[str, Store]]:
    with named_faults(printable(path)), os.scandir(path) as entries:
        listed = sorted(entries, key=lambda entry: entry.name)
        names = [entry.name for entry in listed if entry.is_file()]
        has_folders = any(entry.is_dir() for entry in listed)
    picked = pick_from_folder(printable(path), names, declared, has_folders=has_folders)
    return [(printable(os.path.join(path, name)), LocalStore(os.path.join(path, name))) for name in picked]  # noqa: PTH118


def _refuse_repeats(names: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputDataError(
                f"{name} is in the input twice; each of its rows would be asked twice",
                remedy="name it once in input.path",
            )
        seen.add(name)


def _one_format(names: Sequence[str], declared: Format | None) -> Format | None:
    if declared is not None:
        return declared
    first: dict[Format, str] = {}
    for name in names:
        kind = format_of(name)[0]
        if kind is None:
            raise InputDataError(
                f"the ending of {name} does not tell its format", remedy=f"say input.format; {ENDINGS}"
            )
        first.setdefault(kind, name)
    if len(first) > 1:
        raise InputDataError(
            f"the input has files of several formats: {', '.join(first.values())}",
            remedy="one job reads one format; make a job for each, or convert the files",
        )
    return next(iter(first), None)


def _labels(names: Sequence[str]) -> list[str]:
    """The last part of each name where that tells them apart, else all that they do not share."""
    parts = [name.split("/") for name in names]
    if len({split[-1] for split in parts}) == len(parts):
        return [split[-1] for split in parts]
    shared = 0
    while len({tuple(split[: shared + 1]) for split in parts}) == 1:
        shared += 1
    return ["/".join(split[shared:]) for split in parts]


def _missing(path: str) -> InputMissingError:
    if path.rsplit("/", 1)[-1] == "-":
        return InputMissingError(
            "the input cannot come from standard input: a run must be able to read it again",
            remedy="copy it to a file, and name that in input.path",
        )
    return InputMissingError(f"no such file or folder: {printable(path)}", remedy=_look_around(path))


def _look_around(path: str) -> str:
    """The nearest name beside the missing one, or the first folder of the way that is missing."""
    parent = Path(path).parent if not glob.has_magic(path) else Path(_fixed_part(path))
    try:
        names = sorted(printable(entry.name) for entry in parent.iterdir())
    except (OSError, ValueError):
        known = next((folder for folder in parent.parents if folder.is_dir()), None)
        return f"there is no folder {printable(str(parent))}" + (
            f"; {printable(str(known))} exists" if known else ""
        )
    near = nearest(printable(Path(path).name), names)
    if near is not None:
        return f'did you mean "{near}"?'
    listed = ", ".join(names[:10]) or "nothing"
    return f"in {printable(str(parent))} there is: {listed}{', …' if len(names) > 10 else ''}"
