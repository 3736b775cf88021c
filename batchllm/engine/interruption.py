"""What a start says about runs before it that were killed, and what a run says of its calls when it is asked."""

import math
from collections import Counter
from collections.abc import Callable, Sequence

from batchllm.dispatch import Out
from batchllm.journal import Interrupted, Journal

_MOST_TOLD = 10


def told_interruption(before: Interrupted) -> str:
    """How many calls, and at most how much money, may be paid twice. Money is never rounded down."""
    runs = "the last run" if before.runs == 1 else f"the last {before.runs:,} runs"
    did = "did not end by itself" if before.runs == 1 else "did not end by themselves"
    calls = f"up to {before.calls:,} calls were in flight and may be paid twice"
    if before.usd is None:
        return f"{runs} {did}: {calls}; what that costs at most is not known (no price, or no max_tokens)"
    return f"{runs} {did}: {calls}, for at most ${shown_up(before.usd)}"


def tell_uncertain(journal: Journal, say: Callable[[str], None]) -> None:
    """What calls that were cut off do to the budget: they count with the most that they can have cost, where known."""
    before = journal.spending
    if before.exposed_usd:
        say(
            f"calls that were cut off may have cost up to ${shown_up(before.exposed_usd)}, which counts against"
            " the budget"
        )
    unknown = [] if before.exposed_usd is not None else ["calls that were cut off"]
    if journal.counts.uncertain:
        unknown.append(f"{journal.counts.uncertain:,} calls of earlier runs")
    if unknown:
        say(
            f"{' and '.join(unknown)} may have been paid for without an answer; what they cost is not known and"
            " not counted against the budget"
        )


def told_calls(calls: Sequence[Out]) -> str:
    """Calls in flight by lane, and the oldest of them one by one."""
    lanes = Counter(call.lane for call in calls)
    by_lane = ", ".join(f"{lane}: {count:,}" for lane, count in lanes.items())
    lines = [f"{len(calls):,} calls in flight" + (f" ({by_lane})" if calls else "")]
    for call in calls[:_MOST_TOLD]:
        more = f" and {call.rows - 1:,} more" if call.rows > 1 else ""
        lines.append(f"  for {call.for_s:.1f} s: {call.lane}, row {call.row}{more}")
    if len(calls) > _MOST_TOLD:
        lines.append(f"  and {len(calls) - _MOST_TOLD:,} younger ones")
    return "\n".join(lines)


def shown_up(usd: float) -> str:
    """Rounded up to cents; small amounts to millionths."""
    scale, digits = (100, 2) if usd >= 1 else (1_000_000, 6)
    return f"{math.ceil(usd * scale) / scale:,.{digits}f}"
