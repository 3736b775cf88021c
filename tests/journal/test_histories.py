"""Inputs that follow one another, and kills at any point: the record is that of the last, and nothing is asked twice.

Each step of a history is an input and the points at which runs over it are killed, one after the other, before one is
left alone; a step that is `hurried` is not finished at all, for the next input comes at once.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from batchllm.journal.audit import audit

Rows = dict[str, tuple[str, str]]  # key → text and what is carried, in the order of the input


@dataclass(frozen=True)
class Step:
    rows: Rows
    kills: list[int]
    hurried: bool


@st.composite
def steps(draw: st.DrawFn) -> Step:
    """Few keys and fewer texts, so that rows come back, change, and change places."""
    keys = draw(st.lists(st.integers(0, 29), unique=True, max_size=30))
    odd = draw(st.integers(2, 9))
    rows = {
        f"k{key}": (f"text {key % odd == 0}", f"gold {draw(st.booleans())}" if key % 5 == 0 else "gold")
        for key in keys
    }
    return Step(rows, draw(st.lists(st.integers(1, 60), max_size=2)), draw(st.booleans()))


class History:
    """What is certain of the record, told by the ledger alone."""

    def __init__(self, kit, crash, out: Path) -> None:
        self._kit, self._crash, self._out = kit, crash, out
        self._ledger = Path(f"{out}.ledger")
        self._lines = 0
        self.kept: dict[str, str] = {}  # answered, and in each input since with the same text
        self.ever: set[tuple[str, str]] = (
            set()
        )  # asked at some time: a kill may come between commit and ledger
        self.committed = 0

    def go(self, step: Step) -> None:
        texts = {key: text for key, (text, _) in step.rows.items()}
        self.kept = {key: text for key, text in self.kept.items() if texts.get(key) == text}
        asked: set[str] = set()
        known = set(self.ever)
        for nth in [*step.kills, *([] if step.hurried and step.kills else [0])]:
            code = self._run(step.rows, nth)
            assert code == (0 if nth == 0 else code)
            assert code in (0, -9)
            asked |= self._told(texts)
            self._check_audit()
            if code == 0:
                self._check(step.rows)
                assert {key for key, text in texts.items() if (key, text) not in known} <= asked

    def _run(self, rows: Rows, nth: int) -> int:
        path = self._out.parent / "rows.jsonl"
        lines = [json.dumps({"id": key, "text": text, "gold": gold}) for key, (text, gold) in rows.items()]
        path.write_text("".join(line + "\n" for line in lines))
        return self._crash(out=str(self._out), path=str(path), nth=nth)

    def _told(self, texts: dict[str, str]) -> set[str]:
        """The rows that this run has asked: none whose answer was there."""
        lines = self._ledger.read_text().splitlines() if self._ledger.exists() else []
        new, self._lines = lines[self._lines :], len(lines)
        asked = [tuple(told[1:]) for told in map(json.loads, new) if told[0] == "ask"]
        assert len(set(asked)) == len(asked)
        assert all(texts[key] == text for key, text in asked)
        assert not {key for key, _ in asked} & self.kept.keys()
        now = [tuple(told[1:]) for told in map(json.loads, new) if told[0] == "kept"]
        self.kept |= dict(now)
        self.ever |= set(asked)
        self.committed += len(now)
        return {key for key, _ in asked}

    def _check_audit(self) -> None:
        if (self._out / ".batchllm" / "journal.db").exists():
            found = audit(self._out)
            assert found.findings == []
            assert found.ok >= len(self.kept)

    def _check(self, rows: Rows) -> None:
        output = self._kit.read(self._out, "output")
        assert output["row"].to_pylist() == list(range(len(rows)))
        assert output["id"].to_pylist() == list(rows)
        assert output["gold"].to_pylist() == [gold for _, gold in rows.values()]
        assert output["content"].to_pylist() == [self._kit.said(key, text) for key, (text, _) in rows.items()]
        usage = self._kit.read(self._out, "usage")
        assert set(range(len(rows))) <= set(usage["row"].to_pylist()) <= {-1, *range(len(rows))}
        assert usage.num_rows >= self.committed
        state = {path.name.split("-")[0] for path in (self._out / ".batchllm").iterdir()}
        assert state <= {"journal.db", "marks", "lock"}


@pytest.fixture
def history(kit, crash, out):
    def anew() -> History:
        shutil.rmtree(out, ignore_errors=True)
        Path(f"{out}.ledger").unlink(missing_ok=True)
        return History(kit, crash, out)

    return anew


ROW = {"k0": ("text True", "gold")}


@example([Step({}, [], hurried=False), Step(ROW, [1, 1], hurried=False)])
@example([Step(ROW, [], hurried=False), Step({}, [2], hurried=False)])
@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None
)
@given(st.lists(steps(), min_size=2, max_size=3))
def test_after_any_history_the_record_is_that_of_the_last_input(history, told):
    one = history()
    for step in [*told[:-1], Step(told[-1].rows, told[-1].kills, hurried=False)]:
        one.go(step)
