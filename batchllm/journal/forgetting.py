"""Failures that are to be asked again: their lines leave the record, their attempts stay in usage/."""

from dataclasses import dataclass, field

from batchllm.journal.database import store_meta
from batchllm.journal.parts import Store


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Failures that are no more: of rows that `in` finds, of units (`row * slots + slot`) that `has_unit` does.

    `units`: so many units of work are pending again, with those that were skipped since others had failed.
    """

    units: int
    rows: bytearray = field(repr=False)
    failed: bytearray = field(repr=False)

    def __contains__(self, row: int) -> bool:
        return _has(self.rows, row)

    def has_unit(self, unit: int) -> bool:
        return _has(self.failed, unit)


def difference(before: bytearray, after: bytearray) -> bytearray:
    """The bits that are set no more."""
    was, stays = (int.from_bytes(bits, "little") for bits in (before, after))
    return bytearray((was & ~stays).to_bytes(len(before), "little"))


def _has(bits: bytearray, at: int) -> bool:
    place = at >> 3
    return place < len(bits) and bool(bits[place] >> (at & 7) & 1)


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
