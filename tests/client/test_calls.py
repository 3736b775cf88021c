"""Calls from Python over real sockets: what is sent, what comes back, and what each failure becomes."""

import asyncio
import base64
import struct
import threading
import traceback

import pytest
from server_rig import Say, Seen, chat_reply, refusal, scripted

import batchllm
from batchllm.errors import (
    BatchllmError,
    CredentialsError,
    ModelMissingError,
    NoProviderError,
    QuotaError,
    RateLimitedError,
    RequestRefusedError,
    SettingsError,
)

KEY = "sk-canary-0123456789abcdef"


def connected(server, provider="openai", **config):
    given = {"base_url": server.base_url, "api_key": KEY, "default_model": "m", "retries": 0, **config}
    return batchllm.connect(provider, **given)


def test_a_chat_sends_what_a_row_of_a_job_would_send() -> None:
    with scripted(Say(body=chat_reply("a pear"))) as server, connected(server) as client:
        answer = client.chat("Name a fruit.", system="Be brief.", max_tokens=9, temperature=0.5)
    seen = server.seen[0]
    assert (seen.method, seen.path) == ("POST", "/v1/chat/completions")
    assert seen.body == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Name a fruit."},
        ],
        "temperature": 0.5,
        "max_completion_tokens": 9,
    }
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.headers["user-agent"].startswith("batchllm/")
    assert (answer.content, str(answer)) == ("a pear", "a pear")
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (10, 5)
    assert (answer.finish_reason, answer.model, answer.request_id) == ("stop", "m-2026", "chatcmpl-1")
    assert answer.raw["object"] == "chat.completion"


def test_messages_are_sent_as_they_are() -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        {"role": "assistant", "content": "x"},
    ]
    with scripted(Say(body=chat_reply())) as server, connected(server) as client:
        client.chat(messages)
        with pytest.raises(SettingsError, match="no message"):
            client.chat([])
        for nonsense in (5, ["text"], None):
            with pytest.raises(SettingsError, match="list of messages"):
                client.chat(nonsense)
        for nothing in ([1], []):
            with pytest.raises(SettingsError, match="needs a text"):
                client.embed(nothing)
        with pytest.raises(SettingsError, match="JSON"):
            client.chat([{"role": "user", "content": object()}])
    assert server.bodies() == [{"model": "m", "messages": messages}]


def test_nothing_of_the_environment_travels_but_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Secret: canary")
    monkeypatch.setenv("OPENAI_ORG_ID", "canary")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "canary")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/canary")
    monkeypatch.setenv("OPENAI_API_KEY", "canary")
    with scripted(Say(body=chat_reply())) as server:
        with connected(server) as client:
            client.chat("x")
        with connected(server, "custom", api_key=None) as client:
            client.chat("x")
    assert not any("canary" in str(value) for value in server.seen[1].headers.values())
    assert "canary" not in str({**server.seen[0].headers, "authorization": ""})
    assert "authorization" not in server.seen[1].headers


def test_the_cost_is_told_where_a_price_is_known() -> None:
    price = {"input": 1.0, "output": 2.0}
    with scripted(Say(body=chat_reply())) as server:
        with connected(server, price=price) as client:
            assert client.chat("x").cost_usd == pytest.approx(20e-6)
        with connected(server, "custom") as client:
            assert client.chat("x").cost_usd is None


def test_tool_calls_reasoning_and_parts_are_read() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"id": 5}'}}
    parts = [{"type": "thinking", "text": "no"}, {"type": "text", "text": "yes"}]
    replies = (
        Say(body=chat_reply(None, tool_calls=[call], reasoning="hm")),
        Say(body={**chat_reply(), "choices": [{"message": {"content": parts}, "finish_reason": "stop"}]}),
        Say(body=chat_reply(None, refusal="I would rather not")),
    )
    with scripted(*replies) as server, connected(server) as client:
        called, spoken, refused = (client.chat(str(at)) for at in range(3))
    assert [(one.id, one.name, one.parsed()) for one in called.tool_calls] == [("c1", "look_up", {"id": 5})]
    assert (called.content, called.finish_reason, called.reasoning) == ("", "tool_calls", "hm")
    assert spoken.content == "yes"
    assert (refused.content, refused.refusal) == ("", "I would rather not")


