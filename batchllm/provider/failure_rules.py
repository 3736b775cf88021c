"""Refusals as a table: which of them asks for what.

Most telling first, because a status alone misleads: "out of credit" comes as 429, a rejected key as 400, a rate
limit as 400 or 413, a request that can never fit as 429. Codes are believed before prose, and prose only where a
phrase is one provider's own: others word a passing limit like a spent quota. Behind the table stands the plain
meaning of each status.
"""

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from batchllm.provider.error_body import ErrorBody
from batchllm.records import Action, Billed, FailureCode


class Ruling(NamedTuple):
    """What a failure asks for. `remedy` is told to the user after the server's own words."""

    action: Action
    code: FailureCode
    billed: Billed = Billed.NO
    is_dead: bool = False
    remedy: str = ""


class Case(NamedTuple):
    """One refusal, as the rules see it."""

    status: int
    headers: Mapping[str, str]
    error: ErrorBody
    dialect: str
    requested_tokens: int | None


class Rule(NamedTuple):
    """Applies when status and dialect fit, and a name, the message or the test does. Empty: any fits."""

    ruling: Ruling
    statuses: frozenset[int] = frozenset()
    names: frozenset[str] = frozenset()
    says: re.Pattern[str] | None = None
    test: Callable[[Case], bool] | None = None
    dialects: frozenset[str] = frozenset()

    def fits(self, case: Case) -> bool:
        if self.statuses and case.status not in self.statuses:
            return False
        if self.dialects and case.dialect not in self.dialects:
            return False
        return (
            not self.names.isdisjoint(case.error.names)
            or (self.says is not None and self.says.search(case.error.message) is not None)
            or (self.test is not None and self.test(case))
        )


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _phrase(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE | re.DOTALL)


_BAD_KEY = Ruling(
    Action.ELSEWHERE, FailureCode.CREDENTIALS, is_dead=True, remedy="check this lane's api_key and its rights"
)
_NO_CREDIT = Ruling(
    Action.ELSEWHERE, FailureCode.QUOTA, is_dead=True, remedy="add credit or raise the spending limit"
)
_NOT_IN_PLAN = Ruling(
    Action.ELSEWHERE, FailureCode.QUOTA, is_dead=True, remedy="the account's plan allows none of this model"
)
_NO_MODEL = Ruling(
    Action.ELSEWHERE, FailureCode.MODEL_MISSING, is_dead=True, remedy="check this lane's model"
)
_WRONG_PLACE = Ruling(
    Action.ELSEWHERE, FailureCode.LANE_DEAD, is_dead=True, remedy="is /v1 missing in base_url?"
)
REDIRECTED = Ruling(
    Action.ELSEWHERE,
    FailureCode.LANE_DEAD,
    is_dead=True,
    remedy="redirects are not followed; correct base_url",
)
_CLOSED_HERE = Ruling(Action.ELSEWHERE, FailureCode.LANE_DEAD, is_dead=True)
_FIREWALL = Ruling(
    Action.ELSEWHERE, FailureCode.INVALID_REQUEST, remedy="a firewall refused this, not the API"
)
_UNFIT = Ruling(
    Action.ELSEWHERE,
    FailureCode.CAPABILITY,
    is_dead=True,
    remedy="change or omit this parameter for the lane",
)
_UNFIT_HERE = Ruling(Action.ELSEWHERE, FailureCode.CAPABILITY)
_TOO_LARGE = Ruling(Action.SPLIT, FailureCode.TOO_LARGE)
_TOO_LONG = Ruling(Action.GIVE_UP, FailureCode.CONTEXT_LENGTH)
_FILTERED = Ruling(Action.GIVE_UP, FailureCode.CONTENT_FILTER)
_REFUSED = Ruling(Action.GIVE_UP, FailureCode.REFUSAL)
_INVALID = Ruling(Action.SPLIT, FailureCode.INVALID_REQUEST)
_INVALID_FOR_GOOD = Ruling(Action.GIVE_UP, FailureCode.INVALID_REQUEST)
_WAIT = Ruling(Action.AGAIN, FailureCode.RATE_LIMIT)
_BAD_SAMPLE = Ruling(Action.AGAIN, FailureCode.SCHEMA_MISMATCH, Billed.UNKNOWN)
_BAD_OUTPUT = Ruling(Action.AGAIN, FailureCode.MALFORMED, Billed.UNKNOWN)
_TURNED_AWAY = Ruling(Action.AGAIN, FailureCode.SERVER)
_BROKEN = Ruling(Action.AGAIN, FailureCode.SERVER, Billed.UNKNOWN)

