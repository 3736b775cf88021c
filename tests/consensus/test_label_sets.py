"""Sets of labels: each label is decided by the rule, and those that are in make the set."""

import numpy as np
import pytest
from consensus_rig import outcome, shares
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.consensus.label_sets import SetDecisions, SetVotes, break_set_ties, decide_sets
from batchllm.consensus.rules import By, Status
from batchllm.consensus.terms import Terms

LABELS = "wxyz"
Row = list[frozenset[str] | None]


def set_votes(rows: list[Row]) -> SetVotes:
    places: dict[tuple[int, ...], int] = {}
    codes = [
        [
            -1 if one is None else places.setdefault(tuple(sorted(map(LABELS.index, one))), len(places))
            for one in row
        ]
        for row in rows
    ]
    voters = len(rows[0]) if rows else 2
    return SetVotes(
        tuple(map(str, range(voters))),
        tuple(LABELS),
        tuple(places),
        np.array(codes, np.int32).reshape(len(rows), voters),
    )


def named(found: SetDecisions, code: int) -> str | None:
    return None if code < 0 else "".join(LABELS[label] for label in found.sets[code])


def lines(found: SetDecisions) -> list[tuple[str, str | None, list[str | None]]]:
    decisions = found.decisions
    return [
        (
            Status(decisions.status[row]).name.lower(),
            named(found, int(decisions.winner[row])),
            [
                named(found, int(code))
                for code in decisions.leading[decisions.offsets[row] : decisions.offsets[row + 1]]
            ],
        )
        for row in range(len(decisions.status))
    ]


def row(*sets: str) -> Row:
    return [None if one == "." else frozenset(one) for one in sets]


def test_labels_that_most_name_are_in() -> None:
    found = decide_sets(
        set_votes([row("wx", "w", "xy"), row("", "", "w"), row("w", "w", "w")]), Terms("majority", 3, 2)
    )
    assert lines(found) == [("decided", "wx", ["wx"]), ("decided", "", [""]), ("decided", "w", ["w"])]
    assert found.decisions.share.tolist() == pytest.approx([2 / 3, 2 / 3, 1.0])
    assert found.decisions.cast.tolist() == [3, 3, 3]


def test_a_tied_label_ties_the_row_between_two_sets() -> None:
    found = decide_sets(set_votes([row("wx", "w"), row("x", "y"), row("w", ".")]), Terms("majority", 2, 2))
    assert [line[:2] for line in lines(found)] == [("tied", None), ("tied", None), ("too_few", None)]
    assert [sorted(line[2]) for line in lines(found)] == [["w", "wx"], ["", "xy"], ["w"]]


def test_unanimous_leaves_what_is_not_undecided() -> None:
    found = decide_sets(set_votes([row("wx", "wx", "w"), row("w", "w", "w")]), Terms("unanimous", 3, 2))
    assert lines(found) == [("undecided", None, ["wx"]), ("decided", "w", ["w"])]


def test_one_more_voter_decides_the_labels_that_are_tied() -> None:
    rows = [row("wx", "wy"), row("wx", "wy"), row("wx", "wy"), row("w", "w")]
    votes = set_votes([*rows, row("x", "xz")])
    found = decide_sets(
        SetVotes(votes.voters, votes.labels, votes.sets, votes.codes[:4]), Terms("majority", 2, 2)
    )
    column = np.array([votes.codes[4, 1], votes.codes[0, 1], -1, votes.codes[4, 0]], np.int32)
    told = break_set_ties(found, column)
    assert [line[1] for line in lines(told)] == ["wx", "wy", None, "w"]
    assert told.decisions.by.tolist() == [By.ESCALATED, By.ESCALATED, By.NOTHING, By.RULE]


def test_an_undecided_label_is_decided_by_a_set_that_leads_alone() -> None:
    votes = set_votes([row("wx", "wx", "w"), row("wx", "wx", "w")])
    found = decide_sets(votes, Terms("unanimous", 3, 2))
    told = break_set_ties(found, np.array([votes.codes[0, 0], votes.codes[0, 2]], np.int32))
    assert [line[:2] for line in lines(told)] == [("decided", "wx"), ("undecided", None)]


@st.composite
def elections(draw: st.DrawFn) -> tuple[list[Row], Terms]:
    voters = draw(st.integers(1, 5))
    rule = draw(st.sampled_from(["majority", "plurality", "unanimous", "at_least"]))
    terms = Terms(
        rule,  # type: ignore[arg-type]
        voters,
        draw(st.integers(1, voters)),
        at_least=draw(st.integers(1, voters)) if rule == "at_least" else None,
        ties=draw(st.sampled_from(["fail", "first", "keep"])),
    )
    one = st.none() | st.frozensets(st.sampled_from(LABELS))
    return draw(st.lists(st.lists(one, min_size=voters, max_size=voters), max_size=6)), terms


@given(elections())
@settings(deadline=None, max_examples=60)
def test_each_label_is_in_or_out_as_the_rule_says(election: tuple[list[Row], Terms]) -> None:
    rows, terms = election
    if not rows:
        return
    found = decide_sets(set_votes(rows), terms)
    for at, (status, value, leads) in enumerate(lines(found)):
        votes = {label: [None if one is None else str(label in one) for one in rows[at]] for label in LABELS}
        each = {label: outcome(cast, terms) for label, cast in votes.items()}
        told = {one[0] for one in each.values()}
        assert status == next(word for word in ("too_few", "undecided", "tied", "decided") if word in told)
        if status == "decided":
            assert value == "".join(label for label, one in each.items() if one[1] == "True")
        elif any(one is not None for one in rows[at]):
            some = [label for label, one in each.items() if (one[1] or "True") == "True" and "True" in one[2]]
            sure = [label for label in some if each[label][1] == "True" or len(each[label][2]) == 1]
            assert sorted(filter(None, leads)) == sorted(filter(None, {"".join(some), "".join(sure)}))
        least = min(shares(cast, terms, None)[0] for cast in votes.values())
        assert found.decisions.share[at] == pytest.approx(least, nan_ok=True)


def test_sets_that_nobody_voted_for_are_named_after_those_of_the_votes() -> None:
    votes = set_votes([row("wx", "xy", "wy")])
    found = decide_sets(votes, Terms("majority", 3, 2))
    assert found.sets[: len(votes.sets)] == votes.sets
    assert named(found, int(found.decisions.winner[0])) == "wxy"
    assert int(found.decisions.winner[0]) == len(votes.sets)


def test_voters_may_have_weights() -> None:
    found = decide_sets(set_votes([row("w", "x", "x")]), Terms("weighted", 3, 2), [5.0, 1.0, 1.0])
    assert lines(found) == [("decided", "w", ["w"])]


@pytest.mark.parametrize("rows", [[], [row(".", ".")]])
def test_without_votes_there_is_no_set(rows: list[Row]) -> None:
    found = decide_sets(set_votes(rows), Terms("majority", 2, 1))
    assert lines(found) == [("too_few", None, [])] * len(rows)
