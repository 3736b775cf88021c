"""What `batchllm verify` says: what was looked at, and every fault with its file, its place and its remedy."""

from collections.abc import Mapping

from batchllm.journal.files import KINDS, STANDING
from batchllm.journal.findings import Audit, Finding


def as_text(found: Audit) -> str:
    """Several lines; faults come last, where a terminal shows them."""
    lines = [
        f"{found.out}: {_verdict(found)}",
        f"  manifest  {_manifest(found)}",
        f"  journal   {_journal(found)}",
        f"  parts     {found.files:,} files, {found.bytes:,} bytes: {_tables(found)}",
        f"  rows      {found.ok:,} answers, {found.failed:,} failures{_skipped(found)}{_waiting(found)}{_place(found)}",
        f"  usage     {found.usage.attempts:,} calls, {_cost(found)}",
    ]
    lines += [f"  note      {note}" for note in found.notes]
    for finding in found.findings:
        lines += _fault(finding)
    return "\n".join(lines)


def as_mapping(found: Audit) -> Mapping[str, object]:
    manifest = found.manifest
    return {
        "type": "verify",
        "out": str(found.out),
        "whole": found.is_whole,
        "complete": manifest is not None and manifest.complete,
        "files": found.files,
        "bytes": found.bytes,
        "rows": {kind: found.rows.get(kind, 0) for kind in KINDS},
        "ok": found.ok,
        "failed": found.failed,
        "skipped": found.skipped,
        "pending": None if manifest is None else manifest.pending,
        "in_journal": found.in_journal,
        "attempts": found.usage.attempts,
        "cost_usd": None if found.usage.unpriced else found.usage.cost_usd,
        "uncertain": found.usage.uncertain,
        "notes": list(found.notes),
        "faults": [
            {"file": str(finding.path), "message": finding.message, "remedy": finding.remedy}
            for finding in found.findings
        ],
    }


def _verdict(found: Audit) -> str:
    count = len(found.findings)
    return "whole" if not count else f"{count} {'fault' if count == 1 else 'faults'}"


def _manifest(found: Audit) -> str:
    manifest = found.manifest
    if manifest is None:
        return "cannot be read" if found.manifest_faults else "none"
    state = "complete" if manifest.complete else "not complete"
    rows = "rows not counted yet" if manifest.rows is None else f"{manifest.rows:,} rows"
    pending = f", {manifest.pending:,} pending" if manifest.pending else ""
    return f"{state}, {rows}{pending}"


def _journal(found: Audit) -> str:
    if found.journal_faults:
        return "damaged" if found.has_journal else "missing"
    return "whole; it knows the same parts, and its totals are what is there"


def _tables(found: Audit) -> str:
    kinds = [kind for kind in KINDS if kind in STANDING or found.rows.get(kind)]
    return ", ".join(f"{kind} {found.rows.get(kind, 0):,} rows" for kind in kinds)


def _skipped(found: Audit) -> str:
    return f", {found.skipped:,} skipped" if found.skipped else ""


def _waiting(found: Audit) -> str:
    return f" ({found.in_journal:,} of them in the journal still)" if found.in_journal else ""


def _place(found: Audit) -> str:
    """Of those that could be read."""
    return "" if found.row_faults else ", each once and in its place"


def _cost(found: Audit) -> str:
    usage = found.usage
    known = f"{usage.cost_usd:,.6g} USD"
    return f"at least {known}: {usage.unpriced:,} without a price" if usage.unpriced else known


def _fault(finding: Finding) -> list[str]:
    message = finding.message.replace("\n", "\n    ")
    lines = [f"fault: {finding.path}", f"    {message}"]
    return [*lines, f"    {finding.remedy}"] if finding.remedy else lines
