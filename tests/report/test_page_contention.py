from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from page_rig import SCHEMA, VOTE, VOTERS, row, table

from batchllm.report.page.contention import MOST_VOTERS, Contention, sift
from batchllm.report.page.differences import MOST_POINTS

ROWS = [
    row(0, ("yes", "yes", "yes")),
    row(1, ("yes", "yes", "no")),
    row(2, ("yes", "no", None)),
    row(3, ("no", "no", "no")),
    row(4, (None, None, None)),
    row(5, ("no", "no", "yes")),
    {**row(6, ("yes", None, None)), "status": "pending", "consensus": None, "correct": None},
]


def sifted(rows: list[dict[str, Any]], places: int = 100, size: int = 3) -> Contention:
    return sift(table(rows).to_batches(max_chunksize=size), places, VOTERS)


def keys(found: Contention) -> list[str]:
    return [entry["key"] for entry in found.entries]


def test_least_margin_first_then_what_is_wrong_together_then_gaps() -> None:
    found = sifted(ROWS)
    assert keys(found) == ["r-2", "r-1", "r-5", "r-3", "r-4"]
    assert found.found == {"split": 3, "wrong": 1, "gaps": 1}
    assert found.rows == 7


def test_what_all_got_wrong_keeps_a_quarter_of_the_places() -> None:
    split = [row(at, ("yes", "no", "yes")) for at in range(20)]
    wrong = [row(at, ("no", "no", "no")) for at in range(20, 40)]
    assert keys(sifted(split + wrong, 8)) == [*(f"r-{at}" for at in range(6)), "r-20", "r-21"]
    assert keys(sifted(split[:3] + wrong, 8)) == ["r-0", "r-1", "r-2", *(f"r-{at}" for at in range(20, 25))]


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.2, 0.5]), st.sampled_from([0.5, 0.9, 1.5])), max_size=40),
    st.integers(1, 10),
    st.integers(1, 12),
)
@settings(deadline=None, max_examples=60)
def test_what_is_kept_is_what_sorting_all_would_put_first(
    doubts: list[tuple[float, float]], places: int, size: int
) -> None:
    rows = [{**row(at, ("yes", "no", "yes")), "margin": m, "entropy": e} for at, (m, e) in enumerate(doubts)]
    wanted = sorted(range(len(doubts)), key=lambda at: (doubts[at][0], -doubts[at][1], at))
    assert keys(sifted(rows, places, size)) == [f"r-{at}" for at in wanted[:places]]


def test_a_million_rows_pass_in_bounded_memory() -> None:
    size = 50_000
    voters = pa.array(VOTERS * size)
    dice = np.random.default_rng(0)
    value = pa.array(np.where(dice.random(3 * size) < 0.9, "yes", "no"))
    votes = pa.StructArray.from_arrays([voters, value, pa.array(["cast"] * (3 * size))], fields=list(VOTE))
    offsets = pa.array(np.arange(0, 3 * size + 1, 3, dtype=np.int32))
    columns = {
        "row": pa.array(np.arange(size)),
        "text": pa.array(["a text that is carried"] * size),
        "consensus": pa.array(["yes"] * size),
        "status": pa.array(["decided"] * size),
        "votes": pa.ListArray.from_arrays(offsets, votes),
        "margin": pa.array(dice.random(size)),
        "entropy": pa.array(dice.random(size)),
        "correct": pa.array(dice.random(size) < 0.9),
    }
    batch = pa.RecordBatch.from_pydict(columns)
    held: list[int] = []

    def stream() -> Iterator[pa.RecordBatch]:
        for _ in range(20):
            held.append(pa.total_allocated_bytes())
            yield batch

    found = sift(stream(), 3_000)
    assert found.rows == 20 * size
    assert len(found.entries) == 3_000
    assert max(held) - held[0] < 8 << 20
    assert found.margins.counts.sum() == 20 * size


def test_long_texts_are_cut_before_they_are_kept() -> None:
    [entry] = sifted([row(0, ("v" * 5_000, "no", None), text="t" * 1_000_000)]).entries
    assert len(entry["carried"][0]) < 1_300
    assert all(len(group[0]) < 300 for group in entry["groups"])
    assert entry["carried"][0].endswith("…")


def test_votes_that_differ_after_what_is_shown_are_two_votes() -> None:
    """Only one of them is the consensus, and none is gold."""
    texts = [f"{'v' * 2_000}{end}" for end in "abc"]
    [entry] = sifted([{**row(0, (texts[0], texts[0], texts[1]), gold=texts[2]), "correct": False}]).entries
    assert [group[1:4] for group in entry["groups"]] == [[[0, 1], True, False], [[2], False, False]]


def test_space_at_the_ends_of_a_vote_can_be_seen() -> None:
    [entry] = sifted([row(0, ("yes", "yes ", "\nyes"), gold="yes ")]).entries
    assert [group[0] for group in entry["groups"]] == ["yes", "yes␣", "␣yes"]
    assert entry["gold"] == "yes␣"


