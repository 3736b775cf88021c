"""Which answers a row gets, and which of them are still to be asked for."""

from batchllm.dispatch import Portion, Spreading
from batchllm.journal import Forgotten, Journal
from batchllm.plan import narrow
from batchllm.records import Request


def spreading_of(journal: Journal, samples: int, again: Forgotten | None = None) -> Spreading:
    """Of each slot the rows that lack it; with `routing: all` only its lane may answer.

    `again`: failures that are to be asked once more, and nothing else that a row may lack.
    """
    slots = journal.finished.slots
    is_pinned = slots > samples

    def spread(request: Request) -> list[Portion]:
        parts = []
        for slot in range(slots):
            open_rows = [
                position
                for position, row in enumerate(request.rows)
                if not journal.finished.has(row.ordinal, slot)
                and (again is None or again.has_unit(row.ordinal * slots + slot))
            ]
            if open_rows:
                lane, sample = divmod(slot, samples)
                parts.append(Portion(lane if is_pinned else None, narrow(request, open_rows), sample))
        return parts

    return spread
