import re

import pytest

from batchllm.provider.error_body import ErrorBody
from batchllm.provider.failure_rules import Case, Rule, Ruling, ruling_for
from batchllm.records import Action, Billed, FailureCode

RULING = Ruling(Action.GIVE_UP, FailureCode.INTERNAL)


def case(status: int = 400, message: str = "", name: str = "", dialect: str = "openai") -> Case:
    return Case(status, {}, ErrorBody(message, name, frozenset({name} - {""})), dialect, None)


class TestRule:
    def test_status_must_fit_where_one_is_given(self) -> None:
        rule = Rule(RULING, frozenset({400}), frozenset({"a"}))
        assert rule.fits(case(400, name="a"))
        assert not rule.fits(case(401, name="a"))
        assert rule._replace(statuses=frozenset()).fits(case(401, name="a"))

    def test_dialect_must_fit_where_one_is_given(self) -> None:
        rule = Rule(RULING, names=frozenset({"a"}), dialects=frozenset({"groq"}))
        assert rule.fits(case(name="a", dialect="groq"))
        assert not rule.fits(case(name="a", dialect="xai"))

    def test_name_words_or_test_is_enough(self) -> None:
        rule = Rule(RULING, frozenset(), frozenset({"a"}), re.compile("b"), lambda seen: seen.dialect == "c")
        assert rule.fits(case(name="a"))
        assert rule.fits(case(message="abc"))
        assert rule.fits(case(dialect="c"))
        assert not rule.fits(case())


@pytest.mark.parametrize("status", range(100, 1_000, 7))
def test_every_status_has_a_meaning(status: int) -> None:
    """Nobody is billed for a request that is refused; whether for one that broke off is not known."""
    ruling = ruling_for(case(status))
    assert ruling.billed == (
        Billed.NO if 400 <= status < 500 and status not in {408, 499} else Billed.UNKNOWN
    )
    assert ruling.is_dead == (ruling.action is Action.ELSEWHERE)
    if not 400 <= status < 600:
        assert (ruling.action, ruling.code) == (Action.AGAIN, FailureCode.MALFORMED)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 524, 529])
def test_server_s_faults_are_tried_again(status: int) -> None:
    assert ruling_for(case(status)) == Ruling(Action.AGAIN, FailureCode.SERVER, Billed.UNKNOWN)


def test_name_goes_before_the_status() -> None:
    assert ruling_for(case(400)).code is FailureCode.INVALID_REQUEST
    assert ruling_for(case(400, name="rate_limit_exceeded")).code is FailureCode.RATE_LIMIT


def test_quota_in_words_is_a_passing_limit() -> None:
    """Azure and Gemini word a rate limit like a spent quota."""
    assert ruling_for(case(429, "Quota exceeded, please check your quota")).code is FailureCode.RATE_LIMIT
