"""The model that a reply names, held against the one that was asked for.

It is rarely the same word: an alias is answered with a dated name, a reseller's with its own. So another model is told
and not refused; which one answered each row stands in the output's `model` column. Servers that one runs oneself
name models as they like, and only a change is told of them.
"""

import re
from collections.abc import Callable

#: What a name may carry besides the model: a maker before it, a variant, a date or `latest` behind it.
_TAIL = re.compile(r"(?::[a-z0-9-]+|-latest|-[0-9]{4}-[0-9]{2}-[0-9]{2}|-[0-9]{3,8})$")
#: A gateway may answer with a new name each time.
_MOST_NAMES = 8


class Echo:
    """Told each name that replies of one lane carry; says once what is odd about it.

    `is_free`: names are the server's own. `mixes_badly`: answers of two models must not stand side by side (vectors).
    """

    __slots__ = ("_asked", "_is_free", "_mixes_badly", "_say", "seen")

    def __init__(self, asked: str, *, is_free: bool, mixes_badly: bool, say: Callable[[str], None]) -> None:
        self._asked = asked
        self._is_free = is_free
        self._mixes_badly = mixes_badly
        self._say = say
        self.seen: set[str] = {asked}

    def note(self, model: str) -> None:
        """A name that is not in `seen`."""
        if len(self.seen) > _MOST_NAMES:
            return
        others = {plain_name(known) for known in self.seen - {self._asked}}
        self.seen.add(model)
        shown = model[:100]
        if self._mixes_badly and others and plain_name(model) not in others:
            self._say(
                f"vectors come from {shown} now and came from another model before; they do not compare"
            )
        elif not self._is_free and plain_name(model) != plain_name(self._asked):
            self._say(
                f"{self._asked} was asked for, and {shown} answers; the output's model column tells which"
            )


def plain_name(model: str) -> str:
    """Without what may differ between two names of one model."""
    name = model.lower().rstrip("/").rpartition("/")[2]
    while (shorter := _TAIL.sub("", name)) not in (name, ""):
        name = shorter
    return name
