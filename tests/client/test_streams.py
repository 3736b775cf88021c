"""Answers as they arrive: whole at the end, and honest about what is missing."""

import asyncio
from typing import Any

import pytest
from server_rig import USAGE, Say, Seen, chat_reply, chunk, refusal, scripted

import batchllm
from batchllm.errors import (
    BatchllmError,
    CredentialsError,
    NoProviderError,
    RateLimitedError,
    RequestRefusedError,
)

WHOLE = [chunk("", role="assistant"), chunk("a "), chunk("pear"), chunk(finish="stop"), USAGE, "[DONE]"]


def connected(server: Any, provider: str = "openai", **config: Any) -> batchllm.Client:
    given = {
        "base_url": server.base_url,
        "api_key": "k-0123456789",
        "default_model": "m",
        "retries": 0,
        **config,
    }
    return batchllm.connect(provider, **given)


def test_the_pieces_and_then_the_whole() -> None:
    with (
        scripted(Say(events=WHOLE)) as server,
        connected(server, price={"input": 1.0, "output": 2.0}) as client,
    ):
        stream = client.chat("Name a fruit.", stream=True, max_tokens=5)
        with pytest.raises(BatchllmError, match="not complete"):
            _ = stream.answer
        assert list(stream) == ["a ", "pear"]
        answer = stream.answer
    assert (answer.content, answer.finish_reason, answer.model) == ("a pear", "stop", "m-2026")
    assert (answer.usage.completion_tokens, answer.cost_usd) == (2, pytest.approx(14e-6))
    body = server.bodies()[0]
    assert body["stream"] is True
    assert body["stream_options"] == {"include_usage": True}
    assert body["max_completion_tokens"] == 5


def test_mistral_s_closed_body_gets_no_stream_options() -> None:
    with scripted(Say(events=WHOLE)) as server, connected(server, "mistral") as client:
        assert "".join(client.stream("x")) == "a pear"
    assert "stream_options" not in server.bodies()[0]


def test_nothing_is_sent_before_the_first_piece_is_asked_for() -> None:
    with scripted(Say(events=WHOLE)) as server, connected(server) as client:
        with client.stream("x"):
            pass
        assert server.seen == []


def test_tool_calls_come_in_pieces() -> None:
    def part(**function: str) -> dict[str, Any]:
        return {"index": 0, "function": function}

    events = [
        chunk(tool_calls=[{**part(name="look_up", arguments=""), "id": "c1"}]),
        chunk(tool_calls=[part(arguments='{"id"')]),
        chunk(tool_calls=[part(arguments=": 5}"), {"index": 1, "id": "c2", "function": {"name": "g"}}]),
        chunk(reasoning_content="hm"),
        chunk(finish="tool_calls"),
        "[DONE]",
    ]
    with scripted(Say(events=events)) as server, connected(server) as client:
        stream = client.stream("x")
        assert list(stream) == []
    calls = stream.answer.tool_calls
    assert [(call.id, call.name, call.arguments) for call in calls] == [
        ("c1", "look_up", '{"id": 5}'),
        ("c2", "g", ""),
    ]
    assert stream.answer.reasoning == "hm"


def test_an_end_without_a_farewell_is_an_end() -> None:
    with scripted(Say(events=WHOLE[:-2], cut=True)) as server, connected(server) as client:
        stream = client.stream("x")
        assert "".join(stream) == "a pear"
    assert stream.answer.finish_reason == "stop"


@pytest.mark.parametrize(
    ("say", "kind", "said"),
    [
        (Say(events=WHOLE[:2], cut=True), NoProviderError, "127.0.0.1"),
        (Say(events=WHOLE[:2]), NoProviderError, "before the answer did, after 2 characters"),
        (
            Say(events=[*WHOLE[:2], {"error": {"message": "upstream broke", "code": 502}}]),
            NoProviderError,
            "upstream broke",
        ),
        (
            Say(events=[{"error": {"message": "no", "code": "context_length_exceeded"}}]),
            RequestRefusedError,
            "shorten",
        ),
        (Say(events=["[DONE]"]), NoProviderError, "no answer in it"),
        (Say(events=["{broken"]), NoProviderError, "is no JSON"),
        (Say(events=[*WHOLE[:3], chunk(finish="error")]), NoProviderError, "broke off"),
        (Say(401, refusal("bad key", code="invalid_api_key")), CredentialsError, "bad key"),
        (Say(events=[*WHOLE[:2], "wait"]), NoProviderError, "no whole answer"),
    ],
)
def test_a_stream_that_fails_says_so_after_what_it_gave(
    say: Say, kind: type[BatchllmError], said: str
) -> None:
    deadline_s = 0.4 if "wait" in (say.events or ()) else 20.0
    with scripted(say) as server, connected(server, timeout_s=deadline_s) as client:
        stream = client.stream("x")
        with pytest.raises(kind, match=said):
            list(stream)
        with pytest.raises(BatchllmError, match="not complete"):
            _ = stream.answer
    assert len(server.bodies()) == 1


