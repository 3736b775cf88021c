import base64
import math
import struct
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.errors import InvariantError, RowError
from batchllm.ports import Task
from batchllm.records import Action, Billed, Failure, FailureCode, Reading, Request, Row, RowRef, Usage
from batchllm.spec import models
from batchllm.task import EmbeddingTask, build_task

WIDTH = 3
USAGE = {"prompt_tokens": 9, "total_tokens": 9}


def task(width: int = WIDTH) -> EmbeddingTask:
    return EmbeddingTask(models.EmbeddingTask(type="embedding", text="{{ title }} {{ body }}"), width)


def request(rows: int) -> Request:
    refs = tuple(RowRef(at, None, b"[]") for at in range(rows))
    return Request(refs, [f"text {at}" for at in range(rows)], (2,) * rows, (bytes(16),) * rows)


def vector(at: int, width: int = WIDTH) -> list[float]:
    return [at + 1.0, *([0.5] * (width - 1))]


def packed(numbers: list[float]) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


def entry(at: int, embedding: object = None) -> dict[str, Any]:
    return {"object": "embedding", "index": at, "embedding": vector(at) if embedding is None else embedding}


def read(data: object, rows: int = 2) -> Reading | Failure:
    return task().read({"object": "list", "data": data, "model": "m", "usage": USAGE}, request(rows))


def turned_down(data: object, rows: int = 2) -> Failure:
    verdict = read(data, rows)
    assert isinstance(verdict, Failure), verdict
    assert verdict.billed is Billed.YES
    assert verdict.usage == Usage(9)
    return verdict


def test_it_is_a_packed_task() -> None:
    spec = models.EmbeddingTask(type="embedding", text="x", dimensions=8)
    built: Task = build_task(spec, dimensions=None)
    assert isinstance(built, EmbeddingTask)
    assert (built.kind, built.path, built.content_field) == ("embedding", "/embeddings", "input")
    assert built.is_packed
    assert built.answer_fields == (pa.field("embedding", pa.list_(pa.float32(), 8)),)


def test_the_width_that_is_handed_in_decides() -> None:
    spec = models.EmbeddingTask(type="embedding", text="x")
    assert build_task(spec, dimensions=4).answer_fields[0].type.list_size == 4
    with pytest.raises(ValueError, match="width"):
        build_task(spec, dimensions=None)


def test_a_row_is_one_text() -> None:
    asked = task()
    content = asked.content(Row(0, None, {"title": "T", "body": "b"}, b"[]"))
    assert content == "T b"
    assert asked.texts(content) == ["T b"]
    assert asked.texts(["a", "b"]) == ["a", "b"]
    assert asked.template_columns == {"title", "body"}


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_an_empty_text_is_a_row_error(text: str) -> None:
    with pytest.raises(RowError, match="nothing to embed"):
        task().content(Row(0, None, {"title": text, "body": ""}, b"[]"))


@given(st.permutations(range(6)))
def test_vectors_in_any_order_come_back_by_index(order: list[int]) -> None:
    verdict = read([entry(at) for at in order], 6)
    assert isinstance(verdict, Reading)
    assert [answer.value for answer in verdict.answers] == [packed(vector(at)) for at in range(6)]
    assert verdict.usage == Usage(9)
    assert verdict.model == "m"


@given(
    st.lists(
        st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=WIDTH, max_size=WIDTH
    ).filter(any)
)
def test_a_vector_is_the_same_as_floats_and_as_base64(numbers: list[float]) -> None:
    as_text = base64.b64encode(packed(numbers)).decode()
    verdict = read([entry(0, numbers), entry(1, as_text)])
    assert isinstance(verdict, Reading)
    assert [answer.value for answer in verdict.answers] == [packed(numbers)] * 2


@given(st.lists(st.integers(-128, 127), min_size=WIDTH, max_size=WIDTH).filter(any))
def test_signed_bytes_are_whole_numbers(numbers: list[int]) -> None:
    as_text = base64.b64encode(bytes(number & 255 for number in numbers)).decode()
    reply = {"data": [entry(0, as_text), entry(1, numbers)], "usage": USAGE}
    verdict = task().of_signed_bytes().read(reply, request(2))
    assert isinstance(verdict, Reading)
    assert [answer.value for answer in verdict.answers] == [packed([float(number) for number in numbers])] * 2


def test_bytes_are_read_as_signed_only_where_they_were_asked_for() -> None:
    """Four times as many of them would be another vector of the right width."""
    as_text = base64.b64encode(packed(vector(0))).decode()
    failure = task(WIDTH).of_signed_bytes().read({"data": [entry(0, as_text)], "usage": USAGE}, request(1))
    assert isinstance(failure, Failure)
    assert "12 numbers" in failure.message
    plain = task(WIDTH * 4).read({"data": [entry(0, base64.b64encode(b"abcd" * 3).decode())]}, request(1))
    assert isinstance(plain, Failure)
    assert "3 numbers" in plain.message


@pytest.mark.parametrize("given", ["***", "", None, {}])
def test_what_is_no_vector_is_none_as_signed_bytes_either(given: Any) -> None:
    reply = {"data": [{"index": 0, "embedding": given}], "usage": USAGE}
    failure = task().of_signed_bytes().read(reply, request(1))
    assert isinstance(failure, Failure)
    assert failure.code is FailureCode.MALFORMED


