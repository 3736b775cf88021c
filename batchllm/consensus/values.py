"""Votes as values again: Arrow arrays for the table, words for sentences."""

from typing import Any

import numpy as np
import numpy.typing as npt
import orjson
import pyarrow as pa

from batchllm.consensus.kinds import value_type
from batchllm.consensus.normalising import set_text
from batchllm.consensus.poll import Poll
from batchllm.consensus.votes import MISSING, LabelVotes

_SHOWN_CHARS = 60
_NO_LABEL = set_text([])
#: Whole numbers up to here are shown with all their digits.
_LONG = 1e15


class Values:
    """Of one poll."""

    def __init__(self, poll: Poll) -> None:
        self.type = value_type(poll.kind)
        self._texts = poll.votes.values if isinstance(poll.votes, LabelVotes) else None
        self._is_truth = poll.kind == "boolean"
        self._is_set = poll.kind == "labels"
        self._words = None
        if self._texts is not None and not self._is_truth:
            words = map(orjson.loads, self._texts) if self._is_set else self._texts
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
            return f"{cell:.0f}" if cell.is_integer() and abs(cell) < _LONG else f"{cell:.10g}"
        text = self._texts[int(cell)]
        return "no label" if self._is_set and text == _NO_LABEL else self.line(text)

    def line(self, text: str) -> str:
        """A text of any length as a sentence holds it."""
        line = " ".join(text.split())
        return line if len(line) <= _SHOWN_CHARS else f"{line[: _SHOWN_CHARS - 1]}…"
