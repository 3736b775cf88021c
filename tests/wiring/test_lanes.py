from pathlib import Path
from typing import Any

import orjson
import pytest

from batchllm.provider.catalogue import load_catalogue
from batchllm.provider.dialect import Asked
from batchllm.spec.loading import load_mapping
from batchllm.spec.models import Params
from batchllm.testing import text_request
from batchllm.wiring.building import shared_out
from batchllm.wiring.encoding import Encoder, with_instruction
from batchllm.wiring.lanes import LanePlan, LanePlanner

CATALOGUE = load_catalogue()
GROQ_KEY = {"GROQ_API_KEY": "gsk-secret"}


def plan(
    lane: dict[str, Any], environ: dict[str, str] | None = None, asked: Asked | None = None
) -> tuple[LanePlan | None, LanePlanner]:
    mapping = {
        "name": "x",
        "input": {"path": "rows.jsonl"},
        "task": {"type": "chat", "prompt": "hi"},
        "providers": [lane],
    }
    loaded = load_mapping(mapping, folder=Path("/tmp"), environ=environ or {})
    planner = LanePlanner(loaded, catalogue=CATALOGUE, environ=environ or {}, wall_s=1.7e9)
    return planner.plan(0, asked or Asked("chat")), planner


@pytest.mark.parametrize(
    ("wanted", "most", "given"),
    [
        ([10, 20], 100, [10, 20]),
        ([300], 24, [24]),
        ([5, 1_000, 1_000], 105, [5, 50, 50]),
        ([1_000, 5, 40], 100, [55, 5, 40]),
        ([7, 7, 7], 2, [1, 1, 1]),
    ],
)
def test_connections_are_shared_out_by_what_each_lane_wants(
    wanted: list[int], most: int, given: list[int]
) -> None:
    assert shared_out(wanted, most) == given


def test_a_tier_becomes_a_model_and_the_provider_s_own_key_is_used() -> None:
    lane, planner = plan({"provider": "groq", "model": "fast"}, GROQ_KEY)
    assert planner.faults == []
    assert lane is not None
    assert lane.info.model == "openai/gpt-oss-20b"
    assert lane.base_url == "https://api.groq.com/openai/v1"
    assert lane.headers == {"Authorization": "Bearer gsk-secret"}
    assert "gsk-secret" not in repr(lane)


def test_a_missing_key_names_its_variable() -> None:
    lane, planner = plan({"provider": "groq", "model": "fast"})
    assert lane is None
    assert "GROQ_API_KEY" in planner.faults[0].message
    assert planner.faults[0].path == "providers.0.api_key"


def test_the_provider_s_own_key_does_not_go_to_a_foreign_host() -> None:
    lane, planner = plan({"provider": "groq", "model": "fast", "base_url": "http://localhost:9/v1"}, GROQ_KEY)
    assert lane is not None
    assert lane.headers == {}
    assert "not sent to localhost:9" in planner.notes[0]


def test_a_key_that_the_job_names_goes_where_the_job_says() -> None:
    lane, _ = plan(
        {
            "provider": "groq",
            "model": "fast",
            "base_url": "http://localhost:9/v1/",
            "api_key": "${GROQ_API_KEY}",
        },
        GROQ_KEY,
    )
    assert lane is not None
    assert lane.headers["Authorization"] == "Bearer gsk-secret"
    assert lane.base_url == "http://localhost:9/v1"


@pytest.mark.parametrize(
    ("lane", "path", "words"),
    [
        ({"provider": "gorq", "model": "x"}, "providers.0.provider", "groq"),
        ({"provider": "anyscale", "model": "x", "api_key": "k"}, "providers.0.base_url", "base_url"),
        ({"provider": "groq", "model": "x", "api_key": "k", "api": "responses"}, "providers.0.api", "groq"),
    ],
)
def test_faults_of_a_lane_have_their_place(lane: dict[str, Any], path: str, words: str) -> None:
    planned, planner = plan(lane)
    fault = planner.faults[0]
    assert planned is None
    assert fault.path == path
    assert words in f"{fault.message} {fault.remedy}".lower()


