"""Which answers a row gets, and which of them are still to be asked for."""

from batchllm.dispatch import Portion, Spreading
from batchllm.journal import Journal
from batchllm.plan import narrow
from batchllm.records import Request


def spreading_of(journal: Journal, samples: int) -> Spreading:
    """Of each slot the rows that lack it; with `routing: all` only its lane may answer."""
    slots = journal.finished.slots
    is_pinned = slots > samples

    def spread(request: Request) -> list[Portion]:
        parts = []
        for slot in range(slots):
            open_rows = [
                position
                for position, row in enumerate(request.rows)
                if not journal.finished.has(row.ordinal, slot)
            ]
            if open_rows:
                lane, sample = divmod(slot, samples)
                parts.append(Portion(lane if is_pinned else None, narrow(request, open_rows), sample))
        return parts

    return spread
