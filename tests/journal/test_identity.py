import asyncio
from dataclasses import replace

import pyarrow as pa
import pytest

from batchllm.errors import ChangedJobError, InvariantError
from batchllm.journal.identity import changed_sections, column_changes, stored_job
from batchllm.journal.inputs import InputState
from batchllm.journal.manifest import read_manifest
from batchllm.records import Billed, LaneInfo


def put(kit, out, records, **changes):
    asyncio.run(kit.run(out, [records], **changes))


def changed(kit, **sections):
    return replace(kit.IDENTITY, sections={**kit.IDENTITY.sections, **sections}, fingerprint="other")


def test_a_folder_without_a_journal_has_no_sections(out):
    assert stored_job(out) is None


def test_the_sections_of_a_record_can_be_read_before_it_is_opened(kit, out):
    put(kit, out, [kit.done(0)])
    assert stored_job(out).sections == dict(kit.IDENTITY.sections)


def test_a_changed_section_is_refused_by_name(kit, out):
    put(kit, out, [kit.done(0)])
    with pytest.raises(ChangedJobError, match="another job: params changed") as caught:
        kit.open_journal(out, identity=changed(kit, params="new"))
    assert caught.value.exit_code == 78
    put(kit, out, [kit.done(1)])


def test_another_fingerprint_is_refused_even_with_the_same_sections(kit, out):
    put(kit, out, [kit.done(0)])
    with pytest.raises(ChangedJobError, match="its fingerprint changed"):
        kit.open_journal(out, identity=replace(kit.IDENTITY, fingerprint="other"))


def test_another_name_or_version_is_no_other_job(kit, out):
    put(kit, out, [kit.done(0)])
    put(kit, out, [kit.done(1)], identity=replace(kit.IDENTITY, job_name="renamed", version="9"))
    assert kit.open_journal(out).finished.marked() == 2


@pytest.mark.parametrize("sealed", [False, True])
def test_a_record_in_which_nothing_was_answered_or_paid_takes_another_job(kit, out, sealed):
    unpaid = [kit.attempt(0, cost_usd=0.0, billed=Billed.NO, status=404), kit.failed(0)]

    def end(journal):
        journal.set_input(InputState("digest", 1, "{}"))
        return journal.seal() if sealed else None

    asyncio.run(kit.run(out, [unpaid], end))
    assert stored_job(out) is None
    other = {"identity": changed(kit, task="new"), "task": kit.EmbeddingTask(2), "lanes": kit.LANES[1:]}
    vector = b"\x00" * 8
    asyncio.run(kit.run(out, [[kit.done(0, answer=vector)]], lambda journal: journal.complete(1), **other))
    assert kit.read(out, "output")["embedding"].to_pylist() == [[0.0, 0.0]]
    assert read_manifest(out).input_digest is None
    assert kit.read(out, "failures").num_rows == 0
    assert kit.read(out, "usage").num_rows == 0
    assert stored_job(out).sections == {**kit.IDENTITY.sections, "task": "new"}


@pytest.mark.parametrize(
    "change", [{}, {"cost_usd": None}, {"cost_usd": None, "billed": Billed.UNKNOWN, "status": None}]
)
def test_a_record_that_something_may_have_been_paid_for_stays_its_jobs(kit, out, change):
    put(kit, out, [kit.attempt(0, **change), kit.failed(0)])
    with pytest.raises(ChangedJobError):
        kit.open_journal(out, identity=changed(kit, task="new"))


def test_other_columns_are_refused_by_name_and_type(kit, out):
    put(kit, out, [kit.done(0)])
    shape = kit.Shape(key=pa.field("id", pa.int64()), carry=(pa.field("gold", pa.string()),))
    with pytest.raises(ChangedJobError, match=r"gold \(string\) comes; id was string, would be int64"):
        kit.open_journal(out, shape=shape)


def test_changes_of_columns_are_said_in_words():
    old = pa.schema([("a", pa.int64()), ("b", pa.string())])
    assert column_changes(old, old) == []
    assert column_changes(old, pa.schema([("b", pa.string()), ("a", pa.int64())])) == ["their order"]
    assert column_changes(old, pa.schema([("a", pa.int32())])) == ["b goes", "a was int64, would be int32"]


def test_sections_that_come_go_or_differ_are_changed():
    assert changed_sections({"a": "1", "b": "1", "c": "1"}, {"a": "1", "b": "2", "d": "1"}) == ["b", "c", "d"]


def test_a_lane_keeps_its_number_when_others_come_or_the_order_changes(kit, out):
    put(kit, out, [kit.done(0, 0), kit.done(1, 1)])
    third = LaneInfo("third", "x", "model-c", False)
    put(kit, out, [kit.done(2, 0), kit.done(3, 2)], lanes=(third, *kit.LANES))
    asyncio.run(kit.run(out, [], lambda journal: journal.complete(4)))
    assert kit.read(out, "output")["lane"].to_pylist() == ["first", "second", "third", "second"]


def test_a_lane_with_another_model_is_another_lane(kit, out):
    put(kit, out, [kit.done(0, model=None)])
    renewed = kit.LANES[0]._replace(model="model-z")
    asyncio.run(
        kit.run(out, [[kit.done(1, model=None)]], lambda journal: journal.complete(2), lanes=(renewed,))
    )
    assert kit.read(out, "output")["model"].to_pylist() == ["model-a", "model-z"]


@pytest.mark.parametrize(
    ("slots", "lanes"),
    [(1, slice(0, 2)), (2, slice(None, None, -1))],
    ids=["one answer a row", "other order"],
)
def test_with_an_answer_of_each_lane_routing_and_order_stay(kit, out, slots, lanes):
    put(kit, out, [kit.done(0, 1)], slots=2)
    with pytest.raises(ChangedJobError, match="another routing"):
        kit.open_journal(out, slots=slots, lanes=kit.LANES[lanes])


def test_slots_are_one_or_one_for_each_lane_and_then_lanes_have_names_of_their_own(kit, out):
    with pytest.raises(InvariantError, match="3 slots for 2 lanes"):
        kit.open_journal(out, slots=3)
    with pytest.raises(InvariantError, match="names of their own"):
        kit.open_journal(out, slots=2, lanes=(kit.LANES[0], kit.LANES[0]))
