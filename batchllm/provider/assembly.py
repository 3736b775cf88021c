"""The events of a streamed chat or completion, put together to the reply that would have come whole.

Providers agree on the frame and differ in what they put into it: usage in a last chunk without choices, in each chunk,
or under `x_groq`; calls of tools by index, by id, or neither; content as text or as a list of parts; errors as a chunk
of their own. Whatever is text is joined, whatever is a list is put end to end, of all else the last word stands.
Nothing here raises.
"""

from collections.abc import Mapping
from typing import Protocol

import orjson

from batchllm.provider.mended_json import mended

_DONE = b"[DONE]"
_SNIPPET_BYTES = 160
_ENVELOPE = {"chat.completion.chunk": "chat.completion"}
#: Of a delta: said once, and not a piece of text.
_WHOLE = frozenset({"role", "name", "id", "type"})
#: Fields of an error that comes without the word itself.
_ERROR_MARKS = frozenset({"message", "detail", "msg", "code"})
_TEXT_PARTS = ("output_text", "text")
_TEXTS = ("content", "text", "refusal", "tool_calls", "function_call")


class Assembly(Protocol):
    """What adds events up. `has_token`: a piece of output has come, thoughts included; `has_begun`: of the answer."""

    has_token: bool
    has_begun: bool

    @property
    def is_whole(self) -> bool: ...

    @property
    def is_empty(self) -> bool:
        """Nothing of an answer has come, not even its frame."""

    def take(self, event: Mapping[str, object]) -> str:
        """The piece of text that an event adds to the answer, of several choices to the first; mostly there is one."""

    def reply(self) -> dict[str, object]: ...


class Events:
    """Data of events → the assembly that understands them. What is no JSON is an error, and ends the reply."""

    def __init__(self, assembly: Assembly) -> None:
        self.assembly = assembly
        self.is_done = False
        self._error: object = None

    @property
    def is_whole(self) -> bool:
        """Nothing that belongs to the answer is missing."""
        return self.is_done or self.assembly.is_whole or self._error is not None

    def take(self, data: bytes, *, may_be_cut: bool = False) -> None:
        if data.strip() == _DONE:
            self.is_done = True
            return
        try:
            event = orjson.loads(data)
        except orjson.JSONDecodeError:
            event = mended(data)
        if not isinstance(event, dict):
            if not may_be_cut:
                shown = data[:_SNIPPET_BYTES].decode("utf-8", "replace")
                self._error = self._error or {"message": f"an event of the stream is no JSON object: {shown}"}
        elif (error := error_of(event)) is not None:
            self._error = self._error or error
        else:
            self.assembly.take(event)

    def reply(self) -> dict[str, object]:
        reply = self.assembly.reply()
        return reply if self._error is None else {**reply, "error": self._error}


def error_of(event: Mapping[str, object]) -> object | None:
    """OpenRouter's and OpenAI's `error`, the flat ones of others, and the event `error` of the Responses API."""
    error = event.get("error")
    kind = event.get("type")
    groq = event.get("x_groq")
    if isinstance(groq, dict) and groq.get("error"):
        return {"message": str(groq["error"])}
    if kind == "error" or event.get("object") == "error":
        return error or {name: value for name, value in event.items() if name not in ("type", "object")}
    if kind is None and error:
        return error
    if kind is None and "choices" not in event and "usage" not in event and _ERROR_MARKS & event.keys():
        return dict(event)
    return None


class ChatAssembly:
    """Of chunks with choices: chat completions and completions."""

    def __init__(self) -> None:
        self.has_token = self.has_begun = False
        self._top: dict[str, object] = {}
        self._usage: object = None
        self._choices: dict[int, _Choice] = {}

    @property
    def is_whole(self) -> bool:
        return bool(self._choices) and all(choice.is_finished for choice in self._choices.values())

    @property
    def is_empty(self) -> bool:
        return not self._choices

    def take(self, event: Mapping[str, object]) -> str:
        piece = ""
        for name, value in event.items():
            if name == "choices":
                piece = self._take_choices(value)
            elif name == "usage":
                self._usage = value or self._usage
            elif name == "x_groq":
                self._take_groq(value)
            elif value is not None:
                self._top[name] = value
        return piece

    def reply(self) -> dict[str, object]:
        said = self._top.get("object")
        top = {**self._top, "object": _ENVELOPE.get(said, said) if isinstance(said, str) else said}
        reply = {**top, "choices": [self._choices[index].whole(index) for index in sorted(self._choices)]}
        if self._usage is not None:
            reply["usage"] = self._usage
        return reply

    def _take_groq(self, value: object) -> None:
        if isinstance(value, dict):
            self._usage = self._usage or value.get("usage")

    def _take_choices(self, choices: object) -> str:
        piece = ""
        for choice in choices if isinstance(choices, list) else ():
            if not isinstance(choice, dict):
                continue
            index = choice.get("index")
            index = index if isinstance(index, int) else 0
            made = self._choices.get(index)
            if made is None:
                made = self._choices[index] = _Choice()
            added = made.take(choice)
            if index == 0:
                piece = added
            self.has_token = self.has_token or made.has_token
            self.has_begun = self.has_begun or made.has_begun
        return piece


