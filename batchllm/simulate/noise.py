"""Answers that are others than the rule's: what makes lanes, and samples of one lane, disagree.

Whether an answer strays, and to what, is drawn by seed, model and text; where the temperature is not 0 also by how
often the text was asked, so that samples of the same text differ and those at temperature 0 do not.
"""

from collections.abc import Mapping, Sequence
from hashlib import blake2b

import orjson

from batchllm.simulate.call import Call
from batchllm.simulate.schemas import Draws

_WHOLE = 2**32
#: A number without bounds strays by this share of itself at most, and by one at least.
_SHIFT = 0.25


class Noise:
    """`share` of the answers stray. Texts are counted in bounded memory: the oldest are forgotten."""

    def __init__(self, share: float, most: int = 1_000_000) -> None:
        self._below = round(share * _WHOLE)
        self._most = most
        self._asked: dict[bytes, int] = {}

    @property
    def is_on(self) -> bool:
        return self._below > 0

    def draws(self, call: Call, digest: bytes) -> Draws | None:
        """What an answer that strays is drawn by; None for one that does not. `digest` is of what was asked."""
        turn = 0 if call.temperature == 0 else self._turn(digest)
        draws = Draws(blake2b(b"noise:%d" % turn, key=digest, digest_size=32).digest())
        return draws if draws.below(_WHOLE) < self._below else None

    def _turn(self, digest: bytes) -> int:
        turn = self._asked.get(digest, 0)
        self._asked[digest] = turn + 1
        if len(self._asked) > self._most:
            del self._asked[next(iter(self._asked))]
        return turn


def strayed(
    reply: object, schema: object, others: Sequence[str | Mapping[str, object]], draws: Draws
) -> object:
    """Another answer that fits the schema too; without one, another rule's, `others`. The same where there is none."""
    if not isinstance(schema, Mapping):
        return others[draws.below(len(others))] if others else reply
    try:
        value = orjson.loads(reply) if isinstance(reply, str) else reply
    except orjson.JSONDecodeError:
        return reply
    return _other(value, schema, draws)


def _other(value: object, schema: Mapping[str, object], draws: Draws) -> object:
    choices = schema.get("enum")
    if isinstance(choices, list):
        left = [choice for choice in choices if choice != value]
        return left[draws.below(len(left))] if left else value
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return _shifted(value, schema, draws)
    if isinstance(value, list):
        return _toggled(value, schema, draws)
    if isinstance(value, Mapping):
        parts = schema.get("properties")
        known = parts if isinstance(parts, Mapping) else {}
        return {
            name: _other(part, known[name], draws) if isinstance(known.get(name), Mapping) else part
            for name, part in value.items()
        }
    return value


def _shifted(value: float, schema: Mapping[str, object], draws: Draws) -> float:
    """Up or down, within the bounds; the other way where that one leads out of them."""
    reach = max(1, round(abs(value) * _SHIFT))
    shift = 1 + draws.below(reach)
    ways = (shift, -shift) if draws.below(2) else (-shift, shift)
    low, high = (schema.get(name) for name in ("minimum", "maximum"))
    for way in (*ways, 1, -1):
        moved = value + way
        above = not isinstance(low, int | float) or moved >= low
        if above and (not isinstance(high, int | float) or moved <= high):
            return moved
    return value


def _toggled(values: list[object], schema: Mapping[str, object], draws: Draws) -> list[object]:
    """A set of labels with one more, or one less."""
    items = schema.get("items")
    choices = items.get("enum") if isinstance(items, Mapping) else None
    if not isinstance(choices, list) or not choices:
        return values
    one = choices[draws.below(len(choices))]
    return [value for value in values if value != one] if one in values else [*values, one]
