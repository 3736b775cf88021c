"""What is kept of a reply beside its text, where the job asks for it: one column each.

    tool_calls      the functions that the model asks for     contents      the texts of all choices (n > 1)
    logprobs        of the tokens of the first choice         reasoning     the model's thoughts, as text
    citations       addresses of sources                      search_results, annotations   what is told of them

An answer is then kept as JSON: its text under `content`, the rest under the names of the columns. What a provider
does not tell is null, and what it tells in an unknown form too: an extra never costs the answer beside it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
import pyarrow as pa

from batchllm.errors import InvariantError
from batchllm.records import AnswerValue
from batchllm.spec import models
from batchllm.task.tools import CALLS_FIELD, calls_of

_URL_FIELDS = ("title", "url", "date", "snippet")
_TOP = pa.list_(pa.struct([("token", pa.string()), ("logprob", pa.float64())]))
_LOGPROBS = pa.list_(pa.struct([("token", pa.string()), ("logprob", pa.float64()), ("top", _TOP)]))
_RESULTS = pa.list_(pa.struct([(name, pa.string()) for name in _URL_FIELDS]))
_ANNOTATIONS = pa.list_(
    pa.struct(
        [
            *((name, pa.string()) for name in ("type", "url", "title")),
            *((name, pa.int64()) for name in ("start_index", "end_index")),
        ]
    )
)
_MOST = 2**63


class Told(NamedTuple):
    """A reply taken apart: its `choices` in the order of their index, and the first one's message."""

    body: Mapping[str, object]
    choices: Sequence[Mapping[str, object]]
    message: Mapping[str, object]


class Extra(NamedTuple):
    """A column, and where its value stands in a reply. Values are what JSON holds."""

    field: pa.Field
    read: Callable[[Told], object]


class Extras:
    """All of one job, in the order of their columns. Falsy when there are none."""

    def __init__(self, extras: Sequence[Extra]) -> None:
        self._extras = tuple(extras)
        self.fields: tuple[pa.Field, ...] = tuple(extra.field for extra in extras)

    def __bool__(self) -> bool:
        return bool(self._extras)

    def kept(self, content: str | None, told: Told) -> bytes:
        """The answer as it is kept."""
        parts: dict[str, object] = {"content": content}
        for extra in self._extras:
            parts[extra.field.name] = extra.read(told)
        return orjson.dumps(parts)

    def columns(self, answers: Sequence[Mapping[str, Any]]) -> list[pa.Array]:
        return [pa.array([answer.get(field.name) for answer in answers], field.type) for field in self.fields]


def extras_of(
    spec: models.ChatTask | models.CompletionTask, text_of: Callable[[Mapping[str, object]], str | None]
) -> Extras:
    """`text_of`: the text of a choice, None where it has none that could be read."""
    extras: list[Extra] = []
    if isinstance(spec, models.ChatTask) and spec.tools is not None:
        extras.append(Extra(CALLS_FIELD, lambda told: calls_of(told.message)))
    if (spec.params.n or 1) > 1:
        contents = pa.field("contents", pa.list_(pa.string()))
        extras.append(Extra(contents, lambda told: [text_of(choice) for choice in told.choices]))
    if spec.params.logprobs:
        extras.append(Extra(pa.field("logprobs", _LOGPROBS), _logprobs))
    if isinstance(spec, models.ChatTask):
        extras += [_INCLUDED[name] for name in dict.fromkeys(spec.include or ())]
    return Extras(extras)


def parts_of(value: AnswerValue) -> Mapping[str, Any]:
    """A kept answer."""
    if not isinstance(value, bytes):
        raise InvariantError("a kept answer holds text where its task keeps JSON bytes")
    parts: Mapping[str, Any] = orjson.loads(value)
    return parts