class _Choice:
    def __init__(self) -> None:
        self.has_token = self.has_begun = self.is_finished = False
        self._told: dict[str, object] = {}
        self._texts: list[str] = []  # of a completion
        self._message: dict[str, object] = {}
        self._pieces: dict[str, list[object]] = {}
        self._calls = _Calls()
        self._logprobs: dict[str, list[object]] = {}
        self._is_chat = False

    def take(self, choice: Mapping[str, object]) -> str:
        piece = ""
        for name, value in choice.items():
            if name == "delta":
                self._is_chat = True
                piece = self._take_delta(value)
            elif name == "text":
                piece = self._take_text(value)
            elif name == "logprobs":
                self._take_logprobs(value)
            elif name != "index" and value not in (None, ""):
                self._told[name] = value
        self.is_finished = self.is_finished or bool(self._told.get("finish_reason"))
        return piece

    def whole(self, index: int) -> dict[str, object]:
        made: dict[str, object] = {"index": index, "finish_reason": None, **self._told}
        if self._logprobs:
            made["logprobs"] = self._logprobs
        if not self._is_chat and "message" not in made:
            return {**made, "text": "".join(self._texts)}
        if self._is_chat:
            made["message"] = self._whole_message()
        return made

    def _whole_message(self) -> dict[str, object]:
        message: dict[str, object] = {"role": "assistant", "content": None, **self._message}
        for name, pieces in self._pieces.items():
            message[name] = _joined(pieces)
        if calls := self._calls.whole():
            message["tool_calls"] = calls
        return message

    def _take_text(self, value: object) -> str:
        if not isinstance(value, str):
            return ""
        self._texts.append(value)
        if value:
            self.has_token = self.has_begun = True
        return value

    def _take_delta(self, delta: object) -> str:
        piece = ""
        for name, value in delta.items() if isinstance(delta, dict) else ():
            if value is None:
                continue
            if name == "tool_calls":
                self._calls.take(value)
            elif name == "function_call":
                self._take_function(value)
            elif name not in _WHOLE and isinstance(value, str | list):
                self._pieces.setdefault(name, []).append(value)
                if name == "content":
                    piece = value if isinstance(value, str) else _text_in(value)
            else:
                self._message[name] = value
                continue
            if value:
                self.has_token = True
                self.has_begun = self.has_begun or name in _TEXTS
        return piece

    def _take_function(self, value: object) -> None:
        """The older form of a call, of which there is one."""
        known = self._message.setdefault("function_call", {})
        if isinstance(value, dict) and isinstance(known, dict):
            _extend_function(known, value)

    def _take_logprobs(self, value: object) -> None:
        for name, entries in value.items() if isinstance(value, dict) else ():
            if isinstance(entries, list):
                self._logprobs.setdefault(name, []).extend(entries)


class _Calls:
    """Calls of tools. A piece belongs to the call of its index; another id there begins another call."""

    def __init__(self) -> None:
        self._calls: list[dict[str, object]] = []
        self._at: dict[object, dict[str, object]] = {}

    def take(self, pieces: object) -> None:
        for piece in pieces if isinstance(pieces, list) else ():
            if isinstance(piece, dict):
                self._take(piece)

    def whole(self) -> list[dict[str, object]]:
        return self._calls

    def _take(self, piece: Mapping[str, object]) -> None:
        index = piece.get("index")
        index = index if isinstance(index, int) else None
        name = piece.get("id")
        call = self._at.get(index)
        if call is None or (name and call.get("id") and call["id"] != name):
            call = self._at[index] = {}
            self._calls.append(call)
        for key, value in piece.items():
            if key == "function" and isinstance(value, dict):
                function = call.setdefault("function", {})
                if isinstance(function, dict):
                    _extend_function(function, value)
            elif key != "index" and value:
                call[key] = value


def _extend_function(function: dict[str, object], piece: Mapping[str, object]) -> None:
    """Arguments come in pieces; a name comes whole, at some servers with each piece."""
    for key, value in piece.items():
        before = function.get(key)
        if key == "arguments" and isinstance(value, str) and isinstance(before, str):
            function[key] = before + value
        elif value is not None and not (key == "name" and before):
            function[key] = value


def _text_in(parts: list[object]) -> str:
    """Of content that comes in parts (Mistral's), what is no thought."""
    told = [part.get("text") for part in parts if isinstance(part, dict) and part.get("type") in _TEXT_PARTS]
    return "".join(text for text in told if isinstance(text, str))


def _joined(pieces: list[object]) -> object:
    """Text, or parts where any came as a list."""
    texts = [piece for piece in pieces if isinstance(piece, str)]
    if len(texts) == len(pieces):
        return "".join(texts)
    parts: list[object] = []
    for piece in pieces:
        if isinstance(piece, list):
            parts += piece
        elif piece:
            parts.append({"type": "text", "text": piece})
    return parts
