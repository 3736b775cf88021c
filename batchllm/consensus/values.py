"""Votes as values again: Arrow arrays for the table, words for sentences."""

from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from batchllm.consensus.kinds import value_type
from batchllm.consensus.poll import Poll
from batchllm.consensus.votes import MISSING, LabelVotes

_SHOWN_CHARS = 60


class Values:
    """Of one poll."""

    def __init__(self, poll: Poll) -> None:
        self.type = value_type(poll.kind)
        self._texts = poll.votes.values if isinstance(poll.votes, LabelVotes) else None
        self._is_truth = poll.kind == "boolean"
        self._words = None
        if self._texts is not None and not self._is_truth:
            words = map(orjson.loads, self._texts) if poll.kind == "labels" else self._texts
            self._words = pa.array(list(words), self.type)

    def array(self, cells: npt.NDArray[Any]) -> pa.Array:
        """Codes or numbers → values; null where there is none."""
        if self._words is not None:
            return self._words.take(pa.array(cells, mask=cells <= MISSING))
        if self._is_truth:
            return pa.array(cells == 1, mask=cells <= MISSING)
        return pa.array(cells, pa.float64(), mask=np.isnan(cells))

    def shown(self, cell: float) -> str:
        """One of them as a sentence holds it."""
        if self._texts is None:
            return f"{cell:g}"
        text = " ".join(self._texts[int(cell)].split())
        return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 1]}…"