def test_what_fails_before_the_first_event_is_tried_again_and_nothing_later() -> None:
    busy = Say(503, refusal("busy"), {"retry-after": "0.01"})
    told = Say(events=[{"error": {"message": "overloaded", "code": 503}}], headers={"retry-after": "0.01"})
    with scripted(busy, told, Say(events=WHOLE)) as server, connected(server, retries=3) as client:
        assert "".join(client.stream("x")) == "a pear"
    assert len(server.seen) == 3
    with (
        scripted(Say(events=WHOLE[:2]), Say(events=WHOLE)) as server,
        connected(server, retries=3) as client,
        pytest.raises(NoProviderError),
    ):
        list(client.stream("x"))
    assert len(server.seen) == 1


def test_a_server_that_does_not_stream_answers_in_one_piece() -> None:
    with scripted(Say(body=chat_reply("a pear"))) as server, connected(server) as client:
        stream = client.stream("x")
        assert list(stream) == ["a pear"]
    assert stream.answer.usage.prompt_tokens == 10


def test_leaving_early_closes_the_connection() -> None:
    with scripted(Say(events=[*WHOLE[:3], "wait"])) as server, connected(server) as client:
        with client.stream("x") as stream:
            assert next(stream) == "a "
            assert stream.content == "a "
        assert server.gone.wait(5)


async def test_async_streams() -> None:
    def script(seen: Seen, number: int) -> Say:
        return Say(events=WHOLE)

    with scripted(otherwise=script) as server:
        async with batchllm.connect_async("custom", base_url=server.base_url, default_model="m") as client:
            pieces = [piece async for piece in client.stream("x")]
            stream = await client.chat("x", stream=True)
            async with stream:
                first = await anext(stream)
            assert (pieces, first, stream.content) == (["a ", "pear"], "a ", "a ")


async def test_a_cancelled_stream_closes_its_connection() -> None:
    with scripted(Say(events=[*WHOLE[:2], "wait"])) as server:
        async with batchllm.connect_async("custom", base_url=server.base_url, default_model="m") as client:
            arrived = asyncio.Event()

            async def read() -> None:
                async for _ in client.stream("x"):
                    arrived.set()

            reading = asyncio.create_task(read())
            await arrived.wait()
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert await asyncio.to_thread(server.gone.wait, 5)


def event(kind: str, **told: object) -> dict[str, object]:
    return {"type": f"response.{kind}", **told}


def response(**told: object) -> dict[str, object]:
    usage = {"input_tokens": 10, "output_tokens": 2, "total_tokens": 12}
    text = {"type": "output_text", "text": "a pear", "annotations": []}
    output = [{"type": "message", "role": "assistant", "content": [text]}]
    return {
        "id": "resp_1",
        "model": "m-2026",
        "status": "completed",
        "output": output,
        "usage": usage,
        **told,
    }


PIECES = [
    event("created", response=response(status="in_progress", output=[], usage=None)),
    event("output_text.delta", output_index=0, delta="a "),
    event("output_text.delta", output_index=0, delta="pear"),
]


def test_the_responses_api_streams_too_and_its_last_event_is_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("batchllm.client.calls._FAREWELL_S", None)
    monkeypatch.setattr("batchllm.client.calls._FAREWELLS", ())
    events = [*PIECES, event("completed", response=response()), "wait"]
    with scripted(Say(events=events)) as server, connected(server, api="responses", timeout_s=3.0) as client:
        stream = client.stream("Name a fruit.", max_tokens=50)
        assert list(stream) == ["a ", "pear"]
    assert (stream.answer.content, stream.answer.finish_reason, stream.answer.usage.completion_tokens) == (
        "a pear",
        "stop",
        2,
    )
    assert server.seen[0].path == "/v1/responses"
    assert server.bodies()[0]["stream"] is True
    assert "stream_options" not in server.bodies()[0]


@pytest.mark.parametrize(
    ("events", "kind", "said"),
    [
        (PIECES, NoProviderError, "before the answer did, after 6 characters"),
        (
            [*PIECES[:2], {"type": "error", "code": "server_error", "message": "broke"}],
            NoProviderError,
            "broke",
        ),
        ([{"type": "error", "code": "rate_limit_exceeded", "message": "slow"}], RateLimitedError, "slow"),
        (
            [
                *PIECES,
                event(
                    "failed",
                    response=response(status="failed", error={"code": "server_error", "message": "no"}),
                ),
            ],
            NoProviderError,
            "no",
        ),
    ],
)
def test_a_response_that_fails_says_so(events: list[Any], kind: type[BatchllmError], said: str) -> None:
    with scripted(Say(events=events)) as server, connected(server, api="responses") as client:
        stream = client.stream("x")
        with pytest.raises(kind, match=said):
            list(stream)
    assert len(server.bodies()) == 1


def test_what_comes_after_the_answer_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchllm.client.calls._FAREWELL_S", 0.05)
    monkeypatch.setattr("batchllm.client.calls._FAREWELLS", ())  # the deadline would end it, too
    with scripted(Say(events=[*WHOLE[:4], "wait"])) as server, connected(server, timeout_s=3.0) as client:
        assert "".join(client.stream("x")) == "a pear"
    assert server.gone.is_set()
