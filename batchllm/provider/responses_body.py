"""A chat request in the words of the Responses API: the same question, another body.

What a lane sends in chat completions is translated field by field, so that all that `dialect` knows of a provider
and its models holds here too. What the Responses API has no word for refuses the job, but for a seed, which is a hint.

Messages become input items of the same role, in the same order: `instructions` would make a developer's message of
each system message. Perplexity is the exception. There, `instructions` is the documented place of a system prompt, and
the list of fields is closed: whatever is not in it is answered with 400.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import orjson

from batchllm.provider.catalogue import Dialect
from batchllm.provider.dialect import REMEDY, Translation, Unsupported
from batchllm.provider.dialect_rules import NEUTRAL, NEVER_DROPPED

#: Chat's name → where the value stands in a Responses body.
PLACES: Mapping[str, tuple[str, ...]] = {
    "max_tokens": ("max_output_tokens",),
    "max_completion_tokens": ("max_output_tokens",),
    "reasoning_effort": ("reasoning", "effort"),
    "verbosity": ("text", "verbosity"),
    "response_format": ("text", "format"),
    "logprobs": ("include",),
    **{
        name: (name,)
        for name in (
            "temperature",
            "top_p",
            "top_logprobs",
            "tools",
            "tool_choice",
            "parallel_tool_calls",
            "service_tier",
            "metadata",
            "user",
        )
    },
}
#: Left out with a note where there is no place for them: an answer means the same without.
HINTS = frozenset({"seed", "user"})
#: Fields that would take the reply elsewhere.
_ELSEWHERE = {
    "background": "the reply would have to be fetched later",
    "conversation": "rows would see each other",
}
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
_LOGPROBS = ["message.output_text.logprobs"]


@dataclass(frozen=True, slots=True)
class Form:
    """How a provider's Responses API differs from OpenAI's. `unknown` are fields of `PLACES` that it refuses."""

    name: str
    unknown: frozenset[str] = frozenset()
    stores: bool = True  # unless it is told not to
    has_text: bool = True  # else the schema stays in response_format
    has_instructions: bool = False
    has_detail: bool = True  # of images
    has_presets: bool = False  # names without a maker are presets
    least_output_tokens: int = 0
    remedy: str = "leave it out, or ask by api: chat on this lane"


ANY = Form("the Responses API")
FORMS: Mapping[Dialect, Form] = {
    "openai": Form("OpenAI's Responses API", least_output_tokens=16),
    "perplexity": Form(
        "Perplexity",
        unknown=frozenset(PLACES)
        - {
            "max_tokens",
            "max_completion_tokens",
            "reasoning_effort",
            "response_format",
            "tools",
            "tool_choice",
        },
        stores=False,
        has_text=False,
        has_instructions=True,
        has_detail=False,
        has_presets=True,
        remedy=REMEDY,
    ),
}


def form_of(dialect: Dialect) -> Form:
    return FORMS.get(dialect, ANY)


def model_field(model: str, form: Form) -> str:
    """The name of the body field that says which model answers."""
    return "preset" if form.has_presets and "/" not in model else "model"


def as_responses(
    chat: Translation,
    form: Form,
    *,
    omit: Sequence[str] = (),
    extra_body: Mapping[str, object] | None = None,
    drops: bool = False,
) -> Translation:
    """The same lane's fields for a Responses body. All but the form means what it means in `dialect`."""
    extra = extra_body or {}
    draft = _Draft(form, drops=drops)
    for name, value in chat.fields.items():
        if name not in extra:
            draft.take(name, value)
    for name, reason in _ELSEWHERE.items():
        if extra.get(name):
            draft.refuse(f"extra_body.{name}", f"not here: {reason}", "take it out of extra_body")
    if form.stores:
        draft.fields["store"] = False
    return replace(
        chat,
        fields=_merged({name: draft.fields[name] for name in draft.fields if name not in omit}, extra),
        unsupported=(*chat.unsupported, *draft.unsupported),
        notes=(*chat.notes, *draft.notes),
    )


class _Draft:
    def __init__(self, form: Form, *, drops: bool) -> None:
        self._form = form
        self._drops = drops
        self.fields: dict[str, object] = {}
        self.unsupported: list[Unsupported] = []
        self.notes: list[str] = []

    def refuse(self, param: str, reason: str, remedy: str = REMEDY) -> None:
        self.unsupported.append(Unsupported(param, reason, remedy))

    def take(self, name: str, value: object) -> None:
        if name not in PLACES or name in self._form.unknown:
            self._leave_out(name, value)
            return
        if name == "logprobs":
            if value:
                self.fields["include"] = _LOGPROBS
            return
        if name == "response_format" and not self._form.has_text:
            self.fields[name] = value
            return
        place = PLACES[name]
        least = self._form.least_output_tokens
        if place == ("max_output_tokens",) and isinstance(value, int) and value < least:
            self.refuse("max_tokens", f"{self._form.name} takes no less than {least}", f"say {least} or more")
        self._put(place, _reshaped(name, value))

    def _put(self, place: tuple[str, ...], value: object) -> None:
        if len(place) == 1:
            self.fields[place[0]] = value
            return
        inner = self.fields.setdefault(place[0], {})
        if isinstance(inner, dict):
            inner[place[1]] = value

    def _leave_out(self, name: str, value: object) -> None:
        if value == NEUTRAL.get(name):
            return
        if name in HINTS or (self._drops and name not in NEVER_DROPPED):
            self.notes.append(f"{name} is not sent: {self._form.name} has no place for it")
        else:
            self.refuse(name, f"{self._form.name} does not take it", self._form.remedy)


