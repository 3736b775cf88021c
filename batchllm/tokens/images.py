"""What a picture costs in prompt tokens, from its size alone.

OpenAI has two ways. Tiles: a picture is made to fit 2,048 × 2,048, then to a short side of 768, and each tile of 512
costs; `low` is the base alone. Patches: squares of 32, at most 1,536 of them (a larger picture is made smaller until
they fit), times a factor; `detail` makes no difference.

Grades: tiles, and the patches of gpt-4.1 and o4-mini, A (OpenAI's guide, whose examples are tests here); gpt-5-mini,
gpt-5-nano and gpt-5.2 to 5.4 B (bills measured by users, 2026-03 to 06: the guide's factors are higher); Claude A
(width × height / 750); all others D, for which Claude's rule stands.
"""

import math
import re
from typing import Literal, NamedTuple

Detail = Literal["auto", "low", "high"]
_MOST_PATCHES = 1536
_PATCH = 32
_TILE = 512
_CANVAS, _SHORT_SIDE = 2048, 768
_PIXELS_PER_TOKEN = 750
#: Claude makes larger pictures smaller: about so many tokens at most.
_MOST_BY_PIXELS = 1600


class _Rule(NamedTuple):
    """Tiles where `tile` is given, else patches times `factor`. The first that matches a model's name holds."""

    names: re.Pattern[str]
    base: int = 0
    tile: int = 0
    factor: float = 0.0


_RULES = (
    _Rule(re.compile(r"gpt-4o-mini"), 2833, 5667),
    _Rule(re.compile(r"gpt-4\.1-mini"), factor=1.62),
    _Rule(re.compile(r"gpt-4\.1-nano"), factor=2.46),
    _Rule(re.compile(r"gpt-4(o|\.1|\.5|-turbo|-vision)"), 85, 170),
    _Rule(re.compile(r"o4-mini|codex-mini"), factor=1.72),
    _Rule(re.compile(r"o[13](-|$)"), 75, 150),
    _Rule(re.compile(r"gpt-5-nano"), factor=1.5),
    _Rule(re.compile(r"gpt-5-mini|gpt-5\.[2-9]|gpt-[6-9]"), factor=1.2),
    _Rule(re.compile(r"gpt-5"), 70, 140),
)


def image_tokens(width: int, height: int, detail: Detail = "auto", model: str = "gpt-4o") -> int:
    """Prompt tokens of one picture of `width` × `height` pixels; `auto` counts as `high`, which it may become."""
    if min(width, height) < 1:
        raise ValueError(f"a picture has at least one pixel; here: {width} x {height}")
    rule = _rule_of(model)
    if rule is None:
        return min(_MOST_BY_PIXELS, math.ceil(width * height / _PIXELS_PER_TOKEN))
    if rule.factor:
        return math.ceil(_patches(width, height) * rule.factor)
    return rule.base if detail == "low" else rule.base + rule.tile * _tiles(width, height)


def _tiles(width: int, height: int) -> int:
    shrunk = min(1.0, _CANVAS / max(width, height))
    shrunk = min(shrunk, _SHORT_SIDE / min(width, height))
    across, down = (math.ceil(round(side * shrunk, 6) / _TILE) for side in (width, height))
    return across * down


def has_rule(model: str) -> bool:
    """Whether what a picture costs is published for this model, or measured."""
    return _rule_of(model) is not None or _own_name(model).startswith("claude")


def _rule_of(model: str) -> _Rule | None:
    name = _own_name(model)
    return next((rule for rule in _RULES if rule.names.match(name)), None)


def _own_name(model: str) -> str:
    return model.lower().rsplit("/", 1)[-1].removeprefix("ft:")


def _patches(width: int, height: int) -> int:
    across, down = math.ceil(width / _PATCH), math.ceil(height / _PATCH)
    if across * down <= _MOST_PATCHES:
        return across * down
    shrunk = math.sqrt(_PATCH**2 * _MOST_PATCHES / (width * height))
    sides = [side * shrunk / _PATCH for side in (width, height)]
    # To whole patches in the direction that loses most by it; bills have been up to 6 % above this, and at the cap.
    shrunk *= min(max(1, math.floor(side)) / side for side in sides)
    across, down = (max(1, math.ceil(round(side * shrunk / _PATCH, 6))) for side in (width, height))
    return min(_MOST_PATCHES, across * down)
