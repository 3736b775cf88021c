"""The many shapes of an error body, brought to one.

OpenAI nests it, Mistral and xAI lay it flat, OpenRouter puts the upstream's text inside, FastAPI servers send a
list of complaints, Gemini an array, gateways a web page. What decides later is a set of names and one message.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import orjson

#: A longer body is no error message; its beginning is kept as text.
_PARSED_BYTES = 1 << 20
_MESSAGE_CHARS = 4_000
_TITLE = re.compile(r"<title[^>]*>([^<]{1,200})", re.IGNORECASE)
_TAG = re.compile(r"\s*<(?:!doctype|html|head|body|\?xml)\b", re.IGNORECASE)

_NOTHING: Mapping[str, object] = {}


class ErrorBody(NamedTuple):
    """`names` holds code, type and their kin in lower case; `detail` is the error object as it came."""

    message: str = ""
    code: str = ""
    names: frozenset[str] = frozenset()
    param: str = ""
    detail: Mapping[str, object] = _NOTHING
    is_page: bool = False

    @property
    def is_retryable(self) -> bool | None:
        """OpenRouter's own word on it."""
        said = _part(self.detail, "availability").get("retryable")
        return said if isinstance(said, bool) else None

    @property
    def status(self) -> int | None:
        """The HTTP status that some servers put into the code of an error that they send with status 200."""
        return int(self.code) if re.fullmatch("[45][0-9]{2}", self.code) else None

    @property
    def generated(self) -> str | None:
        """What the model wrote before the server rejected it (Groq): paid for."""
        text = self.detail.get("failed_generation")
        return text if isinstance(text, str) else None


def read_error(body: bytes) -> ErrorBody:
    """The error in the body of a reply whose status is no success."""
    if len(body) <= _PARSED_BYTES:
        try:
            return error_in(orjson.loads(body))
        except orjson.JSONDecodeError:
            pass  # a page, or plain text
    text = body[: _MESSAGE_CHARS * 4].decode("utf-8", "replace").strip()
    if is_page(text):
        title = _TITLE.search(text)
        return ErrorBody(f"a web page: {title[1].strip()}" if title else "a web page", is_page=True)
    return ErrorBody(text[:_MESSAGE_CHARS])


def is_page(text: str) -> bool:
    return _TAG.match(text.removeprefix("\ufeff")) is not None


def error_in(parsed: object) -> ErrorBody:
    """The error in parsed JSON of any shape."""
    if isinstance(parsed, list):
        first = next((item for item in parsed if isinstance(item, Mapping)), _NOTHING)
        parsed = first if "error" in first else {"detail": parsed}
    if not isinstance(parsed, Mapping):
        return ErrorBody(_text(parsed))
    error = parsed.get("error")
    if isinstance(error, Mapping):
        return _from_object(error)
    if isinstance(error, list):
        return _from_object({"errors": error})
    if isinstance(error, str):  # xAI, Fireworks, TGI, Together: the rest of the object still tells
        return _from_object({**parsed, "message": error})
    return _from_object(parsed)


def _from_object(error: Mapping[str, object]) -> ErrorBody:
    metadata = _part(error, "metadata")
    code = _name(error.get("code"))
    names = (
        code,
        _name(error.get("type")),
        _name(error.get("error_type")),
        _name(error.get("status")),  # Gemini
        _name(metadata.get("error_type")),  # OpenRouter
        _name(_part(error, "innererror").get("code")),  # Azure
    )
    complaints = _complaints(error)
    message = _message(error, complaints)
    upstream = metadata.get("raw")
    if isinstance(upstream, str) and upstream:
        message = f"{message}: {_upstream_message(upstream)}"
    param = error.get("param")
    return ErrorBody(
        message[:_MESSAGE_CHARS],
        code,
        frozenset(name for name in (*names, *(complaint.type for complaint in complaints)) if name),
        param if isinstance(param, str) else next((c.place for c in complaints if c.place), ""),
        error,
    )


class _Complaint(NamedTuple):
    place: str
    type: str
    message: str


def _complaints(error: Mapping[str, object]) -> tuple[_Complaint, ...]:
    """Lists of what is wrong with which field: pydantic's `detail` (FastAPI, Mistral), or `errors`."""
    message = error.get("message")
    nested = message.get("detail") if isinstance(message, Mapping) else None
    for listed in (nested, error.get("detail"), error.get("errors")):
        if isinstance(listed, list):
            return tuple(_complaint(item) for item in listed[:10] if isinstance(item, Mapping))
    return ()


def _complaint(item: Mapping[str, object]) -> _Complaint:
    place = item.get("loc")
    steps = [str(step) for step in place if step != "body"] if isinstance(place, list) else []
    return _Complaint(".".join(steps), _name(item.get("type")), _first_text(item, ("msg", "message")))


def _message(error: Mapping[str, object], complaints: Iterable[_Complaint]) -> str:
    said = _first_text(error, ("message", "detail", "msg", "reason", "title"))
    lines = [f"{complaint.place}: {complaint.message}".removeprefix(": ") for complaint in complaints]
    return said or "; ".join(lines) or (_text(error) if error else "")


def _upstream_message(raw: str) -> str:
    """OpenRouter hands on what the upstream said: text, or its JSON."""
    try:
        inner = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return raw
    return error_in(inner).message or raw


def _first_text(item: Mapping[str, object], keys: Iterable[str]) -> str:
    return next((value for key in keys if isinstance(value := item.get(key), str) and value), "")


def _part(error: Mapping[str, object], name: str) -> Mapping[str, object]:
    part = error.get(name)
    return part if isinstance(part, Mapping) else _NOTHING


def _name(value: object) -> str:
    """Codes come as words, as numbers, as numbers in words."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    return str(value).strip().lower()[:200]


def _text(value: object) -> str:
    if isinstance(value, str):
        return value[:_MESSAGE_CHARS]
    try:
        return orjson.dumps(value)[:_MESSAGE_CHARS].decode("utf-8", "ignore")
    except orjson.JSONEncodeError:  # it reads deeper nesting than it writes
        return ""
