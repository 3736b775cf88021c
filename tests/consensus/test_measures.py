"""The dictionary of agreement.json: whole, finite, and with a reason wherever a statistic has no value."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.consensus.accuracy import OUTSIDE
from batchllm.consensus.bootstrap import Resampling
from batchllm.consensus.measures import Scale, Told, Voter, measure
from batchllm.consensus.votes import LabelVotes, NumberVotes, Votes

HOW = Resampling(50)
NAN = math.nan


def told(of: int, **more: Any) -> Told:
    given = {"created": "now", "settings": {}, "counts": {"decided": 2}, "voters": [Voter("lane")] * of}
    return Told(**(given | more))


def labels(rows: list[list[int]], values: int = 3) -> LabelVotes:
    codes = np.array(rows, np.int32)
    return LabelVotes(names(codes.shape[1]), tuple(f"label {at}" for at in range(values)), codes)


def numbers(rows: list[list[float]]) -> NumberVotes:
    matrix = np.array(rows, np.float64)
    return NumberVotes(names(matrix.shape[1]), matrix)


def names(voters: int) -> tuple[str, ...]:
    return tuple(f"voter {at}" for at in range(voters))


def column(values: list[int] | list[float]) -> np.ndarray:
    return np.array(values, np.float64 if any(isinstance(value, float) for value in values) else np.int32)


def measured(
    votes: Votes, agreed: list[int] | list[float], gold: list[int] | list[float] | None = None, **more: Any
) -> dict[str, Any]:
    """As it is read back."""
    scale: Scale = more.pop("scale", "nominal")
    found = measure(
        votes,
        column(agreed),
        None if gold is None else column(gold),
        scale,
        told(len(votes.voters), **more),
        HOW,
    )
    assert [place for place in unsound(found) if place] == []
    return orjson.loads(orjson.dumps(found))


def unsound(value: object, place: str = "") -> Iterator[str]:
    """Where a number is not finite, or a statistic has neither a value nor a reason."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{place}: {value}"
    elif isinstance(value, dict):
        if "value" in value and (value["value"] is None) != ("why" in value):
            yield f"{place}: no reason"
        for key, part in value.items():
            yield from unsound(part, f"{place}.{key}")
    elif isinstance(value, list):
        for at, part in enumerate(value):
            yield from unsound(part, f"{place}[{at}]")
    elif not isinstance(value, str | int | float | None):
        yield f"{place}: {type(value)}"


def test_it_has_all_the_sections() -> None:
    votes = labels([[0, 0, 1], [1, 1, 1], [2, 0, -1], [0, 0, 0]])
    found = measured(
        votes, [0, 1, -1, 0], [0, 1, 2, 1], cost_usd=0.5, calls={"made": 11, "saved_share": np.float64(0)}
    )
    assert list(found) == [
        "format", "created", "settings", "rows", "counts", "gold", "voters", "agreement", "consensus", "comparisons",
        "cost", "calls", "judge", "dawid_skene",
    ]  # fmt: skip
    assert (found["format"], found["rows"], found["gold"]) == (1, 4, {"known": 4, "missing": 0, "outside": 0})
    assert found["cost"] == {"usd": 0.5, "per_decided_usd": 0.25}
    assert found["calls"] == {"made": 11, "saved_share": 0.0}
    first, _, third = found["voters"]
    assert (third["name"], third["lane"], third["votes"], third["missing"]) == ("voter 2", "lane", 3, 1)
    assert (first["against"], first["accuracy"]["value"], first["accuracy"]["n"]) == ("gold", 0.75, 4)
    assert first["confusion"]["labels"] == ["label 0", "label 1", "label 2"]
    assert first["confusion"]["counts"] == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert found["consensus"]["accuracy"]["n"] == 3
    assert [(each["a"], each["b"]) for each in found["agreement"]["cohen"]] == [
        ("voter 0", "voter 1"), ("voter 0", "voter 2"), ("voter 1", "voter 2"),
    ]  # fmt: skip
    assert found["agreement"]["percent_pairs"][0] == {"a": "voter 0", "b": "voter 1", "value": 0.75, "n": 4}
    assert found["comparisons"][0] | {"difference": None} == {
        "a": "voter 0", "b": "voter 1", "n": 4, "only_a": 1, "only_b": 0, "p_value": 0.5, "of": "accuracy",
        "difference": None,
    }  # fmt: skip
    assert found["comparisons"][0]["difference"]["value"] == 0.25


def test_without_gold_voters_are_held_against_the_consensus() -> None:
    votes = labels([[0, 0, 1], [1, 1, 1], [2, 0, -1]])
    for gold in (None, [-1, -1, -1], [OUTSIDE, -1, -1]):
        found = measured(votes, [0, 1, -1], gold)
        assert {each["against"] for each in found["voters"]} == {"consensus"}
        assert [each["accuracy"]["value"] for each in found["voters"]] == [1.0, 1.0, 0.5]
        assert set(found["consensus"].values()) == {None}
        assert found["comparisons"] == []
    assert found["gold"] == {"known": 0, "missing": 2, "outside": 1}


