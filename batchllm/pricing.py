"""Tokens → money.

A price in the job wins; else the packaged data of genai-prices; else there is none, and what it costs is unknown and
never zero. All figures are USD for a million tokens. Nothing is fetched: prices are as old as the installed package,
whose version is the `source`.

Prices are not flat: some models cost more for long prompts (and then for every token of it), some more at certain
hours of the day, some for writing to the prompt cache. What is known about a call picks the rate; what is not known
picks the highest that could apply, since a budget stands on these figures.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, time, timedelta
from importlib.metadata import version
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from batchllm.records import Usage
from batchllm.spec.lanes import LaneSpec

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice

MILLION = 1_000_000
_LOOPBACK = re.compile(r"https?://(localhost|127\.[0-9.]+|\[::1\])(:[0-9]+)?(/|$)", re.IGNORECASE)
DAY_S = 86_400.0
#: Prompt tokens are estimates: a long-prompt rate counts for the worst case from half its threshold.
ESTIMATE_MARGIN = 2


@dataclass(frozen=True, slots=True)
class Rate:
    """What tokens cost for prompts of more than `above_tokens`, between two seconds of the day (UTC)."""

    input_usd: float
    output_usd: float
    cached_usd: float | None = None
    cache_write_usd: float | None = None
    above_tokens: int = 0
    from_s: float = 0.0
    until_s: float = DAY_S

    @property
    def prompt_usd(self) -> float:
        """The most that a prompt token can cost."""
        return max(self.input_usd, self.cached_usd or 0.0, self.cache_write_usd or 0.0)

    @property
    def holds_always(self) -> bool:
        return not self.above_tokens and self.from_s == 0.0 and self.until_s == DAY_S


@dataclass(frozen=True, slots=True)
class Price:
    """The plain rate, and all rates where there are several (`rates` is then complete, the plain one in it).

    `cached_usd` None: cached tokens cost what others do. `request_usd` is paid for each request besides its tokens.
    """

    input_usd: float
    output_usd: float
    source: str
    cached_usd: float | None = None
    request_usd: float = 0.0
    rates: tuple[Rate, ...] = ()
    all_rates: tuple[Rate, ...] = field(init=False, repr=False, compare=False)
    #: The only rate, if it holds for every call; None where the size or the hour of a call picks one.
    flat: Rate | None = field(init=False, repr=False, compare=False)
    #: The most that a prompt token costs at it.
    flat_prompt_usd: float = field(init=False, repr=False, compare=False)
    #: Costs nothing whatever is counted: moderations are free at most providers, and come without tokens.
    is_free: bool = field(init=False, repr=False, compare=False)
    #: Whether a longer answer costs more.
    charges_output: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """What each call asks for is told once: 4 µs of a call's cost of 6 were spent on asking again."""
        all_rates = self.rates or (Rate(self.input_usd, self.output_usd, self.cached_usd),)
        is_flat = len(all_rates) == 1 and all_rates[0].holds_always
        is_free = not self.request_usd and not any(rate.prompt_usd or rate.output_usd for rate in all_rates)
        object.__setattr__(self, "all_rates", all_rates)
        object.__setattr__(self, "flat", all_rates[0] if is_flat else None)
        object.__setattr__(self, "flat_prompt_usd", all_rates[0].prompt_usd if is_flat else 0.0)
        object.__setattr__(self, "is_free", is_free)
        object.__setattr__(self, "charges_output", any(rate.output_usd for rate in all_rates))

    def without_output(self) -> "Price":
        """For tasks that answer without tokens: what an answer's tokens cost is no matter."""
        rates = tuple(replace(rate, output_usd=0.0) for rate in self.rates)
        return replace(self, output_usd=0.0, rates=rates)


def cost_usd(price: Price | None, usage: Usage, *, wall_s: float | None = None) -> float | None:
    """What one call cost; None when that is not known.

    What the provider itself states wins. `completion_tokens` must hold all that is billed as output, reasoning
    included. `wall_s` is when the call was made (seconds since 1970); without it the dearest hour counts.
    """
    if usage.cost_usd is not None:
        return usage.cost_usd
    if price is None:
        return None
    if price.is_free:
        return 0.0
    if usage.prompt_tokens is None:
        return None
    if price.flat is not None:
        amount = _amount_usd(price.flat, usage)
    else:
        amounts = [_amount_usd(rate, usage) for rate in _rates_of_call(price, usage.prompt_tokens, wall_s)]
        amount = None if None in amounts else max(amount for amount in amounts if amount is not None)
    return None if amount is None else price.request_usd + amount


def worst_case_usd(price: Price, prompt_tokens: int, max_output_tokens: int) -> float:
    """The most that a call of this size can cost: nothing cached, all written to the cache, at the dearest hour."""
    if price.flat is not None:
        flat_usd = prompt_tokens * price.flat_prompt_usd + max_output_tokens * price.flat.output_usd
        return price.request_usd + flat_usd / MILLION
    reachable = ESTIMATE_MARGIN * prompt_tokens
    amounts = [
        prompt_tokens * rate.prompt_usd + max_output_tokens * rate.output_usd
        for rate in price.all_rates
        if rate.above_tokens == 0 or rate.above_tokens < reachable
    ]
    return price.request_usd + max(amounts) / MILLION


def _rates_of_call(price: Price, prompt_tokens: int, wall_s: float | None) -> Iterator[Rate]:
    """The rate of each hour that the call may have been in: the one of the highest threshold that it passed."""
    by_hour: dict[tuple[float, float], Rate] = {}
    for rate in price.all_rates:
        hours = (rate.from_s, rate.until_s)
        if wall_s is not None and not rate.from_s <= wall_s % DAY_S < rate.until_s:
            continue
        if rate.above_tokens and prompt_tokens <= rate.above_tokens:
            continue
        if hours not in by_hour or by_hour[hours].above_tokens < rate.above_tokens:
            by_hour[hours] = rate
    yield from by_hour.values()


