"""OpenAI's own client, without retries, takes every answer for one of OpenAI's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import openai
import pytest

from batchllm.simulate import SimulatedProvider
from batchllm.simulate.answers import CATEGORIES
from batchllm.spec.lanes import Simulation

SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["a", "b"]}},
    "required": ["label"],
    "additionalProperties": False,
}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look_up",
            "parameters": {"type": "object", "properties": {"id": {"type": "integer"}}},
        },
    }
]


@asynccontextmanager
async def connected(
    simulation: dict[str, object] | None = None, key: str = "canary"
) -> AsyncIterator[openai.AsyncOpenAI]:
    spec = Simulation.model_validate({"latency": {"median_s": 0.0}, **(simulation or {})})
    provider = SimulatedProvider(spec, api_key="canary", models=("m", "org/n"))
    client = openai.AsyncOpenAI(base_url=await provider.start(), api_key=key, max_retries=0)
    try:
        yield client
    finally:
        await client.close()
        await provider.stop()


def ask(**fields: object) -> dict[str, object]:
    return {"model": "m", "messages": [{"role": "user", "content": "one two"}], **fields}


async def test_chat() -> None:
    async with connected() as client:
        reply = await client.chat.completions.create(**ask(max_tokens=50, temperature=0))
    assert reply.choices[0].message.content.endswith(": one two")
    assert reply.choices[0].finish_reason == "stop"
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply._request_id.startswith("req_")


async def test_chat_with_a_schema() -> None:
    form = {"type": "json_schema", "json_schema": {"name": "label", "schema": SCHEMA, "strict": True}}
    async with connected() as client:
        reply = await client.chat.completions.create(**ask(response_format=form))
    assert reply.choices[0].message.content in ('{"label":"a"}', '{"label":"b"}')


async def test_chat_that_calls_a_tool() -> None:
    async with connected() as client:
        reply = await client.chat.completions.create(**ask(tools=TOOLS, tool_choice="required"))
    (call,) = reply.choices[0].message.tool_calls
    assert call.function.name == "look_up"
    assert reply.choices[0].finish_reason == "tool_calls"


async def test_chat_as_a_stream_is_the_same_answer() -> None:
    async with connected() as client:
        whole = await client.chat.completions.create(**ask())
        stream = await client.chat.completions.create(
            **ask(stream=True, stream_options={"include_usage": True})
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.total_tokens == whole.usage.total_tokens
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"


async def test_completion_whole_and_as_a_stream() -> None:
    async with connected() as client:
        whole = await client.completions.create(model="m", prompt="one two")
        stream = await client.completions.create(model="m", prompt="one two", stream=True)
        text = "".join([chunk.choices[0].text async for chunk in stream])
    assert text == whole.choices[0].text
    assert whole.object == "text_completion"


async def test_embeddings_are_the_same_in_both_encodings() -> None:
    async with connected({"dimensions": 16}) as client:
        default = await client.embeddings.create(model="m", input=["a", "b"])
        floats = await client.embeddings.create(model="m", input=["a", "b"], encoding_format="float")
        wide = await client.embeddings.create(model="m", input="a", dimensions=1536)
    assert [item.index for item in default.data] == [0, 1]
    for one, other in zip(default.data, floats.data, strict=True):
        assert len(one.embedding) == 16
        assert one.embedding == pytest.approx(other.embedding, abs=1e-8)
    assert len(wide.data[0].embedding) == 1536


async def test_moderations() -> None:
    rules = {"answers": [{"pattern": "kill", "reply": {"violence": 0.9}}]}
    async with connected(rules) as client:
        reply = await client.moderations.create(model="m", input=["hello", "kill"])
    assert [result.flagged for result in reply.results] == [False, True]
    assert reply.results[1].categories.violence
    assert set(reply.results[0].category_scores.model_dump(by_alias=True)) >= set(CATEGORIES)


async def test_models() -> None:
    async with connected() as client:
        assert [model.id async for model in client.models.list()] == ["m", "org/n"]
        assert (await client.models.retrieve("org/n")).id == "org/n"
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve("x")


@pytest.mark.parametrize(
    ("simulation", "fields", "error", "code"),
    [
        ({"limits": {"tpm": 5}}, {}, openai.RateLimitError, "rate_limit_exceeded"),
        ({}, {"model": "x"}, openai.NotFoundError, "model_not_found"),
        ({}, {"messages": []}, openai.BadRequestError, "empty_array"),
        ({"faults": {"error_rate": 1.0}}, {}, openai.InternalServerError, None),
        ({"faults": {"overload_rate": 1.0}}, {}, openai.InternalServerError, "server_is_overloaded"),
    ],
)
async def test_what_goes_wrong_is_the_error_that_it_is_at_openai(
    simulation: dict[str, object],
    fields: dict[str, object],
    error: type[openai.APIStatusError],
    code: str | None,
) -> None:
    async with connected(simulation) as client:
        with pytest.raises(error) as raised:
            await client.chat.completions.create(**ask(**fields))
    assert raised.value.code == code


async def test_a_wrong_key_is_an_authentication_error() -> None:
    async with connected(key="wrong") as client:
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(**ask())
