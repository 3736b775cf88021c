"""What sets the servers apart that people run themselves, as data: see `profiles`."""

from collections.abc import Mapping
from typing import Final

from batchllm.simulate import wording
from batchllm.simulate.call import Kind
from batchllm.simulate.profile import Fields, Profile
from batchllm.simulate.wording import Reason, Said
from batchllm.spec.lanes import ProfileName

_TEXT_KINDS: Final = frozenset({Kind.CHAT, Kind.COMPLETION})
_LOCAL_KINDS: Final = _TEXT_KINDS | {Kind.EMBEDDING}
_VLLM_WORDS: Final = {
    Reason.MODEL: Said(404, "NotFoundError"),
    Reason.FIELD: Said(type="BadRequestError"),
    Reason.KEY: Said(401, "Unauthorized", message="Unauthorized"),
    Reason.BROKEN: Said(500, "InternalServerError"),
}
_VLLM: Final = Profile(
    "C", "server docs and issues 2026", _LOCAL_KINDS, layout=wording.numbered, words=_VLLM_WORDS
)

OWN_SERVERS: Final[Mapping[ProfileName, Profile]] = {
    "vllm": _VLLM,
    "sglang": _VLLM,
    "llamacpp": Profile(
        "D",
        "from memory",
        _LOCAL_KINDS,
        layout=wording.numbered,
        words={
            Reason.OVERLOAD: Said(503, "unavailable_error", message="Loading model"),
            Reason.FIELD: Said(type="invalid_request_error"),
        },
    ),
    "lmstudio": Profile("A", "server docs 2026-04", _LOCAL_KINDS, layout=wording.bare, responses=Fields()),
    "ollama": Profile(
        "A",
        "server docs 2026-08; wording of refusals from issues",
        _LOCAL_KINDS,
        words={
            Reason.MODEL: Said(404, "api_error", message="model not found, try pulling it first"),
            Reason.OVERLOAD: Said(
                503, "api_error", message="server busy, please try again. maximum pending requests exceeded"
            ),
        },
    ),
    "tgi": Profile(
        "A",
        "server docs 2026-01",
        _TEXT_KINDS,
        layout=wording.typed,
        words={
            Reason.RATE: Said(429, "overloaded", message="Model is overloaded"),
            Reason.FIELD: Said(422, "validation", message="Input validation error: {message}"),
        },
    ),
}
