"""manifest.json: what the output consists of, replaced as a whole and last.

Readers who want certainty take the parts that it lists; those who read the folders see the same files, except for
the moments in which a run replaces them. Reading it needs nothing else: `nothing to do` is known before anything
heavy is loaded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from batchllm.errors import ChangedJobError, StorageError
from batchllm.journal.files import (
    KINDS,
    STANDING,
    Fault,
    Kind,
    Layout,
    no_fault,
    storage_fault,
    sync_folder,
    write_new,
)
from batchllm.records import LaneInfo

FORMAT = 1


@dataclass(frozen=True, slots=True)
class PartEntry:
    """`path` is relative to the output folder."""

    path: str
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """`rows` and `pending` are None as long as the input has not been counted; `cost_usd` when a price is unknown.

    `ok`, `failed`, `skipped` and `pending` count units of work: rows, or row × slot with `slots` answers to each row,
    `samples` of each lane. `skipped` need not be asked, by a vote on terms whose digest is `skip_terms`. `sections`
    maps names to digests. `uncertain` calls may have been charged without an answer. `mixed`: answers of an earlier
    version of the job were kept; `renewals`: how often another input was taken up.
    """

    job_name: str
    version: str
    complete: bool
    simulated: bool
    slots: int
    rows: int | None
    ok: int
    failed: int
    pending: int | None
    attempts: int
    uncertain: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    fingerprint: str
    sections: Mapping[str, str]
    input_digest: str | None
    lanes: tuple[LaneInfo, ...]
    parts: Mapping[Kind, tuple[PartEntry, ...]]
    created: str
    updated: str
    mixed: bool = False
    renewals: int = 0
    samples: int = 1
    skipped: int = 0
    skip_terms: str | None = None
    format: int = FORMAT


def read_manifest(out: Path) -> Manifest | None:
    """What `out` holds by its own account; None without a manifest. Raises StorageError for a damaged one."""
    path = Layout(out).manifest
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise storage_fault("read", path, error) from error
    try:
        said = orjson.loads(data)
        version = int(said["format"])
        if version == FORMAT:
            return _parsed(said)
    except (orjson.JSONDecodeError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise StorageError(
            f"{path} is damaged: {type(error).__name__}: {error}",
            remedy="remove it and start the job again: it is written anew from the journal, at no cost",
        ) from error
    raise ChangedJobError(
        f"{path} has format {version}; this version of batchllm reads format {FORMAT}",
        remedy="use the version of batchllm that made it, or choose another output path",
    )


def write_manifest(layout: Layout, manifest: Manifest, fault: Fault = no_fault) -> None:
    """Old or new, never a mixture, whatever happens."""
    path = layout.manifest
    draft = layout.state / "manifest.new"
    try:
        draft.unlink(missing_ok=True)
        write_new(draft, orjson.dumps(_dumped(manifest), option=orjson.OPT_INDENT_2) + b"\n", 0o644)
        fault("before_manifest")
        draft.replace(path)
    except OSError as error:
        raise storage_fault("write", path, error) from error
    sync_folder(layout.out)
    fault("after_manifest")


def instant(seconds: float) -> str:
    """UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _dumped(manifest: Manifest) -> dict[str, Any]:
    names = ("format", "job_name", "version", "complete", "simulated", "slots")
    counts = ("rows", "ok", "failed", "skipped", "pending", "attempts", "uncertain")
    return {
        **{name: getattr(manifest, name) for name in names},
        "samples": manifest.samples,
        "counts": {name: getattr(manifest, name) for name in counts},
        "tokens": {"prompt": manifest.prompt_tokens, "completion": manifest.completion_tokens},
        "cost_usd": manifest.cost_usd,
        "fingerprint": manifest.fingerprint,
        "mixed": manifest.mixed,
        "renewals": manifest.renewals,
        "sections": dict(manifest.sections),
        "input_digest": manifest.input_digest,
        "lanes": [lane._asdict() for lane in manifest.lanes],
        "skip_terms": manifest.skip_terms,
        "parts": {
            kind: [asdict(part) for part in parts]
            for kind, parts in manifest.parts.items()
            if parts or kind in STANDING
        },
        "created": manifest.created,
        "updated": manifest.updated,
    }


def _parsed(said: Mapping[str, Any]) -> Manifest:
    counts, tokens = said["counts"], said["tokens"]
    return Manifest(
        job_name=str(said["job_name"]),
        version=str(said["version"]),
        complete=_flag(said["complete"]),
        simulated=_flag(said["simulated"]),
        slots=int(said["slots"]),
        rows=_optional_int(counts["rows"]),
        ok=int(counts["ok"]),
        failed=int(counts["failed"]),
        pending=_optional_int(counts["pending"]),
        attempts=int(counts["attempts"]),
        uncertain=int(counts["uncertain"]),
        prompt_tokens=int(tokens["prompt"]),
        completion_tokens=int(tokens["completion"]),
        cost_usd=None if said["cost_usd"] is None else float(said["cost_usd"]),
        fingerprint=str(said["fingerprint"]),
        sections={str(name): str(value) for name, value in said["sections"].items()},
        input_digest=None if said["input_digest"] is None else str(said["input_digest"]),
        lanes=tuple(LaneInfo(**lane) for lane in said["lanes"]),
        parts={kind: tuple(_entry(kind, part) for part in _parts(said, kind)) for kind in KINDS},
        created=str(said["created"]),
        updated=str(said["updated"]),
        mixed=_flag(said.get("mixed", False)),
        renewals=int(said.get("renewals", 0)),
        samples=int(said.get("samples", 1)),
        skipped=int(counts.get("skipped", 0)),
        skip_terms=None if said.get("skip_terms") is None else str(said["skip_terms"]),
    )


def _parts(said: Mapping[str, Any], kind: Kind) -> Sequence[Mapping[str, Any]]:
    parts: Sequence[Mapping[str, Any]] = (
        said["parts"][kind] if kind in STANDING else said["parts"].get(kind, ())
    )
    return parts


def _entry(kind: Kind, said: Mapping[str, Any]) -> PartEntry:
    """A part lies in the folder of its table: whatever else is named is no part, and nobody's to move."""
    entry = PartEntry(**said)
    if entry.path != f"{kind}/{Path(entry.path).name}":
        raise ValueError(f"{entry.path!r} is no part of {kind}")
    return entry


def _optional_int(value: Any) -> int | None:
    return None if value is None else int(value)


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value