def test_a_parameter_that_the_provider_refuses_is_a_fault_of_the_job() -> None:
    asked = Asked("chat", Params(presence_penalty=0.5))
    lane, planner = plan({"provider": "groq", "model": "fast"}, GROQ_KEY, asked)
    assert lane is None
    assert planner.faults[0].path == "task.params.presence_penalty"


def test_the_body_speaks_the_lane_s_dialect() -> None:
    asked = Asked("chat", Params(max_tokens=40, temperature=0, seed=7))
    bodies = {}
    for lane, environ in (
        ({"provider": "openai", "model": "gpt-4.1-nano", "api_key": "k"}, {}),
        ({"provider": "mistral", "model": "mistral-small-latest", "api_key": "k"}, {}),
        (
            {
                "provider": "custom",
                "model": "m",
                "base_url": "http://localhost:1/v1",
                "extra_body": {"top_k": 3},
            },
            {},
        ),
    ):
        planned, planner = plan(lane, environ, asked)
        assert planned is not None, planner.faults
        request = text_request(0)._replace(content=[{"role": "user", "content": "hi"}])
        bodies[planned.info.provider] = orjson.loads(Encoder(planned, "messages")(request))
    messages = [{"role": "user", "content": "hi"}]
    assert bodies["openai"] == {
        "model": "gpt-4.1-nano",
        "messages": messages,
        "max_completion_tokens": 40,
        "temperature": 0,
        "seed": 7,
    }
    assert bodies["mistral"] == {
        "model": "mistral-small-latest",
        "messages": messages,
        "max_tokens": 40,
        "temperature": 0,
        "random_seed": 7,
    }
    assert bodies["custom"] == {
        "model": "m",
        "messages": messages,
        "max_tokens": 40,
        "temperature": 0,
        "seed": 7,
        "top_k": 3,
    }


def test_an_instruction_joins_the_system_message_or_becomes_one() -> None:
    user = {"role": "user", "content": "hi"}
    assert with_instruction([user], "JSON only") == [{"role": "system", "content": "JSON only"}, user]
    assert with_instruction([{"role": "system", "content": "Be kind."}, user], "JSON only") == [
        {"role": "system", "content": "Be kind.\n\nJSON only"},
        user,
    ]


def test_a_key_in_a_header_is_secret_with_and_without_its_scheme() -> None:
    spec = {
        "provider": "custom",
        "model": "m",
        "base_url": "https://gw.example/v1",
        "headers": {"X-Auth": "Token ${KEY}"},
    }
    lane, _ = plan(spec, {"KEY": "canary-0123456789"})
    assert lane is not None
    assert set(lane.secrets) == {"Token canary-0123456789", "canary-0123456789"}


def test_a_token_in_the_path_of_an_address_is_secret() -> None:
    spec = {"provider": "custom", "model": "m", "base_url": "https://gw.example/t/${TOKEN}/v1"}
    lane, _ = plan(spec, {"TOKEN": "canary-0123456789"})
    assert lane is not None
    assert lane.base_url == "https://gw.example/t/canary-0123456789/v1"
    assert lane.secrets == ("canary-0123456789",)
    assert "canary" not in repr(lane)


@pytest.mark.parametrize("extra", [{}, {"extra_body": {"metadata": {"a": [1, "é"]}, "z": None}}])
@pytest.mark.parametrize("provider", ["openai", "mistral"])
def test_a_body_is_byte_for_byte_what_encoding_it_whole_gives(provider: str, extra: dict[str, Any]) -> None:
    lane = {"provider": provider, "model": "m", "api_key": "k", **extra}
    for params in (Params(), Params(temperature=0, max_tokens=40)):
        planned, planner = plan(lane, asked=Asked("chat", params, None))
        assert planned is not None, planner.faults
        content = [{"role": "user", "content": 'a "quoted" é\n'}]
        body = Encoder(planned, "messages")(text_request(0)._replace(content=content))
        fields = planned.translation.fields
        assert body == orjson.dumps({"model": "m", "messages": content, **fields})
