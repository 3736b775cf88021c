"""Errors as each provider lays them out: what is wrong, in OpenAI's shape, into another's.

The shapes are those of captured replies and of the providers' own documents; what a profile adds to them is data.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import NamedTuple, TypeAlias

import orjson


class Reason(StrEnum):
    """Why a request is turned down."""

    KEY = "key"
    MODEL = "model"
    PATH = "path"
    FIELD = "field"
    RATE = "rate"
    TOO_LARGE = "too_large"
    OVERLOAD = "overload"
    BROKEN = "broken"


class Said(NamedTuple):
    """What a provider says for a reason; what is empty stays as it is."""

    status: int = 0
    type: str = ""
    code: str = ""
    message: str = ""


class Complaint(NamedTuple):
    status: int
    message: str
    type: str
    code: str | None
    param: str | None


Layout: TypeAlias = Callable[[Complaint], object]


def nested(said: Complaint) -> object:
    """OpenAI, Groq, Together, Fireworks, DeepSeek, Azure."""
    return {"error": {"message": said.message, "type": said.type, "param": said.param, "code": said.code}}


def flat(said: Complaint) -> object:
    """Mistral; a field is complained of in pydantic's list."""
    detail = [{"type": said.code, "loc": ["body", said.param], "msg": said.message, "input": None}]
    return {
        "object": "error",
        "message": {"detail": detail} if said.status == 422 else said.message,
        "type": said.type,
        "param": None,
        "code": None if said.status == 422 else said.code,
        "raw_status_code": said.status,
    }


def beside(said: Complaint) -> object:
    """xAI: a bare string beside the code."""
    return {"code": said.code or said.type, "error": said.message}


def numbered(said: Complaint) -> object:
    """vLLM: the status is the code."""
    return {"error": {"message": said.message, "type": said.type, "param": None, "code": said.status}}


def with_metadata(said: Complaint) -> object:
    """OpenRouter. An upstream that breaks off is told with status 200: then the code is the status that is meant."""
    code = int(said.code) if said.status == 200 and said.code else said.status
    return {"error": {"code": code, "message": said.message, "metadata": {"error_type": said.type}}}


def listed(said: Complaint) -> object:
    """Gemini: an array of one."""
    return [{"error": {"code": said.status, "message": said.message, "status": said.type}}]


def bare(said: Complaint) -> object:
    """LM Studio: no more than the text."""
    return {"error": said.message}


def typed(said: Complaint) -> object:
    """TGI."""
    return {"error": said.message, "error_type": said.type}


def reworded(layout: Layout, words: Mapping[Reason, Said], status: int, body: bytes) -> tuple[int, bytes]:
    """Status and body of a refusal in a provider's words."""
    found = orjson.loads(body)
    error = found.get("error", found)
    message, code = str(error.get("message")), error.get("code")
    said = words.get(_reason(status, code, message), Said())
    complaint = Complaint(
        said.status or status,
        said.message.format(message=message) if said.message else message,
        said.type or str(error.get("type")),
        said.code or code,
        error.get("param"),
    )
    return complaint.status, orjson.dumps(layout(complaint))


def _reason(status: int, code: object, message: str) -> Reason:
    if status == 413 or (status == 429 and message.startswith("Request too large")):
        return Reason.TOO_LARGE
    by_code = {"model_not_found": Reason.MODEL, "unknown_url": Reason.PATH}
    by_status = {
        401: Reason.KEY,
        405: Reason.PATH,
        429: Reason.RATE,
        500: Reason.BROKEN,
        503: Reason.OVERLOAD,
    }
    return by_code.get(str(code)) or by_status.get(status, Reason.FIELD)
