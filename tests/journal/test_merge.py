from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.errors import InvariantError, StorageError
from batchllm.journal.merge import (
    Rewriting,
    first_to_rewrite,
    in_order,
    merged,
    plan_rewriting,
    widest_overlap,
)
from batchllm.journal.parts import Draft, PartInfo, Sizes, publish

SIZES = Sizes(part_rows=1000, part_bytes=10**9)


def part(number, low, high, rows=900):
    return PartInfo(number, "output", f"part-{number:08d}", rows, 10_000, "", low, high)


def empty(number):
    return PartInfo(number, "output", f"part-{number:08d}", 0, 500, "", None, None)


@pytest.mark.parametrize(
    ("parts", "first"),
    [
        ([], 0),
        ([part(1, 0, 9)], 1),
        ([part(1, 0, 9), part(2, 10, 19), part(3, 30, 39)], 3),
        ([part(1, 0, 9), part(2, 9, 19)], 0),
        ([part(1, 10, 19), part(2, 0, 9)], 0),
        ([part(1, 0, 9), part(2, 10, 25), part(3, 20, 39)], 1),
        ([part(1, 0, 9), part(2, 10, 19), part(3, 5, 8)], 0),
        ([part(1, 0, 9), part(2, 10, 19), part(3, 20, 35), part(4, 30, 40)], 2),
        ([part(1, 0, 9), part(2, 10, 19, rows=5), part(3, 20, 35, rows=5), part(4, 30, 40)], 1),
    ],
)
def test_a_head_that_is_in_order_stays(parts, first):
    assert first_to_rewrite(parts, SIZES) == first


@pytest.mark.parametrize(("count", "first"), [(8, 9), (9, 1)])
def test_a_few_small_parts_may_stay_at_the_end_but_not_many(count, first):
    parts = [part(1, 0, 99), *(part(2 + at, 100 + at, 100 + at, rows=1) for at in range(count))]
    assert first_to_rewrite(parts, SIZES) == first


def test_a_table_without_parts_gets_one():
    assert plan_rewriting([], SIZES) == Rewriting([], [], True)


def test_a_part_without_rows_stays_only_alone():
    assert plan_rewriting([empty(1)], SIZES) == Rewriting([], [], False)
    assert plan_rewriting([empty(1), empty(2)], SIZES) == Rewriting([], [empty(2)], False)
    assert plan_rewriting([empty(1), part(2, 0, 9)], SIZES) == Rewriting([], [empty(1)], False)


def test_overlap_counts_the_parts_that_share_a_place():
    assert widest_overlap([part(1, 0, 9), part(2, 10, 19), empty(3)]) == 1
    assert widest_overlap([part(1, 0, 10), part(2, 10, 19), part(3, 5, 30), part(4, 40, 50)]) == 3


def write_part(kit, store, rows, slots=1):
    """A committed part with these rows (units, with slots), in the order given."""
    lines = [(row // slots, row % slots, kit.answer(row)) for row in rows]
    schema = store.tables.schemas["output"]
    columns = {name: [None] * len(lines) for name in schema.names}
    columns["row"] = [row for row, _, _ in lines]
    columns["lane"] = [kit.LANES[lane].name for _, lane, _ in lines]
    columns["content"] = [text for _, _, text in lines]
    draft = Draft(store, store.intend("output", 0))
    try:
        draft.add(pa.RecordBatch.from_pydict(columns, schema=schema))
        sealed = draft.seal()
    finally:
        draft.close()
    publish(store, [sealed])
    store.commit([sealed])


@pytest.fixture
def store(kit, out):
    journal = kit.open_journal(out)
    yield journal._store
    journal._database.close()


DEALT = st.lists(st.integers(0, 4), min_size=1, max_size=60)


@settings(max_examples=25, deadline=None)
@given(DEALT, st.integers(1, 20), st.integers(1, 2000))
def test_rows_that_are_dealt_out_over_parts_come_back_in_order(
    tmp_path_factory, kit, dealt, part_rows, budget
):
    journal = kit.open_journal(tmp_path_factory.mktemp("out"))
    sizes = replace(kit.SMALL, part_rows=part_rows, merge_bytes=budget)
    store = replace(journal._store, sizes=sizes)
    hands = [[row for row, hand in enumerate(dealt) if hand == at] for at in range(5)]
    for rows in hands:
        if rows:
            write_part(kit, store, rows)
    sealed = merged(store, "output", store.parts("output"))
    publish(store, sealed)
    store.commit(sealed, retired=store.parts("output"))
    assert [info.rows for info in store.parts("output")] == [
        min(part_rows, len(dealt) - start) for start in range(0, len(dealt), part_rows)
    ]
    found = pa.Table.from_batches(in_order(store, "output", store.parts("output")))
    assert found["row"].to_pylist() == list(range(len(dealt)))
    assert found["content"].to_pylist() == [kit.answer(row) for row in range(len(dealt))]
    journal._database.close()


def test_a_row_that_is_in_two_parts_stops_the_merge_and_leaves_both(kit, store, out):
    write_part(kit, store, [1, 2, 3])
    write_part(kit, store, [3, 4])
    with pytest.raises(InvariantError, match="twice or out of order"):
        merged(store, "output", store.parts("output"))
    assert [info.rows for info in store.parts("output")] == [3, 2]
    assert sorted(path.name for path in (out / "output").iterdir()) == [
        info.name for info in store.parts("output")
    ]
    assert list((out / ".batchllm").glob("*.tmp")) == []


def test_a_draft_refuses_rows_that_are_out_of_order(kit, store):
    for rows in ([2, 1], [1, 1]):
        with pytest.raises(InvariantError, match="twice or out of order"):
            write_part(kit, store, rows)


def test_a_flipped_byte_anywhere_in_a_part_stops_the_merge_and_names_it(kit, store, out):
    write_part(kit, store, range(0, 40, 2))
    write_part(kit, store, range(1, 40, 2))
    path = out / "output" / store.parts("output")[0].name
    data = path.read_bytes()
    for place in range(0, len(data), 97):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        with pytest.raises(StorageError, match=f"{path.name} cannot be read"):
            merged(store, "output", store.parts("output"))
    path.write_bytes(data)
    assert sum(part.rows for part in merged(store, "output", store.parts("output"))) == 40
