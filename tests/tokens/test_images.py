"""What pictures cost: the examples of OpenAI's guide, and bills that users measured."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.tokens import image_tokens


@pytest.mark.parametrize(
    ("model", "width", "height", "tokens"),
    [
        ("gpt-4o", 1024, 1024, 765),
        ("gpt-4o", 2048, 4096, 1105),
        ("gpt-4o", 128, 64, 255),
        ("gpt-4.1", 128, 64, 255),
        ("gpt-4.1", 2049, 513, 1445),
        ("gpt-4o-mini", 128, 64, 8500),
        ("o1", 128, 64, 225),
        ("o3", 128, 64, 225),
        ("gpt-5", 1024, 1024, 630),
        ("gpt-4.1-mini", 128, 64, 13),
        ("gpt-4.1-nano", 128, 64, 20),
        ("o4-mini", 128, 64, 14),
        ("gpt-4.1-mini", 1024, 1024, 1659),
        ("gpt-4.1-nano", 1800, 2400, 3572),
        ("gpt-5-mini", 256, 256, 77),
        ("gpt-5-mini", 512, 512, 308),
        ("gpt-5-mini", 768, 1024, 922),
        ("gpt-5-mini", 1280, 720, 1104),
        ("gpt-5-mini", 1024, 1024, 1229),
        ("gpt-5-mini", 2048, 768, 1844),
        ("gpt-5-nano", 2048, 768, 2304),
        ("openai/gpt-4o", 1024, 1024, 765),
        ("claude-sonnet-4-6", 750, 100, 100),
        ("someone-s-model", 10_000, 10_000, 1600),
    ],
)
def test_a_picture_costs_what_was_published_or_measured(
    model: str, width: int, height: int, tokens: int
) -> None:
    assert image_tokens(width, height, "high", model) == tokens


def test_low_detail_is_the_base_where_there_are_tiles_and_nothing_where_there_are_patches() -> None:
    assert image_tokens(4000, 4000, "low", "gpt-4o") == 85
    assert image_tokens(4000, 4000, "low", "gpt-4o-mini") == 2833
    assert image_tokens(512, 512, "low", "gpt-5-mini") == image_tokens(512, 512, "high", "gpt-5-mini")


@given(
    st.integers(1, 20_000),
    st.integers(1, 20_000),
    st.sampled_from(["gpt-4o", "gpt-5-nano", "claude-x", "o3"]),
)
def test_every_size_has_a_bounded_cost_that_does_not_know_up_from_across(
    width: int, height: int, model: str
) -> None:
    tokens = image_tokens(width, height, model=model)
    assert 0 < tokens <= 85 + 170 * 8 + 1536 * 2.46
    assert tokens == image_tokens(height, width, model=model)


def test_no_picture_has_no_pixels() -> None:
    with pytest.raises(ValueError, match="at least one pixel"):
        image_tokens(0, 5)