def test_numbers_that_differ_after_six_digits_and_sets_that_read_alike_are_two_votes() -> None:
    for kind, votes, shown in (
        (pa.float64(), [1_000_000.25, 1_000_000.5], ["1,000,000", "1,000,000"]),
        (pa.list_(pa.string()), [["a, b"], ["b", "a"]], ['["a, b"]', "a, b"]),
    ):
        vote = pa.struct([("voter", pa.string()), ("value", kind), ("state", pa.string())])
        cast = [
            {"voter": name, "value": value, "state": "cast"} for name, value in zip("xy", votes, strict=True)
        ]
        batch = pa.RecordBatch.from_pydict(
            {
                "row": pa.array([0]),
                "consensus": pa.array([votes[1]], kind),
                "status": pa.array(["tied"]),
                "votes": pa.array([cast], pa.list_(vote)),
            }
        )
        [entry] = sift([batch], 5).entries
        assert [group[:3] for group in entry["groups"]] == [[shown[0], [0], False], [shown[1], [1], True]]


def test_rows_by_margin_are_counted_right_wrong_and_open() -> None:
    counts = sifted(ROWS).margins.counts
    assert counts[10].tolist() == [1, 1, 0, 1]
    assert counts[3].tolist() == [1, 1, 0, 0]
    assert counts[0].tolist() == [0, 0, 0, 1]


def test_voters_that_are_in_the_table_alone_are_met_and_too_many_are_not() -> None:
    votes = [{"voter": f"v{at}", "value": "yes", "state": "cast"} for at in range(100)]
    found = sift(table([{**row(0, ("yes", "no", "no")), "votes": votes}]).to_batches(), 5)
    assert found.voters == tuple(f"v{at}" for at in range(MOST_VOTERS))


def test_values_of_every_type_become_text() -> None:
    votes = pa.struct([("voter", pa.string()), ("value", pa.list_(pa.string())), ("state", pa.string())])
    batch = pa.RecordBatch.from_pydict(
        {
            "row": pa.array([0]),
            "number": pa.array([1234567.891]),
            "flag": pa.array([True]),
            "nested": pa.array([{"a": [1, 2]}]),
            "raw": pa.array([b"abc"]),
            "none": pa.array([None], pa.string()),
            "consensus": pa.array([["b", "a"]]),
            "status": pa.array(["tied"]),
            "votes": pa.array(
                [
                    [
                        {"voter": "x", "value": ["a", "b"], "state": "cast"},
                        {"voter": "y", "value": [], "state": "cast"},
                    ]
                ],
                pa.list_(votes),
            ),
            "margin": pa.array([0.0]),
            "entropy": pa.array([1.0]),
        }
    )
    [entry] = sift([batch], 5).entries
    assert entry["carried"] == ["1,234,568", "true", '{"a":[1,2]}', "3 bytes", None]
    assert entry["consensus"] == "a, b"
    assert [group[:3] for group in entry["groups"]] == [["a, b", [0], True], ["none of them", [1], False]]


def test_numbers_are_ranked_by_how_far_they_are_apart_and_their_differences_summed() -> None:
    vote = pa.struct([("voter", pa.string()), ("value", pa.float64()), ("state", pa.string())])
    gaps = [0.0, 5.0, 2.0, *([0.0] * 3_000)]
    batch = pa.RecordBatch.from_pydict(
        {
            "row": pa.array(range(len(gaps))),
            "consensus": pa.array([10.0] * len(gaps)),
            "status": pa.array(["decided"] * len(gaps)),
            "votes": pa.array(
                [
                    [
                        {"voter": "a", "value": 10.0 + gap, "state": "cast"},
                        {"voter": "b", "value": 10.0, "state": "cast"},
                    ]
                    for gap in gaps
                ],
                pa.list_(vote),
            ),
        }
    )
    found = sift([batch.slice(0, 2), batch.slice(2)], 5, ("a", "b"))
    assert [entry["row"] for entry in found.entries] == [1, 2]
    assert found.differences is not None
    first, second = found.differences.result()
    assert (first.voter, first.n, round(first.mean * len(gaps), 6)) == ("a", len(gaps), 7.0)
    assert first.deviation > 0
    assert second.mean == second.deviation == 0.0
    assert MOST_POINTS / 4 < len(first.points) <= MOST_POINTS


def test_rows_without_votes_or_columns_are_no_fault() -> None:
    assert sift([], 5).entries == []
    bare = pa.RecordBatch.from_pydict({"row": pa.array([0]), "status": pa.array(["undecided"])})
    assert [entry["row"] for entry in sift([bare], 5).entries] == [0]
    empty = pa.Table.from_pylist([{**row(0, ()), "status": "undecided", "votes": None}], SCHEMA)
    assert len(sift(empty.to_batches(), 5).entries) == 1