def _merged(ours: Mapping[str, object], theirs: Mapping[str, object]) -> dict[str, object]:
    """What a lane adds to `text` or `reasoning` goes beside what is in it already, such as the schema."""
    merged = {**ours, **theirs}
    for name in ours.keys() & theirs.keys():
        mine, given = ours[name], theirs[name]
        if isinstance(mine, dict) and isinstance(given, dict):
            merged[name] = {**mine, **given}
    return merged


def _reshaped(name: str, value: object) -> object:
    """Chat nests what the Responses API lays flat."""
    match name, value:
        case "response_format", {"type": "json_schema", "json_schema": dict(shape)}:
            return {"type": "json_schema", **shape}
        case "tools", list(tools):
            return [_tool(tool) for tool in tools]
        case "tool_choice", {"type": "function", "function": {"name": called}}:
            return {"type": "function", "name": called}
    return value


def _tool(tool: object) -> object:
    """A function is strict here unless it says otherwise, and is not in chat."""
    match tool:
        case {"type": "function", "function": dict(function)}:
            default = {"parameters": {"type": "object", "properties": {}}, "strict": False}
            return {"type": "function", **default, **function}
    return tool


class InputWriter:
    """Messages → the JSON that stands behind `"input":`, instructions included where the form has them."""

    def __init__(self, form: Form, *, may_instruct: bool = True) -> None:
        self._form = form
        self._instructs = form.has_instructions and may_instruct

    def __call__(self, messages: object) -> bytes:
        given = messages if isinstance(messages, list) else []
        if not self._instructs:
            return orjson.dumps(input_items(given, self._form))
        texts: list[str] = []
        for message in given:
            if not (_is_system(message) and isinstance(message.get("content"), str)):
                break
            texts.append(message["content"])
        items = orjson.dumps(input_items(given[len(texts) :], self._form))
        if not texts:
            return items
        return items + b',"instructions":' + orjson.dumps("\n\n".join(texts))


def input_items(messages: Sequence[object], form: Form = ANY) -> list[object]:
    """What is not understood is handed on as it is, so that the server says what is wrong with it."""
    return [item for message in messages for item in _items(message, form)]


def _items(message: object, form: Form) -> Iterator[object]:
    if not isinstance(message, dict):
        yield message
        return
    if message.get("role") == "tool":
        yield {
            "type": "function_call_output",
            "call_id": message.get("tool_call_id"),
            "output": _joined(message.get("content")),
        }
        return
    calls = message.get("tool_calls")
    content = message.get("content")
    if content or not calls:
        rest = {name: value for name, value in message.items() if name != "tool_calls"}
        if message.get("role") == "assistant":  # its parts are of another kind than what is put in
            content = _joined(content)
        elif isinstance(content, list):
            content = [_part(part, form) for part in content]
        yield {"type": "message", **rest, "content": content}
    for call in calls if isinstance(calls, list) else ():
        yield _call(call)


def _call(call: object) -> object:
    match call:
        case {"id": called, "function": {"name": name, "arguments": arguments}}:
            return {"type": "function_call", "call_id": called, "name": name, "arguments": arguments}
    return call


def _part(part: object, form: Form) -> object:
    match part:
        case {"type": "text", "text": text}:
            return {"type": "input_text", "text": text}
        case {"type": "image_url", "image_url": {"url": url, **more}}:
            return _image(url, more.get("detail", "auto"), form)
        case {"type": "image_url", "image_url": str(url)}:
            return _image(url, "auto", form)
        case {"type": "file", "file": dict(file)}:
            return {"type": "input_file", **file}
    return part


def _image(url: object, detail: object, form: Form) -> dict[str, object]:
    image = {"type": "input_image", "image_url": url}
    return {**image, "detail": detail} if form.has_detail else image


def _joined(content: object) -> object:
    if not isinstance(content, list):
        return content
    texts = [
        part.get("text") for part in content if isinstance(part, dict) and part.get("type") in _TEXT_PARTS
    ]
    return "".join(text for text in texts if isinstance(text, str))


def _is_system(message: object) -> bool:
    return isinstance(message, dict) and message.get("role") in ("system", "developer")