_LIMIT = re.compile(r"\blimit:? ([0-9][0-9,]*)", re.IGNORECASE | re.ASCII)
_REQUESTED = re.compile(r"\brequested:? ~?([0-9][0-9,]*)", re.IGNORECASE | re.ASCII)

#: How providers state the longest answer that a model gives, when they refuse a longer one: OpenAI, Groq; DeepSeek,
#: Anthropic (from memory).
_HIGHEST_CAPS = (
    r"max_(?:completion_|output_)?tokens\b.{0,80}\bat most ([0-9][0-9,]*) (?:completion |output )?tokens",
    r"max_(?:completion_|output_)?tokens\b.{0,40}\bless than or equal to `?([0-9][0-9,]*)",
    r"\brange of `?max_tokens`? is \[1, ?([0-9]+)\]",
    r"max_tokens: [0-9]+ > ([0-9]+), which is the maximum allowed",
)
_HIGHEST_CAP = _phrase(*_HIGHEST_CAPS)

_ZERO_LIMIT = re.compile(r"\blimit:? 0(?:[,\n]|$)", re.IGNORECASE)


def _stated(pattern: re.Pattern[str], message: str) -> int | None:
    found = pattern.search(message)
    return None if found is None else int(found[1].replace(",", "")[:18])


def _exceeds_limit(case: Case) -> bool:
    """One request asks for more than a whole window holds: waiting would not help it."""
    limit = _stated(_LIMIT, case.error.message)
    requested = _stated(_REQUESTED, case.error.message)
    if requested is None:
        requested = case.requested_tokens if "token" in case.error.message.lower() else None
    return bool(limit) and requested is not None and requested > (limit or 0)


def _has_zero_limit(case: Case) -> bool:
    """Mistral's way to say that the plan does not include the model; Gemini and OpenAI say it in words."""
    told = (case.headers.get(f"x-ratelimit-limit-{kind}-minute", "").strip() for kind in ("req", "tokens"))
    return "0" in told or _ZERO_LIMIT.search(case.error.message) is not None


def _is_about_content(case: Case) -> bool:
    """The field that is refused belongs to the row, not to the job's settings."""
    is_of_row = case.error.param.lower().startswith(("messages", "input", "prompt"))
    return is_of_row and not _UNFIT_NAMES.isdisjoint(case.error.names)


def _has_moderation_reasons(case: Case) -> bool:
    """OpenRouter's guardrails answer with 403, as a rejected key does."""
    metadata = case.error.detail.get("metadata")
    is_moderation = isinstance(metadata, Mapping) and not {"reasons", "patterns"}.isdisjoint(metadata)
    return case.status == 403 and is_moderation


_UNFIT_NAMES = _words("unsupported_parameter unsupported_value unknown_parameter extra_forbidden")
_ANY_CLIENT_FAULT = frozenset({200, 400, 403, 404, 413, 422, 500})