def _logprobs(told: Told) -> object:
    """OpenAI's list, or the three lists of the older form: of completions, and kept by Together."""
    given = told.choices[0].get("logprobs")
    if not isinstance(given, dict):
        return None
    if isinstance(given.get("content"), list):
        return [_token(item, _tops(item.get("top_logprobs"))) for item in _dicts(given["content"])]
    tokens, numbers = given.get("tokens"), given.get("token_logprobs")
    if not isinstance(tokens, list) or not isinstance(numbers, list) or len(tokens) != len(numbers):
        return None
    tops = given.get("top_logprobs")
    if not isinstance(tops, list) or len(tops) != len(tokens):
        tops = [None] * len(tokens)
    return [
        _token({"token": token, "logprob": number}, _tops(top))
        for token, number, top in zip(tokens, numbers, tops, strict=True)
    ]


def _token(given: Mapping[str, object], top: list[dict[str, object]]) -> dict[str, object]:
    return {**_pair(given.get("token"), given.get("logprob")), "top": top}


def _tops(given: object) -> list[dict[str, object]]:
    if isinstance(given, dict):
        return [_pair(token, number) for token, number in given.items()]
    return [_pair(item.get("token"), item.get("logprob")) for item in _dicts(given)]


def _pair(token: object, number: object) -> dict[str, object]:
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    return {"token": _text(token), "logprob": number if is_number else None}


def _reasoning(told: Told) -> object:
    """`reasoning_content` (DeepSeek, xAI, Fireworks), `reasoning` (Groq, Together, OpenRouter), chunks (Mistral)."""
    for name in ("reasoning_content", "reasoning"):
        text = _text(told.message.get(name))
        if text:
            return text
    thoughts: list[str] = []
    for chunk in _dicts(told.message.get("content")):
        if chunk.get("type") == "thinking":
            thinking = chunk.get("thinking")
            pieces = [thinking] if isinstance(thinking, str) else [p.get("text") for p in _dicts(thinking)]
            thoughts += [piece for piece in pieces if isinstance(piece, str)]
    return "".join(thoughts) or None


def _citations(told: Told) -> object:
    """The reply's own list of addresses (Perplexity, xAI); else those of the message's annotations."""
    given = told.body.get("citations")
    if isinstance(given, list):
        urls = [item.get("url") if isinstance(item, dict) else item for item in given]
        return [url for url in urls if isinstance(url, str)]
    annotated = _annotations(told)
    if not isinstance(annotated, list):
        return None
    return list(dict.fromkeys(note["url"] for note in annotated if note["url"] is not None))


def _search_results(told: Told) -> object:
    given = told.body.get("search_results")
    if not isinstance(given, list):
        return None
    return [{name: _text(item.get(name)) for name in _URL_FIELDS} for item in _dicts(given)]


def _annotations(told: Told) -> object:
    given = told.message.get("annotations")
    if not isinstance(given, list):
        return None
    return [_annotation(note) for note in _dicts(given)]


def _annotation(note: Mapping[str, object]) -> dict[str, object]:
    """What is told stands under the name of its kind: {type: url_citation, url_citation: {...}}."""
    kind = _text(note.get("type"))
    within = note.get(kind) if kind is not None else None
    told = within if isinstance(within, dict) else note
    return {
        "type": kind,
        "url": _text(told.get("url")),
        "title": _text(told.get("title")),
        "start_index": _whole(told.get("start_index")),
        "end_index": _whole(told.get("end_index")),
    }


_INCLUDED: Mapping[str, Extra] = {
    "reasoning": Extra(pa.field("reasoning", pa.string()), _reasoning),
    "citations": Extra(pa.field("citations", pa.list_(pa.string())), _citations),
    "search_results": Extra(pa.field("search_results", _RESULTS), _search_results),
    "annotations": Extra(pa.field("annotations", _ANNOTATIONS), _annotations),
}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _whole(value: object) -> int | None:
    return value if type(value) is int and -_MOST <= value < _MOST else None


def _dicts(value: object) -> list[dict[str, object]]:
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []
