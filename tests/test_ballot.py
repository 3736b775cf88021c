"""Stopping early decides what asking all decides; and it is told as soon as it is so."""

from collections import defaultdict
from fractions import Fraction
from itertools import product

import pytest
from consensus_rig import Outcome, kinds_of_rows, outcome
from hypothesis import given
from hypothesis import strategies as st

from batchllm.ballot import Ballot, Roll, Rule, SetBallot, Terms, Ties, in_units, least_votes

TIES: tuple[Ties, ...] = ("fail", "first", "keep", "escalate")


def told(found: Outcome, terms: Terms) -> object:
    """What may not change: value and status, and what leads where the row is left open with it."""
    status, value, leading = found
    is_kept = terms.ties in ("keep", "escalate") and status in ("tied", "undecided")
    return status, value, leading if is_kept else None


def heard(roll: Roll, votes: tuple[str | None, ...], order: list[int] | None = None) -> Ballot:
    ballot = Ballot(roll)
    for voter in range(len(votes)) if order is None else order:
        ballot.note(voter, votes[voter])
    return ballot


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("voters", [1, 2, 3, 4, 5])
def test_a_row_is_settled_exactly_when_no_vote_to_come_changes_it(voters: int, ties: Ties) -> None:
    """Tried are all votes there are, and all that may follow them. So the first wave is the shortest way there."""
    counted: list[tuple[Rule, int | None]] = [("at_least", least) for least in range(1, voters + 1)]
    for rule, at_least in [("majority", None), ("plurality", None), ("unanimous", None), *counted]:
        for min_votes in {1, least_votes(voters), voters}:
            for priority in {(), tuple(reversed(range(voters)))} if ties == "first" else {()}:
                assert_exact(Terms(rule, voters, min_votes, at_least=at_least, ties=ties, priority=priority))


def assert_exact(terms: Terms) -> None:
    roll = Roll(terms)
    may_be: dict[tuple[str | None, ...], set[object]] = defaultdict(set)
    for votes in kinds_of_rows(terms.voters):
        found = told(outcome(votes, terms), terms)
        for end in range(terms.voters + 1):
            may_be[votes[:end]].add(found)
    settled = {votes for votes in may_be if heard(roll, votes).is_settled}
    assert settled == {votes for votes, outcomes in may_be.items() if len(outcomes) == 1}
    shortest: dict[tuple[str | None, ...], int] = {}
    for votes in sorted(settled, key=len):
        for end in range(len(votes), -1, -1):
            shortest.setdefault(votes[:end], len(votes) - end)
            if end and votes[end - 1] is None:
                break
    assert {votes: heard(roll, votes).least_to_ask() for votes in may_be} == shortest
    assert roll.first_wave == shortest[()]


@st.composite
def elections(draw: st.DrawFn) -> tuple[Terms, list[Fraction] | None, tuple[str | None, ...], list[int]]:
    voters = draw(st.integers(1, 7))
    rule = draw(st.sampled_from(["majority", "plurality", "unanimous", "at_least", "weighted"]))
    terms = Terms(
        rule,  # type: ignore[arg-type]
        voters,
        draw(st.integers(1, voters)),
        at_least=draw(st.integers(1, voters)) if rule == "at_least" else None,
        ties=draw(st.sampled_from(TIES)),
        priority=tuple(draw(st.permutations(range(voters)))[: draw(st.integers(0, voters))]),
    )
    one = st.integers(1, 40).map(lambda tenths: Fraction(tenths, 10))
    is_weighted = rule == "weighted" or draw(st.booleans())
    weights = draw(st.lists(one, min_size=voters, max_size=voters)) if is_weighted else None
    votes = draw(st.lists(st.sampled_from([*"aaabbc", None]), min_size=voters, max_size=voters))
    return terms, weights, tuple(votes), draw(st.permutations(range(voters)))


@given(elections())
def test_in_any_order_with_any_weights_what_is_settled_stays_as_it_is(
    election: tuple[Terms, list[Fraction] | None, tuple[str | None, ...], list[int]],
) -> None:
    terms, weights, votes, order = election
    roll = Roll(terms, None if weights is None else [float(weight) for weight in weights])
    asked_all = told(outcome(votes, terms, weights), terms)
    ballot = Ballot(roll)
    stopped: list[str | None] = [None] * terms.voters
    for voter in order:
        if ballot.is_settled:
            assert told(outcome(stopped, terms, weights), terms) == asked_all
            assert ballot.least_to_ask() == 0
        ballot.note(voter, votes[voter])
        stopped[voter] = votes[voter]
    assert ballot.is_settled


def test_half_of_the_voters_and_one_agree_and_the_others_need_not_be_asked() -> None:
    roll = Roll(Terms("majority", 3, 2))
    assert roll.first_wave == 2
    ballot = heard(roll, ("a", "a"))
    assert ballot.is_settled
    assert ballot.least_to_ask() == 0


def test_an_open_row_needs_the_next_voter() -> None:
    ballot = heard(Roll(Terms("majority", 3, 2)), ("a", "b"))
    assert not ballot.is_settled
    assert ballot.least_to_ask() == 1


def test_failures_count_as_votes_that_will_not_come() -> None:
    roll = Roll(Terms("majority", 3, 2))
    assert not heard(roll, ("a", None)).is_settled
    assert heard(roll, (None, None)).is_settled, "one vote at most, where two are needed"


def test_a_voter_that_weighs_more_than_the_others_together_settles_alone() -> None:
    roll = Roll(Terms("weighted", 3, 1), [5.0, 2.0, 2.0])
    assert roll.first_wave == 1
    assert heard(roll, ("a",)).is_settled


def test_with_ties_by_priority_a_draw_that_is_won_is_not_waited_for() -> None:
    ballot = heard(Roll(Terms("plurality", 4, 3, ties="first")), ("a", "a", "b"))
    assert ballot.is_settled, "b may draw level, and the first voter said a"
    assert not heard(Roll(Terms("plurality", 4, 3, ties="first")), ("b", "a", "a")).is_settled
    assert not heard(Roll(Terms("plurality", 4, 3)), ("a", "a", "b")).is_settled


def test_numbers_are_settled_when_all_are_there() -> None:
    roll = Roll(Terms("median", 3, 2))
    assert roll.first_wave == 3
    assert not heard(roll, ("1", "1")).is_settled


def test_a_voter_votes_once() -> None:
    ballot = heard(Roll(Terms("majority", 3, 2)), ("a",))
    with pytest.raises(ValueError, match="voter 0 has voted before"):
        ballot.note(0, "a")


@pytest.mark.parametrize("ties", TIES)
@pytest.mark.parametrize("rule", ["majority", "unanimous"])
def test_sets_are_settled_when_each_label_is(rule: str, ties: Ties) -> None:
    """Whatever follows, each label that anybody names is in or out as it would be now."""
    terms = Terms(rule, 3, 2, ties=ties)  # type: ignore[arg-type]
    roll = Roll(terms)
    sets = [None, frozenset(), frozenset("x"), frozenset("y"), frozenset("xy")]
    for votes in product(sets, repeat=3):
        ballot = SetBallot(roll)
        for end, vote in enumerate(votes):
            ballot.note(end, vote)
            if ballot.is_settled:
                stopped = [*votes[: end + 1], None, None][:3]
                for label in "xyz":
                    now, then = (
                        outcome([None if one is None else str(label in one) for one in some], terms)
                        for some in (stopped, votes)
                    )
                    assert told(now, terms) == told(then, terms)
        assert ballot.is_settled


def test_sets_that_agree_settle_as_labels_do() -> None:
    ballot = SetBallot(Roll(Terms("majority", 3, 2)))
    assert ballot.least_to_ask() == 2
    ballot.note(0, {"x", "y"})
    ballot.note(1, {"x"})
    assert not ballot.is_settled
    assert ballot.least_to_ask() == 1
    ballot.note(2, {"x"})
    assert ballot.is_settled


def test_a_vote_that_is_no_set_is_refused_where_sets_are_counted() -> None:
    with pytest.raises(TypeError, match="no set of labels: 'x'"):
        SetBallot(Roll(Terms("majority", 3, 2))).note(0, "x")


def test_weights_are_counted_in_units_in_which_equal_sums_are_equal() -> None:
    tenth, fifth, three = in_units([0.1, 0.2, 0.3])
    assert tenth + fifth == three
    third, two, one = in_units([1 / 3, 2 / 3, 1.0])
    assert third + two == one


@pytest.mark.parametrize("weights", [[1e300, 1e-300], [1e-320, 1e-320], [1e308] * 10_000], ids=str)
def test_weights_of_any_size_have_units(weights: list[float]) -> None:
    units = in_units(weights)
    assert min(units) >= 1
    assert sum(units) < 1 << 53


def test_what_is_no_weight_is_refused() -> None:
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="not a weight"):
            in_units([1.0, wrong])
    with pytest.raises(ValueError, match="each more than 0"):
        Roll(Terms("weighted", 2, 1), [1.0, 0.0])
    with pytest.raises(ValueError, match="each more than 0"):
        Roll(Terms("weighted", 2, 1), [1.0])


def test_terms_that_want_nothing_are_refused() -> None:
    for wrong in ({"voters": 0}, {"min_votes": 0}, {"at_least": 2}, {"trim": 0.5}, {"rule": "at_least"}):
        with pytest.raises(ValueError):
            Terms(**{"rule": "majority", "voters": 3, "min_votes": 2, **wrong})  # type: ignore[arg-type]


def test_voters_that_priority_does_not_name_come_after_those_it_names() -> None:
    assert Terms("majority", 4, 3, priority=(2, 0)).ranks(5) == [1, 2, 0, 3, 4]
