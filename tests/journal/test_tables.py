from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pytest

from batchllm.carry import CarryCodec
from batchllm.errors import InvariantError, StorageError
from batchllm.journal.finished import Finished
from batchllm.journal.lines import Harvester
from batchllm.journal.tables import Tables, check_names, checksum, table_schemas


def lines(kit, records, kind, slots=1):
    """As the journal gives them back: each with its number in front."""
    harvest = Harvester(Finished(slots), [0, 1]).gather(records)
    found = {"output": harvest.results, "failures": harvest.failures, "usage": harvest.attempts}[kind]
    return [
        (seq, *line[:-1]) for seq, line in enumerate(found, 1)
    ]  # the checksum of a line is compared before


def test_a_line_of_output_has_each_column_with_its_value(kit):
    tables = Tables(kit.ChatTask(), kit.Shape(), kit.LANES)
    batch = tables.batch(
        "output", lines(kit, [kit.done(5), kit.done(6, 1, model=None, cost_usd=None)], "output")
    )
    assert batch.schema.names == [
        "id", "row", "content", "finish_reason", "lane", "provider", "model", "prompt_tokens",
        "completion_tokens", "cost_usd", "latency_ms", "attempts", "request_id", "request_hash", "simulated",
    ]  # fmt: skip
    assert batch.to_pylist() == [
        {
            "id": "k5", "row": 5, "content": "answer of row 5 by lane 0", "finish_reason": "stop",
            "lane": "first", "provider": "openai", "model": "model-a-2025", "prompt_tokens": 10,
            "completion_tokens": 5, "cost_usd": 0.25, "latency_ms": 12.5, "attempts": 1, "request_id": "req-5",
            "request_hash": (5).to_bytes(16, "big").hex(), "simulated": False,
        },
        {
            "id": "k6", "row": 6, "content": "answer of row 6 by lane 1", "finish_reason": "stop",
            "lane": "second", "provider": "groq", "model": "model-b", "prompt_tokens": 10,
            "completion_tokens": 5, "cost_usd": None, "latency_ms": 12.5, "attempts": 1, "request_id": "req-6",
            "request_hash": (6).to_bytes(16, "big").hex(), "simulated": True,
        },
    ]  # fmt: skip


def test_a_line_of_failures_has_each_column_with_its_value(kit):
    tables = Tables(kit.ChatTask(), kit.Shape(), kit.LANES)
    records = [kit.failed(5, content="half"), kit.failed(6, None, status=None)]
    assert tables.batch("failures", lines(kit, records, "failures")).to_pylist() == [
        {
            "id": "k5", "row": 5, "class": "refusal", "message": "row 5 was refused", "lane": "first", "status": 200,
            "attempts": 2, "request_hash": (5).to_bytes(16, "big").hex(), "content": "half",
        },
        {
            "id": "k6", "row": 6, "class": "refusal", "message": "row 6 was refused", "lane": None, "status": None,
            "attempts": 2, "request_hash": (6).to_bytes(16, "big").hex(), "content": None,
        },
    ]  # fmt: skip


def test_a_line_of_usage_has_each_column_with_its_value(kit):
    tables = Tables(kit.ChatTask(), kit.Shape(), kit.LANES)
    records = [kit.attempt(5, 1, rows=3, failure="timeout", status=None, started_at=0.000001)]
    assert tables.batch("usage", lines(kit, records, "usage")).to_pylist() == [
        {
            "row": 5, "rows": 3, "lane": "second", "provider": "groq", "model_asked": "model-b",
            "model": "model-a-2025", "prompt_tokens": 10, "completion_tokens": 5, "cached_tokens": 2,
            "reasoning_tokens": 1, "cost_usd": 0.25, "billed": "yes", "status": None, "class": "timeout",
            "latency_ms": 12.5, "ttft_ms": None, "started_at": datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
            "request_id": "req-5",
        }
    ]  # fmt: skip


def test_carried_values_come_back_in_their_types(kit):
    fields = (
        pa.field("gold", pa.string()),
        pa.field("day", pa.date32()),
        pa.field("price", pa.decimal128(20, 4)),
        pa.field("tags", pa.list_(pa.string())),
    )
    values = {"gold": ["yes", None], "day": [date(2024, 2, 29), None], "price": [Decimal("12.3400"), None]}
    values["tags"] = [["a", None], None]
    source = pa.RecordBatch.from_pydict(values, schema=pa.schema(fields))
    blobs = CarryCodec(fields).encode_batch(source)
    records = [kit.done(row)._replace(row=kit.RowRef(row, f"k{row}", blobs[row])) for row in (0, 1)]
    tables = Tables(kit.ChatTask(), kit.Shape(carry=fields), kit.LANES)
    batch = tables.batch("output", lines(kit, records, "output"))
    assert batch.select(["gold", "day", "price", "tags"]).equals(source)
    assert batch.schema.names[:6] == ["id", "row", "gold", "day", "price", "tags"]


