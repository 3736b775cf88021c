from typing import Any

import duckdb
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batchllm.errors import InvariantError, RowError
from batchllm.ports import Task
from batchllm.records import Action, Failure, FailureCode, Reading, Request, Row, RowRef
from batchllm.spec import models
from batchllm.task import ModerationTask, build_task

OPENAI = {
    "flagged": True,
    "categories": {"violence": True, "hate": True, "illicit": None, "sexual": False},
    "category_scores": {"violence": 0.9, "hate": 0.8, "illicit": None, "sexual": 0},
    "category_applied_input_types": {"violence": ["text"]},
}
CLEAN = {"flagged": False, "categories": {"hate": False}, "category_scores": {"hate": 0.01}}
MISTRAL = {"categories": {"pii": True, "law": False}, "category_scores": {"pii": 0.7, "law": 0.1}}


def task() -> ModerationTask:
    return ModerationTask(models.ModerationTask(type="moderation", text="{{ text }}"))


def request(rows: int) -> Request:
    return Request(
        tuple(RowRef(at, None, b"[]") for at in range(rows)), ["x"] * rows, (1,) * rows, (bytes(16),) * rows
    )


def read(*results: object) -> Reading | Failure:
    return task().read({"id": "modr-1", "model": "m", "results": list(results)}, request(len(results)))


def kept(*results: object) -> list[bytes]:
    verdict = read(*results)
    assert isinstance(verdict, Reading), verdict
    return [answer.value for answer in verdict.answers if isinstance(answer.value, bytes)]


def test_it_is_a_packed_task() -> None:
    built: Task = build_task(models.ModerationTask(type="moderation", text="x"), dimensions=None)
    assert isinstance(built, ModerationTask)
    assert (built.kind, built.path, built.content_field) == ("moderation", "/moderations", "input")
    assert built.is_packed


def test_a_row_is_one_text() -> None:
    content = task().content(Row(0, None, {"text": "t"}, b"[]"))
    assert content == "t"
    assert task().texts(content) == ["t"]
    assert task().texts(["a", "b"]) == ["a", "b"]
    assert task().template_columns == {"text"}
    with pytest.raises(RowError, match="nothing to judge"):
        task().content(Row(0, None, {"text": " "}, b"[]"))


def test_results_are_kept_as_canonical_json_in_the_inputs_order() -> None:
    first, second = kept(OPENAI, CLEAN)
    assert orjson.loads(first) == {
        "flagged": True,
        "categories": {"hate": True, "sexual": False, "violence": True},
        "category_scores": {"hate": 0.8, "sexual": 0, "violence": 0.9},
    }
    assert second == b'{"categories":{"hate":false},"category_scores":{"hate":0.01},"flagged":false}'


@pytest.mark.parametrize(("is_true", "flagged"), [(True, True), (False, False)])
def test_without_a_flag_one_category_is_enough(is_true: bool, flagged: bool) -> None:
    [value] = kept({**MISTRAL, "categories": {"pii": is_true, "law": False}})
    assert orjson.loads(value)["flagged"] is flagged


def test_mistral_s_categories_stand_under_openai_s_names_too() -> None:
    own = {
        "hate_and_discrimination": 0.9,
        "violence_and_threats": 0.2,
        "selfharm": 0.1,
        "criminal": 0.8,
        "law": 0.7,
    }
    [value] = kept({"categories": {name: score > 0.5 for name, score in own.items()}, "category_scores": own})
    told = orjson.loads(value)
    usual = {"hate": 0.9, "violence": 0.2, "self-harm": 0.1, "illicit": 0.8}
    assert told["category_scores"] == own | usual
    assert {name for name, is_true in told["categories"].items() if is_true} == {
        "hate",
        "hate_and_discrimination",
        "illicit",
        "criminal",
        "law",
    }


def test_scores_may_be_missing() -> None:
    [value] = kept({"flagged": False, "categories": {"hate": False}})
    assert orjson.loads(value)["category_scores"] == {}


@pytest.mark.parametrize(
    "result",
    [
        None,
        "flagged",
        {},
        {"flagged": True},
        {"flagged": "yes", "categories": {"a": True}},
        {"flagged": 1, "categories": {"a": True}},
        {"categories": {}},
        {"categories": {"a": None}},
        {"flagged": True, "categories": ["a"]},
        {"flagged": True, "categories": {"a": 1}},
        {"flagged": True, "categories": {"a": "true"}},
        {"flagged": True, "categories": {"a": True}, "category_scores": [0.5]},
        {"flagged": True, "categories": {"a": True}, "category_scores": {"a": "0.5"}},
        {"flagged": True, "categories": {"a": True}, "category_scores": {"a": True}},
        {"flagged": True, "categories": {"a": True}, "category_scores": {"a": float("nan")}},
        {"flagged": True, "categories": {"a": True}, "category_scores": {"a": 2**60}},
        {"flagged": True, "categories": {"a": True}, "category_scores": {"a": float("-inf")}},
    ],
)
def test_a_result_that_cannot_be_relied_on_turns_the_reply_down(result: Any) -> None:
    failure = read(CLEAN, result)
    assert isinstance(failure, Failure)
    assert (failure.action, failure.code) == (Action.AGAIN, FailureCode.MALFORMED)
    assert "result 1" in failure.message


@pytest.mark.parametrize("results", [None, {}, [], [CLEAN], [CLEAN] * 3])
def test_another_number_of_results_is_none_at_all(results: object) -> None:
    failure = task().read({"results": results}, request(2))
    assert isinstance(failure, Failure)
    assert (failure.action, failure.code) == (Action.AGAIN, FailureCode.MALFORMED)


@pytest.mark.parametrize("reply", [None, [], "x"])
def test_a_reply_that_is_no_object_is_malformed(reply: object) -> None:
    failure = task().read(reply, request(1))
    assert isinstance(failure, Failure)
    assert failure.code is FailureCode.MALFORMED


def test_columns_are_flag_names_and_scores() -> None:
    asked = task()
    flagged, categories, scores = asked.columns(kept(OPENAI, CLEAN, MISTRAL))
    assert flagged.to_pylist() == [True, False, True]
    assert categories.to_pylist() == [["hate", "violence"], [], ["pii"]]
    assert scores.to_pylist() == [
        [("hate", 0.8), ("sexual", 0.0), ("violence", 0.9)],
        [("hate", 0.01)],
        [("law", 0.1), ("pii", 0.7)],
    ]
    assert [column.type for column in (flagged, categories, scores)] == [f.type for f in asked.answer_fields]


def test_no_results_are_empty_columns_of_the_right_types() -> None:
    asked = task()
    assert [(len(column), column.type) for column in asked.columns([])] == [
        (0, f.type) for f in asked.answer_fields
    ]


def test_polars_and_duckdb_read_the_columns(tmp_path: Any) -> None:
    asked = task()
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table(asked.columns(kept(OPENAI, CLEAN)), pa.schema(asked.answer_fields)), path)
    frame = pl.read_parquet(path)
    assert frame["flagged"].to_list() == [True, False]
    assert frame["categories"].to_list() == [["hate", "violence"], []]
    assert duckdb.read_parquet(str(path)).project("scores['hate']").fetchall() == [(0.8,), (0.01,)]


def test_a_kept_text_is_a_broken_promise() -> None:
    with pytest.raises(InvariantError):
        task().columns(["text"])
