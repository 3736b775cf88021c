"""What a simulated model says: a function of seed, model and text, so that a row that was given another row's
answer shows, and a second run gets the same answers. Only with `noise` it may be another one each time (see `noise`).

A rule answers first, then the request's schema, else the text is an echo: a hash of everything that may change an
answer, and the first words that were asked. Tokens are UTF-8 bytes / 4, so cutting to `max_tokens` is cutting bytes.
"""

import math
import re
import warnings
from base64 import b64encode
from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b, shake_128
from struct import pack, unpack
from typing import Final, NamedTuple

import orjson

from batchllm.errors import Fault
from batchllm.simulate.call import BYTES_PER_TOKEN, Call, Offer, count_tokens
from batchllm.simulate.fields import CallError
from batchllm.simulate.noise import Noise, strayed
from batchllm.simulate.schemas import SchemaError, make_instance
from batchllm.spec.lanes import Simulation

#: OpenAI's, of omni-moderation-latest.
CATEGORIES: Final = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent", "self-harm",
    "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip
FLAGGED_FROM: Final = 0.5
#: Scores of what no rule knows lie below this.
_LOW_SCORE: Final = 0.02
_FIRST_WORDS: Final = 8
_FIRST_CHARACTERS: Final = 80
_ANGLES: Final = 256


class ModelAnswer(NamedTuple):
    """`finish_reason` as in OpenAI's replies: stop, length, tool_calls. With a `tool` the text is its arguments.

    `tokens` are all that it took, those of the `thought` before it included.
    """

    text: str
    finish_reason: str
    tokens: int
    tool: str | None = None
    thought: str = ""


class Rules:
    """The answer rules, compiled. Patterns have been through `rule_faults`."""

    def __init__(self, simulation: Simulation) -> None:
        self._rules = [(_compiled(rule.pattern), rule.reply) for rule in simulation.answers]

    def reply(self, text: str) -> str | Mapping[str, object] | None:
        """The reply of the first rule whose pattern is found in `text`."""
        for pattern, reply in self._rules:
            if pattern.search(text):
                return reply
        return None

    def others(self, reply: object) -> list[str | Mapping[str, object]]:
        """What the rules reply else."""
        return [other for _, other in self._rules if other != reply]


def rule_faults(simulation: Simulation, path: str = "answers") -> list[Fault]:
    """Patterns that cannot be compiled, each with its place."""
    faults = []
    for number, rule in enumerate(simulation.answers):
        try:
            _compiled(rule.pattern)
        except (re.error, OverflowError, RecursionError) as error:
            place = f"{path}.{number}.pattern"
            faults.append(Fault(place, f"is no regular expression: {error}", "see Python's re module"))
    return faults


