"""The checker finds what it is there for: each way in which an output may be wrong, done to one that is right."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.durability.checker import KINDS, Bill, Told, bill, faults, read_held, told
from benchmarks.durability.matrix import Bench
from benchmarks.durability.rig import INPUT_USD, OUTPUT_USD

pytestmark = pytest.mark.timeout(120)


def part(out: Path, kind: str = "output") -> Path:
    return next((out / kind).iterdir())


def rewritten(out: Path, change: Callable[[pa.Table], pa.Table], kind: str = "output") -> None:
    path = part(out, kind)
    pq.write_table(change(pq.read_table(path)), path, write_page_checksum=True)


def with_manifest(out: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = out / "manifest.json"
    said = json.loads(path.read_text("utf-8"))
    change(said)
    path.write_text(json.dumps(said), "utf-8")


def swapped(table: pa.Table) -> pa.Table:
    content = table["content"].to_pylist()
    content[0], content[1] = content[1], content[0]
    return table.set_column(table.schema.get_field_index("content"), table.schema.field("content"), [content])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[40] ^= 0xFF
    path.write_bytes(bytes(data))


WRONG = {
    "a row is lost": (lambda out: rewritten(out, lambda table: table.slice(1)), "1 answers are missing"),
    "a row is there twice": (
        lambda out: rewritten(out, lambda table: pa.concat_tables([table.slice(0, 1), table])),
        "rows are there twice",
    ),
    "rows are out of order": (
        lambda out: rewritten(out, lambda table: pa.concat_tables([table.slice(1), table.slice(0, 1)])),
        "not in the order",
    ),
    "answers are swapped": (lambda out: rewritten(out, swapped), "not those of an unbroken run"),
    "a failure is lost": (lambda out: rewritten(out, lambda t: t.slice(1), "failures"), "failures are"),
    "a call was recorded twice": (
        lambda out: rewritten(out, lambda table: pa.concat_tables([table, table.slice(0, 1)]), "usage"),
        "usage has not one billed call",
    ),
    "a column has another type": (
        lambda out: rewritten(
            out, lambda t: t.set_column(0, t.column_names[0], t[0].cast(pa.large_string()))
        ),
        "different columns",
    ),
    "a part is not what the manifest says": (
        lambda out: rewritten(out, lambda table: table),
        "is not what the manifest says",
    ),
    "a page is damaged": (lambda out: flipped(part(out)), "cannot be read"),
    "a part is twice in the folder": (
        lambda out: os.link(part(out, "usage"), out / "usage" / "part-copy.parquet"),
        "against the manifest",
    ),
    "the manifest lists less": (
        lambda out: with_manifest(out, lambda said: said["parts"]["failures"].clear()),
        "failures/ holds",
    ),
    "the manifest counts wrong": (
        lambda out: with_manifest(out, lambda said: said["counts"].update(ok=29)),
        "the manifest counts",
    ),
    "the manifest says that more is to come": (
        lambda out: with_manifest(out, lambda said: said.update(complete=False)),
        "does not say complete",
    ),
    "the manifest has another cost": (
        lambda out: with_manifest(out, lambda said: said.update(cost_usd=1.0)),
        "the manifest says 1.0 USD",
    ),
    "the manifest is gone": (lambda out: (out / "manifest.json").unlink(), "cannot be read"),
    "a draft was left": (lambda out: (out / ".batchllm" / "x.tmp").touch(), "beside the journal"),
    "marks of another input were left": (
        lambda out: (out / ".batchllm" / "marks-0").touch(),
        "beside the journal",
    ),
}


def test_an_unbroken_run_has_no_fault(finished: Bench, out: Path) -> None:
    assert faults(out, finished.site.purchases, finished.expected) == []


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_found(finished: Bench, out: Path, what: str) -> None:
    tamper, said = WRONG[what]
    tamper(out)
    assert any(said in fault for fault in faults(out, finished.site.purchases, finished.expected))


def test_books_that_do_not_fit_are_found(finished: Bench, out: Path) -> None:
    bought = finished.site.purchases
    foreign = bought[0]._replace(text="never asked")
    assert faults(out, [*bought, foreign], finished.expected) == [
        "texts were sent that are not in the input: ['never asked']"
    ]
    assert "answers that nobody has paid for" in faults(out, bought[1:], finished.expected)[0]


def test_the_bill_counts_what_was_bought_again_and_what_is_not_there(finished: Bench, out: Path) -> None:
    bought, prices = finished.site.purchases, (INPUT_USD, OUTPUT_USD)
    clean = bill(bought, read_held(out), finished.expected, prices)
    assert (clean.again, round(clean.again_usd, 12), clean.lost) == (0, 0.0, 0)
    again = bill([*bought, *bought[:3]], read_held(out), finished.expected, prices)
    cost = sum(one.prompt_tokens * INPUT_USD + one.completion_tokens * OUTPUT_USD for one in bought[:3]) / 1e6
    assert (again.again, round(again.again_usd - cost, 12)) == (3, 0.0)
    rewritten(out, lambda table: table.slice(2))
    assert bill(bought, read_held(out), finished.expected, prices).lost == 2


def test_kinds_are_all_that_a_run_writes(out: Path) -> None:
    folders = {path.name for path in out.iterdir() if path.is_dir()} - {".batchllm"}
    assert folders == set(KINDS)


def test_the_last_thing_told_counts_and_nothing_told_is_nothing() -> None:
    one = "the last run did not end by itself: up to 64 calls were in flight and may be paid twice, for at most $0.5"
    two = one.replace("64", "1,064").replace("0.5", "1,000.25")
    assert told(f"batchllm: {one}\nbatchllm: {two}\n") == Told(1064, 1000.25)
    assert told("batchllm: broken: 2 rows failed") == Told()
    assert Bill(0, 0.0, 0).again == 0
