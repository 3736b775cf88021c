"""What a broken and resumed job must hold: against an unbroken run, and against what its provider was paid for.

`faults` is the whole judgement on an output; each fault is a sentence. `Bill` says what was bought again.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

KINDS = ("output", "failures", "usage")
#: What a run leaves: the journal, the lock, which is never removed, and one file of marks of its rows.
_STATE_FILES = ("journal.db", "lock", "marks", "status.json")
#: Of an answer, what follows from the row; times, tries and the provider's own numbers differ from run to run.
_ANSWER = ("row", "id", "gold", "content", "finish_reason", "lane", "provider", "model")
_ANSWER_COST = ("prompt_tokens", "completion_tokens", "cost_usd")
_FAILURE = ("row", "id", "class", "message", "lane", "attempts")
_TOLD = re.compile(r"up to ([\d,]+) calls were in flight and may be paid twice, for at most \$([\d,.]+)")
_DUST_USD = 1e-9


class Purchase(NamedTuple):
    """A request that the provider let in and bills."""

    text: str
    at_s: float
    latency_s: float
    prompt_tokens: int
    completion_tokens: int

    @property
    def answered_s(self) -> float:
        return self.at_s + self.latency_s


def read_purchases(ledger: Path, start: int = 0) -> list[Purchase]:
    """From byte `start` of the ledger on; a line that is being written is left for later."""
    if not ledger.exists():
        return []
    with ledger.open("rb") as file:
        file.seek(start)
        lines = file.read().split(b"\n")[:-1]
    found = []
    for line in lines:
        entry = json.loads(line)
        if entry["verdict"] == "accepted" and entry["prompt_tokens"]:
            found.append(
                Purchase(
                    entry["text"],
                    entry["at_s"],
                    entry["latency_s"],
                    entry["prompt_tokens"],
                    entry["completion_tokens"],
                )
            )
    return found


@dataclass(frozen=True, slots=True)
class Told:
    """What a start said of runs before it: so many calls, so much money may be paid twice."""

    calls: int = 0
    usd: float = 0.0


def told(stderr: str) -> Told:
    """The last that was said, which holds what was said before; nothing said is nothing at risk."""
    found = _TOLD.findall(stderr)
    if not found:
        return Told()
    calls, usd = found[-1]
    return Told(int(calls.replace(",", "")), float(usd.replace(",", "")))


@dataclass(frozen=True, slots=True)
class Held:
    """What an output folder holds, as readers see it."""

    answers: Sequence[tuple[object, ...]]
    costs: Sequence[tuple[object, ...]]
    failures: Sequence[tuple[object, ...]]
    usage_rows: Sequence[int]
    schemas: Mapping[str, Sequence[pa.Schema]]


def read_held(out: Path) -> Held:
    """All files of the folders in the order of their names, with their pages' checksums. Raises for unreadable ones."""
    tables: dict[str, pa.Table] = {}
    schemas: dict[str, list[pa.Schema]] = {}
    for kind in KINDS:
        found = [
            pq.read_table(path, page_checksum_verification=True) for path in sorted((out / kind).iterdir())
        ]
        schemas[kind] = [table.schema for table in found]
        tables[kind] = pa.concat_tables(found) if found else pa.table({})
    usage = tables["usage"]
    return Held(
        _lines(tables["output"], _ANSWER),
        _lines(tables["output"], _ANSWER_COST),
        _lines(tables["failures"], _FAILURE),
        [row for row, billed in _lines(usage, ("row", "billed")) if billed == "yes"],
        schemas,
    )


def _lines(table: pa.Table, names: Sequence[str]) -> list[tuple[Any, ...]]:
    if not table.num_columns:
        return []
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))


@dataclass(frozen=True, slots=True)
class Expected:
    """An unbroken run's output, and the text of each row that is sent."""

    held: Held
    texts: Mapping[str, str]  # text → id

    @property
    def rows(self) -> int:
        return len(self.held.answers) + len(self.held.failures)


def expected_of(out: Path, rows: Path) -> Expected:
    """From an unbroken run. Raises ValueError unless it has an answer or a failure for each row of the input."""
    given = [json.loads(line) for line in rows.read_text("utf-8").splitlines()]
    held = read_held(out)
    texts = {row["text"]: row["id"] for row in given if "text" in row}
    if [line[1] for line in held.answers] != list(texts.values()) or len(given) - len(texts) != len(
        held.failures
    ):
        raise ValueError("the unbroken run has not answered what it was given")
    return Expected(held, texts)


@dataclass(frozen=True, slots=True)
class Bill:
    """`again`: calls that were paid for beyond the one that each answer needs; `lost`: answers that are not there."""

    again: int
    again_usd: float
    lost: int


