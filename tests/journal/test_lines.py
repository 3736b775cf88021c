import sqlite3

import pytest

from batchllm.errors import InvariantError
from batchllm.journal.finished import Finished
from batchllm.journal.lines import WHOLE_ROW, Harvester, statements, storable
from batchllm.records import Billed, FailureCode


@pytest.fixture
def harvester():
    return Harvester(Finished(1), [0, 1])


def test_totals_count_units_and_what_the_attempts_cost(kit, harvester):
    harvest = harvester.gather(
        [
            kit.attempt(0),
            kit.done(0),
            kit.attempt(1, cost_usd=None),
            kit.attempt(1, cost_usd=None, billed=Billed.UNKNOWN, prompt_tokens=None),
            kit.attempt(1, cost_usd=0.0, billed=Billed.NO, completion_tokens=None),
            kit.failed(1),
        ]
    )
    assert harvest.added == (1, 1, 4, 30, 15, 0.25, 1, 1, 0)
    assert harvest.units == {0, 1}
    assert harvest.repeated is None


@pytest.mark.parametrize("second", ["done", "failed"])
@pytest.mark.parametrize("first", ["done", "failed"])
def test_a_second_outcome_in_one_batch_is_left_out_and_reported(kit, harvester, first, second):
    harvest = harvester.gather([getattr(kit, first)(7), getattr(kit, second)(7), kit.done(8)])
    assert len(harvest.results) + len(harvest.failures) == 2
    assert isinstance(harvest.repeated, InvariantError)
    assert "row 7 has its outcome already" in str(harvest.repeated)


def test_an_outcome_of_an_earlier_commit_is_not_repeated(kit):
    finished = Finished(1)
    finished.mark([7])
    harvest = Harvester(finished, [0]).gather([kit.done(7)])
    assert harvest.results == []
    assert harvest.repeated is not None


def test_with_slots_each_lane_has_its_own_outcome(kit):
    harvest = Harvester(Finished(2), [0, 1]).gather([kit.done(3, 0), kit.done(3, 1), kit.done(3, 1)])
    assert [line[:3] for line in harvest.results] == [(3, 0, 0), (3, 1, 1)]
    assert "row 3, lane 1" in str(harvest.repeated)


def test_a_failure_without_a_lane_stands_for_all_that_is_left_of_its_row(kit):
    finished = Finished(3)
    finished.mark([3 * 3 + 1])
    harvest = Harvester(finished, [0, 1, 2]).gather([kit.failed(3, None), kit.failed(4, None)])
    assert harvest.units == {9, 11, 12, 13, 14}
    assert harvest.added.failed == 5
    assert [line[:3] for line in harvest.failures] == [(3, WHOLE_ROW, None), (4, WHOLE_ROW, None)]


def test_lanes_are_stored_by_the_journals_numbers(kit):
    harvest = Harvester(Finished(1), [5, 2]).gather([kit.done(0, 1), kit.failed(1, 0), kit.attempt(2, 1)])
    assert (harvest.results[0][2], harvest.failures[0][2], harvest.attempts[0][2]) == (2, 5, 2)


def test_a_lane_that_the_run_does_not_have_is_a_bug(kit, harvester):
    with pytest.raises(InvariantError, match="names lane 2"):
        harvester.gather([kit.done(0, 2)])


def test_enumerations_are_stored_as_exact_text(kit, harvester):
    record = kit.attempt(0, billed=Billed.UNKNOWN, failure=FailureCode.TIMEOUT)
    line = harvester.gather([record]).attempts[0]
    assert [type(value) for value in (line[9], line[11])] == [str, str]
    assert (line[9], line[11]) == ("unknown", "timeout")


def test_half_characters_become_replacement_characters(kit):
    record = kit.done(0, answer="a\ud800b", request_id="é😀", digest=b"\xff")._replace(
        row=kit.RowRef(0, "\udfffx", b"[]")
    )
    cleaned = storable([record, kit.failed(1, content="\udc00"), kit.attempt(2, model="\udc00")])
    assert cleaned[0] == record._replace(answer="a\ufffdb", row=kit.RowRef(0, "\ufffdx", b"[]"))
    assert [type(record).__name__ for record in cleaned] == ["RowDone", "RowFailed", "AttemptRecord"]
    assert (cleaned[1].content, cleaned[2].model) == ("\ufffd", "\ufffd")


def test_numbers_beyond_64_bits_become_text_as_a_key_and_unknown_elsewhere(kit):
    record = kit.done(0, prompt_tokens=2**63, completion_tokens=2**63 - 1)._replace(
        row=kit.RowRef(0, -(2**63) - 1, b"[]")
    )
    cleaned = storable([record])[0]
    assert (cleaned.row.key, cleaned.prompt_tokens, cleaned.completion_tokens) == (
        str(-(2**63) - 1),
        None,
        2**63 - 1,
    )


def test_a_status_that_is_none_of_http_is_left_out(kit, harvester):
    harvest = harvester.gather([kit.failed(0, status=10**10), kit.attempt(1, status=-(2**40)), kit.failed(2)])
    assert [line[6] for line in harvest.failures] == [None, 200]
    assert harvest.attempts[0][10] is None


def test_totals_of_absurd_numbers_stay_storable(kit, harvester):
    harvest = harvester.gather([kit.attempt(0, prompt_tokens=2**63 - 1)])
    assert harvest.added.plus(harvest.added).prompt_tokens == 2**63 - 1


@pytest.mark.parametrize("table", ["results", "failures", "attempts"])
def test_statements_end_with_one_for_a_single_line_and_fit_the_limit_of_variables(table):
    counts = [count for count, _ in statements(table)]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 1
    connection = sqlite3.connect(":memory:")
    limit = min(999, connection.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER))
    assert all(sql.count("?") <= limit for _, sql in statements(table))
    connection.close()