def test_a_completion() -> None:
    reply = {**chat_reply(), "choices": [{"index": 0, "text": " a time", "finish_reason": "length"}]}
    with scripted(Say(body=reply)) as server, connected(server) as client:
        answer = client.complete("Once upon", max_tokens=2)
    assert server.seen[0].path == "/v1/completions"
    assert server.bodies() == [{"model": "m", "prompt": "Once upon", "max_tokens": 2}]
    assert (answer.content, answer.finish_reason) == (" a time", "length")


def test_a_refused_key_is_named_and_never_shown() -> None:
    body = refusal(f"Incorrect API key provided: {KEY}.", code="invalid_api_key")
    with scripted(Say(401, body)) as server, connected(server) as client:
        with pytest.raises(CredentialsError) as caught:
            client.chat("x")
        assert client.validate_credentials() is False
    text = "".join(traceback.format_exception(caught.value))
    assert KEY not in text
    assert "the key came from api_key" in str(caught.value)
    assert len(server.bodies()) == 1


def test_no_key_at_all_is_said() -> None:
    with (
        scripted(Say(401, refusal("You didn't provide an API key."))) as server,
        connected(server, "custom", api_key=None) as client,
        pytest.raises(CredentialsError) as caught,
    ):
        client.chat("x")
    assert "no key was sent" in str(caught.value)


def test_a_key_that_was_held_back_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with (
        scripted(Say(401, refusal("You didn't provide an API key."))) as server,
        connected(server, api_key=None) as client,
        pytest.raises(CredentialsError, match="OPENAI_API_KEY is not sent to a host that is not OpenAI's"),
    ):
        client.chat("x")
    assert "authorization" not in server.seen[0].headers


def test_a_missing_model_is_answered_with_the_nearest_listed() -> None:
    def script(seen: Seen, number: int) -> Say:
        if seen.method == "GET":
            return Say(body={"data": [{"id": "gpt-4.1-nano"}, {"id": "gpt-4.1-mini"}, {"id": "o3"}]})
        return Say(404, refusal("The model does not exist", code="model_not_found"))

    with (
        scripted(otherwise=script) as server,
        connected(server) as client,
        pytest.raises(ModelMissingError) as caught,
    ):
        client.chat("x", model="gpt-4.1-nona")
    assert caught.value.nearest[0] == "gpt-4.1-nano"
    assert "did you mean gpt-4.1-nano" in str(caught.value)
    assert caught.value.exit_code == 69


def test_a_passing_failure_is_tried_again_and_a_lasting_one_is_not() -> None:
    busy = Say(503, refusal("overloaded"), {"retry-after": "0.01"})
    limited = Say(429, refusal("slow", code="rate_limit_exceeded"), {"retry-after-ms": "5"})
    with scripted(busy, limited, Say(body=chat_reply())) as server, connected(server, retries=2) as client:
        assert client.chat("x").content == "fine"
    assert len(server.seen) == 3
    spent = Say(429, refusal("no credit", code="insufficient_quota"))
    with scripted(spent) as server, connected(server, retries=2) as client, pytest.raises(QuotaError):
        client.chat("x")
    assert len(server.seen) == 1


def test_retries_end() -> None:
    with (
        scripted(Say(500, refusal("broken"), {"retry-after": "0"})) as server,
        connected(server, retries=1) as client,
        pytest.raises(NoProviderError, match="broken"),
    ):
        client.chat("x")
    assert len(server.seen) == 2


