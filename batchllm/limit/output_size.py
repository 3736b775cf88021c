"""How many tokens will the next answer have? Learned from the answers so far.

A reservation that is too small overruns the provider's budget, one that is too large wastes it. The estimate is
the mean plus two deviations, both decaying (a run's rows may change in kind), and never above the cap that the
request itself asks for.
"""

_FURTHEST = 4.0  # an estimate is not corrected by more than this, whatever the provider says
_WEIGHT = 0.05  # of the newest answer: about the last forty count
_FIRST_GUESS = 256  # an unbounded answer before anything is known; a guess


class OutputSize:
    __slots__ = ("_cap", "_choices", "_deviation", "_mean", "_seen")

    def __init__(self, cap: int | None, choices: int = 1) -> None:
        """`cap` is the most tokens that a request allows, all `choices` together; 0 for tasks that have no tokens."""
        self._cap = cap
        self._choices = choices
        self._mean = 0.0
        self._deviation = 0.0
        self._seen = 0

    def estimate(self) -> int:
        if self._seen == 0:
            return _FIRST_GUESS * self._choices if self._cap is None else self._cap
        guess = int(self._mean + 2 * self._deviation) + 1
        return guess if self._cap is None else min(guess, self._cap)

    def learn(self, tokens: int) -> None:
        if self._seen == 0:
            self._mean = float(tokens)
            self._deviation = tokens / 2
        else:
            error = tokens - self._mean
            self._mean += _WEIGHT * error
            self._deviation += _WEIGHT * (abs(error) - self._deviation)
        self._seen += 1


class PromptSize:
    """By how much our count of prompt tokens misses the provider's: the frame of a chat, another tokenizer."""

    __slots__ = ("_ratio",)

    def __init__(self) -> None:
        self._ratio = 1.0

    def correct(self, tokens: int) -> int:
        return int(tokens * self._ratio + 0.5)

    def learn(self, counted: int, told: int) -> None:
        if counted > 0 and told > 0:
            ratio = min(_FURTHEST, max(1.0 / _FURTHEST, told / counted))
            self._ratio += _WEIGHT * (ratio - self._ratio)
