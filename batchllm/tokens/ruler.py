"""What counts in a request beside its texts, as the one of several models counts it that counts most.

A run reserves by it before anything is sent, so where no rule is published the guess is a high one: what a provider
counts brings it down afterwards.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from batchllm.tokens.counting import TokenCounter, estimate
from batchllm.tokens.images import Detail, has_rule, image_tokens
from batchllm.tokens.input_cap import InputCap
from batchllm.tokens.messages import LARGEST, tool_tokens
from batchllm.tokens.picture_size import size_in_url

#: Of a picture whose model publishes nothing. Squares of 16 × 16 pixels (Pixtral's) are the smallest that are known of
#: any model, 4,000 is what most stay below, and a small one may count as a whole tile: guesses.
_LEAST, _MOST, _SQUARE = 300, 4_000, 16 * 16
#: What the published rule for tools may miss by, and what JSON has more of, for its bytes, than prose: guesses.
_RULE_MARGIN, _JSON_MARGIN = 1.15, 1.4
_BY_BYTES = TokenCounter("bytes/3.5")


@dataclass(frozen=True, slots=True)
class Ruler:
    """`models` are those that may be asked. `counter`: None estimates by bytes. `cap`: of the one that reads most."""

    models: tuple[str, ...] = ("",)
    counter: TokenCounter | None = None
    cap: InputCap | None = None

    def tools(self, tools: Sequence[Mapping[str, Any]]) -> int:
        """What the definitions of functions add to each request."""
        counter, margin = self.counter, _RULE_MARGIN
        if counter is None or counter.encoding is None:
            counter, margin = _BY_BYTES, _JSON_MARGIN
        return max(math.ceil(margin * tool_tokens(tools, model, counter=counter)) for model in self.models)

    def picture(self, url: str, detail: Detail = "auto") -> int:
        """A picture by its address: of a data URL its real size counts, of any other the largest."""
        width, height = size_in_url(url) or (LARGEST, LARGEST)
        return max(_of_picture(width, height, detail, model) for model in self.models)

    def words(self, text: str) -> int:
        """Text that is JSON and no prose."""
        return math.ceil(_JSON_MARGIN * estimate(text))

    def too_long(self, texts: Sequence[str]) -> str | None:
        """Why no model reads all of what a row asks; None where one may, or where it is not known."""
        return None if self.cap is None else self.cap.fault("".join(texts))


def _of_picture(width: int, height: int, detail: Detail, model: str) -> int:
    if has_rule(model):
        return image_tokens(width, height, detail, model)
    return _LEAST if detail == "low" else min(_MOST, max(_LEAST, math.ceil(width * height / _SQUARE)))
