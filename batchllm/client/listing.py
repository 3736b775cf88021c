"""Which models a provider lists, and where it says whether a key is good."""

import difflib
from collections.abc import Mapping, Sequence

import orjson

#: Providers that document no list of models (2026-06, their SDK): nothing is guessed from another path.
UNLISTED = frozenset({"perplexity"})
#: Where a call names something else than what is listed: at Azure its deployment (a guess, from memory).
LISTED_OTHERWISE = frozenset({"azure"})
#: Where a key is judged, if the list of models is open to all: OpenRouter's list is, its /key is not (docs 2026-08).
KEY_PATHS: Mapping[str, str] = {"openrouter": "/key"}


def models_path(provider: str) -> str | None:
    return None if provider in UNLISTED else "/models"


def key_path(provider: str) -> str | None:
    """A GET that costs nothing and is answered to a good key only; None where there is none."""
    return KEY_PATHS.get(provider) or models_path(provider)


def read_models(body: bytes) -> list[str] | None:
    """The names in a reply to GET /models: OpenAI's `{"data": [...]}`, or Together's bare list. None: neither."""
    try:
        reply = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    listed = reply.get("data", reply.get("models")) if isinstance(reply, dict) else reply
    if not isinstance(listed, list):
        return None
    names = [model.get("id") or model.get("name") if isinstance(model, dict) else model for model in listed]
    return [name for name in names if isinstance(name, str) and name]


def is_told(path: str, body: bytes) -> bool:
    """Whether a reply of status 200 to `key_path` comes from the API: a web page, or an error, accepts no key."""
    if path not in KEY_PATHS.values():
        return read_models(body) is not None
    try:
        reply = orjson.loads(body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(reply, dict) and not reply.get("error")


def nearest_models(model: str, listed: Sequence[str]) -> tuple[str, ...]:
    """Up to three listed names that look like `model`, best first; a part of a longer name counts as alike."""
    lower = {name.lower(): name for name in listed}
    wanted = model.lower()
    alike = difflib.get_close_matches(wanted, lower, n=3, cutoff=0.6)
    tail = wanted.rsplit("/", 1)[-1]
    within = [name for name in lower if tail and (tail in name or name.rsplit("/", 1)[-1] in wanted)]
    return tuple(lower[name] for name in list(dict.fromkeys([*within[:3], *alike]))[:3])


def is_listed(model: str, listed: Sequence[str]) -> bool:
    """Providers list names with and without a prefix (`models/gemini-...`) or a variant (`...:free`)."""
    names = {name.lower() for name in listed} | {name.lower().removeprefix("models/") for name in listed}
    return model.lower() in names or model.lower().partition(":")[0] in names