def test_a_wait_beyond_the_limit_is_told_and_not_begun() -> None:
    limited = Say(429, refusal("slow", code="rate_limit_exceeded"), {"retry-after": "3600"})
    with (
        scripted(limited) as server,
        connected(server, retries=3) as client,
        pytest.raises(RateLimitedError) as caught,
    ):
        client.chat("x")
    assert caught.value.retry_after_s == 3600
    assert "try again in 3,600 s" in str(caught.value)
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    ("say", "kind", "said"),
    [
        (
            Say(400, refusal("too long", code="context_length_exceeded")),
            RequestRefusedError,
            "shorten the prompt",
        ),
        (Say(400, refusal("bad field", param="temperature")), RequestRefusedError, "bad field"),
        (Say(400, refusal("no", code="content_filter")), RequestRefusedError, "filter"),
        (Say(404, refusal("no such path")), NoProviderError, "/v1 missing"),
        (Say(307, {}, {"location": "https://thief.example/v1"}), NoProviderError, "redirects"),
        (Say(200, b"<html><title>login</title></html>"), NoProviderError, "web page"),
        (Say(200, {"error": {"message": "upstream down", "code": 502}}), NoProviderError, "upstream down"),
        (Say(200, {"choices": []}), NoProviderError, "no choices"),
        (Say(200, {"choices": [{"message": "fine"}]}), NoProviderError, "has no message"),
        (Say(200, {"choices": [{"message": {"content": {}}}]}), NoProviderError, "neither text nor a list"),
        (Say(200, chat_reply(), cut=True), NoProviderError, "127.0.0.1"),
        (Say(silent=True), NoProviderError, "no whole answer"),
    ],
)
def test_each_failure_has_its_error_with_a_remedy(say: Say, kind: type[BatchllmError], said: str) -> None:
    with (
        scripted(say) as server,
        connected(server, timeout_s=0.3 if say.silent else 20.0) as client,
        pytest.raises(kind) as caught,
    ):
        client.chat("x")
    assert type(caught.value) is kind
    assert said in str(caught.value)
    assert caught.value.remedy
    assert len(server.seen) == 1


def test_half_a_character_in_a_reply_costs_that_character_alone() -> None:
    body = b'{"choices": [{"message": {"content": "a\\ud83d b"}}], "usage": {"prompt_tokens": 1}}'
    with scripted(Say(body=body)) as server, connected(server) as client:
        assert client.chat("x").content == "a\N{REPLACEMENT CHARACTER} b"


def test_nothing_is_not_sent() -> None:
    with scripted(Say(body=chat_reply())) as server, connected(server) as client:
        for ask in (client.chat, client.complete, client.embed, client.moderate):
            with pytest.raises(SettingsError, match="empty"):
                ask(" \n")
        with pytest.raises(SettingsError, match="empty"):
            client.embed(["a", ""])
    assert server.seen == []


def test_a_reply_without_end_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("batchllm.client.transport.MAX_REPLY_BYTES", 1000)
    with (
        scripted(Say(body=chat_reply("x" * 2000))) as server,
        connected(server) as client,
        pytest.raises(NoProviderError, match="too large"),
    ):
        client.chat("x")
    assert server.seen[0].headers["accept-encoding"] == "identity"


def test_nobody_there() -> None:
    with scripted(Say()) as server:
        pass
    with connected(server) as client, pytest.raises(NoProviderError, match="Connection refused"):
        client.chat("x")


def test_vectors_are_placed_by_index_and_packed_by_what_the_model_takes() -> None:
    def script(seen: Seen, number: int) -> Say:
        texts = seen.body["input"]
        if len(texts) > 2:
            return Say(400, refusal("too many inputs in request", code="3210"))
        data = [{"index": at, "embedding": [float(text), 1.0]} for at, text in enumerate(texts)]
        return Say(body={"data": data[::-1], "model": "m", "usage": {"prompt_tokens": len(texts)}})

    with scripted(otherwise=script) as server, connected(server, "custom") as client:
        found = client.embed([str(at) for at in range(5)], dimensions=2)
        alone = client.embed("7")
    assert found.to_list() == [[float(at), 1.0] for at in range(5)]
    assert (found.usage.prompt_tokens, found.dimensions, len(found)) == (5, 2, 5)
    assert [len(body["input"]) for body in server.bodies()] == [5, 2, 3, 1, 2, 1]
    assert server.bodies()[0]["encoding_format"] == "float"
    assert (alone.to_list(), alone.dimensions) == ([[7.0, 1.0]], 2)


def test_vectors_in_base64_of_a_known_model() -> None:
    wide = base64.b64encode(struct.pack("<1536f", *([0.25] * 1536))).decode()
    reply = {"data": [{"index": 0, "embedding": wide}], "usage": {"prompt_tokens": 1}}
    with scripted(Say(body=reply)) as server, connected(server, default_model=None) as client:
        found = client.embed("x")
    assert server.bodies()[0]["model"] == "text-embedding-3-small"
    assert server.bodies()[0]["encoding_format"] == "base64"
    assert found.dimensions == 1536
    assert set(found.to_list()[0]) == {0.25}


