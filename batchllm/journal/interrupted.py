"""What became of the latest runs, as far as they did not end of their own accord."""

from typing import NamedTuple

from batchllm.journal.database import Database


class Interrupted(NamedTuple):
    """The latest runs, as far as they did not end of their own accord: so many in a row, the first of them so early.

    So many of their calls may be paid for without an answer, for so much at most; None when nobody can bound it.
    """

    started_s: float
    runs: int
    calls: int
    usd: float | None


def interrupted(database: Database) -> Interrupted | None:
    """The runs since the last one that ended by itself: one that is killed while it starts tells nobody of another."""
    found = database.rows(
        "SELECT min(started), count(*), total(exposed_calls), total(exposed_usd),"
        " total(exposed_calls > 0 AND exposed_usd IS NULL) FROM runs"
        " WHERE run > (SELECT coalesce(max(run), 0) FROM runs WHERE clean)"
    )
    started_s, runs, calls, usd, unpriced = found[0]
    return Interrupted(started_s, runs, int(calls), None if unpriced else usd) if runs else None
