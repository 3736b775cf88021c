"""The longest text that a model reads, held against texts before they are sent.

Only what is sure is said: a text that is refused here is asked nowhere.
"""

from collections.abc import Callable
from functools import cache

from batchllm.tokens.counting import TokenCounter, byte_count

#: No text has fewer bytes for a token, as far as anybody has seen: below, nothing is counted.
_FEWEST_BYTES = 2
#: Of a character; a token has at least one.
_MOST_BYTES = 4


class InputCap:
    """`find_counter` is called for the first text that must be counted: a vocabulary takes time to read.

    It counts as the model does, or is not exact.
    """

    def __init__(self, model: str, most_tokens: int, find_counter: Callable[[], TokenCounter]) -> None:
        self.model = model
        self.most_tokens = most_tokens
        self._counter = cache(find_counter)

    def fault(self, text: str) -> str | None:
        """Why a text is too long; None where it is not, or where that cannot be known."""
        if len(text) * _MOST_BYTES <= self.most_tokens:
            return None
        size = byte_count(text)
        if size <= self.most_tokens * _FEWEST_BYTES:
            return None
        counter = self._counter()
        if counter.is_exact:
            tokens = counter.count(text)
            said = f"{tokens:,} tokens"
        else:
            tokens = len(text.split())  # no vocabulary has a token for more than a word
            said = f"{tokens:,} words"
        if tokens <= self.most_tokens:
            return None
        return f"the text has {said}; {self.model} reads {self.most_tokens:,} tokens"
