"""The simulator's Responses API: OpenAI's own client takes it for OpenAI's, and what is no such body is refused."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import openai
import orjson
import pytest

from batchllm.simulate import SimulatedProvider
from batchllm.simulate.call import Kind
from batchllm.simulate.calls import parse_call
from batchllm.simulate.fields import CallError
from batchllm.simulate.responses_calls import parse_responses
from batchllm.simulate.responses_replies import SOURCES
from batchllm.spec.lanes import Simulation

SCHEMA = {"type": "object", "properties": {"label": {"enum": ["a", "b"]}}, "required": ["label"]}
FORM = {"type": "json_schema", "name": "label", "schema": SCHEMA, "strict": True}
LOOK_UP = {"type": "function", "name": "look_up", "parameters": {"type": "object"}, "strict": False}


@asynccontextmanager
async def connected(**simulation: Any) -> AsyncIterator[openai.AsyncOpenAI]:
    spec = Simulation.model_validate({"latency": {"median_s": 0.0}, **simulation})
    provider = SimulatedProvider(spec)
    client = openai.AsyncOpenAI(base_url=await provider.start(), api_key="k", max_retries=0)
    try:
        yield client
    finally:
        await client.close()
        await provider.stop()


async def test_an_answer_and_what_it_cost() -> None:
    async with connected() as client:
        reply = await client.responses.create(model="m", input="one two", max_output_tokens=50, store=False)
    assert reply.output_text.endswith(": one two")
    assert (reply.status, reply.model, reply.incomplete_details) == ("completed", "m", None)
    assert reply.usage.total_tokens == reply.usage.input_tokens + reply.usage.output_tokens > 0


async def test_a_cap_leaves_it_incomplete() -> None:
    async with connected() as client:
        reply = await client.responses.create(model="m", input="one two", max_output_tokens=1)
    assert (reply.status, reply.incomplete_details.reason) == ("incomplete", "max_output_tokens")


async def test_a_schema_is_kept_to() -> None:
    async with connected() as client:
        reply = await client.responses.create(model="m", input="x", text={"format": FORM})
    assert orjson.loads(reply.output_text)["label"] in ("a", "b")


async def test_a_function_that_must_be_called_is() -> None:
    async with connected() as client:
        reply = await client.responses.create(
            model="m", input="x", tools=[LOOK_UP], tool_choice={"type": "function", "name": "look_up"}
        )
    (item,) = reply.output
    assert (item.type, item.name) == ("function_call", "look_up")
    assert isinstance(orjson.loads(item.arguments), dict)


async def test_a_search_has_sources() -> None:
    async with connected() as client:
        reply = await client.responses.create(model="m", input="x", tools=[{"type": "web_search"}])
    assert [item.type for item in reply.output] == ["web_search_call", "message"]
    assert [note.url for note in reply.output[1].content[0].annotations] == [url for url, _ in SOURCES]


@pytest.mark.parametrize("more", [{}, {"max_output_tokens": 1}], ids=["whole", "cut"])
async def test_a_stream_says_the_same(more: Mapping[str, Any]) -> None:
    async with connected() as client:
        whole = await client.responses.create(model="m", input="one two three", **more)
        events = [
            event
            async for event in await client.responses.create(
                model="m", input="one two three", stream=True, **more
            )
        ]
    pieces = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(pieces) == whole.output_text
    assert events[-1].response.output_text == whole.output_text
    assert events[-1].type == f"response.{whole.status}"
    assert [event.sequence_number for event in events] == list(range(len(events)))


def parsed(**fields: Any) -> Any:
    return parse_responses(orjson.dumps({"model": "m", "input": "hi", **fields}))


def test_it_is_the_same_question_as_in_chat() -> None:
    """So that both get the same answer, and meet the same faults."""
    turns = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "two"}]
    chat = [{"role": "system", "content": "Be brief."}, *turns, {"role": "user", "content": "three"}]
    asked = parsed(
        instructions="Be brief.",
        input=[
            *turns,
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "three"}]},
        ],
    )
    same = parse_call(Kind.CHAT, orjson.dumps({"model": "m", "messages": chat}))
    assert asked == same._replace(is_response=True)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"stop": "x"}, "stop"),
        ({"seed": 1}, "seed"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"input": None}, "input"),
        ({"input": 3}, "input"),
        ({"input": [3]}, "input[0]"),
        ({"input": [{"type": "odd"}]}, "input[0].type"),
        ({"text": {"format": {"type": "json_schema", "schema": SCHEMA}}}, "text.format.name"),
        ({"background": True}, "background"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    ],
)
def test_what_is_wrong_is_named(fields: Mapping[str, Any], param: str) -> None:
    with pytest.raises(CallError) as caught:
        parsed(**fields)
    assert (caught.value.status, caught.value.param) == (400, param)
