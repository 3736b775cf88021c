"""How many rows a request holds, by what is documented, what the job says, and what fits into memory."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.provider.catalogue import load_catalogue
from batchllm.provider.dialect import Asked
from batchllm.spec.loading import load_mapping
from batchllm.wiring.lanes import LanePlan, LanePlanner
from batchllm.wiring.packing import COPIES, REPLY_BYTES, UNDER_WAY_BYTES, Packing, plan_packing

CATALOGUE = load_catalogue()
LOCAL = {"provider": "custom", "model": "m", "base_url": "http://localhost:9/v1"}
SMALL = {"provider": "openai", "model": "text-embedding-3-small", "api_key": "k"}
LARGE = {**SMALL, "model": "text-embedding-3-large"}
AS_TEXT = {"extra_body": {"encoding_format": "float"}}


def lanes(*specs: dict[str, Any], dimensions: int = 1536) -> list[LanePlan]:
    mapping = {
        "name": "x",
        "input": {"path": "rows.jsonl"},
        "task": {"type": "embedding", "text": "hi", "dimensions": dimensions},
        "providers": [{"name": f"lane{at}", **spec} for at, spec in enumerate(specs)],
    }
    planner = LanePlanner(
        load_mapping(mapping, folder=Path("/tmp"), environ={}), catalogue=CATALOGUE, environ={}, wall_s=1.7e9
    )
    planned = [planner.plan(at, Asked("embedding", dimensions=dimensions)) for at in range(len(specs))]
    assert planner.faults == []
    return [lane for lane in planned if lane is not None]


def packing(*specs: dict[str, Any], dimensions: int = 1536, asked_inputs: int | None = None) -> Packing:
    return plan_packing(
        "embedding",
        lanes(*specs, dimensions=dimensions),
        asked_inputs=asked_inputs,
        dimensions=dimensions,
        is_exact=False,
    )


def test_a_documented_model_gets_all_that_its_provider_takes() -> None:
    packed = packing(SMALL)
    assert packed.max_inputs == 2048
    assert packed.max_tokens == 200_000  # 300,000, less what an estimate may miss


def test_exact_counts_come_closer_to_the_documented_tokens() -> None:
    exact = plan_packing(
        "embedding", lanes(SMALL), asked_inputs=None, dimensions=1536, is_exact=True
    ).max_tokens
    assert exact is not None
    assert 280_000 < exact < 300_000


@pytest.mark.parametrize(
    ("spec", "dimensions"), [(LARGE, 3072), ({**SMALL, **AS_TEXT}, 1536), ({**LARGE, **AS_TEXT}, 3072)]
)
def test_wide_vectors_and_numbers_as_text_are_bounded_by_memory(
    spec: dict[str, Any], dimensions: int
) -> None:
    assert 64 < packing(spec, dimensions=dimensions).max_inputs < 2048


def test_base64_makes_room_for_four_times_as_many() -> None:
    as_text = packing({**LARGE, **AS_TEXT}, dimensions=3072).max_inputs
    assert packing(LARGE, dimensions=3072).max_inputs == pytest.approx(4.125 * as_text, rel=0.02)


def test_the_smallest_bound_of_all_lanes_holds() -> None:
    assert packing(SMALL, LOCAL).max_inputs == 64
    assert packing(SMALL, LOCAL).max_tokens == 200_000
    mistral = packing({"provider": "mistral", "model": "mistral-embed", "api_key": "k"}, dimensions=1024)
    assert (mistral.max_inputs, mistral.max_tokens) == (512, 10_922)


@pytest.mark.parametrize(
    "spec", [LOCAL, {"provider": "openrouter", "model": "openai/text-embedding-3-small", "api_key": "k"}]
)
def test_where_nothing_is_documented_few_inputs_are_sent(spec: dict[str, Any]) -> None:
    assert packing(spec).max_inputs == 64


def test_the_job_may_ask_for_more_of_a_server_of_its_own_but_not_of_a_documented_one() -> None:
    assert packing(LOCAL, asked_inputs=900).max_inputs == 900
    assert packing(SMALL, asked_inputs=900).max_inputs == 900
    mistral = {"provider": "mistral", "model": "mistral-embed", "api_key": "k"}
    assert packing(mistral, dimensions=1024, asked_inputs=900).max_inputs == 512


def test_large_packs_make_the_window_small() -> None:
    assert packing(SMALL).windows == (4,)
    assert packing(SMALL, asked_inputs=16).windows == (64,)


def test_a_window_that_the_job_says_makes_the_packs_small() -> None:
    packed = packing({**SMALL, "limits": {"concurrency": 32}})
    assert packed.windows == (32,)
    assert packed.max_inputs == 256
    both = packing({**SMALL, "limits": {"concurrency": 32}}, asked_inputs=2048)
    assert (both.max_inputs, both.windows) == (2048, (32,))


def test_what_is_not_packed_keeps_its_window() -> None:
    chat = plan_packing("chat", lanes(SMALL, LOCAL), asked_inputs=None, dimensions=None, is_exact=True)
    assert chat == Packing(1, None, (64, lanes(LOCAL)[0].entry.concurrency))
    moderation = plan_packing("moderation", lanes(SMALL), asked_inputs=None, dimensions=None, is_exact=True)
    assert moderation == Packing(32, None, (64,))


@given(
    st.integers(1, 65_536),
    st.sampled_from([SMALL, LOCAL, {**SMALL, **AS_TEXT}]),
    st.one_of(st.none(), st.integers(1, 4096)),
)
def test_replies_keep_to_their_memory_whatever_the_width(
    width: int, spec: dict[str, Any], concurrency: int | None
) -> None:
    limits = {} if concurrency is None else {"limits": {"concurrency": concurrency}}
    plans = lanes({**spec, **limits, "omit": ["dimensions"]})
    packed = plan_packing("embedding", plans, asked_inputs=None, dimensions=width, is_exact=False)
    form = plans[0].translation.fields["encoding_format"]
    body = packed.max_inputs * width * (16 / 3 if form == "base64" else 22)
    assert 1 <= packed.max_inputs <= 2048
    assert body * COPIES <= REPLY_BYTES or packed.max_inputs == 1
    if concurrency is None:
        assert body * packed.windows[0] <= UNDER_WAY_BYTES or packed.windows[0] == 2
    else:
        assert body * concurrency <= UNDER_WAY_BYTES or packed.max_inputs <= 64
