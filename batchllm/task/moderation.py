"""Moderation: the texts of several rows → one request; the reply → flags and scores, kept as canonical JSON.

Results have no index; their order is the inputs' order, so only their number can be checked. OpenAI says whether an
input is flagged; Mistral says it for each category, and one is enough. Mistral's categories keep their names; where one
means what a category of OpenAI's means, it stands under that name too, so that both can be asked alike.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa

from batchllm.errors import InvariantError
from batchllm.ports import ImageFiles, Ruler
from batchllm.prompt import Template
from batchllm.records import Answer, AnswerValue, Failure, Reading, Request, Row
from batchllm.spec import models
from batchllm.task.images import RowImages
from batchllm.task.packed import row_text, texts_of
from batchllm.task.reply import open_envelope

#: Beyond this a whole number is no longer exact as a float64; no score comes near it. NaN is not below it.
_EXACT = 2**53
#: Mistral's category → OpenAI's of the same meaning (`sexual` has one name at both).
_SAME_MEANING: Mapping[str, str] = {
    "hate_and_discrimination": "hate",
    "violence_and_threats": "violence",
    "selfharm": "self-harm",
    "criminal": "illicit",
}


class ModerationTask:
    """Raises TemplateError."""

    kind = "moderation"
    path = "/moderations"
    content_field = "input"
    is_packed = True
    #: A map, since providers differ in their categories: polars has `.map.get("hate")`, DuckDB `scores['hate']`.
    answer_fields: tuple[pa.Field, ...] = (
        pa.field("flagged", pa.bool_()),
        pa.field("categories", pa.list_(pa.string())),
        pa.field("scores", pa.map_(pa.string(), pa.float64())),
    )

    def __init__(self, spec: models.ModerationTask, files: ImageFiles | None = None) -> None:
        self._text = Template(spec.text, where="task.text")
        self._images = None if spec.images is None else RowImages(spec.images, files)
        self.template_columns = self._text.columns
        if self._images is not None:
            self.is_packed = False  # a list of parts is one input
            self.template_columns |= self._images.columns

    def content(self, row: Row) -> object:
        """The row's text, of which a request holds a list; with images a list of parts, which is a request."""
        text = row_text(self._text, row, "judge")
        if self._images is None:
            return text
        return [{"type": "text", "text": text}, *self._images.parts(row.values)]

    def texts(self, content: object) -> Sequence[str]:
        if self._images is not None and isinstance(content, list):
            return [part["text"] for part in content if isinstance(part, dict) and "text" in part]
        return texts_of(content)

    def fixed_tokens(self, _ruler: Ruler, /) -> int:
        return 0

    def other_tokens(self, content: object, ruler: Ruler, /) -> int:
        return 0 if self._images is None else self._images.tokens(content, ruler)

    def read(self, reply: object, request: Request) -> Reading | Failure:
        envelope = open_envelope(reply)
        if isinstance(envelope, Failure):
            return envelope
        results = envelope.body.get("results")
        if not isinstance(results, list):
            return envelope.malformed("the reply has no list of results")
        if len(results) != len(request.rows):
            return envelope.malformed(
                f"the reply has {len(results):,} results for {len(request.rows):,} texts"
            )
        answers: list[Answer] = []
        for at, result in enumerate(results):
            kept = _kept(result)
            if kept is None:
                return envelope.malformed(f"result {at} has no usable flags and scores")
            answers.append(Answer(kept))
        return envelope.accept(tuple(answers))

    def columns(self, values: Sequence[AnswerValue]) -> list[pa.Array]:
        results = [_result(value) for value in values]
        data = (
            [result["flagged"] for result in results],
            [sorted(name for name, is_true in result["categories"].items() if is_true) for result in results],
            [sorted(result["category_scores"].items()) for result in results],
        )
        return [pa.array(column, field.type) for column, field in zip(data, self.answer_fields, strict=True)]


def _kept(result: object) -> bytes | None:
    """One result in canonical form; None when it says nothing that could be relied on."""
    if not isinstance(result, dict):
        return None
    categories, scores = result.get("categories"), result.get("category_scores")
    if not isinstance(categories, dict) or not isinstance(scores, dict | None):
        return None
    # Null means that the model does not know this category.
    flags = {name: is_true for name, is_true in categories.items() if is_true is not None}
    numbers = {name: score for name, score in (scores or {}).items() if score is not None}
    flagged = result.get("flagged")
    if flagged is None and flags:
        flagged = any(flags.values())
    if not all(isinstance(is_true, bool) for is_true in (flagged, *flags.values())):
        return None
    if not all(type(score) in {int, float} and abs(score) < _EXACT for score in numbers.values()):
        return None
    for own, usual in _SAME_MEANING.items():
        if own in flags:
            flags.setdefault(usual, flags[own])
        if own in numbers:
            numbers.setdefault(usual, numbers[own])
    kept = {"flagged": flagged, "categories": flags, "category_scores": numbers}
    return orjson.dumps(kept, option=orjson.OPT_SORT_KEYS)


def _result(value: AnswerValue) -> Mapping[str, Any]:
    if not isinstance(value, bytes):
        raise InvariantError("a kept result holds text where this task keeps JSON bytes")
    result: Mapping[str, Any] = orjson.loads(value)
    return result
