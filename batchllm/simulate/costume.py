"""A simulated provider in the clothes of a real one.

What arrives is checked as that provider checks it and brought to OpenAI's terms; what is answered is told in the
provider's own: usage, reasoning, vectors, errors, headers. Between the two everything is as without a profile.
A quarter of each prompt counts as cached, so that each way to say so is met.
"""

from array import array
from base64 import b64encode
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from typing import Any

import orjson

from batchllm.simulate.call import Call, Kind, count_tokens
from batchllm.simulate.fields import CallError
from batchllm.simulate.profile import Fields, Profile
from batchllm.simulate.profiles import PROFILES
from batchllm.simulate.replies import Headers
from batchllm.simulate.responses_replies import SOURCES
from batchllm.simulate.wire import HttpRequest
from batchllm.simulate.wording import Said, reworded
from batchllm.spec.lanes import Simulation

_CACHED_SHARE = 4
_USD_PER_TICK = 1e-10
#: USD a token, of replies that state their cost.
_INPUT_USD, _OUTPUT_USD = 5e-8, 2e-7
_EVENT = b"data: {"
_NEUTRAL: Mapping[str, object] = {"logprobs": False, "n": 1, "presence_penalty": 0, "frequency_penalty": 0}
_HIGHEST_BYTE = 127


def clothed(simulation: Simulation) -> Simulation:
    """With the profile's way to tell limits, where the simulation does not say its own."""
    if simulation.profile is None:
        return simulation
    profile = PROFILES[simulation.profile]
    own = {name: getattr(profile, name) for name in ("headers", "retry_after", "counts_refused")}
    return simulation.model_copy(
        update={name: value for name, value in own.items() if name not in simulation.model_fields_set}
    )


