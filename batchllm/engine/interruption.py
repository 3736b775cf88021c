"""What a start says about runs before it that were killed, and what a run says of its calls when it is asked."""

import math
from collections import Counter
from collections.abc import Sequence

from batchllm.dispatch import Out
from batchllm.journal import Interrupted

_MOST_TOLD = 10


def told_interruption(before: Interrupted) -> str:
    """How many calls, and at most how much money, may be paid twice. Money is never rounded down."""
    runs = "the last run" if before.runs == 1 else f"the last {before.runs:,} runs"
    did = "did not end by itself" if before.runs == 1 else "did not end by themselves"
    calls = f"up to {before.calls:,} calls were in flight and may be paid twice"
    if before.usd is None:
        return f"{runs} {did}: {calls}; what that costs at most is not known (no price, or no max_tokens)"
    return f"{runs} {did}: {calls}, for at most ${shown_up(before.usd)}"


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
