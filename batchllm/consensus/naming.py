"""Sets of labels as arrays: which labels each has, and how many votes of a row name one."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import orjson

from batchllm.consensus.votes import MISSING, Codes

#: Labels of a set that a sentence tells.
MOST_TOLD = 4
Ints = npt.NDArray[np.int64]


class Naming:
    """Of the sets that are values of a poll, as JSON text."""

    def __init__(self, values: Sequence[str]) -> None:
        self.members: list[list[str]] = [orjson.loads(text) for text in values]
        labels = {
            label: at for at, label in enumerate(sorted({one for some in self.members for one in some}))
        }
        self._width = len(labels) + 1
        self._keys = np.sort(
            np.array(
                [at * self._width + labels[one] for at, some in enumerate(self.members) for one in some],
                np.int64,
            )
        )
        self.sizes = np.array([len(some) for some in self.members] or [0], np.int64)
        self._told = np.full(
            (len(self.members) + 1, MOST_TOLD), MISSING, np.int64
        )  # the last is that of no set
        for at, some in enumerate(self.members):
            told = [labels[one] for one in some[:MOST_TOLD]]
            self._told[at, : len(told)] = told

    def counts(self, cells: Codes, codes: Codes) -> list[Ints]:
        """Of each row, how many of its votes name the first label of the set in `cells`, the second, and so on."""
        return [self._naming(codes, self._told[cells, at]) for at in range(MOST_TOLD)]

    def _naming(self, codes: Codes, labels: Ints) -> Ints:
        if not len(self._keys):
            return np.zeros(len(codes), np.int64)
        found = np.zeros(len(codes), np.int64)
        for column in codes.T:
            keys = column * self._width + labels
            place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
            found += (self._keys[place] == keys) & (column > MISSING) & (labels > MISSING)
        return found
