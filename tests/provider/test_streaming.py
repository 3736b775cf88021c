"""Streams over real sockets: what providers and networks do to them."""

import asyncio
import gc
import gzip
from collections.abc import Sequence
from typing import Any

import orjson
import pytest
from wire_rig import BODY, KEY, LONG_S, SHORT_S, Behaviour, Ledger, answer, lane, serving

from batchllm.provider.catalogue import Api
from batchllm.provider.connection import Streaming
from batchllm.provider.streaming import LINGER_S, Stream, stream_fields
from batchllm.records import Action, Billed, Failure, FailureCode, Response, Usage

HEAD = {"id": "c-1", "object": "chat.completion.chunk", "model": "m-2026"}
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
DONE = b"data: [DONE]\n\n"
OPEN = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)
CHAT = Streaming("chat", LONG_S)
HASTY = Streaming("chat", SHORT_S)


def event(body: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"


def said(text: str, finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return event({**HEAD, "choices": [choice], **more})


TOLD = event({**HEAD, "choices": [], "usage": USAGE})
WHOLE = (said("Hel"), said("lo"), said("", "stop"), TOLD, DONE)


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


def streaming(
    *pieces: bytes, head: bytes = OPEN, ends: bool = True, cuts: bool = False, ledger: Ledger | None = None
) -> Behaviour:
    """Piece by piece, each in a packet of its own as far as a test can say. Without `ends` it waits for ever."""
    seen = ledger or Ledger()

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.connections += 1
        while await seen.request(reader):
            writer.write(head)
            for piece in pieces:
                writer.write(chunked(piece))
                await writer.drain()
                await asyncio.sleep(0)
            if cuts:
                return
            if not ends:
                await asyncio.Event().wait()
            writer.write(b"0\r\n\r\n")

    return behave


async def outcome(
    behave: Behaviour, *, streams: Streaming = CHAT, deadline_s: float = LONG_S, **options: Any
) -> Response | Failure:
    async with serving(behave) as port, lane(port, streaming=streams, **options) as connection:
        return await connection.send("/chat/completions", BODY, deadline_s)


async def reply(behave: Behaviour, **options: Any) -> dict[str, Any]:
    got = await outcome(behave, **options)
    assert isinstance(got, Response), got
    return orjson.loads(got.body)


async def failure(behave: Behaviour, **options: Any) -> Failure:
    got = await outcome(behave, **options)
    assert isinstance(got, Failure), got
    return got


def text_of(body: dict[str, Any]) -> str:
    return body["choices"][0]["message"]["content"]


async def test_a_stream_comes_back_as_the_whole_reply() -> None:
    got = await outcome(streaming(*WHOLE))
    assert isinstance(got, Response)
    body = orjson.loads(got.body)
    assert (text_of(body), body["usage"], body["object"]) == ("Hello", USAGE, "chat.completion")
    assert got.status == 200
    assert got.headers["content-type"].startswith("text/event-stream")


async def test_the_time_to_the_first_token_is_told_by_the_clock() -> None:
    class Clock:
        def __init__(self) -> None:
            self.now_s = 0.0

        def monotonic_s(self) -> float:
            self.now_s += 1.0
            return self.now_s

        def wall_s(self) -> float:
            return 0.0

    role = event({**HEAD, "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
    got = await outcome(streaming(b": waiting\n\n", role, *WHOLE), clock=Clock())
    assert isinstance(got, Response)
    assert (got.ttft_s, got.latency_s) == (
        1.0,
        2.0,
    )  # the clock was asked at the start, the token, and the end


@pytest.mark.parametrize(
    "pieces",
    {
        "comments between the events": (
            b": keep-alive\n\n",
            WHOLE[0],
            b": OPENROUTER PROCESSING\n\n",
            *WHOLE[1:],
        ),
        "carriage returns": tuple(piece.replace(b"\n", b"\r\n") for piece in WHOLE),
        "cut anywhere": tuple(b"".join(WHOLE)[at : at + 7] for at in range(0, len(b"".join(WHOLE)), 7)),
        "all at once": (b"".join(WHOLE),),
        "no [DONE], but the end was said": WHOLE[:-1],
        "no usage, no [DONE]": WHOLE[:-2],
        "no blank line after the last event": (*WHOLE[:-1], b"data: [DONE]"),
        "a finish that nobody says": (said("Hello"), DONE),
    }.values(),
)
async def test_oddities_that_cost_nothing(pieces: Sequence[bytes]) -> None:
    assert text_of(await reply(streaming(*pieces))) == "Hello"


async def test_a_compressed_stream_is_read() -> None:
    head = OPEN.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n")
    packed = gzip.compress(b"".join(WHOLE))
    assert text_of(await reply(streaming(packed[:40], packed[40:], head=head))) == "Hello"


async def test_a_stream_that_ends_with_its_connection_is_read() -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Ledger().request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n" + b"".join(WHOLE))
        writer.close()
        await writer.wait_closed()

    assert text_of(await reply(behave)) == "Hello"


async def test_events_under_another_type_are_events() -> None:
    head = OPEN.replace(b"text/event-stream; charset=utf-8", b"application/json")
    got = await outcome(streaming(*WHOLE, head=head))
    assert isinstance(got, Response)
    assert text_of(orjson.loads(got.body)) == "Hello"
    assert got.ttft_s is None


async def test_a_server_that_does_not_stream_is_taken_at_its_word() -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Ledger().request(reader)
        writer.write(answer(b'{"choices":[]}', headers="content-type: application/json\r\n"))
        await writer.drain()

    got = await outcome(behave)
    assert isinstance(got, Response)
    assert (got.body, got.ttft_s) == (b'{"choices":[]}', None)


async def test_a_refusal_is_no_stream_whatever_its_type() -> None:
    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await Ledger().request(reader)
        raw = answer(b'{"error":{}}', status="429 Slow", headers="content-type: text/event-stream\r\n")
        writer.write(raw)
        await writer.drain()

    got = await outcome(behave)
    assert isinstance(got, Response)
    assert (got.status, got.body) == (429, b'{"error":{}}')


async def test_one_connection_serves_several_streams() -> None:
    ledger = Ledger()
    async with serving(streaming(*WHOLE, ledger=ledger)) as port, lane(port, streaming=CHAT) as connection:
        for _ in range(3):
            got = await connection.send("/x", BODY, LONG_S)
            assert isinstance(got, Response)
            assert text_of(orjson.loads(got.body)) == "Hello"
    assert (ledger.connections, len(ledger.bodies)) == (1, 3)


async def test_an_idle_connection_keeps_nothing_of_its_last_stream() -> None:
    async with serving(streaming(*WHOLE)) as port, lane(port, streaming=CHAT) as connection:
        await connection.send("/x", BODY, LONG_S)
        assert connection.idle_connections == 1
        gc.collect()
        assert not any(isinstance(kept, Stream) for kept in gc.get_objects())


@pytest.mark.parametrize(
    ("api", "last"),
    [
        ("chat", DONE),
        ("responses", event({"type": "response.completed", "response": {"output": []}})),
    ],
)
def test_behind_the_last_event_little_is_waited_for(api: Api, last: bytes) -> None:
    told: list[float] = []
    stream = Stream(api, 60.0, now_s=lambda: 0.0, silence_s=told.append)
    stream.feed(b": queued\n\n")
    assert told == []
    if api == "chat":
        stream.feed(b"".join(WHOLE[:3]))
        assert told == [60.0]  # the usage is still to come
        told.clear()
    stream.feed(last)
    assert told == [LINGER_S]


class TestBrokenOff:
    async def test_a_cut_keeps_what_arrived_and_may_be_billed(self) -> None:
        got = await failure(streaming(*WHOLE[:2], cuts=True))
        assert (got.action, got.code, got.billed) == (Action.AGAIN, FailureCode.CONNECTION, Billed.UNKNOWN)
        assert (got.content, got.model, got.status) == ("Hello", "m-2026", 200)
        assert got.ttft_s is not None

    async def test_an_end_without_the_answer_s_end_is_a_cut(self) -> None:
        got = await failure(streaming(*WHOLE[:2]))
        assert (got.action, got.content) == (Action.AGAIN, "Hello")
        assert "its stream ended before the answer did" in got.message

    async def test_half_an_event_at_the_end_is_a_cut_too(self) -> None:
        got = await failure(streaming(WHOLE[0], WHOLE[1][:20]))
        assert (got.code, got.content) == (FailureCode.CONNECTION, "Hel")

    async def test_tokens_that_were_counted_are_billed(self) -> None:
        got = await failure(streaming(said("Hello", usage=USAGE), cuts=True))
        assert (got.billed, got.usage) == (Billed.YES, Usage(3, 2))

    async def test_a_cut_after_the_answer_s_end_costs_nothing(self) -> None:
        assert text_of(await reply(streaming(*WHOLE[:3], cuts=True))) == "Hello"
        assert text_of(await reply(streaming(*WHOLE, cuts=True))) == "Hello"

    async def test_keys_are_hidden_in_what_is_kept(self) -> None:
        got = await failure(streaming(said(f"the key is {KEY}"), cuts=True))
        assert got.content == "the key is [key]"

    async def test_an_error_among_the_events_ends_it(self) -> None:
        body = await reply(streaming(WHOLE[0], event({"error": {"message": "overloaded", "code": 502}})))
        assert body["error"] == {"message": "overloaded", "code": 502}
        assert text_of(body) == "Hel"

    async def test_an_endless_stream_is_not_kept(self) -> None:
        got = await failure(streaming(*(said("x" * 1000) for _ in range(20))), max_reply_bytes=10_000)
        assert (got.code, got.billed) == (FailureCode.MALFORMED, Billed.UNKNOWN)
        assert got.content is not None


class TestSilence:
    async def test_a_stream_that_stands_still_is_given_up_with_what_arrived(self) -> None:
        got = await failure(streaming(WHOLE[0], ends=False), streams=HASTY)
        assert (got.action, got.code, got.billed) == (Action.AGAIN, FailureCode.TIMEOUT, Billed.UNKNOWN)
        assert got.content == "Hel"
        assert "stall_timeout_s" in got.message

    @pytest.mark.parametrize(
        "before",
        [
            b": keep-alive\n\n",
            event({**HEAD, "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}),
            event({**HEAD, "choices": [{"index": 0, "delta": {"reasoning": "hm"}}]}),
        ],
        ids=["queued", "opened", "thinking"],
    )
    async def test_before_the_text_only_the_deadline_counts(self, before: bytes) -> None:
        got = await failure(
            streaming(before, ends=False), streams=Streaming("chat", 0.02), deadline_s=SHORT_S
        )
        assert got.code is FailureCode.TIMEOUT
        assert f"in {SHORT_S:g} s" in got.message

    async def test_a_comment_is_a_sign_of_life(self) -> None:
        """Ten of them in the time of two silences: the deadline ends it, and not the silence."""

        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await Ledger().request(reader)
            writer.write(OPEN + chunked(WHOLE[0]))
            while True:
                await asyncio.sleep(SHORT_S / 5)
                writer.write(chunked(b": keep-alive\n\n"))

        got = await failure(behave, streams=HASTY, deadline_s=2 * SHORT_S)
        assert f"in {2 * SHORT_S:g} s" in got.message
        assert got.content == "Hel"

    async def test_the_end_of_the_body_is_not_waited_for(self) -> None:
        """A server that keeps the connection open behind [DONE] costs a second, and no answer."""
        assert text_of(await reply(streaming(*WHOLE, ends=False))) == "Hello"

    async def test_closing_the_lane_ends_a_stream(self) -> None:
        started = asyncio.Event()

        async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await Ledger().request(reader)
            writer.write(OPEN + chunked(WHOLE[0]))
            await writer.drain()
            started.set()
            await asyncio.Event().wait()

        async with serving(behave) as port, lane(port, streaming=CHAT) as connection:
            call = asyncio.create_task(connection.send("/x", BODY, LONG_S))
            await started.wait()
            await connection.close()
            got = await call
        assert isinstance(got, Failure)
        assert got.action is Action.AGAIN


def test_usage_is_asked_for_where_it_is_known() -> None:
    assert stream_fields("openai", "chat") == {"stream": True, "stream_options": {"include_usage": True}}
    assert stream_fields("mistral", "chat") == {"stream": True}
    assert stream_fields("openai", "responses") == {"stream": True}