def test_vectors_of_signed_bytes() -> None:
    reply = {"data": [{"index": 0, "embedding": base64.b64encode(bytes([1, 255] * 512)).decode()}]}
    with scripted(Say(body=reply)) as server:
        with connected(server, "perplexity", default_model="pplx-embed-v1-0.6b") as client:
            found = client.embed("x")
        with connected(server, "perplexity", default_model="my-own") as client:
            assert client.embed("x").dimensions == 1024
    assert server.bodies()[0]["encoding_format"] == "base64_int8"
    assert found.to_list()[0][:2] == [1.0, -1.0]


def test_vectors_of_another_width_than_the_model_s_are_refused() -> None:
    reply = {"data": [{"index": 0, "embedding": [1.0]}]}
    with (
        scripted(Say(body=reply)) as server,
        connected(server, default_model=None) as client,
        pytest.raises(RequestRefusedError, match="1,536"),
    ):
        client.embed("x")


def test_moderations() -> None:
    results = [
        {
            "flagged": True,
            "categories": {"hate": True, "x": False},
            "category_scores": {"hate": 0.9, "x": 0.1},
        },
        {"flagged": False, "categories": {"hate": False}, "category_scores": {"hate": 0.0}},
    ]
    with scripted(Say(body={"results": results, "model": "omni"})) as server, connected(server) as client:
        found = client.moderate(["a", "b"])
    assert [one.flagged for one in found.results] == [True, False]
    assert found.flagged
    assert (found.results[0].categories, found.results[0].scores["hate"]) == (("hate",), 0.9)
    assert server.bodies()[0]["input"] == ["a", "b"]


@pytest.mark.parametrize(
    "body",
    [
        {"data": [{"id": "a"}, {"id": "b"}]},
        [{"id": "a"}, {"id": "b"}],
        {"models": [{"name": "a"}, {"name": "b"}]},
    ],
)
def test_models_in_each_shape(body: object) -> None:
    with scripted(Say(body=body)) as server, connected(server) as client:
        assert client.models() == ["a", "b"]
        assert client.validate_credentials() is True
    assert [seen.path for seen in server.seen] == ["/v1/models", "/v1/models"]


def test_openrouter_s_key_is_asked_where_it_is_judged() -> None:
    with scripted(Say(body={"data": {}})) as server, connected(server, "openrouter") as client:
        assert client.validate_credentials() is True
    assert server.seen[0].path == "/v1/key"


def test_what_is_no_list_of_models_is_said() -> None:
    with (
        scripted(Say(body={"hello": 1})) as server,
        connected(server) as client,
        pytest.raises(NoProviderError, match="no list of models"),
    ):
        client.models()


@pytest.mark.parametrize("body", [b"<html>hi</html>", {"error": "Unexpected endpoint"}])
def test_what_is_no_api_accepts_no_key(body: object) -> None:
    with scripted(Say(body=body)) as server:
        for provider in ("openai", "openrouter"):
            with connected(server, provider) as client, pytest.raises(NoProviderError, match="/v1 missing"):
                client.validate_credentials()


def test_a_provider_that_cannot_be_reached_says_nothing_about_its_key() -> None:
    with (
        scripted(Say(500, refusal("down"))) as server,
        connected(server) as client,
        pytest.raises(NoProviderError),
    ):
        client.validate_credentials()


async def test_it_works_inside_a_running_loop() -> None:
    with scripted(Say(body=chat_reply())) as server, connected(server) as client:
        assert client.chat("x").content == "fine"


async def test_async_calls_run_at_the_same_time_and_can_be_cancelled() -> None:
    arrived = threading.Event()

    def script(seen: Seen, number: int) -> Say:
        text = seen.body["messages"][0]["content"]
        if text == "never":
            arrived.set()
        return Say(silent=True) if text == "never" else Say(body=chat_reply(text))

    with scripted(otherwise=script) as server:
        config = {"base_url": server.base_url, "default_model": "m", "retries": 0}
        async with batchllm.connect_async("custom", **config) as client:
            answers = await asyncio.gather(*(client.chat(str(at)) for at in range(4)))
            assert [answer.content for answer in answers] == ["0", "1", "2", "3"]
            waiting = asyncio.create_task(client.chat("never"))
            await asyncio.to_thread(arrived.wait, 5)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert (await client.chat("after")).content == "after"
