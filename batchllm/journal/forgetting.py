"""Failures that are to be asked again: their lines leave the record, their attempts stay in usage/."""

from dataclasses import dataclass, field

from batchllm.journal.database import store_meta
from batchllm.journal.parts import Store


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Failures that are no more: so many units of work, of rows that `in` finds."""

    units: int
    rows: bytearray = field(repr=False)

    def __contains__(self, row: int) -> bool:
        place = row >> 3
        return place < len(self.rows) and bool(self.rows[place] >> (row & 7) & 1)


def forget_failures(store: Store) -> None:
    """All of them; the manifest is to be written after it, and what is left of their parts to be removed."""
    counts = store.database.counts()
    with store.database.transaction() as connection:
        connection.execute(
            "UPDATE parts SET state = 'retired' WHERE state = 'committed' AND kind = 'failures'"
        )
        connection.execute("DELETE FROM failures")
        store_meta(connection, "complete", "0")
        store.database.store_counts(connection, counts._replace(failed=0))
