"""What a start does about what the run before left half done.

It only has to look at `parts`: an intent was never committed, so its two files go; a committed part must be there;
a retired one goes, once the manifest names it no more. Files that nobody knows of are reported and left alone.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from batchllm.errors import StorageError
from batchllm.journal import pending
from batchllm.journal.files import KINDS, Kind, Layout, remove_files
from batchllm.journal.parts import Intent, PartInfo, Store

_DROP = "run `batchllm rebuild JOB --drop-missing`, after which"
_GIVEN_UP: Mapping[Kind, str] = {
    "output": f"{_DROP} its rows are asked, and paid for, again",
    "failures": f"{_DROP} its rows are asked, and paid for, again",
    "usage": f"{_DROP} these calls are in the totals alone; nothing is asked again for that",
    "skipped": f"{_DROP} its answers are pending again",
}


def recover(store: Store, write_manifest: Callable[[], object]) -> list[Path]:
    """Finish or undo what an earlier run left half done; returns files that nobody knows of.

    Raises StorageError when a committed part is missing or has another size.
    """
    for line in store.database.rows("SELECT part, kind, name, hi_seq FROM parts WHERE state = 'intent'"):
        store.abandon(Intent(*line))
    committed = [part for kind in KINDS for part in store.parts(kind)]
    for part in committed:
        _check_present(store.layout.part(part.kind, part.name), part)
    remove_files(
        [draft for part in committed if (draft := store.layout.draft(part.name)).is_file()],
    )
    retired = store.database.rows("SELECT kind, name FROM parts WHERE state = 'retired'")
    if retired and store.database.meta(pending.NOTE) is None:  # else a manifest would speak of two inputs
        write_manifest()
        purge(store)
    known = {store.layout.part(part.kind, part.name) for part in committed}
    return _unknown(store.layout, known | {store.layout.part(kind, name) for kind, name in retired})


def purge(store: Store) -> None:
    """Remove the files of retired parts. The manifest that no longer names them is durable before this."""
    retired = store.database.rows("SELECT kind, name FROM parts WHERE state = 'retired'")
    for kind, name in retired:
        store.fault("before_unlink")
        remove_files([store.layout.part(kind, name)])
    if retired:
        with store.database.transaction() as connection:
            connection.execute("DELETE FROM parts WHERE state = 'retired'")


def _check_present(path: Path, part: PartInfo) -> None:
    size = path.stat().st_size if path.is_file() and not path.is_symlink() else None
    if size != part.bytes:
        how = "is missing" if size is None else f"has {size} bytes instead of {part.bytes}"
        raise StorageError(
            f"{path} {how}: {_lost(part)}", remedy=f"put the file back from a copy; or {_GIVEN_UP[part.kind]}"
        )


def _lost(part: PartInfo) -> str:
    what = {"usage": "calls", "skipped": "skipped answers"}.get(part.kind, "finished rows")
    return f"{part.rows} {what} ({part.min_row} to {part.max_row}) were in it"


def _unknown(layout: Layout, known: set[Path]) -> list[Path]:
    folders = [folder for folder in map(layout.folder, KINDS) if folder.is_dir()]
    found = [path for folder in folders for path in folder.iterdir()]
    found += layout.state.glob("part-*.tmp")
    return sorted(path for path in found if path not in known)
