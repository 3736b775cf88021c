from pathlib import Path

import orjson
import pytest

from batchllm.errors import InvariantError, OutputError, StorageError
from batchllm.simulate.ledger import Ledger, LedgerEntry


def accepted(at_s: float = 1.0, **fields: object) -> LedgerEntry:
    entry = LedgerEntry(
        at_s, "/v1/chat/completions", "accepted", 200, prompt_tokens=3, completion_tokens=4, texts=("hello",)
    )
    return entry._replace(**fields)


def test_what_was_seen_is_counted() -> None:
    ledger = Ledger()
    ledger.note(accepted(1.5))
    ledger.note(accepted(2.5, fault="cut"))
    ledger.note(accepted(3.5, fault="error", prompt_tokens=0, completion_tokens=0))
    ledger.note(LedgerEntry(4.0, "/v1/chat/completions", "refused", 429, texts=("hello",)))
    ledger.note(LedgerEntry(5.0, "/v1/nowhere", "rejected", 404))
    assert (ledger.accepted, ledger.refused, ledger.rejected) == (3, 1, 1)
    assert (ledger.prompt_tokens, ledger.completion_tokens) == (6, 8)
    assert ledger.faults == {"cut": 1, "error": 1}
    assert list(ledger.accepted_at_s) == [1.5, 2.5, 3.5]
    assert ledger.billed == {"hello": 2}
    assert ledger.summary() == "3 accepted, 1 refused, 1 rejected, 1 cut, 1 error; 14 tokens billed"


def test_each_text_of_a_packed_request_is_billed() -> None:
    ledger = Ledger()
    ledger.note(accepted(texts=("a", "b", "a")))
    assert ledger.billed == {"a": 2, "b": 1}


def test_details_that_are_not_kept_are_not_passed_off_as_empty() -> None:
    ledger = Ledger(keeps_details=False)
    ledger.note(accepted())
    assert ledger.accepted == 1
    with pytest.raises(InvariantError, match="keeps_details=True"):
        _ = ledger.billed
    with pytest.raises(InvariantError, match="keeps_details=True"):
        _ = ledger.accepted_at_s


def test_the_file_has_a_line_for_each_request_at_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    ledger = Ledger(path)
    ledger.open()
    ledger.note(
        accepted(
            1.5,
            texts=("first", "x" * 200),
            digest="ab",
            attempt=2,
            fault="stall",
            status=None,
            latency_s=0.25,
        )
    )
    (line,) = path.read_bytes().splitlines()
    assert orjson.loads(line) == {
        "at_s": 1.5,
        "path": "/v1/chat/completions",
        "verdict": "accepted",
        "status": None,
        "fault": "stall",
        "attempt": 2,
        "digest": "ab",
        "rows": 2,
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "latency_s": 0.25,
        "text": "x" * 80,
    }
    ledger.close()


def test_a_ledger_goes_on_in_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    for _ in range(2):
        ledger = Ledger(path)
        ledger.open()
        ledger.open()
        ledger.note(accepted())
        ledger.close()
        ledger.close()
    assert len(path.read_bytes().splitlines()) == 2
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_ledger_in_no_folder_is_refused_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "ledger.jsonl"
    with pytest.raises(OutputError, match=r"missing/ledger\.jsonl"):
        Ledger(path).open()


def test_a_full_disk_is_said_and_nothing_is_counted() -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    ledger = Ledger(full)
    ledger.open()
    with pytest.raises(StorageError, match="No space left"):
        ledger.note(accepted())
    assert ledger.accepted == 0
    ledger.close()