class Costume:
    """One profile, worn."""

    def __init__(self, profile: Profile) -> None:
        self._profile = profile

    @property
    def has_models(self) -> bool:
        return self._profile.models != "none"

    def offers(self, kind: Kind) -> bool:
        return kind in self._profile.kinds

    @property
    def has_responses(self) -> bool:
        return self._profile.responses is not None

    def take(self, kind: Kind, request: HttpRequest) -> HttpRequest:
        """The request in OpenAI's terms. Raises CallError for what this provider refuses."""
        body = self._taken(self._profile.fields.get(kind, Fields()), request)
        if body is None:
            return request
        if kind is Kind.EMBEDDING:
            self._take_embedding(body)
        if kind is Kind.CHAT and self._profile.counts_logprobs and type(body.get("logprobs")) is int:
            body["top_logprobs"], body["logprobs"] = body["logprobs"], True
        return request._replace(body=orjson.dumps(body))

    def take_response(self, request: HttpRequest) -> HttpRequest:
        """The same for one by the Responses API."""
        body = self._taken(self._profile.responses or Fields(), request)
        if body is None:
            return request
        form = body.pop("response_format", None)
        if isinstance(form, dict):
            schema = form.get("json_schema")
            told = schema if isinstance(schema, dict) else {}
            body["text"] = {"format": {"type": form.get("type"), "name": "answer", **told}}
        return request._replace(body=orjson.dumps(body))

    def _taken(self, fields: Fields, request: HttpRequest) -> dict[str, Any] | None:
        """The body by OpenAI's names; None for one that is refused where all bodies are read."""
        try:
            body = orjson.loads(request.body)
        except orjson.JSONDecodeError:
            return None
        if not isinstance(body, dict):
            return None
        _check_names(fields, body)
        self._check_thinking(body)
        _check_values(fields, body)
        return {fields.renamed.get(name, name): value for name, value in body.items()}

    def thought_tokens(self, call: Call, request: HttpRequest) -> int:
        """What the model thinks before its answers, in tokens that are billed."""
        if call.kind is not Kind.CHAT or not self._thinks(call.model):
            return 0
        body = orjson.loads(request.body)
        thinking = body.get("thinking")
        is_off = isinstance(thinking, dict) and thinking.get("type") == "disabled"
        return 0 if is_off else self._profile.thought_tokens * call.choices

    def dress(self, call: Call, body: bytes, thought: int) -> bytes:
        """A whole reply in this provider's words."""
        reply = orjson.loads(body)
        if call.is_response:
            self._dress_response(call, reply, thought)
        elif isinstance(reply.get("usage"), dict):
            reply["usage"] = self._usage(call, reply["usage"], thought)
        if call.kind is Kind.EMBEDDING and self._profile.has_int8_vectors:
            for item in reply["data"]:
                item["embedding"] = _signed_bytes(item["embedding"])
        for choice in reply.get("choices", ()):
            self._dress_choice(choice, thought)
        return b"\n" * self._profile.blank_lines + orjson.dumps(reply)

    def dress_event(self, call: Call, event: bytes, thought: int) -> bytes:
        """A piece of a stream: only its usage has other words, and the whole reply at the end of a response."""
        if call.is_response:
            return self._dress_response_event(call, event, thought)
        if not event.startswith(_EVENT):
            return event
        chunk = orjson.loads(event[len(_EVENT) - 1 :])
        if not isinstance(chunk.get("usage"), dict):
            return event
        chunk["usage"] = self._usage(call, chunk["usage"], thought)
        return b"data: " + orjson.dumps(chunk) + b"\n\n"

    def _dress_response_event(self, call: Call, event: bytes, thought: int) -> bytes:
        name, _, data = event.partition(b"\n" + _EVENT[:-1])
        chunk = orjson.loads(data)
        reply = chunk.get("response")
        if not isinstance(reply, dict) or not isinstance(reply.get("usage"), dict):
            return event
        self._dress_response(call, reply, thought)
        return name + b"\n" + _EVENT[:-1] + orjson.dumps(chunk) + b"\n\n"

    def _dress_response(self, call: Call, reply: dict[str, Any], thought: int) -> None:
        told = reply["usage"]
        prompt, text = told["input_tokens"], told["output_tokens"]
        cached = prompt // _CACHED_SHARE
        told |= {"output_tokens": text + thought, "total_tokens": prompt + text + thought}
        told["input_tokens_details"] = {"cached_tokens": cached}
        told["output_tokens_details"] = {"reasoning_tokens": thought}
        if self._profile.usage == "perplexity":
            usd = prompt * _INPUT_USD + (text + thought) * _OUTPUT_USD
            told["cost"] = {"total_cost": usd, "currency": "USD"}
            reply["output"] = _with_results(reply["output"], call)
        if self._profile.usage == "xai":
            usd = prompt * _INPUT_USD + (text + thought) * _OUTPUT_USD
            told["cost_in_usd_ticks"] = round(usd / _USD_PER_TICK)

    def word(self, status: int, body: bytes) -> tuple[int, bytes]:
        """A refusal in this provider's words."""
        return reworded(self._profile.layout, self._profile.words, status, body)

    def models(self, body: bytes) -> bytes:
        """The list of models in this provider's shape."""
        if self._profile.models == "list":
            return orjson.dumps([{**model, "type": "chat"} for model in orjson.loads(body)["data"]])
        return body

    def usage_headers(self, call: Call) -> Headers:
        if self._profile.headers != "fireworks":
            return []
        cached = call.prompt_tokens // _CACHED_SHARE
        return [
            ("fireworks-prompt-tokens", str(call.prompt_tokens)),
            ("fireworks-cached-prompt-tokens", str(cached)),
        ]

    def _thinks(self, model: str) -> bool:
        return _matches(model, self._profile.reasons) and not _matches(model, self._profile.reasons_not)

    def _check_thinking(self, body: Mapping[str, object]) -> None:
        model = body.get("model")
        if isinstance(model, str) and self._thinks(model):
            for name, said in self._profile.thinking_refuses.items():
                if body.get(name) is not None:
                    raise _refused(said, name)

    def _take_embedding(self, body: dict[str, Any]) -> None:
        profile = self._profile
        width = profile.widths.get(str(body.get("model")))
        asked = body.get("dimensions")
        if asked is None and width is not None:
            body["dimensions"] = width
        if profile.has_int8_vectors:
            if body.get("encoding_format") == "base64_binary":
                raise CallError("Packed bits are not simulated here.", param="encoding_format")
            if type(asked) is int and width is not None and not 128 <= asked <= width:
                raise CallError(f"dimensions must be between 128 and {width}", param="dimensions")
            body["encoding_format"] = "float"
        texts = body.get("input")
        if isinstance(texts, list):
            self._check_pack(texts)

    def _check_pack(self, texts: list[object]) -> None:
        profile = self._profile
        tokens = sum(count_tokens(text) for text in texts if isinstance(text, str))
        if profile.most_inputs is not None and len(texts) > profile.most_inputs:
            raise _refused(profile.too_many, "input", "Too many inputs in request.")
        if profile.most_tokens is not None and tokens > profile.most_tokens:
            told = f"Too many tokens in batch. Max is {profile.most_tokens} got {tokens}"
            raise CallError(told, code=profile.too_many.code, status=profile.too_many.status)

    def _dress_choice(self, choice: dict[str, Any], thought: int) -> None:
        if choice.get("finish_reason") == "stop":
            choice["finish_reason"] = self._profile.finish
        message = choice.get("message")
        if thought and self._profile.thought_field and isinstance(message, dict):
            message[self._profile.thought_field] = "First I think. Then I answer."

    def _usage(self, call: Call, told: Mapping[str, Any], thought: int) -> dict[str, Any]:
        if call.kind not in (Kind.CHAT, Kind.COMPLETION):
            return _embedding_usage(self._profile, told)
        prompt, text = told["prompt_tokens"], told["completion_tokens"]
        return _USAGES[self._profile.usage](prompt, text, thought, prompt // _CACHED_SHARE)


def costume_of(simulation: Simulation) -> Costume | None:
    return None if simulation.profile is None else Costume(PROFILES[simulation.profile])


def _matches(model: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(model.lower(), pattern.lower()) for pattern in patterns)


def _check_names(fields: Fields, body: Mapping[str, Any]) -> None:
    for name, value in body.items():
        if fields.known is not None and name not in fields.known:
            raise _refused(fields.unknown, name)
        if name in fields.refused and value is not None and value != _NEUTRAL.get(name):
            raise _refused(fields.refused[name], name)
    form = body.get("response_format")
    if isinstance(form, dict) and f"response_format.{form.get('type')}" in fields.refused:
        raise _refused(fields.refused[f"response_format.{form['type']}"], "response_format")


def _check_values(fields: Fields, body: Mapping[str, Any]) -> None:
    for name, highest in fields.highest.items():
        value = body.get(name)
        if isinstance(value, int | float) and value > highest:
            status = fields.unknown.status
            code = "less_than_equal" if status == 422 else "invalid_value"
            told = f"Input should be less than or equal to {highest:g}"
            raise CallError(told, status=status, param=name, code=code)
    for name, choices in fields.choices.items():
        value = body.get(name)
        if value is not None and value not in choices:
            status = fields.unknown.status
            told = f"Input should be {' or '.join(map(repr, choices))}"
            raise CallError(told, status=status, param=name, code="literal_error")


def _refused(said: Said, param: str, message: str = "") -> CallError:
    told = (said.message or message).format(param=param)
    return CallError(told, status=said.status, param=param, code=said.code or None)


def _with_results(output: list[dict[str, Any]], call: Call) -> list[dict[str, Any]]:
    """What was searched as Perplexity tells it: an item of its own before the answer."""
    if not call.searches:
        return output
    results = [{"title": title, "url": url, "snippet": title} for url, title in SOURCES]
    return [
        {"type": "search_results", "results": results},
        *(item for item in output if item["type"] != "web_search_call"),
    ]


def _signed_bytes(vector: list[float]) -> str:
    """Base64 of signed bytes in which the largest number is 127."""
    most = max(map(abs, vector)) or 1.0
    return b64encode(array("b", [round(number / most * _HIGHEST_BYTE) for number in vector])).decode()


def _embedding_usage(profile: Profile, told: Mapping[str, Any]) -> dict[str, Any]:
    if profile.usage == "perplexity":
        usd = told["prompt_tokens"] * _INPUT_USD
        return {**told, "cost": {"input_cost": usd, "total_cost": usd, "currency": "USD"}}
    if profile.usage == "mistral":
        return {**told, "completion_tokens": 0}
    return dict(told)


def _plain(prompt: int, text: int, thought: int, _cached: int) -> dict[str, Any]:
    completion = text + thought
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _openai(prompt: int, text: int, thought: int, cached: int) -> dict[str, Any]:
    return {
        **_plain(prompt, text, thought, cached),
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": thought, "audio_tokens": 0},
    }


def _groq(prompt: int, text: int, thought: int, cached: int) -> dict[str, Any]:
    times = dict.fromkeys(("queue_time", "prompt_time", "completion_time", "total_time"), 0.001)
    return {**_openai(prompt, text, thought, cached), **times}


def _together(prompt: int, text: int, thought: int, cached: int) -> dict[str, Any]:
    return {**_plain(prompt, text, thought, cached), "reasoning_tokens": thought}


def _mistral(prompt: int, text: int, thought: int, cached: int) -> dict[str, Any]:
    """Both spellings are in use; the misspelt one is the trap."""
    return {**_plain(prompt, text, thought, cached), "prompt_token_details": {"cached_tokens": cached}}


def _deepseek(prompt: int, text: int, thought: int, cached: int) -> dict[str, Any]:
    return {
        **_plain(prompt, text, thought, cached),
        "prompt_cache_hit_tokens": cached,
        "prompt_cache_miss_tokens": prompt - cached,
        "completion_tokens_details": {"reasoning_tokens": thought},
    }


def _xai(prompt: int, text: int, thought: int, cached: int) -> dict[str, Any]:
    """`completion_tokens` leaves the reasoning out; the total has it in."""
    usd = prompt * _INPUT_USD + (text + thought) * _OUTPUT_USD
    return {
        "prompt_tokens": prompt,
        "completion_tokens": text,
        "total_tokens": prompt + text + thought,
        "prompt_tokens_details": {"cached_tokens": cached, "text_tokens": prompt},
        "completion_tokens_details": {"reasoning_tokens": thought},
        "cost_in_usd_ticks": round(usd / _USD_PER_TICK),
    }


def _openrouter(prompt: int, text: int, thought: int, cached: int) -> dict[str, Any]:
    told = _openai(prompt, text, thought, cached)
    told["prompt_tokens_details"]["cache_write_tokens"] = 0
    return {**told, "cost": prompt * _INPUT_USD + (text + thought) * _OUTPUT_USD, "is_byok": False}


_USAGES: Mapping[str, Callable[[int, int, int, int], dict[str, Any]]] = {
    "plain": _plain,
    "perplexity": _plain,
    "openai": _openai,
    "groq": _groq,
    "together": _together,
    "mistral": _mistral,
    "deepseek": _deepseek,
    "xai": _xai,
    "openrouter": _openrouter,
}
