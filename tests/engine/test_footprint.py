"""What is certain refuses, what is likely warns, and a small job on a small disk runs in silence."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest

from batchllm.engine.footprint import check_room, least_bytes, likely_bytes
from batchllm.errors import FullDiskError


@dataclass
class Answers:
    answer_fields: tuple[pa.Field, ...]


TEXTS = Answers((pa.field("content", pa.string()),))
VECTORS = Answers((pa.field("embedding", pa.list_(pa.float32(), 1536)),))


def told(tmp_path: Path, task: Answers, answers: int, free: int | None) -> list[str]:
    said: list[str] = []
    check_room(tmp_path, task, answers, free, said.append)
    return said


def test_vectors_that_cannot_fit_are_refused_with_the_bytes_that_are_needed(tmp_path: Path) -> None:
    answers = 10**12  # on no disk of ours
    with pytest.raises(
        FullDiskError, match="1,000,000,000,000 vectors of 1,536 numbers do not fit"
    ) as caught:
        told(tmp_path, VECTORS, answers, least_bytes(VECTORS, answers) - 1)
    assert "are needed" in caught.value.message


def test_answers_that_may_not_fit_are_warned_of_and_not_refused(tmp_path: Path) -> None:
    for task in (TEXTS, VECTORS):
        likely = likely_bytes(task, 1_000_000)
        assert len(told(tmp_path, task, 1_000_000, likely - 1)) == 1
        assert told(tmp_path, task, 1_000_000, likely) == []


def test_texts_are_never_refused_since_nobody_knows_their_length(tmp_path: Path) -> None:
    assert least_bytes(TEXTS, 10**9) == 0


def test_a_small_job_on_a_small_disk_runs_in_silence(tmp_path: Path) -> None:
    assert told(tmp_path, TEXTS, 1_000, 4 << 20) == []
    assert told(tmp_path, TEXTS, 0, 0) == []


def test_where_nobody_knows_what_is_free_nothing_is_said(tmp_path: Path) -> None:
    assert told(tmp_path, VECTORS, 10**9, None) == []
