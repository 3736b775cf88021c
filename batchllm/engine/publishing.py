"""OUT/consensus and OUT/report.html, replaced as a whole once everything in them is known.

A kill leaves the earlier consensus, or the new one; parts that agreement.json does not list are an earlier one's or
nobody's, and go with the next start.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from batchllm.consensus.concluding import Decided, Facts, figures
from batchllm.consensus.motion import Motion
from batchllm.consensus.table import (
    Identities,
    Outcome,
    remove_others,
    show_table,
    write_table,
)
from batchllm.errors import StorageError
from batchllm.journal.files import mapped_faults, sync_folder, write_new
from batchllm.journal.manifest import Manifest
from batchllm.journal.parts import open_part

AGREEMENT_FILE = "agreement.json"
#: Of what agreement.json holds: one of another form is written anew.
_FORM = 2


@dataclass(frozen=True, slots=True)
class Edition:
    """What is published, and whose it is. `stamp`: by which it is known whether anything has changed since.

    `offline`: the job whose votes were there already, so that they can be looked at again. `failed_beside`: rows that
    lanes asked beside the voters gave up, by role.
    """

    out: Path
    job: str
    motion: Motion
    decided: Decided
    facts: Facts
    rows: Identities
    key: pa.Field | None
    carried: Sequence[pa.Field]
    stamp: str
    is_simulated: bool = False
    notes: Sequence[str] = ()
    failed_beside: Mapping[str, int] = field(default_factory=dict)
    offline: Mapping[str, object] | None = None


def publish(edition: Edition) -> dict[str, Any]:
    """Write all of it; what agreement.json holds. Raises StorageError."""
    out, found = edition.out, edition.decided
    outcome = Outcome(found.poll, edition.motion.terms, found.decisions)
    parts = write_table(out, outcome, edition.rows, key=edition.key, carried=edition.carried)
    told = {
        **figures(outcome, edition.motion, found.weighed, edition.facts),
        "job": edition.job,
        "simulated": edition.is_simulated,
        "given": given_section(edition.motion),
        "notes": list(edition.notes),
        "failed_beside": dict(edition.failed_beside),
        "offline": edition.offline,
        "parts": [asdict(part) for part in parts],
        "stamp": edition.stamp,
    }
    show_table(out, parts)
    _replace(out / "consensus" / AGREEMENT_FILE, orjson.dumps(told, option=orjson.OPT_INDENT_2) + b"\n")
    remove_others(out, [part.path for part in parts])
    _report(out, told)
    return told


def read_agreement(out: Path) -> dict[str, Any] | None:
    """None where there is none. Raises StorageError for a damaged one."""
    path = out / "consensus" / AGREEMENT_FILE
    with mapped_faults("read", path):
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
    try:
        said = orjson.loads(data)
    except orjson.JSONDecodeError:
        said = None
    if isinstance(said, dict) and _is_whole(said):
        return said
    raise StorageError(
        f"{path} is damaged", remedy="remove it: `batchllm consensus` or the next run writes it anew"
    )


def _is_whole(said: Mapping[str, Any]) -> bool:
    offline = said.get("offline")
    is_offline_job = isinstance(offline, dict) and isinstance(offline.get("consensus"), dict)
    has_rest = isinstance(said.get("given"), dict) and isinstance(said.get("parts"), list)
    return has_rest and (offline is None or is_offline_job)


def is_current(out: Path, stamp: str) -> dict[str, Any] | None:
    """The agreement that is there, if it is of this very record and section, and its files and its page are there."""
    try:
        told = read_agreement(out)
    except StorageError:
        return None
    if told is None or told.get("stamp") != stamp:
        return None
    paths = [str(part["path"]) for part in told["parts"]]
    if not all((out / path).is_file() for path in paths) or not _has_page(out, told):
        return None
    remove_others(out, paths)
    return told


def _has_page(out: Path, told: Mapping[str, Any]) -> bool:
    """A kill may have left the page of an earlier edition: each says when its edition was made."""
    path = out / "report.html"
    with mapped_faults("read", path):
        return path.is_file() and str(told.get("created")).encode() in path.read_bytes()


def given_section(motion: Motion) -> dict[str, Any]:
    """The section as the job gives it, without keys: what `batchllm consensus` begins with."""
    secrets = {"api_key", "headers", "base_url"}
    lane = dict.fromkeys(secrets, True)
    return motion.section.model_dump(
        mode="json",
        by_alias=True,
        exclude_unset=True,
        exclude={"judge": {"lane": lane}, "ties": {"escalate": lane}, "similarity": {"embed": lane}},
    )


def stamp_of(motion: Motion, manifests: Sequence[Manifest | None], version: str, *, has_asked: bool) -> str:
    """Equal as long as neither the records nor the section change. `has_asked`: all was asked that had to be."""
    told = {
        "version": version,
        "form": _FORM,
        "section": given_section(motion),
        "voters": motion.voters,
        "has_asked": has_asked,
        "records": [None if one is None else _record(one) for one in manifests],
    }
    return sha256(orjson.dumps(told, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _record(manifest: Manifest) -> dict[str, object]:
    return {
        "complete": manifest.complete,
        "rows": manifest.rows,
        "input": manifest.input_digest,
        "parts": [part.sha256 for kind in manifest.parts.values() for part in kind],
    }


def _replace(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.new")
    with mapped_faults("write", path):
        draft.unlink(missing_ok=True)
        write_new(draft, data, 0o644)
        draft.replace(path)
        sync_folder(path.parent)


def _report(out: Path, told: Mapping[str, Any]) -> None:
    from batchllm.report.page import write_report

    write_report(told, _table(out, told), out, job=str(told["job"]), is_simulated=bool(told["simulated"]))


def _table(out: Path, told: Mapping[str, Any]) -> Iterator[pa.RecordBatch]:
    """What was just written, a batch after the other."""
    for part in told["parts"]:
        with open_part(out / part["path"]) as file:
            yield from file.iter_batches(1 << 14)