def bill(purchases: Sequence[Purchase], held: Held, expected: Expected, prices: tuple[float, float]) -> Bill:
    """`prices` in dollars for a million tokens, prompt and answer."""
    have = {line[1] for line in held.answers}
    bought = [one for one in purchases if one.text in expected.texts]
    paid_usd = sum(one.prompt_tokens * prices[0] + one.completion_tokens * prices[1] for one in bought) / 1e6
    kept_usd = sum(float(str(cost)) for _, _, cost in held.costs)
    return Bill(len(bought) - len(have), paid_usd - kept_usd, len(set(expected.texts.values()) - have))


def faults(out: Path, purchases: Sequence[Purchase], expected: Expected) -> list[str]:
    """All that is wrong with a job that has ended."""
    try:
        held = read_held(out)
        manifest = json.loads((out / "manifest.json").read_bytes())
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        return [f"the output cannot be read: {type(error).__name__}: {error}"]
    found = [
        *_wrong_rows(held, expected),
        *_wrong_manifest(out, manifest, expected),
        *_wrong_files(out, manifest),
        *_wrong_books(purchases, held, expected),
    ]
    if not _is_within(manifest["cost_usd"], sum(float(str(cost)) for _, _, cost in held.costs)):
        found.append(f"the manifest says {manifest['cost_usd']} USD, which is not what the answers cost")
    return found


def _wrong_rows(held: Held, expected: Expected) -> Iterator[str]:
    rows = [line[0] for line in held.answers]
    if twice := [row for row, times in Counter(rows).items() if times > 1]:
        yield f"rows are there twice: {twice[:5]}"
    if rows != sorted(rows, key=int):
        yield "answers are not in the order of the input"
    if lost := sorted(set(expected.held.answers) - set(held.answers)):
        yield f"{len(lost)} answers are missing or other ones: {lost[:3]}"
    if foreign := sorted(set(held.answers) - set(expected.held.answers)):
        yield f"{len(foreign)} answers are not those of an unbroken run: {foreign[:3]}"
    if list(held.failures) != list(expected.held.failures):
        yield f"failures are {held.failures} instead of {expected.held.failures}"
    if list(held.costs) != list(expected.held.costs):
        yield "tokens or costs are not those of an unbroken run"
    for kind, schemas in held.schemas.items():
        if any(schema != expected.held.schemas[kind][0] for schema in schemas):
            yield f"parts of {kind} have different columns"


def _wrong_manifest(out: Path, manifest: Mapping[str, Any], expected: Expected) -> Iterator[str]:
    counts = manifest["counts"]
    ok, failed = len(expected.held.answers), len(expected.held.failures)
    wanted = {"rows": ok + failed, "ok": ok, "failed": failed, "skipped": 0, "pending": 0}
    wanted |= {"uncertain": 0, "attempts": ok}
    if not manifest["complete"]:
        yield "the manifest does not say complete"
    if counts != wanted:
        yield f"the manifest counts {counts} instead of {wanted}"
    for kind in KINDS:
        for part in manifest["parts"][kind]:
            path = out / part["path"]
            data = path.read_bytes() if path.is_file() else b""
            is_same = (len(data), hashlib.sha256(data).hexdigest()) == (part["bytes"], part["sha256"])
            if not is_same or pq.read_metadata(path).num_rows != part["rows"]:
                yield f"{part['path']} is not what the manifest says"


def _wrong_files(out: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    for kind in KINDS:
        listed = {part["path"] for part in manifest["parts"][kind]}
        there = {f"{kind}/{path.name}" for path in (out / kind).iterdir()}
        if there != listed:
            yield f"{kind}/ holds {sorted(there ^ listed)} against the manifest"
    left = sorted(path.name for path in (out / ".batchllm").iterdir())
    if tuple(name.partition("-")[0] for name in left) != _STATE_FILES:
        yield f"beside the journal there is not what should be, or more: {left}"


def _wrong_books(purchases: Sequence[Purchase], held: Held, expected: Expected) -> Iterator[str]:
    bought = Counter(one.text for one in purchases)
    if foreign := [text for text in bought if text not in expected.texts]:
        yield f"texts were sent that are not in the input: {foreign[:3]}"
    paid = {expected.texts[text] for text in bought if text in expected.texts}
    if unpaid := {line[1] for line in held.answers} - paid:
        yield f"answers that nobody has paid for: {sorted(map(str, unpaid))[:5]}"
    if sorted(held.usage_rows) != [line[0] for line in held.answers]:
        yield "usage has not one billed call for each answer"


def _is_within(one: float, other: float) -> bool:
    return abs(one - other) < _DUST_USD * max(1.0, abs(other))
