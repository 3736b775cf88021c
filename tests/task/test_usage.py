import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.records import Usage
from batchllm.task.usage import read_usage


def usage(**fields: object) -> Usage:
    return read_usage({"usage": fields})


CASES: list[tuple[str, Mapping[str, object], Usage]] = [
    (
        "openai",
        {
            "prompt_tokens": 120,
            "completion_tokens": 90,
            "total_tokens": 210,
            "prompt_tokens_details": {"cached_tokens": 64, "audio_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 80},
        },
        Usage(120, 90, 64, 80),
    ),
    ("embedding", {"prompt_tokens": 8, "total_tokens": 8}, Usage(8)),
    (
        "deepseek",
        {
            "prompt_tokens": 100,
            "completion_tokens": 10,
            "total_tokens": 110,
            "prompt_cache_hit_tokens": 60,
            "prompt_cache_miss_tokens": 40,
        },
        Usage(100, 10, 60),
    ),
    ("mistral", {"prompt_tokens": 10, "completion_tokens": 2, "num_cached_tokens": 4}, Usage(10, 2, 4)),
    (
        "mistral's spelling",
        {"prompt_tokens": 10, "completion_tokens": 2, "prompt_token_details": {"cached_tokens": 5}},
        Usage(10, 2, 5),
    ),
    (
        "together",
        {"prompt_tokens": 10, "completion_tokens": 30, "total_tokens": 40, "reasoning_tokens": 20},
        Usage(10, 30, None, 20),
    ),
    (
        "xai: reasoning apart",
        {
            "prompt_tokens": 32,
            "completion_tokens": 9,
            "total_tokens": 135,
            "completion_tokens_details": {"reasoning_tokens": 94},
            "cost_in_usd_ticks": 37_756_000,
        },
        Usage(32, 103, None, 94, 37_756_000 * 1e-10),
    ),
    (
        "xai: reasoning inside",
        {
            "prompt_tokens": 32,
            "completion_tokens": 103,
            "total_tokens": 135,
            "completion_tokens_details": {"reasoning_tokens": 94},
        },
        Usage(32, 103, None, 94),
    ),
    (
        "openrouter",
        {"prompt_tokens": 1, "completion_tokens": 2, "cost": 0.00014, "is_byok": False},
        Usage(1, 2, None, None, 0.00014),
    ),
    (
        "perplexity",
        {
            "prompt_tokens": 1,
            "completion_tokens": 2,
            "cost": {"total_cost": 0.006, "input_tokens_cost": 0.001},
        },
        Usage(1, 2, None, None, 0.006),
    ),
    (
        "openai: written to the cache",
        {
            "prompt_tokens": 100,
            "completion_tokens": 2,
            "prompt_tokens_details": {"cached_tokens": 20, "cache_write_tokens": 70},
        },
        Usage(100, 2, 20, None, None, 70),
    ),
    (
        "more written than asked",
        {"prompt_tokens": 10, "prompt_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 6}},
        Usage(10, None, 5),
    ),
    ("free", {"prompt_tokens": 0, "completion_tokens": 0, "cost": 0}, Usage(0, 0, None, None, 0.0)),
    (
        "nulls",
        {"prompt_tokens": 7, "completion_tokens": None, "prompt_tokens_details": None},
        Usage(7),
    ),
]


@pytest.mark.parametrize(("fields", "read"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_each_provider_s_usage_is_read(fields: Mapping[str, object], read: Usage) -> None:
    assert read_usage({"usage": fields}) == read


@pytest.mark.parametrize(
    "strange", [-1, "12", 10**9 + 1, 1.5, float("nan"), float("inf"), True, [], {}, None]
)
def test_strange_count_is_unknown_and_harms_no_other(strange: object) -> None:
    assert usage(prompt_tokens=strange, completion_tokens=5) == Usage(None, 5)
    assert usage(prompt_tokens=5, completion_tokens=strange) == Usage(5)
    assert usage(prompt_tokens=5, prompt_tokens_details={"cached_tokens": strange}) == Usage(5)
    assert usage(prompt_tokens=5, completion_tokens_details={"reasoning_tokens": strange}) == Usage(5)


@pytest.mark.parametrize(
    "strange", [-0.1, "0.1", float("nan"), float("inf"), 1e10, True, [], {}, {"total_cost": "x"}]
)
def test_strange_cost_is_unknown(strange: object) -> None:
    assert usage(prompt_tokens=5, cost=strange) == Usage(5)


@pytest.mark.parametrize("strange", [-1, "5", True, float("nan"), 10**400])
def test_strange_ticks_are_unknown(strange: object) -> None:
    assert usage(cost_in_usd_ticks=strange) == Usage()


def test_whole_float_is_a_count() -> None:
    assert usage(prompt_tokens=12.0) == Usage(12)


def test_next_place_is_read_when_the_first_is_strange() -> None:
    assert usage(prompt_tokens=9, prompt_tokens_details={"cached_tokens": -1}, num_cached_tokens=3) == Usage(
        9, None, 3
    )


def test_more_cached_than_prompted_is_unknown() -> None:
    assert usage(prompt_tokens=5, prompt_cache_hit_tokens=6) == Usage(5)


@pytest.mark.parametrize("reply", [{}, {"usage": None}, {"usage": []}, {"usage": "x"}, {"usage": 3}])
def test_reply_without_usage_tells_nothing(reply: Mapping[str, object]) -> None:
    assert read_usage(reply) == Usage()


_NAMES = [
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "reasoning_tokens",
    "cached_tokens",
    "num_cached_tokens",
    "prompt_cache_hit_tokens",
    "prompt_tokens_details",
    "prompt_token_details",
    "completion_tokens_details",
    "cost",
    "total_cost",
    "cost_in_usd_ticks",
]
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(_NAMES), inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(_NAMES), _VALUES))
def test_no_usage_is_too_strange(fields: dict[str, object]) -> None:
    read = usage(**fields)
    for count in read[:4]:
        assert count is None or (type(count) is int and 0 <= count <= 2 * 10**9)
    assert read.cost_usd is None or (math.isfinite(read.cost_usd) and read.cost_usd >= 0)
    if read.cached_tokens is not None and read.prompt_tokens is not None:
        assert read.cached_tokens <= read.prompt_tokens
