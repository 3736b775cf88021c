"""Answers that are more than a text go through the journal, small parts and their order as texts do."""

import asyncio
import json

import polars as pl
import pyarrow.parquet as pq

from batchllm.journal.audit import audit
from batchllm.spec import models
from batchllm.task import build_task

ROWS = 40
TASK = build_task(
    models.ChatTask.model_validate(
        {
            "type": "chat",
            "prompt": "x",
            "tools": [{"function": {"name": "f"}}],
            "params": {"n": 2, "logprobs": True},
            "include": ["reasoning", "citations", "search_results", "annotations"],
        }
    ),
    dimensions=None,
)


def parts(row: int) -> dict[str, object]:
    return {
        "content": None if row % 3 else f"text {row}",
        "tool_calls": [{"id": None, "name": "f", "arguments": str(row)}] * (row % 3),
        "contents": [f"text {row}", None],
        "logprobs": [{"token": "é", "logprob": -row, "top": [{"token": "x", "logprob": -0.5}]}],
        "reasoning": None if row % 2 else f"thought {row}",
        "citations": [f"https://x/{row}"],
        "search_results": None,
        "annotations": [],
    }


def test_what_is_kept_reads_back(kit, out):
    answers = [json.dumps(parts(row)).encode() for row in range(ROWS)]
    order = [*range(1, ROWS, 2), *range(0, ROWS, 2)]  # so that parts must be put into order
    batches = [[kit.attempt(row), kit.done(row, answer=answers[row])] for row in order]
    asyncio.run(kit.run(out, batches[:25], task=TASK))
    asyncio.run(kit.run(out, batches[25:], end=lambda journal: journal.complete(ROWS), task=TASK))
    table = kit.read(out, "output")
    assert table["row"].to_pylist() == list(range(ROWS))
    told = table.select([field.name for field in TASK.answer_fields]).to_pylist()
    assert told == [parts(row) for row in range(ROWS)]
    assert audit(out).is_whole
    frame = pl.read_parquet(out / "output" / "*.parquet")
    assert frame["tool_calls"].list.len().to_list() == [row % 3 for row in range(ROWS)]
    first = pq.ParquetFile(next((out / "output").glob("*.parquet")))
    assert first.schema_arrow.field("logprobs").type == TASK.answer_fields[3].type