def test_gold_that_is_no_label_is_counted_and_compared_with_nothing() -> None:
    found = measured(labels([[0], [1], [2], [2]]), [0, 1, 2, 2], [0, 0, OUTSIDE, -1])
    assert found["gold"] == {"known": 2, "missing": 1, "outside": 1}
    assert (found["voters"][0]["accuracy"]["value"], found["voters"][0]["accuracy"]["n"]) == (0.5, 2)


def test_numbers_have_errors_in_the_place_of_accuracy() -> None:
    votes = numbers([[1.0, 2.0], [2.0, 2.0], [4.0, NAN], [math.inf, 3.0]])
    found = measured(votes, [1.5, 2.0, 4.0, NAN], [1.0, 3.0, NAN, 3.0], scale="interval")
    first = found["voters"][0]
    assert (first["accuracy"], first["macro_f1"], first["confusion"], first["by_label"]) == (
        None,
        None,
        None,
        None,
    )
    assert (first["error"]["mean_absolute"]["value"], first["error"]["infinite"]) == (0.5, 1)
    assert found["consensus"]["error"]["mean_absolute"]["value"] == 0.75
    assert (found["agreement"]["alpha"]["scale"], found["agreement"]["alpha"]["infinite"]) == ("interval", 1)
    assert found["comparisons"][0]["of"] == "mean_absolute"
    assert found["agreement"]["cohen"][0]["quadratic"]["n"] == 2


def test_who_is_asked_about_open_rows_alone_says_nothing_of_all() -> None:
    rows = [[0, 0, -1], [1, 1, -1], [0, 1, 2], [2, 2, -1]]
    voters = [Voter("one"), Voter("two"), Voter("judge", is_late=True)]
    found = measured(labels(rows), [0, 1, 2, 2], [0, 1, 2, 2], voters=voters)
    assert found["agreement"]["voters"] == ["voter 0", "voter 1"]
    assert found["agreement"]["percent"]["value"] == 0.75
    assert len(found["agreement"]["cohen"]) == 1
    assert found["voters"][2]["accuracy"]["n"] == 1


