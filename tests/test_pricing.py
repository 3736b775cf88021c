"""Money is stated when it is known, bounded from above before it is spent, and never zero for want of knowledge."""

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.pricing import DAY_S, Price, Rate, cost_usd, find_price, worst_case_usd
from batchllm.records import Usage
from batchllm.spec.lanes import LaneSpec

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()
PEAK = datetime(2026, 11, 23, 2, tzinfo=UTC).timestamp()
LANE = LaneSpec(provider="openai", model="m")
FLAT = Price(1.0, 10.0, source="job", cached_usd=0.1)
LONG = Price(
    1.0,
    10.0,
    source="list",
    rates=(Rate(1.0, 10.0), Rate(2.0, 15.0, above_tokens=200), Rate(4.0, 15.0, above_tokens=400)),
)
HOURS = Price(1.0, 1.0, source="list", rates=(Rate(1.0, 1.0, until_s=3600), Rate(2.0, 2.0, from_s=3600)))


def million(prompt: int | None, completion: int | None, cached: int | None = None) -> Usage:
    return Usage(
        None if prompt is None else prompt * 1_000_000,
        None if completion is None else completion * 1_000_000,
        None if cached is None else cached * 1_000_000,
    )


def test_prompt_and_answer_have_their_own_price() -> None:
    assert cost_usd(FLAT, million(2, 1)) == 12.0


def test_cached_tokens_cost_their_own_price() -> None:
    assert cost_usd(FLAT, million(2, 0, cached=1)) == pytest.approx(1.1)


def test_cached_tokens_cost_what_others_do_when_no_price_is_known_for_them() -> None:
    assert cost_usd(Price(1.0, 1.0, source="job"), million(2, 0, cached=1)) == 2.0


def test_more_cached_than_prompt_tokens_never_pay_back() -> None:
    assert cost_usd(FLAT, million(1, 0, cached=5)) == pytest.approx(0.1)


def test_a_cached_price_of_zero_is_a_price() -> None:
    assert cost_usd(Price(1.0, 1.0, source="job", cached_usd=0.0), million(1, 0, cached=1)) == 0.0


def test_the_providers_own_word_wins() -> None:
    assert cost_usd(FLAT, Usage(1, 1, cost_usd=0.5)) == 0.5
    assert cost_usd(FLAT, million(1, 1)._replace(cost_usd=0.0)) == 0.0
    assert cost_usd(None, Usage(cost_usd=0.5)) == 0.5


@pytest.mark.parametrize("usage", [Usage(), Usage(completion_tokens=5), Usage(prompt_tokens=5)])
def test_unknown_tokens_cost_something_unknown(usage: Usage) -> None:
    assert cost_usd(FLAT, usage) is None


def test_without_a_price_the_cost_is_unknown() -> None:
    assert cost_usd(None, million(1, 1)) is None


def test_a_model_that_writes_nothing_needs_no_count_of_it() -> None:
    assert cost_usd(Price(1.0, 0.0, source="job"), million(1, None)) == 1.0


@pytest.mark.parametrize(("prompt", "expected"), [(200, 0.0002), (201, 0.000402), (401, 0.001604)])
def test_a_long_prompt_pays_the_higher_rate_for_all_of_it(prompt: int, expected: float) -> None:
    assert cost_usd(LONG, Usage(prompt, 0)) == pytest.approx(expected)


def test_the_hour_picks_the_rate_and_an_unknown_hour_the_dearest() -> None:
    assert cost_usd(HOURS, million(1, 0), wall_s=86_400 * 9 + 10) == 1.0
    assert cost_usd(HOURS, million(1, 0), wall_s=86_400 * 9 + 3600) == 2.0
    assert cost_usd(HOURS, million(1, 0)) == 2.0


def test_each_request_pays_its_own_fee() -> None:
    fee = Price(1.0, 1.0, source="list", request_usd=0.01)
    assert cost_usd(fee, Usage(0, 0)) == 0.01
    assert worst_case_usd(fee, 0, 0) == 0.01


def test_the_worst_case_writes_everything_to_the_cache() -> None:
    price = Price(1.0, 1.0, source="list", rates=(Rate(1.0, 1.0, 0.1, 1.25),))
    assert worst_case_usd(price, 1_000_000, 0) == 1.25


def test_the_worst_case_covers_a_cached_price_above_the_plain_one() -> None:
    assert worst_case_usd(Price(1.0, 1.0, source="job", cached_usd=3.0), 1_000_000, 0) == 3.0


def test_the_worst_case_of_a_short_prompt_is_not_that_of_a_long_one() -> None:
    assert worst_case_usd(LONG, 100, 0) == pytest.approx(0.0001)
    assert worst_case_usd(LONG, 101, 0) == pytest.approx(0.000202)


RATES = st.floats(0, 100)


