"""The body of an API call → what is asked, or the 400 that OpenAI would send.

Only what the simulator answers by is checked: sampling parameters of other dialects pass, as they do at most
providers.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import orjson

from batchllm.simulate.call import Call, Kind, LogprobsAsked, Offer, count_tokens
from batchllm.simulate.fields import CallError, boolean, describe, integer, missing, wrong_type, wrong_value

_ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")
_TEXT_PARTS: Final = ("text", "input_text")
_OTHER_PARTS: Final = ("image_url", "input_audio", "file", "refusal")
_NO_THOUGHT: Final = (None, "none", "minimal")
_FORMATS: Final = ("text", "json_object", "json_schema")


class _Texts(NamedTuple):
    subjects: tuple[str, ...]
    tokens: int


def parse_call(kind: Kind, data: bytes) -> Call:
    """Raises CallError."""
    try:
        body = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise CallError(
            f"We could not parse the JSON body of your request: {error}.", code="invalid_json"
        ) from error
    if not isinstance(body, dict):
        raise CallError(
            f"The body of the request is {describe(body)}, not a JSON object.", code="invalid_type"
        )
    match kind:
        case Kind.CHAT:
            return _chat(body)
        case Kind.COMPLETION:
            return _completion(body)
        case Kind.EMBEDDING:
            return _embedding(body)
        case Kind.MODERATION:
            return _moderation(body)


def _chat(body: Mapping[str, object]) -> Call:
    messages = body.get("messages")
    if messages is None:
        raise missing("messages")
    if not isinstance(messages, list):
        raise wrong_type("messages", "an array of objects", messages)
    if not messages:
        raise CallError(
            "Invalid 'messages': empty array. Expected an array with minimum length 1.",
            param="messages",
            code="empty_array",
        )
    texts: list[str] = []
    extras: list[object] = []
    subject = ""
    for place, message in enumerate(messages):
        role, text = _message(message, f"messages[{place}]", extras)
        texts.append(text)
        if role == "user" or not subject:
            subject = text
    text = "\n".join(texts)
    schema, wants_json = _response_format(body.get("response_format"))
    tool, tool_schema = _tool(body)
    return Call(
        Kind.CHAT,
        _model(body),
        text,
        (subject,),
        count_tokens(text),
        extras=_packed(extras),
        max_tokens=integer(body, "max_completion_tokens", 1) or integer(body, "max_tokens", 1),
        choices=integer(body, "n", 1, 128) or 1,
        stop=_stop(body.get("stop")),
        streams=boolean(body, "stream"),
        includes_usage=_includes_usage(body),
        schema=tool_schema if tool is not None else schema,
        wants_json=wants_json,
        tool=tool,
        offered=_offered(body),
        logprobs=_logprobs(body),
        reasons=body.get("reasoning_effort") not in _NO_THOUGHT,
        searches=isinstance(body.get("web_search_options"), dict),
        temperature=_temperature(body),
    )


def _completion(body: Mapping[str, object]) -> Call:
    texts = _texts(body, "prompt")
    return Call(
        Kind.COMPLETION,
        _model(body),
        "\n".join(texts.subjects),
        texts.subjects,
        texts.tokens,
        max_tokens=integer(body, "max_tokens", 1),
        choices=integer(body, "n", 1, 128) or 1,
        stop=_stop(body.get("stop")),
        streams=boolean(body, "stream"),
        includes_usage=_includes_usage(body),
        temperature=_temperature(body),
        logprobs=_counted_logprobs(body),
    )


def _embedding(body: Mapping[str, object]) -> Call:
    texts = _texts(body, "input")
    form = body.get("encoding_format") or "float"
    if form not in ("float", "base64"):
        raise wrong_value("encoding_format", form, ("float", "base64"))
    return Call(
        Kind.EMBEDDING,
        _model(body),
        "\n".join(texts.subjects),
        texts.subjects,
        texts.tokens,
        dimensions=integer(body, "dimensions", 1, 65_536),
        as_base64=form == "base64",
    )


def _moderation(body: Mapping[str, object]) -> Call:
    model = body.get("model") or "omni-moderation-latest"
    given = body.get("input")
    extras: list[object] = []
    if isinstance(given, list) and given and isinstance(given[0], dict):
        text = _parts(given, "input", extras)
        texts = _Texts((text,), count_tokens(text))
    else:
        texts = _texts(body, "input")
    return Call(
        Kind.MODERATION,
        _model({"model": model}),
        "\n".join(texts.subjects),
        texts.subjects,
        texts.tokens,
        extras=_packed(extras),
    )


def _message(message: object, place: str, extras: list[object]) -> tuple[str, str]:
    if not isinstance(message, dict):
        raise wrong_type(place, "an object", message)
    role = message.get("role")
    if role is None:
        raise missing(f"{place}.role")
    if role not in _ROLES:
        raise wrong_value(f"{place}.role", role, _ROLES)
    if message.get("tool_calls"):
        extras.append(message["tool_calls"])
    content = message.get("content")
    if isinstance(content, str):
        return role, content
    if isinstance(content, list):
        return role, _parts(content, f"{place}.content", extras)
    if content is None and role == "assistant":
        return role, ""
    raise wrong_type(f"{place}.content", "a string or an array of parts", content)


def _parts(parts: Sequence[object], place: str, extras: list[object]) -> str:
    texts: list[str] = []
    for number, part in enumerate(parts):
        where = f"{place}[{number}]"
        if not isinstance(part, dict):
            raise wrong_type(where, "an object", part)
        kind = part.get("type")
        if kind in _TEXT_PARTS:
            text = part.get("text")
            if not isinstance(text, str):
                raise wrong_type(f"{where}.text", "a string", text)
            texts.append(text)
        elif kind in _OTHER_PARTS:
            extras.append(part)
        else:
            raise wrong_value(f"{where}.type", kind, _TEXT_PARTS + _OTHER_PARTS)
    return "\n".join(texts)


def _packed(extras: list[object]) -> bytes:
    try:
        return orjson.dumps(extras) if extras else b""
    except orjson.JSONEncodeError as error:
        raise CallError(f"A part of the request cannot be read: {error}.", code="invalid_json") from error


def _texts(body: Mapping[str, object], name: str) -> _Texts:
    """A string, several strings, a list of token numbers, or several of these."""
    given = body.get(name)
    if given is None:
        raise missing(name)
    if isinstance(given, str):
        return _Texts((given,), count_tokens(given))
    if not isinstance(given, list):
        raise wrong_type(name, "a string or an array", given)
    if not given:
        raise CallError(f"Invalid '{name}': empty array.", param=name, code="empty_array")
    if len(given) > 2048:
        raise CallError(
            f"Invalid '{name}': array too long. Expected an array with maximum length 2048, but got an array "
            f"with length {len(given)} instead.",
            param=name,
            code="array_above_max_length",
        )
    if all(type(item) is str for item in given):
        return _Texts(tuple(given), sum(map(count_tokens, given)))
    if all(type(item) is int for item in given):
        return _Texts((" ".join(map(str, given)),), len(given))
    for number, item in enumerate(given):
        if not (isinstance(item, list) and item and all(type(token) is int for token in item)):
            raise wrong_type(f"{name}[{number}]", "a string or an array of token numbers", item)
    return _Texts(tuple(" ".join(map(str, item)) for item in given), sum(map(len, given)))


def _model(body: Mapping[str, object]) -> str:
    model = body.get("model")
    if model is None or model == "":
        raise CallError(
            "you must provide a model parameter", param="model", code="missing_required_parameter"
        )
    if not isinstance(model, str):
        raise wrong_type("model", "a string", model)
    return model


def _response_format(form: object) -> tuple[Mapping[str, object] | bool | None, bool]:
    if form is None:
        return None, False
    if not isinstance(form, dict):
        raise wrong_type("response_format", "an object", form)
    kind = form.get("type")
    if kind not in _FORMATS:
        raise wrong_value("response_format.type", kind, _FORMATS)
    if kind != "json_schema":
        return None, kind == "json_object"
    holder = form.get("json_schema")
    if not isinstance(holder, dict):
        raise missing("response_format.json_schema")
    schema = holder.get("schema")
    if not isinstance(schema, dict | bool):
        raise missing("response_format.json_schema.schema")
    return schema, True


def _tool(body: Mapping[str, object]) -> tuple[str | None, Mapping[str, object]]:
    """The function that must be called, when one must: the named one, or the first when any will do."""
    choice = body.get("tool_choice")
    tools = body.get("tools")
    if tools is not None and not isinstance(tools, list):
        raise wrong_type("tools", "an array of objects", tools)
    if choice in (None, "auto", "none"):
        return None, {}
    named = None
    if isinstance(choice, dict):
        function = choice.get("function")
        named = function.get("name") if isinstance(function, dict) else None
    if named is None and choice != "required":
        raise wrong_value("tool_choice", choice, ("none", "auto", "required", "a function"))
    for tool in tools or []:
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            name = function["name"]
            if named is None or name == named:
                parameters = function.get("parameters")
                return name, parameters if isinstance(parameters, dict) else {"type": "object"}
    raise CallError(
        "Invalid value for 'tool_choice': no such function in 'tools'.",
        param="tool_choice",
        code="invalid_value",
    )


def _offered(body: Mapping[str, object]) -> tuple[Offer, ...]:
    """The tools that the model is free to call."""
    tools = body.get("tools")
    if not tools or not isinstance(tools, list) or body.get("tool_choice") not in (None, "auto"):
        return ()
    functions = [tool.get("function") for tool in tools if isinstance(tool, dict)]
    return tuple(
        Offer(function["name"], function.get("parameters") or {"type": "object"})
        for function in functions
        if isinstance(function, dict) and isinstance(function.get("name"), str)
    )


def _logprobs(body: Mapping[str, object]) -> LogprobsAsked | None:
    asked = body.get("logprobs")
    if type(asked) is int:
        return LogprobsAsked(min(asked, 20), True) if asked > 0 else None
    top = integer(body, "top_logprobs", 0, 20)
    if boolean(body, "logprobs"):
        return LogprobsAsked(top or 0, False)
    if top is not None:
        message = "The 'top_logprobs' parameter is only allowed when 'logprobs' is enabled."
        raise CallError(message, param="top_logprobs", code="invalid_value")
    return None


def _counted_logprobs(body: Mapping[str, object]) -> LogprobsAsked | None:
    """Of a completion: 0 are those of the tokens themselves."""
    top = integer(body, "logprobs", 0, 20)
    return None if top is None else LogprobsAsked(top, True)


def _includes_usage(body: Mapping[str, object]) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not isinstance(options, dict):
        raise wrong_type("stream_options", "an object", options)
    if not body.get("stream"):
        raise CallError(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            param="stream_options",
            code="invalid_value",
        )
    return bool(options.get("include_usage"))


def _temperature(body: Mapping[str, object]) -> float | None:
    """Bounds differ between providers, so none is checked here."""
    given = body.get("temperature")
    return float(given) if isinstance(given, int | float) and not isinstance(given, bool) else None


def _stop(given: object) -> tuple[str, ...]:
    if given is None:
        return ()
    if isinstance(given, str):
        return (given,) if given else ()
    if isinstance(given, list) and all(isinstance(item, str) for item in given):
        return tuple(item for item in given if item)
    raise wrong_type("stop", "a string or an array of strings", given)