def stopped_early(rows: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is measured of three voters that err as often, with the last one asked where the others differ, and always.

    Truth is 0 or 1, each in half of the rows.
    """
    dice = np.random.default_rng(5)
    right = dice.integers(0, 2, rows)
    codes = np.where(dice.random((rows, 3)) < 0.15, 1 - right[:, None], right[:, None]).astype(np.int32)
    agreed = (codes.sum(axis=1) > 1).astype(int).tolist()
    few = codes.copy()
    few[codes[:, 0] == codes[:, 1], 2] = -1
    skipped = int((few[:, 2] == -1).sum())
    voters = [Voter("one"), Voter("two"), Voter("three", not_asked=skipped)]
    gold = right.tolist()
    return measured(labels(few.tolist(), 2), agreed, gold, voters=voters), measured(
        labels(codes.tolist(), 2), agreed, gold
    )


def test_who_was_asked_about_rows_that_others_left_open_is_compared_with_nobody() -> None:
    """Of two that differ one is wrong: on such rows alone any third looks better than both."""
    few, every = stopped_early(2_000)
    asked = few["voters"][2]
    assert (asked["votes"] + asked["not_asked"], asked["missing"]) == (2_000, 0)
    assert few["comparisons"][0] == every["comparisons"][0]
    why = "voter 2 was asked only about rows that the votes before had left open"
    for pair in few["comparisons"][1:]:
        assert (pair["p_value"], pair["difference"]["value"], pair["difference"]["why"]) == (None, None, why)
        assert pair["only_b"] > 4 * pair["only_a"]


def test_agreement_is_of_those_that_were_asked_about_every_row() -> None:
    few, every = stopped_early(2_000)
    assert few["agreement"]["voters"] == ["voter 0", "voter 1"]
    assert few["agreement"]["cohen"] == every["agreement"]["cohen"][:1]
    for name in ("percent", "fleiss", "alpha"):
        assert few["agreement"][name]["value"] == pytest.approx(every["agreement"][name]["value"], abs=0.03)
    assert few["agreement"]["note"].startswith("voter 2 was asked only about rows")
    assert "note" not in every["agreement"]


def test_where_one_alone_was_asked_about_every_row_nobody_agrees() -> None:
    voters = [Voter("one"), Voter("two", not_asked=1)]
    found = measured(labels([[0, 0], [1, -1]]), [0, 1], [0, 1], voters=voters)["agreement"]
    why = "fewer than two voters were asked about every row"
    assert [found[name]["why"] for name in ("percent", "fleiss", "alpha")] == [why] * 3
    assert found["alpha"]["value"] is None


def test_numbers_of_which_hardly_two_are_equal_have_no_kappas_but_the_quadratic_one() -> None:
    rows = [[float(at), at + 0.5] for at in range(200)]
    found = measured(numbers(rows), [at for at, _ in rows], scale="interval")["agreement"]
    why = "400 different numbers are rarely equal"
    assert (found["fleiss"]["why"], found["cohen"][0]["why"], found["cohen"][0]["n"]) == (why, why, 200)
    assert found["cohen"][0]["quadratic"]["value"] > 0.99
    assert found["percent"]["value"] == 0.0


def test_more_labels_than_can_be_looked_at_have_no_table() -> None:
    rows = [[at, at] for at in range(300)]
    found = measured(labels(rows, 300), [at for at, _ in rows], [0] * 300)
    first = found["voters"][0]
    assert (first["confusion"], first["by_label"]) == (None, None)
    assert first["why"] == "300 values: confusion and figures by label are of up to 256"
    assert first["macro_f1"]["value"] is not None
    few = measured(labels([[0, 7], [290, 7]], 300), [7, 7], [0, 290])
    assert few["voters"][0]["confusion"] == {"labels": ["label 0", "label 290"], "counts": [[1, 0], [0, 1]]}
    many = measured(labels([[at % 200, at * 7 % 200] for at in range(1_000)], 200), [0] * 1_000, [0] * 1_000)
    assert len(many["voters"][0]["confusion"]["labels"]) == 200


def test_many_voters_are_not_paired() -> None:
    found = measured(labels([[0] * 33, [1] * 33]), [0, 1], [0, 1])
    assert (found["agreement"]["cohen"], found["agreement"]["percent_pairs"], found["comparisons"]) == (
        [],
        [],
        [],
    )
    assert found["agreement"]["why"] == "33 voters: pairs are measured of up to 32"
    assert found["agreement"]["percent"]["value"] == 1.0


EDGES: list[tuple[Votes, list[Any], list[Any]]] = [
    (labels([[0]]), [0], [0]),
    (labels([[0], [1]]), [0, 1], [1, 1]),
    (labels([[0, 1]]), [-1], [0]),
    (labels([[-1, -1], [-1, -1]]), [-1, -1], [0, 1]),
    (labels([[1, 1], [1, 1]]), [1, 1], [1, 1]),
    (labels([[0, -1], [-1, 1]]), [0, 1], [-1, OUTSIDE]),
    (LabelVotes(("a", "b"), (), np.full((3, 2), -1, np.int32)), [-1] * 3, [-1] * 3),
    (LabelVotes(("a", "b"), ("x",), np.empty((0, 2), np.int32)), [], []),
    (LabelVotes((), ("x",), np.empty((2, 0), np.int32)), [-1, -1], [0, 0]),
    (numbers([[1.0]]), [1.0], [1.0]),
    (numbers([[1.0, 1.0], [1.0, 1.0]]), [1.0, 1.0], [1.0, 1.0]),
    (numbers([[NAN, NAN], [NAN, NAN]]), [NAN, NAN], [NAN, 1.0]),
    (numbers([[math.inf, -math.inf], [math.inf, math.inf]]), [math.inf, math.inf], [math.inf, 1.0]),
    (numbers([[1e308, -1e308], [-1e308, 1e308]]), [1e308, 0.0], [1e308, 1e308]),
    (numbers([[5e-324, 0.0], [0.0, 5e-324]]), [0.0, 5e-324], [5e-324, 0.0]),
]


@pytest.mark.parametrize("scale", ["nominal", "ordinal", "interval"])
@pytest.mark.parametrize("edge", range(len(EDGES)))
def test_the_edges_have_figures_or_reasons(edge: int, scale: Scale) -> None:
    votes, agreed, gold = EDGES[edge]
    kind = np.int32 if isinstance(votes, LabelVotes) else np.float64
    for right in (None, np.array(gold, kind)):
        found = measure(votes, np.array(agreed, kind), right, scale, told(len(votes.voters)), HOW)
        assert list(unsound(found)) == []
        orjson.dumps(found)


matrices = st.integers(1, 4).flatmap(
    lambda voters: st.lists(
        st.lists(st.integers(-1, 2), min_size=voters, max_size=voters), min_size=1, max_size=6
    )
)


@given(matrices, st.sampled_from(["nominal", "ordinal", "interval"]), st.data())
def test_any_votes_have_figures_or_reasons(rows: list[list[int]], scale: Scale, data: st.DataObject) -> None:
    codes = st.lists(st.integers(-2, 2), min_size=len(rows), max_size=len(rows))
    agreed, gold = np.array(data.draw(codes), np.int32), np.array(data.draw(codes), np.int32)
    votes = labels(rows)
    quick = Resampling(3)
    assert list(unsound(measure(votes, agreed, gold, scale, told(len(votes.voters)), quick))) == []
    as_numbers = NumberVotes(votes.voters, np.where(votes.codes < 0, NAN, votes.codes))
    agreed_numbers, gold_numbers = (np.where(each < 0, NAN, each) for each in (agreed, gold))
    found = measure(as_numbers, agreed_numbers, gold_numbers, scale, told(len(votes.voters)), quick)
    assert list(unsound(found)) == []


def test_what_others_tell_is_made_plain() -> None:
    found = measured(
        labels([[0, 1]]), [0],
        judge={"asked": np.int64(3), "agreed": NAN, "by": (np.float32(0.5), np.inf), "lanes": np.array([1, 2])},
    )  # fmt: skip
    assert found["judge"] == {"asked": 3, "agreed": None, "by": [0.5, None], "lanes": [1, 2]}