def _amount_usd(rate: Rate, usage: Usage) -> float | None:
    """Of the tokens alone; None when those of an answer were not told and cost something."""
    completion = usage.completion_tokens
    if completion is None:
        if rate.output_usd:
            return None
        completion = 0
    prompt = usage.prompt_tokens or 0
    cached = min(usage.cached_tokens or 0, prompt)
    cached_usd = rate.input_usd if rate.cached_usd is None else rate.cached_usd
    input_usd = (prompt - cached) * rate.input_usd + cached * cached_usd
    if usage.cache_write_tokens and rate.cache_write_usd is not None:
        written = min(usage.cache_write_tokens, prompt - cached)
        input_usd += written * (rate.cache_write_usd - rate.input_usd)
    return (input_usd + completion * rate.output_usd) / MILLION


def find_price(
    lane: LaneSpec,
    model: str,
    price_provider: str | None,
    *,
    wall_s: float,
    service_tier: str | None = None,
) -> Price | None:
    """The price of a lane's model; None when nobody knows it.

    `price_provider` is the catalogue's name for genai-prices; a lane without one is looked up by its base_url.
    `wall_s` (seconds since 1970) picks among prices that change by date. `service_tier` is what the requests will
    ask for; the lane's extra_body wins over it.
    """
    if lane.price is not None:
        return Price(lane.price.input, lane.price.output, source="job")
    address = lane.base_url if price_provider is None else None
    if price_provider is None and (address is None or _LOOPBACK.match(address)):
        return (
            None  # nobody lists a price for this machine: the list (0.3 s of CPU to load) need not be asked
        )
    info = _find_model(model, price_provider, address)
    if info is None:
        return None
    tier = lane.extra_body.get("service_tier", service_tier)
    return _price(info, wall_s, {"service_tier": tier} if isinstance(tier, str) else {})


def _find_model(model: str, provider: str | None, address: str | None) -> "ModelInfo | None":
    from genai_prices.data_snapshot import get_snapshot

    try:
        return get_snapshot().find_provider_model(model, None, provider, address)[1]
    except LookupError:
        return None


def _price(info: "ModelInfo", wall_s: float, context: Mapping[str, str]) -> Price | None:
    edges = [*_hour_edges(info), DAY_S]
    now = datetime.fromtimestamp(wall_s, UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    rates: list[Rate] = []
    plain, request_usd = None, 0.0
    for from_s, until_s in pairwise(edges):
        prices = info.get_prices(midnight + timedelta(seconds=from_s), context)
        found = list(_rates(info, prices, from_s, until_s))
        if not found:
            return None
        rates += found
        request_usd = max(request_usd, _number(prices.requests_kcount) / 1000)
        if from_s <= wall_s % DAY_S < until_s:
            plain = found[0]
    first = plain or rates[0]
    source = f"genai-prices {version('genai-prices')}"
    return Price(first.input_usd, first.output_usd, source, first.cached_usd, request_usd, tuple(rates))


def _hour_edges(info: "ModelInfo") -> list[float]:
    """The seconds of the day (UTC) at which the price may change, from 0 on."""
    edges = {0.0}
    conditions = info.prices if isinstance(info.prices, list) else []
    for condition in conditions:
        for name in ("start_time", "end_time"):
            edge = getattr(condition.constraint, name, None)
            if isinstance(edge, time):
                edges.add(_second_of_day(edge))
    return sorted(edges)


def _second_of_day(moment: time) -> float:
    shift = moment.utcoffset() or timedelta()
    at = timedelta(hours=moment.hour, minutes=moment.minute, seconds=moment.second)
    return (at - shift).total_seconds() % DAY_S


def _rates(info: "ModelInfo", prices: "ModelPrice", from_s: float, until_s: float) -> Iterator[Rate]:
    """One rate for each threshold of the prompt's length; none when the price is not one for tokens."""
    if _is_free(info, prices):
        yield Rate(0.0, 0.0, from_s=from_s, until_s=until_s)
        return
    if prices.input_mtok is None:
        return
    keys = (prices.input_mtok, prices.output_mtok, prices.cache_read_mtok, prices.cache_write_mtok)
    starts = {tier.start for value in keys for tier in getattr(value, "tiers", ())}
    for above_tokens in (0, *sorted(starts - {0})):
        cached = prices.cache_read_mtok
        write = prices.cache_write_mtok
        yield Rate(
            _number(prices.input_mtok, above_tokens),
            max(
                _number(prices.output_mtok, above_tokens), _number(prices.output_reasoning_mtok, above_tokens)
            ),
            None if cached is None else _number(cached, above_tokens),
            None if write is None else _number(write, above_tokens),
            above_tokens,
            from_s,
            until_s,
        )


def _is_free(info: "ModelInfo", prices: "ModelPrice") -> bool:
    """Said to cost nothing. An empty price alone is no such statement: it may as well be missing."""
    is_empty = not any(value is not None for value in vars(prices).values())
    return is_empty and (info.id.endswith(":free") or info.id == "moderation")


def _number(value: Any, above_tokens: int = 0) -> float:  # the library's prices are Decimal, tiered, or None
    """A price at a prompt of just more than `above_tokens`."""
    if value is None:
        return 0.0
    tiers = getattr(value, "tiers", None)
    if tiers is None:
        return float(value)
    reached = [tier.price for tier in tiers if tier.start <= above_tokens]
    return float(reached[-1] if reached else value.base)
