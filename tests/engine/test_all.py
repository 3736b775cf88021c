"""`routing: all` over real sockets: a lane that dies leaves its answers open, and they alone are asked later."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import job_rig as rig

from batchllm.errors import ExitCode
from batchllm.journal import read_manifest
from batchllm.simulate import EmbeddedProviders, SimulatedProvider
from batchllm.spec.lanes import Simulation

ROWS = 60
KEY = "sk-right-0123456789abcdef"


@contextmanager
def served(*keys: str | None) -> Iterator[tuple[list[str], list[SimulatedProvider]]]:
    """Simulated providers that want these keys, with their addresses and their books."""
    embedded = EmbeddedProviders([])
    embedded.providers = [
        SimulatedProvider(
            Simulation.model_validate({"latency": {"median_s": 0.005}}), api_key=key, keeps_details=True
        )
        for key in keys
    ]
    with embedded:
        yield list(embedded.base_urls), list(embedded.providers)


def job(folder: Path, urls: list[str], *keys: str, **more: Any) -> dict[str, Any]:
    lanes = [
        rig.lane(url, name, api_key=key) for url, name, key in zip(urls, ("one", "two"), keys, strict=True)
    ]
    return rig.job(folder, lanes, routing="all", **more)


def is_complete(folder: Path) -> bool:
    manifest = read_manifest(folder / "out")
    assert manifest is not None
    return manifest.complete


def lanes_of(folder: Path) -> list[tuple[int, str]]:
    return rig.table(folder, "output").select("row", "lane").sort("row", "lane").rows()


def test_a_rejected_key_leaves_its_lane_open_until_the_key_is_right(tmp_path: Path) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", ROWS)
    with served(None, KEY) as (urls, books):
        first = rig.run(tmp_path, job(tmp_path, urls, "any", "sk-wrong"))
        assert (first.exit_code, first.ok, first.failed, first.pending) == (
            ExitCode.NO_PERMISSION,
            ROWS,
            0,
            ROWS,
        )
        assert not first.is_complete
        assert not is_complete(tmp_path)
        assert f"{ROWS} answers are missing" in first.ending
        assert "two" in first.ending
        assert "sk-wrong" not in first.ending
        assert lanes_of(tmp_path) == [(n, "one") for n in range(ROWS)]
        assert rig.table(tmp_path, "failures").height == 0
        assert [book.ledger.accepted for book in books] == [ROWS, 0]

        second = rig.run(tmp_path, job(tmp_path, urls, "any", KEY))
        assert [book.ledger.accepted for book in books] == [ROWS, ROWS]
        assert [set(book.ledger.billed.values()) for book in books] == [{1}, {1}]
    assert (second.exit_code, second.ok, second.reused, second.pending) == (ExitCode.OK, ROWS, ROWS, 0)
    assert second.is_complete
    assert is_complete(tmp_path)
    assert lanes_of(tmp_path) == [(n, lane) for n in range(ROWS) for lane in ("one", "two")]
    assert rig.table(tmp_path, "failures").height == 0


def test_a_start_with_the_key_still_wrong_ends_the_same_and_asks_the_other_lane_nothing(
    tmp_path: Path,
) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", ROWS)
    with served(None, KEY) as (urls, books):
        spec = job(tmp_path, urls, "any", "sk-wrong")
        first, second = rig.run(tmp_path, spec), rig.run(tmp_path, spec)
        assert books[0].ledger.accepted == ROWS
    assert first.exit_code == second.exit_code == ExitCode.NO_PERMISSION
    assert (second.ok, second.reused, second.pending) == (0, ROWS, ROWS)
    assert not second.is_complete


def test_packed_rows_of_a_rejected_key_are_asked_later(tmp_path: Path) -> None:
    rig.write_rows(tmp_path / "rows.jsonl", ROWS)
    task = {"type": "embedding", "text": "{{ text }}", "dimensions": 8, "inputs_per_request": 7}
    with served(None, KEY) as (urls, books):
        first = rig.run(tmp_path, job(tmp_path, urls, "any", "sk-wrong", task=task))
        second = rig.run(tmp_path, job(tmp_path, urls, "any", KEY, task=task))
        assert [sum(book.ledger.billed.values()) for book in books] == [ROWS, ROWS]
    assert (first.exit_code, first.pending) == (ExitCode.NO_PERMISSION, ROWS)
    assert (second.exit_code, second.ok, second.is_complete) == (ExitCode.OK, ROWS, True)


def test_rows_that_failed_for_their_own_reasons_are_not_asked_again(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"id": "a", "text": "x"}\nno JSON\n{"id": "c", "text": "z"}\n')
    with served(None, KEY) as (urls, books):
        first = rig.run(tmp_path, job(tmp_path, urls, "any", "sk-wrong"))
        second = rig.run(tmp_path, job(tmp_path, urls, "any", KEY))
        assert [book.ledger.accepted for book in books] == [2, 2]
    assert (first.exit_code, first.ok, first.failed, first.pending) == (ExitCode.NO_PERMISSION, 2, 2, 2)
    assert (second.exit_code, second.ok, second.pending) == (ExitCode.ROWS_FAILED, 2, 0)
    assert second.is_complete
    assert rig.table(tmp_path, "failures").select("row", "class", "lane").rows() == [(1, "input", None)]
