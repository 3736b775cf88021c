"""What is sent for a request, and when: decided as a whole before anything is."""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

from batchllm.simulate import replies
from batchllm.simulate.answers import ModelAnswer
from batchllm.simulate.call import Call, Kind
from batchllm.simulate.replies import Headers, Stamp
from batchllm.simulate.responses_replies import response_body, response_events

JSON: Final = "application/json"


class Delivery(StrEnum):
    """How much of a reply arrives."""

    WHOLE = "whole"
    CUT = "cut"
    STALLED = "stalled"
    NEVER = "never"


class Ticket(NamedTuple):
    """What an accepted request holds until it is over."""

    reserved_tokens: int
    used_tokens: int
    digest: bytes
    is_answer: bool


class Reply(NamedTuple):
    """`make_body` is called when the body is due: thousands of waiting vectors would fill the memory."""

    status: int
    headers: Headers
    make_body: Callable[[], bytes]
    events: tuple[bytes, ...] = ()
    delay_s: float = 0.0
    delivery: Delivery = Delivery.WHOLE
    ticket: Ticket | None = None


class Draft(NamedTuple):
    """An answer before its fate is applied."""

    completion_tokens: int
    make_body: Callable[[], bytes]
    events: tuple[bytes, ...] = ()


def plain(status: int, body: bytes, headers: Headers | None = None) -> Reply:
    """A JSON reply that is sent at once."""
    return Reply(status, [*(headers or []), ("content-type", JSON)], lambda: body)


def typed(reply: Reply) -> Reply:
    if reply.events:
        reply.headers.extend(
            (("content-type", "text/event-stream; charset=utf-8"), ("cache-control", "no-cache"))
        )
    else:
        reply.headers.append(("content-type", JSON))
    return reply


def emptied(reply: Reply, call: Call, stamp: Stamp) -> Reply:
    """Status 200 and the right shape, with nothing in it."""
    match call.kind:
        case Kind.EMBEDDING:
            body = replies.embedding_body(call, [])
        case Kind.MODERATION:
            body = replies.moderation_body(call, [], stamp)
        case Kind.CHAT | Kind.COMPLETION:
            body = text_body(call, [], stamp)
    events = text_events(call, [], stamp) if reply.events else ()
    return reply._replace(make_body=lambda: body, events=events)


def text_body(call: Call, answers: Sequence[ModelAnswer], stamp: Stamp) -> bytes:
    return (response_body if call.is_response else replies.text_body)(call, answers, stamp)


def text_events(call: Call, answers: Sequence[ModelAnswer], stamp: Stamp) -> tuple[bytes, ...]:
    return (response_events if call.is_response else replies.text_events)(call, answers, stamp)