def test_whole_numbers_are_numbers() -> None:
    verdict = read([entry(0, [1, 0, -2])], 1)
    assert isinstance(verdict, Reading)
    assert verdict.answers[0].value == packed([1, 0, -2])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "no list of vectors"),
        ({}, "no list of vectors"),
        ([], "0 vectors for 2 texts"),
        ([entry(0)], "1 vectors for 2 texts"),
        ([entry(0), entry(1), entry(2)], "3 vectors for 2 texts"),
        ([entry(0), entry(0)], "two vectors have the index 0"),
        ([entry(0), entry(2)], "no index from 0 to 1"),
        ([entry(0), entry(-1)], "no index from 0 to 1"),
        ([entry(0), {"embedding": vector(1)}], "no index"),
        ([{"embedding": vector(0)}, {"embedding": vector(1)}], "no index"),
        ([entry(0), {"index": "1", "embedding": vector(1)}], "no index"),
        ([entry(0), {"index": True, "embedding": vector(1)}], "no index"),
        ([entry(0), {"index": 1.0, "embedding": vector(1)}], "no index"),
        ([entry(0), None], "no index"),
        ([entry(0), {"index": 1}], "vector 1 is neither"),
        ([entry(0), entry(1, [])], "vector 1 is neither"),
        ([entry(0), entry(1, "")], "vector 1 is neither"),
        ([entry(0), entry(1, "no base64!")], "vector 1 is neither"),
        ([entry(0), entry(1, "ä")], "vector 1 is neither"),
        ([entry(0), entry(1, [1.0, None, 2.0])], "vector 1 is neither"),
        ([entry(0), entry(1, [1.0, "2", 2.0])], "vector 1 is neither"),
        ([entry(0), entry(1, [1.0, True, 2.0])], "vector 1 is neither"),
        ([entry(0), entry(1, [[1.0, 2.0, 3.0]])], "vector 1 is neither"),
        ([entry(0), entry(1, [10**400, 1, 1])], "vector 1 is neither"),
        ([entry(0), entry(1, {"0": 1.0})], "vector 1 is neither"),
    ],
)
def test_a_reply_that_cannot_be_placed_is_none_at_all(data: object, said: str) -> None:
    failure = turned_down(data)
    assert (failure.action, failure.code) == (Action.AGAIN, FailureCode.MALFORMED)
    assert said in failure.message


NAN_IN_BASE64 = base64.b64encode(packed([1.0, math.nan, 1.0])).decode()


@pytest.mark.parametrize(
    ("embedding", "said"),
    [
        ([0.0, 0.0, 0.0], "all zeros"),
        ([0, 0, 0], "all zeros"),
        ([1e39, 1.0, 1.0], "NaN or infinity"),
        (NAN_IN_BASE64, "NaN or infinity"),
        (base64.b64encode(packed([math.inf, -math.inf, 1.0])).decode(), "NaN or infinity"),
    ],
)
def test_a_vector_that_says_nothing_is_isolated_from_its_neighbours(embedding: object, said: str) -> None:
    failure = turned_down([entry(0), entry(1, embedding)])
    assert (failure.action, failure.code) == (Action.SPLIT, FailureCode.MALFORMED)
    assert f"vector 1 {'is' if 'zeros' in said else 'holds'} {said}" in failure.message
    alone = turned_down([entry(0, embedding)], rows=1)
    assert (alone.action, alone.code) == (Action.AGAIN, FailureCode.MALFORMED)


@pytest.mark.parametrize(
    ("embedding", "said"),
    [
        ([1.0], "1 numbers"),
        ([1.0] * 4, "4 numbers"),
        (base64.b64encode(packed([1.0] * 12)).decode(), "12 numbers"),
        (base64.b64encode(b"\x01\x02\x03").decode(), "3 bytes"),
    ],
)
def test_another_width_names_both_and_the_remedy(embedding: object, said: str) -> None:
    failure = turned_down([entry(0), entry(1, embedding)])
    assert (failure.action, failure.code) == (Action.ELSEWHERE, FailureCode.CAPABILITY)
    assert not failure.lane_is_dead
    for part in (said, "expects 3", "task.dimensions"):
        assert part in failure.message


@pytest.mark.parametrize("reply", [None, [], "<html>", {}, {"data": None}, {"error": {"message": "x"}}])
def test_a_reply_without_data_is_malformed(reply: object) -> None:
    verdict = task().read(reply, request(1))
    assert isinstance(verdict, Failure)
    assert (verdict.action, verdict.code, verdict.billed) == (
        Action.AGAIN,
        FailureCode.MALFORMED,
        Billed.UNKNOWN,
    )


def test_vectors_become_a_fixed_size_list_that_polars_reads(tmp_path: Any) -> None:
    asked = task()
    [column] = asked.columns([packed(vector(0)), packed(vector(1))])
    column.validate(full=True)
    assert column.type == pa.list_(pa.float32(), WIDTH)
    assert column.to_pylist() == [vector(0), vector(1)]
    pq.write_table(pa.table([column], pa.schema(asked.answer_fields)), tmp_path / "v.parquet")
    frame = pl.read_parquet(tmp_path / "v.parquet")
    assert frame.schema["embedding"] == pl.Array(pl.Float32, WIDTH)
    assert frame["embedding"].to_list() == [vector(0), vector(1)]


def test_no_vectors_are_an_empty_column_of_the_right_type() -> None:
    [column] = task().columns([])
    assert len(column) == 0
    assert column.type == pa.list_(pa.float32(), WIDTH)


@pytest.mark.parametrize("value", ["text", b"", packed([1.0]), packed([1.0] * 4)])
def test_a_kept_value_of_another_size_is_a_broken_promise(value: str | bytes) -> None:
    with pytest.raises(InvariantError):
        task().columns([packed(vector(0)), value])
