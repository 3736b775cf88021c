"""A reply that comes as it is written: when its first piece came, whether it stands still, what it adds up to.

The deadline of the call holds as for any other. Beside it, once the text has begun, no silence may be longer than the
lane's `stall_timeout_s`. Before that a model may think or a server may queue, for as long as the deadline allows, and
a comment is a sign of life at any time. What has arrived of an answer that breaks off is kept with the failure: it may
have been paid for.
"""

from collections.abc import Callable, Mapping, Sequence

import orjson

from batchllm.provider.assembly import ChatAssembly, Events
from batchllm.provider.catalogue import Api, Dialect
from batchllm.provider.event_stream import EventReader
from batchllm.provider.redact import hide
from batchllm.provider.responses_assembly import ResponsesAssembly
from batchllm.provider.responses_reply import as_chat
from batchllm.records import Billed, Failure
from batchllm.task.usage import read_usage

MEDIA_TYPE = "text/event-stream"
#: After the last event, for the end of the body: the connection is then good for another call.
LINGER_S = 1.0
#: Servers that refuse a field which they do not know, and do not know this one; they send usage anyway.
_WITHOUT_OPTIONS: frozenset[Dialect] = frozenset({"mistral"})
_TOO_DEEP = b'{"error":{"message":"the events of the stream are nested too deeply"}}'


def stream_fields(dialect: Dialect, api: Api) -> dict[str, object]:
    """What a body says to be answered by events, with the usage among them."""
    if api == "responses" or dialect in _WITHOUT_OPTIONS:
        return {"stream": True}
    return {"stream": True, "stream_options": {"include_usage": True}}


class Stream:
    """One reply while it arrives. `silence_s` hears after each piece how long the next one may take."""

    __slots__ = (
        "_ends_itself",
        "_events",
        "_first_s",
        "_now_s",
        "_reader",
        "_silence_s",
        "_stall_s",
        "is_fed",
    )

    def __init__(
        self,
        api: Api,
        stall_s: float,
        *,
        now_s: Callable[[], float],
        silence_s: Callable[[float], None],
    ) -> None:
        self._reader = EventReader()
        self._ends_itself = api == "responses"
        self._events = Events(ResponsesAssembly() if self._ends_itself else ChatAssembly())
        self._stall_s = stall_s
        self._now_s = now_s
        self._silence_s = silence_s
        self._first_s: float | None = None
        self.is_fed = False

    def feed(self, data: bytes) -> None:
        self.is_fed = True
        for event in self._reader.feed(data):
            self._events.take(event)
        assembly = self._events.assembly
        if self._first_s is None and assembly.has_token:
            self._first_s = self._now_s()
        if self._events.is_done or (self._ends_itself and assembly.is_whole):
            self._silence_s(LINGER_S)
        elif assembly.has_begun:
            self._silence_s(self._stall_s)

    def feed_whole(self, body: bytes) -> None:
        """Events that came as something else: when their first piece came, nobody knows."""
        self.is_fed = True
        for event in self._reader.feed(body):
            self._events.take(event)

    def end(self) -> bool:
        """No more will come: whether it is a whole reply."""
        for event in self._reader.end():
            self._events.take(event, may_be_cut=True)
        return self._events.is_whole

    @property
    def is_whole(self) -> bool:
        return self._events.is_whole

    def ttft_s(self, started_s: float) -> float | None:
        return None if self._first_s is None else self._first_s - started_s

    def body(self) -> bytes:
        try:
            return orjson.dumps(self._events.reply())
        except orjson.JSONEncodeError:  # it reads deeper nesting than it writes
            return _TOO_DEEP

    def salvaged(self, failure: Failure, secrets: Sequence[str], started_s: float) -> Failure:
        """The failure, with what had come until then."""
        if not self.is_fed:
            return failure
        reply = as_chat(self._events.reply())
        told: Mapping[str, object] = reply if isinstance(reply, dict) else {}
        text, usage, model = _text(told), read_usage(told), told.get("model")
        return failure._replace(
            content=hide(text, secrets) if text else None,
            usage=usage,
            billed=Billed.YES if usage.completion_tokens else Billed.UNKNOWN,
            model=model if isinstance(model, str) and model else None,
            ttft_s=self.ttft_s(started_s),
        )


def looks_like_events(body: bytes) -> bool:
    """Of a body whose media type says otherwise."""
    return body[:1024].lstrip().startswith((b"data:", b"event:", b": "))


def _text(reply: Mapping[str, object]) -> str:
    choices = reply.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else {}
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else choice.get("text")
    return text if isinstance(text, str) else ""