@pytest.mark.parametrize(
    ("kind", "keys", "expected"),
    [
        (pa.int64(), [1, None], [1, None]),
        (pa.string(), ["a", None], ["a", None]),
        (pa.string(), ["a", 7], ["a", "7"]),
        (pa.uint64(), [1, str(2**64 - 1)], [1, 2**64 - 1]),
        (pa.dictionary(pa.int32(), pa.string()), ["a", "a"], ["a", "a"]),
    ],
)
def test_keys_come_back_in_the_type_of_their_column(kit, kind, keys, expected):
    tables = Tables(kit.ChatTask(), kit.Shape(key=pa.field("id", kind)), kit.LANES)
    records = [kit.done(row)._replace(row=kit.RowRef(row, key, b"[]")) for row, key in enumerate(keys)]
    batch = tables.batch("output", lines(kit, records, "output"))
    assert batch.column("id").to_pylist() == expected
    assert not pa.types.is_dictionary(batch.schema.field("id").type)


def test_without_a_key_there_is_no_key_column(kit):
    schemas = table_schemas(kit.ChatTask(), kit.Shape(key=None))
    assert schemas["output"].names[0] == schemas["failures"].names[0] == "row"


def test_vectors_are_fixed_size_lists_without_a_dictionary(kit):
    tables = Tables(kit.EmbeddingTask(2), kit.Shape(), kit.LANES)
    record = kit.done(0, answer=b"\x00\x00\x80\x3f\x00\x00\x00\x40")
    batch = tables.batch("output", lines(kit, [record], "output"))
    assert batch.schema.field("embedding").type == pa.list_(pa.float32(), 2)
    assert batch.column("embedding").to_pylist() == [[1.0, 2.0]]
    assert "embedding" not in tables.dictionary_columns("output")
    assert {"lane", "provider", "model", "finish_reason"} <= set(tables.dictionary_columns("output"))


@pytest.mark.parametrize("kind", ["output", "failures", "usage"])
def test_no_lines_are_a_batch_without_rows_of_the_same_schema(kit, kind):
    tables = Tables(kit.EmbeddingTask(3), kit.Shape(), kit.LANES)
    batch = tables.batch(kind, [])
    assert batch.num_rows == 0
    assert batch.schema == tables.schemas[kind]


@pytest.mark.parametrize("position", [5, 6])
def test_a_line_whose_checksum_does_not_fit_is_not_handed_out(kit, position):
    line = list(lines(kit, [kit.done(9)], "output")[0])
    line[position] = b"[1]" if position == 5 else line[position].replace("row 9", "row 8")
    with pytest.raises(StorageError, match="answer for row 9 is damaged"):
        Tables(kit.ChatTask(), kit.Shape(), kit.LANES).batch("output", [tuple(line)])


def test_the_checksum_of_text_is_that_of_its_bytes():
    assert checksum(b"[]", "é😀") == checksum(b"[]", "é😀".encode())


class BrokenTask:
    def __init__(self, kit, columns):
        self.answer_fields = kit.ChatTask.answer_fields
        self._columns = columns

    def columns(self, values):
        return self._columns(values)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (lambda values: [], "0 columns of answers for 1 fields"),
        (lambda values: [pa.array([], pa.string())], "content has 0 values for 1 rows"),
        (lambda values: [pa.array([[1]])], "content: list<.*> is not string"),
        (lambda values: 1 / 0, "do not fit their columns: division by zero"),
    ],
)
def test_a_task_that_makes_wrong_columns_is_found_out(kit, columns, message):
    tables = Tables(BrokenTask(kit, columns), kit.Shape(), kit.LANES)
    with pytest.raises(InvariantError, match=message):
        tables.batch("output", lines(kit, [kit.done(0)], "output"))


def test_units_count_the_slots_of_a_row(kit):
    tables = Tables(kit.ChatTask(), kit.Shape(), kit.LANES, ["first", "second"])
    batch = tables.batch("output", lines(kit, [kit.done(4, 1), kit.done(5, 0)], "output", slots=2))
    assert tables.units(batch).to_pylist() == [9, 10]
    failures = tables.batch(
        "failures", lines(kit, [kit.failed(4, 0), kit.failed(5, None)], "failures", slots=2)
    )
    assert tables.units(failures).to_pylist() == [8, None]
    assert tables.ranks("failures", failures).to_pylist() == [4, 5]


@pytest.mark.parametrize(
    ("key", "carry", "answers", "faults"),
    [
        ("id", ["gold", "text"], ["content"], []),
        (None, [], ["embedding"], []),
        (
            "id",
            ["lane"],
            ["content"],
            [("carried", "the carried column 'lane' has the name of a column of batchllm's own")],
        ),
        (
            "id",
            ["Model"],
            ["content"],
            [("carried", "the carried column 'Model' has the name of a column of batchllm's own")],
        ),
        ("id", ["ID"], ["content"], [("carried", "the carried column 'ID' has the name of the key")]),
        (
            "id",
            ["content"],
            ["content"],
            [("carried", "the carried column 'content' has the name of another answer column")],
        ),
        (
            "id",
            ["a", "A"],
            [],
            [("carried", "the carried column 'A' has the name of another carried column")],
        ),
        ("row", [], [], [("key", "the key column 'row' has the name of a column of batchllm's own")]),
        ("message", [], [], [("key", "the key column 'message' has the name of a column of failures/")]),
        (
            "id",
            [],
            ["cost_usd"],
            [("answer", "the answer column 'cost_usd' has the name of a column of batchllm's own")],
        ),
    ],
)
def test_names_that_meet_are_named(key, carry, answers, faults):
    assert check_names(key, carry, answers) == faults