_RULES: tuple[Rule, ...] = (
    Rule(
        _BAD_KEY,
        frozenset({200, 400, 401, 403}),
        # The last: what LiteLLM's proxy makes of a key that it does not know, when it has no database to look it up.
        _words("invalid_api_key invalid_authentication authentication_error authentication no_db_connection"),
        _phrase(r"^incorrect api key provided", r"^invalid api[ -]key", r"^api key not valid"),
    ),
    Rule(
        _NO_CREDIT,
        frozenset({200, 400, 402, 403, 429}),
        _words(
            "insufficient_quota credit_balance_exhausted organization_spend_limit_exceeded payment_required"
            " project_spend_limit_exceeded organization_usage_limit_exceeded billing_hard_limit_reached"
            " billing_not_active blocked_api_access"
        ),
        # xAI (403 or 429) and Anthropic (400), without a code of its own.
        _phrase(
            r"^your team .*(?:used all available credits|monthly spending limit)",
            r"^your credit balance is too low",
        ),
    ),
    Rule(_NOT_IN_PLAN, frozenset({429}), test=_has_zero_limit),
    Rule(
        _TOO_LARGE,
        frozenset({400, 413, 429}),
        says=_phrase(r"^request too large"),
        test=lambda case: case.status != 400 and _exceeds_limit(case),
    ),
    Rule(
        _TOO_LARGE,
        _ANY_CLIENT_FAULT,
        _words("3210 max_tokens_per_request payload_too_large"),
        _phrase(
            r"too many inputs",
            r"too many tokens (?:in batch|overall)",
            r"tokens per request",
            r"maximum allowed batch size",
            r"\binput\b.{0,20}array too long",
            r"at most [0-9]+ inputs",
        ),
    ),
    Rule(
        _TOO_LONG,
        _ANY_CLIENT_FAULT,
        _words(
            "context_length_exceeded exceed_context_size_error token_limit_exceeded string_too_long"
            " max_tokens_exceeded string_above_max_length"
        ),
        _phrase(
            r"maximum context length",
            r"maximum prompt length",
            r"prompt is too long",
            r"exceeds the (?:available context size|model'?s? context|context window|maximum context)",
            r"input token count .*exceeds",
            r"`inputs` tokens \+ `max_new_tokens` must be",
            r"too large for model with [0-9]+ maximum context",
            r"when context the overflows",
            r"input (?:is too long|length exceeds)",
        ),
    ),
    Rule(
        _FILTERED,
        _ANY_CLIENT_FAULT,
        _words(
            "content_filter content_policy_violation responsibleaipolicyviolation moderation_blocked"
            " bio_policy image_content_policy_violation"
        ),
        _phrase(
            r"^content violates usage guidelines",
            r"flagged as potentially violating",
            r"content management policy",
            r"requires moderation",
        ),
        test=_has_moderation_reasons,
    ),
    Rule(_REFUSED, _ANY_CLIENT_FAULT, _words("refusal")),
    Rule(
        _CLOSED_HERE,
        frozenset({400, 403, 451}),
        _words("unsupported_country_region_territory region_restricted"),
        _phrase(r"^error code: 1[0-9]{3}\b", r"plain http request was sent to https port"),
    ),
    Rule(
        _NO_MODEL,
        frozenset({200, 400, 403, 404, 410, 422}),
        _words(
            "model_not_found model_decommissioned invalid_model model_deprecated deploymentnotfound no_endpoints"
            " privacy_restricted constraint_filtered free_variant_ended"
        ),
        _phrase(
            r"^(?:invalid|unknown) model",
            r"invalid model name passed",
            r"^model not exist",
            r"is not a valid model",
            r"^(?:the |this |requested )*model\b.{0,200}"
            r"\b(?:not exist|not found|decommissioned|deprecated|no longer|not available)",
            r"^unable to access model",
        ),
        test=lambda case: case.error.param == "model",
    ),
    Rule(
        _NO_MODEL,
        frozenset({404, 410}),
        says=_phrase(r"^(?!.*(?:url|path|route)).*\b(?:models?|deployment|endpoints found)\b"),
    ),
    Rule(_UNFIT_HERE, frozenset({400, 422}), test=_is_about_content),
    # llama.cpp, with status 500: another row may have no image.
    Rule(_UNFIT_HERE, frozenset({400, 422, 500}), says=_phrase(r"^(?:image|audio) input is not supported")),
    Rule(
        _UNFIT,
        frozenset({400, 422}),
        _UNFIT_NAMES,
        _phrase(
            r"max_(?:completion_)?tokens`? is too large",
            r"^`?max_(?:completion_)?tokens`? must be less than or equal",
            *_HIGHEST_CAPS,
            r"unknown parameter",
            r"^invalid json payload received\. unknown name",  # Gemini
            r"^unsupported (?:parameter|value)",
            r"does not support parameters",
            r"is not supported with this model",
        ),
    ),
    Rule(
        _INVALID_FOR_GOOD,  # what the Responses API says with status 200 of a row's own text and images
        frozenset({200}),
        _words(
            "invalid_prompt invalid_image invalid_image_format invalid_base64_image invalid_image_url"
            " invalid_image_mode image_too_large image_too_small image_parse_error image_file_too_large"
            " unsupported_image_media_type empty_image_file failed_to_download_image image_file_not_found"
            " data_residency_mismatch"
        ),
    ),
    Rule(_BAD_SAMPLE, frozenset({400}), _words("json_validate_failed")),
    Rule(_BAD_OUTPUT, frozenset({400}), _words("tool_use_failed output_parse_failed")),
    Rule(
        _BAD_OUTPUT,
        frozenset({422}),
        says=_phrase(r"hallucinat", r"failed to generate"),
        dialects=_words("groq"),
    ),
    Rule(
        _WAIT,
        frozenset({200, 400, 403, 503}),
        _words(
            "rate_limit_exceeded rate_limit_error rate_limited too_many_requests resource_exhausted slow_down"
            " dynamic_request_limited dynamic_token_limited"
        ),
        _phrase(r"^rate limit (?:exceeded|reached)", r"^too many requests"),
    ),
    Rule(
        _UNFIT_HERE,
        frozenset({503}),
        says=_phrase(r"no (?:available )?(?:model )?provider .*(?:meets|requirements)"),
        dialects=_words("openrouter"),
    ),
    Rule(_FIREWALL, frozenset({403}), test=lambda case: case.error.is_page),
    Rule(_BROKEN, frozenset({200}), test=lambda _: True),
)