@settings(deadline=None)
@given(
    st.lists(st.tuples(RATES, RATES, st.none() | RATES, st.none() | RATES, st.integers(0, 500)), max_size=4),
    RATES,
    RATES,
    st.integers(0, 1000),
    st.integers(0, 1000),
    st.data(),
)
def test_no_call_costs_more_than_its_worst_case(
    more: list[tuple[float, float, float | None, float | None, int]],
    input_usd: float,
    output_usd: float,
    prompt: int,
    most_output: int,
    data: st.DataObject,
) -> None:
    rates = (Rate(input_usd, output_usd), *(Rate(i, o, c, w, above_tokens=a) for i, o, c, w, a in more))
    price = Price(input_usd, output_usd, source="list", rates=rates)
    usage = Usage(
        data.draw(st.integers(0, prompt)),
        data.draw(st.integers(0, most_output)),
        data.draw(st.one_of(st.none(), st.integers(0, prompt))),
        cache_write_tokens=data.draw(st.one_of(st.none(), st.integers(0, prompt))),
    )
    cost = cost_usd(price, usage, wall_s=data.draw(st.one_of(st.none(), st.floats(0, 1e10))))
    assert cost is not None
    assert 0 <= cost <= worst_case_usd(price, prompt, most_output) * (1 + 1e-9) + 1e-15


def test_what_is_written_to_the_cache_costs_its_own_rate() -> None:
    rate = Rate(1.0, 4.0, 0.1, 1.25)
    price = Price(1.0, 4.0, "list", 0.1, rates=(rate,))
    usage = Usage(1_000_000, 0, 200_000, cache_write_tokens=400_000)
    assert cost_usd(price, usage) == pytest.approx(0.4 * 1.0 + 0.2 * 0.1 + 0.4 * 1.25)
    plain = Price(1.0, 4.0, "list", 0.1)
    assert cost_usd(plain, usage) == pytest.approx(0.8 * 1.0 + 0.2 * 0.1)


def test_the_jobs_price_wins() -> None:
    lane = LaneSpec.model_validate(
        {"provider": "openai", "model": "m", "price": {"input": 3.0, "output": 4.0}}
    )
    price = find_price(lane, "gpt-4.1-nano", "openai", wall_s=NOON)
    assert price == Price(3.0, 4.0, source="job")


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("openai", "gpt-4.1-nano"),
        ("groq", "openai/gpt-oss-20b"),
        ("mistral", "mistral-small-latest"),
        ("deepseek", "deepseek-flash"),
        ("x-ai", "grok-4.7"),
        ("fireworks", "accounts/fireworks/models/gpt-oss-20b"),
        ("together", "openai/gpt-oss-120b"),
        ("openrouter", "openai/gpt-oss-120b"),
    ],
)
def test_listed_models_have_a_price_and_a_source(provider: str, model: str) -> None:
    price = find_price(LANE, model, provider, wall_s=NOON)
    assert price is not None
    assert 0 < price.input_usd < price.output_usd < 100
    assert price.source.startswith("genai-prices ")
    assert price.rates[0].from_s == 0
    assert price.rates[-1].until_s == 86_400


def test_an_embedding_model_has_no_output_price() -> None:
    price = find_price(LANE, "text-embedding-3-small", "openai", wall_s=NOON)
    assert price is not None
    assert cost_usd(price, million(1, None)) == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("model", "provider"),
    [
        ("no-such-model", "openai"),
        ("gpt-4.1-nano", "no-such-provider"),
        ("gpt-4.1-nano", None),
        ("whisper-1", "openai"),
        ("", "openai"),
    ],
)
def test_what_nobody_prices_has_no_price(model: str, provider: str | None) -> None:
    assert find_price(LANE, model, provider, wall_s=NOON) is None


def test_an_empty_price_is_free_only_where_that_is_said() -> None:
    free = find_price(LANE, "omni-moderation-latest", "openai", wall_s=NOON)
    assert free is not None
    assert cost_usd(free, million(1, None)) == 0.0
    assert find_price(LANE, "openai/gpt-oss-20b:free", "openrouter", wall_s=NOON) is not None
    assert find_price(LANE, "qwen-3-coder-480b", "cerebras", wall_s=NOON) is None


def test_a_custom_lane_is_priced_by_its_address() -> None:
    lane = LaneSpec(provider="custom", model="m", base_url="https://api.anthropic.com/v1")
    price = find_price(lane, "claude-3-haiku-20240307", None, wall_s=NOON)
    assert price is not None
    assert price.input_usd == 0.25
    local = LaneSpec(provider="custom", model="m", base_url="http://localhost:8000/v1")
    assert find_price(local, "gpt-4.1-nano", None, wall_s=NOON) is None


