"""What goes over the wire is what OpenAI's own client sends, and valid under OpenAI's own description.

The description is looked for where the variable BATCHLLM_OPENAPI says (the document as JSON, gzipped).
"""

import gzip
import json
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import openai
import orjson
import pytest
from jsonschema import Draft202012Validator
from wire_rig import LONG_S, Ledger, answer, lane, saying, serving

from batchllm.provider.catalogue import load_catalogue
from batchllm.provider.dialect import Asked
from batchllm.records import Request, Response, RowRef
from batchllm.simulate.answers import Model
from batchllm.simulate.replies import Stamp
from batchllm.simulate.responses_calls import parse_responses
from batchllm.simulate.responses_replies import response_body, response_events
from batchllm.spec.lanes import Simulation
from batchllm.spec.loading import load_mapping
from batchllm.spec.models import Params
from batchllm.wiring.encoding import Encoder
from batchllm.wiring.lanes import LanePlan, LanePlanner

CATALOGUE = load_catalogue()
SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}
CLOSED = {**SCHEMA, "additionalProperties": False}
QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why? ☂"}]
ITEMS = [{"type": "message", **message} for message in QUESTION]
PICTURE = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is it?"},
            {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
        ],
    }
]
TURNS = [
    *QUESTION,
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "42"},
    {"role": "assistant", "content": "It is 42."},
    {"role": "user", "content": "Sure?"},
]
FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}
#: Name → params, schema, what the lane says, messages, and the same as the client is asked.
CASES: Mapping[str, tuple[dict[str, Any], Any, dict[str, Any], Any, dict[str, Any]]] = {
    "plain": ({}, None, {}, QUESTION, {"input": ITEMS}),
    "params": (
        {"temperature": 0.0, "top_p": 0.5, "max_tokens": 40, "service_tier": "flex", "user": "u"},
        None,
        {},
        QUESTION,
        {
            "input": ITEMS,
            "temperature": 0.0,
            "top_p": 0.5,
            "max_output_tokens": 40,
            "service_tier": "flex",
            "user": "u",
        },
    ),
    "reasoning": (
        {"reasoning_effort": "low", "verbosity": "low"},
        SCHEMA,
        {"model": "gpt-5-nano"},
        QUESTION,
        {
            "model": "gpt-5-nano",
            "input": ITEMS,
            "reasoning": {"effort": "low"},
            "text": {
                "verbosity": "low",
                "format": {"type": "json_schema", "name": "answer", "schema": CLOSED, "strict": True},
            },
        },
    ),
    "tools": (
        {},
        None,
        {"extra_body": {"tools": [{"type": "function", "strict": False, **FUNCTION}]}},
        TURNS,
        {
            "input": [
                *ITEMS,
                {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "call_1", "output": "42"},
                {"type": "message", "role": "assistant", "content": "It is 42."},
                {"type": "message", "role": "user", "content": "Sure?"},
            ],
            "tools": [{"type": "function", "strict": False, **FUNCTION}],
        },
    ),
    "picture": (
        {},
        None,
        {},
        PICTURE,
        {
            "input": [
                {
                    "type": "message",
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "What is it?"},
                        {"type": "input_image", "image_url": "https://example.com/a.png", "detail": "low"},
                    ],
                }
            ]
        },
    ),
    "stream": ({}, None, {"stream": True}, QUESTION, {"input": ITEMS, "stream": True}),
}


def planned(params: Mapping[str, Any], schema: Any, lane: Mapping[str, Any]) -> LanePlan:
    mapping = {
        "name": "x",
        "input": {"path": "rows.jsonl"},
        "task": {"type": "chat", "prompt": "hi"},
        "providers": [
            {"provider": "openai", "model": "gpt-4.1-nano", "api": "responses", "api_key": "k", **lane}
        ],
    }
    loaded = load_mapping(mapping, folder=Path("/tmp"), environ={})
    planner = LanePlanner(loaded, catalogue=CATALOGUE, environ={}, wall_s=1.7e9)
    plan = planner.plan(0, Asked("chat", Params.model_validate(params), schema))
    assert plan is not None, planner.faults
    return plan