def _compiled(pattern: str) -> re.Pattern[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a later Python may read otherwise is no fault today
        return re.compile(pattern)


class Model:
    """Answers of one simulated provider."""

    def __init__(self, simulation: Simulation) -> None:
        self._rules = Rules(simulation)
        self._noise = Noise(simulation.noise)
        self._dimensions = simulation.dimensions
        self._key = blake2b(str(simulation.seed).encode(), digest_size=32).digest()

    def text_answers(self, call: Call) -> list[ModelAnswer]:
        """Chat: `choices` answers. Completion: `choices` for each prompt, in the prompts' order."""
        return [
            self._text_answer(call, subject, choice)
            for subject in call.subjects
            for choice in range(call.choices)
        ]

    def vectors(self, call: Call) -> list[bytes]:
        """A vector for each text, as the JSON that stands in the reply."""
        dimensions = call.dimensions or self._dimensions
        render = vector_base64 if call.as_base64 else vector_json
        return [render(self._digest(call.model, subject), dimensions) for subject in call.subjects]

    def scores(self, call: Call) -> list[dict[str, float]]:
        """Category → score for each text; a rule's numbers win."""
        return [self._scores(call.model, subject) for subject in call.subjects]

    def _text_answer(self, call: Call, subject: str, choice: int) -> ModelAnswer:
        asked = call.text if len(call.subjects) == 1 else subject
        reply, tool = self._rules.reply(asked), call.tool
        if reply is None:
            digest = self._digest(call.model, asked, call.extras, choice)
            offer = _chosen(call, digest)
            if offer is not None:
                call, tool = call._replace(schema=offer.parameters), offer.name
            reply = _made_up(call, tool, subject, digest)
        said = self._strayed(reply, call, asked, choice) if self._noise.is_on else reply
        text = said if isinstance(said, str) else orjson.dumps(said).decode()
        return _finished(call, text, tool, f"I think of: {first_words(subject)}" if call.reasons else "")

    def _strayed(self, reply: str | Mapping[str, object], call: Call, asked: str, choice: int) -> object:
        draws = self._noise.draws(call, self._digest(call.model, asked, call.extras, choice))
        return reply if draws is None else strayed(reply, call.schema, self._rules.others(reply), draws)

    def _scores(self, model: str, subject: str) -> dict[str, float]:
        numbers = unpack(
            f">{len(CATEGORIES)}H", shake_128(self._digest(model, subject)).digest(2 * len(CATEGORIES))
        )
        scores = {
            name: number / 65_536 * _LOW_SCORE for name, number in zip(CATEGORIES, numbers, strict=True)
        }
        reply = self._rules.reply(subject)
        if isinstance(reply, Mapping):
            given = {name: _score(value) for name, value in reply.items()}
            scores.update({name: score for name, score in given.items() if score is not None})
        return scores

    def _digest(self, model: str, text: str, extras: bytes = b"", choice: int = 0) -> bytes:
        made = blake2b(model.encode(), key=self._key, digest_size=16)
        made.update(b"\0%d\0%b\0" % (choice, extras))
        made.update(text.encode())
        return made.digest()


def _chosen(call: Call, digest: bytes) -> Offer | None:
    """Of the tools that may be called, one for every other text."""
    if not call.offered or digest[0] % 2:
        return None
    return call.offered[digest[1] % len(call.offered)]


def _made_up(call: Call, tool: str | None, subject: str, digest: bytes) -> str:
    if call.schema is not None:
        try:
            return orjson.dumps(make_instance(call.schema, digest)).decode()
        except (SchemaError, orjson.JSONEncodeError) as error:
            field = "response_format" if tool is None else "tools"
            raise CallError(
                f"Invalid schema for '{field}': {error}.", param=field, code="invalid_json_schema"
            ) from error
    text = f"echo {digest.hex()[:12]}: {first_words(subject)}"
    return orjson.dumps({"answer": text}).decode() if call.wants_json else text


def first_words(text: str) -> str:
    """Short also where words are long or are not set apart."""
    return " ".join(text[: _FIRST_CHARACTERS * 4].split()[:_FIRST_WORDS])[:_FIRST_CHARACTERS]


def _finished(call: Call, text: str, tool: str | None, thought: str) -> ModelAnswer:
    """A thought takes half of what the answer may have, at most."""
    for mark in call.stop:
        text = text.partition(mark)[0]
    reason = "stop" if tool is None else "tool_calls"
    tokens = 0
    if thought:
        thought = _cut(thought, None if call.max_tokens is None else call.max_tokens // 2)
        tokens = count_tokens(thought) if thought else 0
    if call.max_tokens is not None:
        whole, text = text, _cut(text, call.max_tokens - tokens)
        reason = reason if text == whole else "length"
    return ModelAnswer(text, reason, tokens + (count_tokens(text) if text else 0), tool, thought)


def _cut(text: str, most_tokens: int | None) -> str:
    """A token is so many bytes."""
    if most_tokens is None or len(text) * 4 <= most_tokens * BYTES_PER_TOKEN:
        return text
    return text.encode()[: most_tokens * BYTES_PER_TOKEN].decode(errors="ignore")


def _score(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= 1 else None


def vector_json(digest: bytes, dimensions: int) -> bytes:
    """A unit vector as a JSON array; its numbers read back as exactly the float32 values of `vector_base64`."""
    head, turns = _vector_draws(digest, dimensions)
    table = _angle_table(dimensions).as_json
    return b"[" + b",".join([*map(_json_number, head), *map(table.__getitem__, turns)]) + b"]"


def vector_base64(digest: bytes, dimensions: int) -> bytes:
    """The same vector as JSON text of base64 of little-endian float32."""
    head, turns = _vector_draws(digest, dimensions)
    table = _angle_table(dimensions).as_float32
    packed = pack(f"<{len(head)}f", *head) + b"".join(map(table.__getitem__, turns))
    return b'"' + b64encode(packed) + b'"'


def _vector_draws(digest: bytes, dimensions: int) -> tuple[Sequence[float], bytes]:
    """The first one to three numbers, and one of 256 angles for each pair after them.

    Each pair (cos, sin) has the same length, so the whole is a unit vector without summing squares, and an angle out
    of a table can be written as ready-made text: 1,536 numbers take 20 µs instead of 300. The first numbers are drawn
    finely, so that short vectors differ too.
    """
    size = dimensions if dimensions <= 2 else 2 + dimensions % 2
    drawn = shake_128(digest).digest(8 + (dimensions - size) // 2)
    first, second = unpack(">II", drawn[:8])
    turn = 2 * math.pi * first / 2**32
    length = math.sqrt(size / dimensions)
    if size == 1:
        return (math.copysign(1.0, first - 2**31),), b""
    if size == 2:
        return (length * math.cos(turn), length * math.sin(turn)), drawn[8:]
    height = 2 * second / 2**32 - 1
    around = math.sqrt(1 - height * height)
    return (length * around * math.cos(turn), length * around * math.sin(turn), length * height), drawn[8:]


class _AngleTable(NamedTuple):
    as_json: tuple[bytes, ...]
    as_float32: tuple[bytes, ...]


@lru_cache(maxsize=16)
def _angle_table(dimensions: int) -> _AngleTable:
    length = math.sqrt(2 / dimensions)
    pairs = [
        (length * math.cos(turn), length * math.sin(turn))
        for turn in (2 * math.pi * (number + 0.5) / _ANGLES for number in range(_ANGLES))
    ]
    return _AngleTable(
        tuple(b",".join(map(_json_number, pair)) for pair in pairs),
        tuple(pack("<2f", *pair) for pair in pairs),
    )


def _json_number(value: float) -> bytes:
    """Nine digits: as many as it takes to read the same float32 back."""
    text = b"%.9g" % unpack("<f", pack("<f", value))[0]
    return text if b"." in text or b"e" in text else text + b".0"