@pytest.mark.parametrize(
    ("address", "is_asked"),
    [
        ("http://localhost:8000/v1", False),
        ("http://127.0.0.1/v1", False),
        ("http://[::1]:11434/v1", False),
        ("https://api.openai.com/v1", True),
        ("https://localhost.example.com/v1", True),
        ("https://127.0.0.1.example.com/v1", True),
    ],
)
def test_the_price_list_is_not_loaded_for_this_machine(address: str, is_asked: bool) -> None:
    code = (
        "import sys; from batchllm.pricing import find_price; from batchllm.spec.lanes import LaneSpec\n"
        "lane = LaneSpec(provider='custom', model='m', base_url=sys.argv[1])\n"
        "find_price(lane, 'm', None, wall_s=1.7e9); print('genai_prices' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code, address], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == str(is_asked)


def test_a_price_that_changes_by_the_hour_is_kept_for_each_hour() -> None:
    price = find_price(LANE, "deepseek-v4-pro", "deepseek", wall_s=NOON)
    peak = find_price(LANE, "deepseek-v4-pro", "deepseek", wall_s=PEAK)
    assert price is not None
    assert peak is not None
    assert peak.rates == price.rates
    assert peak.input_usd == 2 * price.input_usd
    at_noon = cost_usd(price, million(1, 1), wall_s=NOON)
    at_peak = cost_usd(price, million(1, 1), wall_s=PEAK)
    assert at_noon is not None
    assert at_peak == 2 * at_noon == cost_usd(price, million(1, 1))
    assert worst_case_usd(price, 1_000_000, 1_000_000) == at_peak


def test_a_price_that_changed_on_a_day_goes_by_the_day() -> None:
    before = find_price(LANE, "gpt-5.6-sol", "openai", wall_s=datetime(2026, 8, 1, tzinfo=UTC).timestamp())
    after = find_price(LANE, "gpt-5.6-sol", "openai", wall_s=NOON)
    assert before is not None
    assert after is not None
    assert (before.input_usd, after.input_usd) == (5.0, 4.0)


def test_the_rate_for_long_prompts_is_kept() -> None:
    price = find_price(LANE, "grok-4.7", "x-ai", wall_s=NOON)
    assert price is not None
    assert [rate.above_tokens for rate in price.rates] == [0, 199_999]
    assert cost_usd(price, Usage(200_000, 0)) == pytest.approx(0.8)
    assert cost_usd(price, Usage(199_999, 0)) == pytest.approx(0.399998)


def test_a_service_tier_has_its_own_price_and_the_lane_has_the_last_word() -> None:
    plain = find_price(LANE, "gpt-4.1-nano", "openai", wall_s=NOON)
    fast = find_price(LANE, "gpt-4.1-nano", "openai", wall_s=NOON, service_tier="priority")
    own = LaneSpec(provider="openai", model="m", extra_body={"service_tier": "priority"})
    assert plain is not None
    assert fast is not None
    assert fast.input_usd == 2 * plain.input_usd
    assert find_price(own, "gpt-4.1-nano", "openai", wall_s=NOON, service_tier="default") == fast
    assert find_price(LANE, "gpt-4.1-nano", "openai", wall_s=NOON, service_tier="no-such") == plain


def test_what_is_free_costs_nothing_even_uncounted() -> None:
    assert cost_usd(Price(0.0, 0.0, "job"), Usage()) == 0.0
    assert cost_usd(Price(0.0, 0.1, "job"), Usage()) is None
    assert cost_usd(Price(0.0, 0.0, "job", request_usd=0.1), Usage()) is None


def test_a_task_without_answer_tokens_pays_for_its_prompt_alone() -> None:
    price = Price(1.0, 2.0, "job", rates=(Rate(1.0, 2.0), Rate(3.0, 4.0, above_tokens=100))).without_output()
    assert cost_usd(price, Usage(prompt_tokens=50)) == 50e-6
    assert worst_case_usd(price, 10, 999) == 10e-6


TOKENS = st.one_of(st.none(), st.integers(0, 10**7))
USD = st.floats(0, 100)


@given(USD, USD, st.one_of(st.none(), USD), st.builds(Usage, TOKENS, TOKENS, TOKENS, st.none(), st.none()))
def test_one_rate_for_all_hours_costs_the_same_as_that_rate_told_for_each_half_of_the_day(
    input_usd: float, output_usd: float, cached_usd: float | None, usage: Usage
) -> None:
    rate = Rate(input_usd, output_usd, cached_usd)
    halves = (replace(rate, until_s=DAY_S / 2), replace(rate, from_s=DAY_S / 2))
    flat = Price(input_usd, output_usd, "job", cached_usd)
    split = Price(input_usd, output_usd, "list", cached_usd, rates=halves)
    assert (flat.flat, split.flat) == (rate, None)
    assert cost_usd(flat, usage, wall_s=NOON) == cost_usd(split, usage, wall_s=NOON)
    assert cost_usd(flat, usage) == cost_usd(split, usage)


def test_a_rate_with_a_threshold_or_an_hour_is_not_taken_for_the_only_one() -> None:
    for rate in (Rate(1.0, 1.0, above_tokens=5), Rate(1.0, 1.0, from_s=1.0), Rate(1.0, 1.0, until_s=9.0)):
        assert Price(1.0, 1.0, "list", rates=(rate,)).flat is None