_BY_STATUS: Mapping[int, Ruling] = {
    401: _BAD_KEY,
    402: _NO_CREDIT,
    403: _BAD_KEY,
    404: _WRONG_PLACE,
    405: _WRONG_PLACE,
    407: Ruling(
        Action.ELSEWHERE,
        FailureCode.CREDENTIALS,
        is_dead=True,
        remedy="the proxy wants a name and a password",
    ),
    408: _BROKEN,
    409: _TURNED_AWAY,
    410: _WRONG_PLACE,
    412: _INVALID_FOR_GOOD,
    413: _TOO_LARGE,
    414: _TOO_LARGE,
    421: _TURNED_AWAY,
    424: _INVALID_FOR_GOOD,
    425: _TURNED_AWAY,
    426: _WRONG_PLACE,
    429: _WAIT,
    451: _UNFIT_HERE,
    498: _TURNED_AWAY,
    499: _BROKEN,
    501: Ruling(Action.ELSEWHERE, FailureCode.CAPABILITY, is_dead=True),
}


def highest_cap(ruling: Ruling, message: str) -> int | None:
    """What a model takes at most for the length of an answer, where that is why it refused."""
    found = _HIGHEST_CAP.search(message) if ruling.code is FailureCode.CAPABILITY else None
    if found is None:
        return None
    told = next(group for group in found.groups() if group is not None)
    return int(told.replace(",", "")[:18]) or None


def ruling_for(case: Case) -> Ruling:
    """The first rule that fits, or else what the status means by itself."""
    for rule in _RULES:
        if rule.fits(case):
            return rule.ruling
    known = _BY_STATUS.get(case.status)
    if known is not None:
        return known
    if 400 <= case.status < 500:
        return _INVALID
    return _BROKEN if 500 <= case.status < 600 else _BAD_OUTPUT
