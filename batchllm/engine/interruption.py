"""What a start says about runs before it that were killed."""

import math

from batchllm.journal import Interrupted


def told_interruption(before: Interrupted) -> str:
    """How many calls, and at most how much money, may be paid twice. Money is never rounded down."""
    runs = "the last run" if before.runs == 1 else f"the last {before.runs:,} runs"
    did = "did not end by itself" if before.runs == 1 else "did not end by themselves"
    calls = f"up to {before.calls:,} calls were in flight and may be paid twice"
    if before.usd is None:
        return f"{runs} {did}: {calls}; what that costs at most is not known (no price, or no max_tokens)"
    return f"{runs} {did}: {calls}, for at most ${shown_up(before.usd)}"


def shown_up(usd: float) -> str:
    """Rounded up to cents; small amounts to millionths."""
    scale, digits = (100, 2) if usd >= 1 else (1_000_000, 6)
    return f"{math.ceil(usd * scale) / scale:,.{digits}f}"
