"""The longest text that a model reads, held against texts before they are sent.

Only what is sure is said: a text that is refused here is asked nowhere.
"""

from dataclasses import dataclass

from batchllm.tokens.counting import TokenCounter, byte_count

#: No text has fewer bytes for a token, as far as anybody has seen: below, nothing is counted.
_FEWEST_BYTES = 2


@dataclass(frozen=True, slots=True)
class InputCap:
    """`counter` counts as the model does, or is not exact."""

    model: str
    most_tokens: int
    counter: TokenCounter

    def fault(self, text: str) -> str | None:
        """Why a text is too long; None where it is not, or where that cannot be known."""
        if (
            len(text) * 4 <= self.most_tokens
        ):  # no character has more than four bytes, and no token less than one
            return None
        size = byte_count(text)
        if size <= self.most_tokens * _FEWEST_BYTES:
            return None
        if self.counter.is_exact:
            tokens = self.counter.count(text)
            said = f"{tokens:,} tokens"
        else:
            tokens = len(text.split())  # no vocabulary has a token for more than a word
            said = f"{tokens:,} words"
        if tokens <= self.most_tokens:
            return None
        return f"the text has {said}; {self.model} reads {self.most_tokens:,} tokens"
