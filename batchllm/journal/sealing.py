"""The ends of a run: the manifest from what the journal knows, and the step from drained parts to ordered ones.

Completion is one transaction (new parts in, old parts out, `complete`), then the manifest, then the removal of the
old files. Cut off before the transaction, nothing has happened; after it, the next start finishes the rest.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b

import orjson

from batchllm.errors import FullDiskError, InvariantError, StorageError
from batchllm.journal.database import Counts, Database, store_meta
from batchllm.journal.files import KINDS, STANDING, Kind, Layout
from batchllm.journal.manifest import Manifest, PartEntry, instant, read_manifest, write_manifest
from batchllm.journal.merge import merged, never, plan_rewriting, widest_overlap
from batchllm.journal.parts import PartInfo, Sealed, Store, abandon_all, publish
from batchllm.journal.recovery import purge
from batchllm.journal.slots import Slots
from batchllm.records import LaneInfo

#: A part is tiny when it holds less than this fraction of what a drain waits for.
_TINY_SHARE = 16


def check_manifest(database: Database, layout: Layout) -> None:
    """A manifest never knows more than the journal. Where it does, an old or headless journal was put in place."""
    manifest = read_manifest(layout.out)
    if manifest is None:
        return
    known = {f"{kind}/{name}" for kind, name in database.rows("SELECT kind, name FROM parts")}
    unknown = [part.path for parts in manifest.parts.values() for part in parts if part.path not in known]
    # Answers leave with their rows when another input is taken up, or when they are given up: only then the journal
    # may hold less.
    is_ahead = (manifest.renewals, manifest.ok) > (renewals(database), database.counts().ok)
    if unknown or is_ahead:
        what = f"does not know {unknown[0]}" if unknown else f"lacks answers ({manifest.ok} are listed)"
        raise StorageError(
            f"{database.path} is older than {layout.manifest}: it {what}",
            remedy="put back the whole .batchllm folder as the last run left it (journal.db-wal belongs to it), or run"
            " `batchllm rebuild JOB`, which makes the journal anew from the parts",
        )


def renewals(database: Database) -> int:
    """How often answers may have left the record: for another input, with a lost part, by another schema."""
    return int(database.meta("renewals") or 0)


def is_complete(database: Database) -> bool:
    return database.meta("complete") == "1"


def mark_incomplete(store: Store, now_s: float) -> Manifest:
    """More is to come: the manifest does not say (any more) that this is all."""
    if is_complete(store.database):
        with store.database.transaction() as connection:
            store_meta(connection, "complete", "0")
    return save_manifest(store, now_s)


def save_manifest(store: Store, now_s: float) -> Manifest:
    manifest = compose_manifest(store, now_s)
    write_manifest(store.layout, manifest, store.fault)
    return manifest


def compose_manifest(store: Store, now_s: float) -> Manifest:
    database = store.database
    counts = database.counts()
    slots = int(database.meta("slots") or 1)
    rows = _optional_int(database.meta("input_rows"))
    pending = None if rows is None else rows * slots - counts.settled
    lanes = tuple(
        LaneInfo(name, provider, model, bool(simulated))
        for name, provider, model, simulated in database.rows(
            "SELECT name, provider, model, simulated FROM lanes ORDER BY lane"
        )
    )
    sections = orjson.loads(database.meta("sections") or "{}")
    return Manifest(
        job_name=database.meta("job_name") or "",
        version=database.meta("version") or "",
        complete=is_complete(database),
        simulated=any(lane.is_simulated for lane in lanes),
        slots=slots,
        rows=rows,
        ok=counts.ok,
        failed=counts.failed,
        pending=None if pending is None else max(0, pending),
        attempts=counts.attempts,
        uncertain=counts.uncertain,
        prompt_tokens=counts.prompt_tokens,
        completion_tokens=counts.completion_tokens,
        cost_usd=None if counts.unpriced else counts.cost_usd,
        fingerprint=database.meta("fingerprint") or "",
        sections={name: section_digest(text) for name, text in sections.items()},
        input_digest=database.meta("input_digest"),
        lanes=lanes,
        parts={kind: tuple(_entry(part) for part in store.parts(kind)) for kind in KINDS},
        created=instant(float(database.meta("created") or now_s)),
        updated=instant(now_s),
        mixed=database.meta("mixed") == "1",
        renewals=renewals(database),
        samples=Slots.of(orjson.loads(database.meta("slot_lanes") or "[]"), slots).samples,
        skipped=counts.skipped,
        skip_terms=database.meta("skip_terms"),
    )


def section_digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=16).hexdigest()


def narrow_overlap(store: Store, kind: Kind, now_s: float, is_late: Callable[[], bool] = never) -> None:
    """Merge parts in groups until no more overlap than may be open at a time.

    Parts of one run overlap with their neighbours; those of a record whose rows have moved may overlap with all.
    """
    most = store.sizes.merge_parts
    before = -1
    while (wide := widest_overlap(parts := plan_rewriting(store.parts(kind), store.sizes).merged)) > most:
        if wide == before:
            break  # full parts of one and the same row, such as calls whose rows are gone: nothing narrows them
        before = wide
        ordered = sorted((part for part in parts if part.rows), key=lambda part: part.min_row or 0)
        for start in range(0, len(ordered), most):
            group = ordered[start : start + most]
            if len(group) > 1:
                _exchange(store, kind, group, is_late)
                save_manifest(store, now_s)
                purge(store)


def join_tiny_parts(store: Store, now_s: float) -> None:
    """Each stop seals what it has: a job that is stopped a hundred times is not to be a hundred files."""
    sizes = store.sizes
    most = sizes.merge_parts
    for kind in KINDS:
        while True:
            tiny = [
                part
                for part in store.parts(kind)
                if part.rows * _TINY_SHARE < sizes.drain_rows and part.bytes * _TINY_SHARE < sizes.drain_bytes
            ]
            if len(tiny) < most:
                break
            _exchange(store, kind, tiny[:most])
            save_manifest(store, now_s)
            purge(store)


def _exchange(
    store: Store, kind: Kind, group: Sequence[PartInfo], is_late: Callable[[], bool] = never
) -> None:
    """In the place of these parts others with the same rows, in order."""
    sealed = merged(store, kind, group, is_late)
    try:
        publish(store, sealed)
    except BaseException:
        abandon_all(store, [part.intent for part in sealed])
        raise
    _commit(store, sealed, retired=group)


def complete_parts(store: Store, now_s: float, is_late: Callable[[], bool] = never) -> None:
    """Put all tables in input order and mark the record as complete. Everything is drained already.

    Raises MergeStopped once `is_late`, with nothing complete and nothing lost.
    """
    for kind in KINDS:
        narrow_overlap(store, kind, now_s, is_late)
    sealed: list[Sealed] = []
    retired: list[PartInfo] = []
    try:
        for kind in KINDS:
            parts = store.parts(kind)
            if not parts and kind not in STANDING:
                continue
            plan = plan_rewriting(parts, store.sizes)
            retired += [*plan.merged, *plan.dropped]
            if plan.makes_parts:
                sealed += merged(store, kind, plan.merged, is_late)
        publish(store, sealed)
    except BaseException:
        abandon_all(store, [part.intent for part in sealed])
        raise
    _commit(store, sealed, retired=retired, is_complete=True)


def add_empty_parts(store: Store) -> None:
    """A standing table always has a part, if one without rows: readers find the columns at least."""
    sealed: list[Sealed] = []
    try:
        for kind in STANDING:
            if not store.parts(kind):
                sealed += merged(store, kind, [])
        publish(store, sealed)
    except BaseException:
        abandon_all(store, [part.intent for part in sealed])
        raise
    if sealed:
        _commit(store, sealed)


def _commit(
    store: Store, sealed: Sequence[Sealed], *, retired: Sequence[PartInfo] = (), is_complete: bool = False
) -> None:
    """A commit that failed may still be found committed by the next start; one without space was undone for sure."""
    try:
        store.commit(sealed, retired=retired, is_complete=is_complete)
    except FullDiskError:
        abandon_all(store, [part.intent for part in sealed])
        raise


def rewritten_bytes(store: Store) -> int:
    """What completing the parts will write: the old ones go only when the new ones are there."""
    plans = [plan_rewriting(store.parts(kind), store.sizes) for kind in KINDS]
    return sum(part.bytes for plan in plans for part in plan.merged)


def check_count(counts: Counts, expected: int) -> None:
    """Nothing is complete while a unit is missing, or counted twice."""
    off = expected - counts.settled
    if not off:
        return
    side = f"{off} have no outcome" if off > 0 else f"{-off} outcomes are too many"
    skipped = f" ({counts.skipped} skipped)" if counts.skipped else ""
    raise InvariantError(
        f"{counts.ok} answers and {counts.failed} failures{skipped} for {expected} units of work: {side}",
        remedy="nothing is lost: start again to fill what is missing; report this as a bug",
    )


def _entry(part: PartInfo) -> PartEntry:
    return PartEntry(f"{part.kind}/{part.name}", part.rows, part.bytes, part.sha256)


def _optional_int(text: str | None) -> int | None:
    return None if text is None else int(text)
