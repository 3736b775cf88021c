"""What sets each provider apart, as data: its endpoints, what it refuses, how it words it, what it tells.

`grade` and `source` say how sure a profile is, in the catalogue's letters: A the provider's own documents, B real
replies, C other libraries and reported issues, D a guess. What is not known is left as OpenAI does it.
"""

from collections.abc import Mapping
from typing import Final

from batchllm.simulate import wording
from batchllm.simulate.call import Kind
from batchllm.simulate.own_servers import OWN_SERVERS
from batchllm.simulate.profile import Fields, Profile
from batchllm.simulate.wording import Reason, Said
from batchllm.spec.lanes import ProfileName

_CHAT, _COMPLETION, _EMBEDDING, _MODERATION = Kind.CHAT, Kind.COMPLETION, Kind.EMBEDDING, Kind.MODERATION


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PENALTIES: Final = ("presence_penalty", "frequency_penalty")
_NOT_SUPPORTED: Final = Said(
    400,
    code="unsupported_parameter",
    message="Unsupported parameter: '{param}' is not supported with this model.",
)
_OPENAI_FIELDS: Final[Mapping[Kind, Fields]] = {
    _CHAT: Fields(
        _names(
            "model messages temperature top_p max_tokens max_completion_tokens stop seed presence_penalty"
            " frequency_penalty logit_bias logprobs top_logprobs n response_format tools tool_choice"
            " parallel_tool_calls functions function_call reasoning_effort verbosity service_tier user stream"
            " stream_options store metadata modalities moderation audio prediction web_search_options prompt_cache_key"
            " prompt_cache_options prompt_cache_retention safety_identifier"
        )
    ),
    _COMPLETION: Fields(
        _names(
            "model prompt best_of echo frequency_penalty logit_bias logprobs max_tokens n presence_penalty seed stop"
            " stream stream_options suffix temperature top_p user"
        )
    ),
    _EMBEDDING: Fields(_names("model input encoding_format dimensions user")),
    _MODERATION: Fields(_names("model input")),
}
_OPENAI_THINKING: Final = {
    "max_tokens": Said(
        400,
        code="unsupported_parameter",
        message="Unsupported parameter: 'max_tokens' is not supported with this model. "
        "Use 'max_completion_tokens' instead.",
    ),
    **dict.fromkeys(
        ("temperature", "top_p", *_PENALTIES, "logit_bias", "logprobs", "top_logprobs"), _NOT_SUPPORTED
    ),
}
_OPENAI_WIDTHS: Final = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
}
_EVERY_KIND: Final = frozenset(Kind)
_TEXT_KINDS: Final = frozenset({_CHAT, _COMPLETION})
_GROQ_400: Final = Said(
    400, "invalid_request_error", "unsupported_parameter", "property '{param}' is unsupported"
)
_MISTRAL_EXTRA: Final = Said(
    422, "invalid_request_error", "extra_forbidden", "Extra inputs are not permitted"
)
_GOOGLE_UNKNOWN: Final = Said(
    400,
    "INVALID_ARGUMENT",
    message='Invalid JSON payload received. Unknown name "{param}": Cannot find field.',
)
PROFILES: Final[Mapping[ProfileName, Profile]] = {
    "openai": Profile(
        "A",
        "OpenAPI 2026-08, rate limit guide 2026-10",
        _EVERY_KIND,
        "openai",
        "exact",
        counts_refused=True,
        fields=_OPENAI_FIELDS,
        responses=Fields(),
        usage="openai",
        reasons=("o[1-9]*", "gpt-[5-9]*"),
        reasons_not=("gpt-5-chat*",),
        thought_tokens=8,
        thinking_refuses=_OPENAI_THINKING,
        widths=_OPENAI_WIDTHS,
        most_inputs=2048,
        most_tokens=300_000,
        too_many=Said(400, code="max_tokens_per_request"),
    ),
    "azure": Profile(
        "D",
        "as OpenAI; headers captured 2026-07",
        frozenset({_CHAT, _COMPLETION, _EMBEDDING}),
        "azure",
        "exact",
        words={
            Reason.RATE: Said(
                429,
                "Too Many Requests",
                "429",
                "Requests have exceeded the call rate limit of your current pricing tier. {message}",
            ),
            Reason.MODEL: Said(
                404,
                "invalid_request_error",
                "DeploymentNotFound",
                "The API deployment for this resource does not exist.",
            ),
        },
        fields=_OPENAI_FIELDS,
        responses=Fields(),
        usage="openai",
        reasons=("o[1-9]*", "gpt-[5-9]*"),
        thought_tokens=8,
        thinking_refuses=_OPENAI_THINKING,
        widths={name: width for name, width in _OPENAI_WIDTHS.items() if "3" in name},
        most_inputs=2048,
    ),
    "together": Profile(
        "A",
        "OpenAPI 2026-04; captured usage 2026-09; header units a guess",
        frozenset({_CHAT, _COMPLETION, _EMBEDDING}),
        "together",
        words={
            Reason.RATE: Said(
                429, "dynamic_request_limited", message="You have been rate limited. {message}"
            ),
            Reason.OVERLOAD: Said(503, "service_unavailable"),
        },
        fields={_CHAT: Fields(highest={"n": 128, "logprobs": 20})},
        usage="together",
        reasons=("openai/gpt-oss-*",),
        thought_tokens=12,
        thought_field="reasoning",
        widths={
            "intfloat/multilingual-e5-large-instruct": 1024,
            "BAAI/bge-large-en-v1.5": 1024,
            "BAAI/bge-base-en-v1.5": 768,
        },
        counts_logprobs=True,
        models="list",
        finish="eos",
    ),
    "perplexity": Profile(
        "A",
        "SDK 0.38 2026-06; refusals a guess",
        frozenset({_EMBEDDING}),
        words={Reason.FIELD: Said(type="bad_request"), Reason.RATE: Said(429, "rate_limited")},
        fields={
            _EMBEDDING: Fields(
                _names("model input dimensions encoding_format"),
                choices={"encoding_format": ("base64_int8", "base64_binary")},
            )
        },
        responses=Fields(
            _names(
                "model models preset input instructions tools tool_choice max_output_tokens max_steps reasoning"
                " response_format stream language_preference"
            ),
            renamed={"preset": "model"},
        ),
        usage="perplexity",
        widths={"pplx-embed-v1-0.6b": 1024, "pplx-embed-v1-4b": 2560},
        most_inputs=512,
        most_tokens=120_000,
        has_int8_vectors=True,
        models="none",
    ),
    "groq": Profile(
        "A",
        "vendor docs 2026; live model list 2026-08",
        frozenset({_CHAT}),
        "groq",
        "seconds",
        words={Reason.TOO_LARGE: Said(413, "tokens", "rate_limit_exceeded")},
        fields={
            _CHAT: Fields(
                refused=dict.fromkeys(("logprobs", "top_logprobs", "logit_bias", *_PENALTIES), _GROQ_400),
                highest={"n": 1},
            )
        },
        usage="groq",
        reasons=("openai/gpt-oss-*", "qwen/*"),
        thought_tokens=12,
        thought_field="reasoning",
    ),
    "mistral": Profile(
        "A",
        "platform docs 2026-08; live refusals and headers 2026-05 to 2026-08",
        frozenset({_CHAT, _EMBEDDING, _MODERATION}),
        "mistral",
        layout=wording.flat,
        words={
            Reason.KEY: Said(401, "unauthorized", message="Unauthorized"),
            Reason.MODEL: Said(400, "invalid_model", "1500", "Invalid model"),
            Reason.RATE: Said(429, "rate_limited", "1300", "Rate limit exceeded"),
            Reason.OVERLOAD: Said(503, "unreachable_backend", "1100", "Service unavailable."),
            Reason.FIELD: Said(type="invalid_request_error"),
        },
        fields={
            _CHAT: Fields(
                _names(
                    "model messages temperature top_p max_tokens stream stop random_seed metadata response_format"
                    " tools tool_choice presence_penalty frequency_penalty n prediction parallel_tool_calls"
                    " reasoning_effort prompt_mode guardrails prompt_cache_key safe_prompt"
                ),
                unknown=_MISTRAL_EXTRA,
                highest={"temperature": 1.5},
                renamed={"random_seed": "seed"},
            ),
            _EMBEDDING: Fields(
                _names("model input metadata output_dimension output_dtype encoding_format"),
                unknown=_MISTRAL_EXTRA,
                choices={"encoding_format": ("float",)},
                renamed={"output_dimension": "dimensions"},
            ),
            _MODERATION: Fields(_names("model input metadata"), unknown=_MISTRAL_EXTRA),
        },
        usage="mistral",
        widths={"mistral-embed": 1024, "codestral-embed": 1536},
        most_inputs=512,
        most_tokens=16_384,
        too_many=Said(400, code="3210", message="Too many inputs in request, split into more batches."),
    ),
    "deepseek": Profile(
        "A",
        "vendor docs 2026-10; refusals of fields a guess",
        _TEXT_KINDS,
        words={
            Reason.RATE: Said(429, "rate_limit_error", message="Too many concurrent requests"),
            Reason.MODEL: Said(400, "invalid_request_error", "invalid_request_error", "Model Not Exist"),
            Reason.KEY: Said(401, "authentication_error", "invalid_request_error"),
        },
        fields={
            _CHAT: Fields(
                highest={"n": 1},
                refused={
                    "response_format.json_schema": Said(
                        400, "invalid_request_error", message="This response_format type is unavailable now"
                    )
                },
            )
        },
        usage="deepseek",
        reasons=("*",),
        thought_tokens=12,
        thought_field="reasoning_content",
        blank_lines=3,
    ),
    "xai": Profile(
        "B",
        "captured usage 2026-08; client libraries 2026-08",
        frozenset({_CHAT}),
        layout=wording.beside,
        words={
            Reason.KEY: Said(
                400,
                code="invalid-argument",
                message="Incorrect API key provided. You can obtain an API key from xAI.",
            ),
            Reason.FIELD: Said(code="Client specified an invalid argument"),
            Reason.MODEL: Said(404, code="The requested resource was not found"),
            Reason.RATE: Said(429, code="Some resource has been exhausted"),
        },
        fields={_CHAT: Fields(highest={"top_logprobs": 8})},
        responses=Fields(),
        usage="xai",
        reasons=("grok-*",),
        reasons_not=("*non-reasoning*",),
        thought_tokens=24,
        thought_field="reasoning_content",
        thinking_refuses=dict.fromkeys(
            ("stop", *_PENALTIES), Said(400, message="Model does not support parameter {param}.")
        ),
    ),
    "fireworks": Profile(
        "A",
        "SDK 2026-07; live headers 2026-07; refusal of unknown fields a guess",
        frozenset({_CHAT, _COMPLETION, _EMBEDDING}),
        "fireworks",
        words={
            Reason.RATE: Said(
                429, "rate_limit_exceeded", message="rate limit exceeded, please try again later"
            )
        },
        fields={_CHAT: Fields(highest={"n": 128})},
        usage="openai",
        reasons=("*/gpt-oss-*",),
        thought_tokens=12,
        thought_field="reasoning_content",
        widths={"nomic-ai/nomic-embed-text-v1.5": 768, "fireworks/qwen3-embedding-8b": 4096},
    ),
    "openrouter": Profile(
        "A",
        "vendor docs 2026-08",
        frozenset({_CHAT, _COMPLETION, _EMBEDDING}),
        "openrouter",
        "seconds",
        layout=wording.with_metadata,
        words={
            Reason.KEY: Said(401, "authentication"),
            Reason.MODEL: Said(400, "invalid_request", message="this is not a valid model ID"),
            Reason.RATE: Said(429, "rate_limit_exceeded"),
            Reason.OVERLOAD: Said(503, "provider_overloaded"),
            Reason.FIELD: Said(type="invalid_request"),
            Reason.BROKEN: Said(200, "provider_unavailable", "502", "Upstream error"),
        },
        usage="openrouter",
        widths={"openai/text-embedding-3-small": 1536, "openai/text-embedding-3-large": 3072},
    ),
    "gemini": Profile(
        "C",
        "refusals quoted in issues 2025-2026",
        frozenset({_CHAT, _EMBEDDING}),
        layout=wording.listed,
        words={
            Reason.KEY: Said(
                400, "INVALID_ARGUMENT", message="API key not valid. Please pass a valid API key."
            ),
            Reason.MODEL: Said(404, "NOT_FOUND"),
            Reason.RATE: Said(429, "RESOURCE_EXHAUSTED"),
            Reason.OVERLOAD: Said(503, "UNAVAILABLE"),
            Reason.FIELD: Said(type="INVALID_ARGUMENT"),
            Reason.BROKEN: Said(500, "INTERNAL"),
        },
        fields={
            _CHAT: Fields(
                _names(
                    "model messages temperature top_p max_tokens max_completion_tokens stop n response_format tools"
                    " tool_choice parallel_tool_calls reasoning_effort stream stream_options extra_body"
                ),
                unknown=_GOOGLE_UNKNOWN,
            ),
            _EMBEDDING: Fields(_names("model input dimensions encoding_format"), unknown=_GOOGLE_UNKNOWN),
        },
        widths={"gemini-embedding-001": 3072},
        most_inputs=100,
    ),
    "anthropic": Profile(
        "D",
        "headers from vendor docs 2026; fields from memory",
        frozenset({_CHAT}),
        "openai",
        "seconds",
        words={
            Reason.KEY: Said(401, "authentication_error", "invalid_api_key", "invalid x-api-key"),
            Reason.OVERLOAD: Said(529, "overloaded_error", message="Overloaded"),
            Reason.RATE: Said(429, "rate_limit_error"),
            Reason.MODEL: Said(404, "not_found_error"),
        },
        fields={_CHAT: Fields(highest={"n": 1})},
    ),
    **OWN_SERVERS,
}
