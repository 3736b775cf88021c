"""What all rows would cost once more: by the tokens that they took, at the prices of the lanes as they are now."""

from collections.abc import Sequence

from batchllm.journal import Counts
from batchllm.pricing import cost_usd
from batchllm.records import Usage
from batchllm.wiring import LanePlan


def price_again(counts: Counts, lanes: Sequence[LanePlan]) -> str:
    """In words. By the dearest lane; what calls without tokens or without a price cost, nobody knows."""
    units = counts.settled
    if not units or not counts.attempts:
        return "at a price that is not known"
    calls = counts.attempts
    usage = Usage(counts.prompt_tokens // calls, counts.completion_tokens // calls)
    costs = [cost_usd(lane.price, usage) for lane in lanes]
    known = [cost * calls for cost in costs if cost is not None]
    if len(known) < len(costs) or not counts.prompt_tokens:
        return "at a price that is not known"
    if any(lane.info.is_simulated for lane in lanes):
        return f"about {max(known):,.2f} USD (simulated)"
    return f"about {max(known):,.2f} USD by the tokens that they took"
