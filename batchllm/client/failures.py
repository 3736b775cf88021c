"""A failed call → the error that is raised, with what to do about it."""

import re

from batchllm.errors import (
    BatchllmError,
    CredentialsError,
    ModelMissingError,
    NoProviderError,
    QuotaError,
    RateLimitedError,
    RequestRefusedError,
)
from batchllm.provider.catalogue import ProviderEntry
from batchllm.records import Failure, FailureCode

_REFUSED = frozenset(
    {
        FailureCode.INVALID_REQUEST,
        FailureCode.CAPABILITY,
        FailureCode.TOO_LARGE,
        FailureCode.CONTEXT_LENGTH,
        FailureCode.CONTENT_FILTER,
        FailureCode.REFUSAL,
        FailureCode.TRUNCATED,
        FailureCode.SCHEMA_MISMATCH,
    }
)
_REMEDY_OF: dict[FailureCode, str] = {
    FailureCode.CONTEXT_LENGTH: "shorten the prompt, lower max_tokens, or take a model with a larger context",
    FailureCode.TOO_LARGE: "send less in one call",
    FailureCode.CONTENT_FILTER: "the provider's filter turned this down; another wording or provider may pass",
    FailureCode.CAPABILITY: "leave that parameter out, or take another model",
    FailureCode.INVALID_REQUEST: "correct what the message names; extra_body holds fields that go as they are",
}


def error_of(
    failure: Failure,
    *,
    entry: ProviderEntry,
    model: str | None,
    key_source: str = "",
    withheld: str = "",
    nearest: tuple[str, ...] = (),
) -> BatchllmError:
    """`key_source` says where the key came from, `withheld` which variable holds one that was not sent to this host;
    `nearest` are listed models that may have been meant.
    """
    # The remedy in brackets speaks of lanes of a job; what stands here speaks of the call.
    said = re.sub(r" \((?:check|change) this (?:lane|parameter)[^()]*\)$", "", failure.message)
    message = f"{entry.name if entry.base_url is None else entry.title}: {said}"
    match failure.code:
        case FailureCode.CREDENTIALS:
            return CredentialsError(message, remedy=_key_remedy(entry, key_source, withheld))
        case FailureCode.MODEL_MISSING:
            return ModelMissingError(message, remedy=_model_remedy(model, nearest), nearest=nearest)
        case FailureCode.RATE_LIMIT:
            return RateLimitedError(message, remedy=_wait(failure), retry_after_s=failure.retry_after_s)
        case FailureCode.QUOTA:
            return QuotaError(message, remedy="see the account's credit and spending limit")
        case code if code in _REFUSED:
            return RequestRefusedError(message, remedy=_REMEDY_OF.get(code, ""), content=failure.content)
        case _:
            return NoProviderError(message, remedy="check base_url and the network, or try again later")


def _key_remedy(entry: ProviderEntry, key_source: str, withheld: str) -> str:
    if withheld and not key_source:
        return f"{withheld} is not sent to a host that is not {entry.title}'s: give the key as api_key"
    names = " or ".join(entry.env[:1])
    if not key_source:
        return f"no key was sent: set {names}, or give api_key" if names else "no key was sent: give api_key"
    return f"the key came from {key_source}: check that it is whole, valid and allowed to do this"


def _model_remedy(model: str | None, nearest: tuple[str, ...]) -> str:
    meant = f"did you mean {' or '.join(nearest)}? " if nearest else ""
    return f"{meant}`.models()` lists what this key may use" + (f"; asked: {model}" if model else "")


def _wait(failure: Failure) -> str:
    if failure.retry_after_s is None:
        return "wait a little, or ask for a higher limit"
    return f"try again in {failure.retry_after_s:,.0f} s, or ask for a higher limit"
