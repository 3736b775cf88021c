"""The replies that vectors are measured with, and what is made of a set of turns."""

import json
from pathlib import Path

import pytest

from batchllm.records import Reading, Request, RowRef
from batchllm.spec.loading import load_job
from batchllm.spec.models import EmbeddingTask as Spec
from batchllm.task import EmbeddingTask
from benchmarks.harness import Usage
from benchmarks.vectors import FORMS, figures, reply, write_vector_job


def test_both_forms_are_the_same_vectors_to_the_task() -> None:
    task = EmbeddingTask(Spec(type="embedding", text="x"), 8)
    request = Request(
        tuple(RowRef(row, None, b"[]") for row in range(3)), ["x"] * 3, (1,) * 3, (bytes(16),) * 3
    )
    read = [task.read(json.loads(reply(form, 3, 8)), request) for form in FORMS]
    assert all(isinstance(one, Reading) for one in read)
    assert read[0].answers == read[1].answers  # type: ignore[union-attr]


@pytest.mark.parametrize("form", FORMS)
def test_the_job_asks_for_the_form_in_whole_packs(tmp_path: Path, form: str) -> None:
    write_vector_job(tmp_path / "job.yaml", "http://127.0.0.1:9/v1", form)
    job = load_job(tmp_path / "job.yaml", overrides=(), environ={}).job
    assert job.task.inputs_per_request == 256  # type: ignore[union-attr]
    assert job.providers[0].extra_body == {"encoding_format": form}


def test_starting_up_is_taken_off_on_each_side_within_its_turn() -> None:
    def usage(cpu_s: float, wall_s: float = 2.0) -> Usage:
        return Usage(wall_s, cpu_s, 100.0)

    line = figures(
        {
            "run": [usage(3.0), usage(5.0, 3.0)],
            "run_start": [usage(1.0, 1.0), usage(1.0, 1.0)],
            "sdk": [usage(5.0, 5.0), usage(9.0, 5.0)],
            "sdk_start": [usage(1.0, 1.0), usage(1.0, 1.0)],
            "decode": [usage(1.5), usage(2.0)],
            "decode_start": [usage(0.5, 0.0), usage(0.0, 0.0)],
        },
        1000,
    )
    assert (line["run_us"], line["sdk_us"], line["decode_us"]) == (3000.0, 6000.0, 1500.0)
    assert (line["sdk_ratio"], line["decode_ratio"]) == (0.5, 2.0)
    assert (line["vectors_s"], line["sdk_vectors_s"]) == (750.0, 250.0)