def body_of(name: str) -> bytes:
    params, schema, more, messages, _ = CASES[name]
    request = Request((RowRef(0, None, b"[]"),), messages, (1,), (b"d",))
    return Encoder(planned(params, schema, more), "messages")(request)


def client_of(port: int) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="k", max_retries=0)


@pytest.mark.parametrize("name", CASES)
async def test_path_and_body_are_those_of_the_client(name: str) -> None:
    ours, theirs = Ledger(), Ledger()
    given = {"model": "gpt-4.1-nano", "store": False, **CASES[name][4]}
    async with serving(saying(answer(), ours)) as port, lane(port) as connection:
        sent = await connection.send("/responses", body_of(name), LONG_S)
    assert isinstance(sent, Response)
    said = answer(headers="content-type: application/json\r\n")
    async with serving(saying(said, theirs)) as port, client_of(port) as client:
        await client.responses.with_raw_response.create(**given)
    assert ours.heads[0].split("\r\n")[0] == theirs.heads[0].split("\r\n")[0]
    assert orjson.loads(ours.bodies[0]) == orjson.loads(theirs.bodies[0])


async def test_a_streamed_chat_is_asked_for_as_the_client_does() -> None:
    ours, theirs = Ledger(), Ledger()
    request = Request((RowRef(0, None, b"[]"),), QUESTION, (1,), (b"d",))
    body = Encoder(planned({}, None, {"api": "chat", "stream": True}), "messages")(request)
    async with serving(saying(answer(), ours)) as port, lane(port) as connection:
        await connection.send("/chat/completions", body, LONG_S)
    said = answer(b"", headers="content-type: text/event-stream\r\n")
    async with serving(saying(said, theirs)) as port, client_of(port) as client:
        await client.chat.completions.create(
            model="gpt-4.1-nano", messages=QUESTION, stream=True, stream_options={"include_usage": True}
        )
    assert ours.heads[0].split("\r\n")[0] == theirs.heads[0].split("\r\n")[0]
    assert orjson.loads(ours.bodies[0]) == orjson.loads(theirs.bodies[0])


@cache
def components() -> dict[str, Any]:
    path = os.environ.get("BATCHLLM_OPENAPI", "")
    if not Path(path).is_file():
        pytest.skip("BATCHLLM_OPENAPI names no document")
    document = json.loads(gzip.decompress(Path(path).read_bytes()))
    return {"components": _without_one_of(document["components"])}


def _without_one_of(value: Any) -> Any:
    """A message with parts is an easy message and an item too: `oneOf` there means what the discriminator says."""
    if isinstance(value, dict):
        return {"anyOf" if name == "oneOf" else name: _without_one_of(part) for name, part in value.items()}
    return [_without_one_of(part) for part in value] if isinstance(value, list) else value


def faults(value: object, name: str) -> list[str]:
    validator = Draft202012Validator({**components(), "$ref": f"#/components/schemas/{name}"})
    return [f"{error.json_path}: {error.message}"[:300] for error in validator.iter_errors(value)]


@pytest.mark.parametrize("name", CASES)
def test_bodies_are_valid(name: str) -> None:
    body = orjson.loads(body_of(name))
    assert faults(body, "CreateResponse") == []
    known = set()
    for part in _parts("CreateResponse"):
        known |= set(part.get("properties", {}))
    assert set(body) <= known  # the document does not close its objects


def _parts(name: str) -> list[dict[str, Any]]:
    schema = components()["components"]["schemas"][name]
    inner = [
        _parts(part["$ref"].rpartition("/")[2]) if "$ref" in part else [part]
        for part in schema.get("allOf", ())
    ]
    return [schema, *(part for parts in inner for part in parts)]


@pytest.mark.parametrize("more", [{}, {"max_output_tokens": 1}, {"tools": [{"type": "web_search"}]}])
def test_what_the_simulator_answers_is_valid(more: dict[str, Any]) -> None:
    call = parse_responses(orjson.dumps({"model": "m", "input": "hi there you", **more}))
    answers = Model(Simulation()).text_answers(call)
    assert faults(orjson.loads(response_body(call, answers, Stamp("1", 7))), "Response") == []
    for event in response_events(call, answers, Stamp("1", 7)):
        data = event.partition(b"data: ")[2]
        assert faults(orjson.loads(data), "ResponseStreamEvent") == []
