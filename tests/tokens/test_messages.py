"""Tokens of chats, tools and texts: published counts are met, and estimates say how far off they may be."""

import pytest

from batchllm.tokens import TokenCount, count_tokens, counter_for, tool_tokens
from batchllm.tokens.families import ANY, FAMILIES, family_of

CHAT = [
    {"role": "system", "content": "You sort kettles by how loud they are."},
    {"role": "system", "name": "first_shop", "content": "This one hums."},
    {"role": "user", "content": "And the one that roars?"},
]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "boil",
            "description": "Heat water.",
            "parameters": {
                "type": "object",
                "properties": {
                    "litres": {"type": "number", "description": "How much."},
                    "speed": {"type": "string", "enum": ["slow", "fast"]},
                },
            },
        },
    }
]


@pytest.mark.parametrize("model", ["gpt-4", "gpt-3.5-turbo", "gpt-4o", "gpt-4o-mini"])
def test_the_frame_of_a_chat_is_three_tokens_a_message_one_a_name_and_three_for_the_reply(model: str) -> None:
    said = counter_for(model).count_many(
        [str(value) for message in CHAT for value in message.values()],
    )
    count = count_tokens(CHAT, model)
    assert count.tokens == sum(said) + 3 * 3 + 1 + 3
    assert count.is_exact
    assert count.note == ""


@pytest.mark.parametrize(
    ("model", "start"), [("gpt-4", 10), ("gpt-3.5-turbo", 10), ("gpt-4o", 7), ("gpt-4o-mini", 7)]
)
def test_tools_cost_what_is_published(model: str, start: int) -> None:
    texts = ["boil:Heat water", "litres:number:How much", "speed:string:", "slow", "fast"]
    said = sum(counter_for(model).count_many(texts))
    expected = said + start + 3 + 2 * 3 - 3 + 2 * 3 + 12
    assert tool_tokens(TOOLS, model) == expected
    count = count_tokens(CHAT, model, tools=TOOLS)
    assert count.tokens == count_tokens(CHAT, model).tokens + expected
    assert (
        count.low < count.tokens < count.high
    )  # for other tools than the published examples nobody has shown it


def test_elsewhere_tools_are_counted_as_their_json() -> None:
    assert tool_tokens(TOOLS, "qwen3") > 30
    assert count_tokens(CHAT, "qwen3", tools=TOOLS).high > count_tokens(CHAT, "qwen3").high


def test_a_deeper_schema_of_a_tool_costs_more() -> None:
    inner = {
        "type": "object",
        "properties": {"a": {"type": "object", "properties": {"b": {"type": "string"}}}},
    }
    flat = {"type": "object", "properties": {"a": {"type": "object"}}}
    deep, plain = (
        {"type": "function", "function": {"name": "f", "parameters": part}} for part in (inner, flat)
    )
    assert tool_tokens([deep]) > tool_tokens([plain])
    assert tool_tokens([]) == 0
    assert tool_tokens([{"function": "nonsense"}, {"name": "bare"}]) > 0


def test_a_text_is_exact_where_the_vocabulary_is_known() -> None:
    assert count_tokens("tiktoken is great!", "gpt-4") == TokenCount(6, 6, 6, "cl100k_base")
    assert int(count_tokens("hello world", "gpt-5-mini")) == 2
    assert count_tokens("hello world", "gpt-5-mini").is_exact


def test_a_frame_that_is_not_published_is_not_called_exact() -> None:
    count = count_tokens(CHAT, "gpt-5-mini")
    assert count.tokens == count_tokens(CHAT, "gpt-4o").tokens
    assert count.low < count.tokens < count.high
    assert "frame" in count.note


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("deepseek-flash", "DeepSeek"),
        ("deepseek-ai/DeepSeek-V4-Flash-0731", "DeepSeek"),
        ("Qwen/Qwen3.5-9B", "Qwen"),
        ("mistral-small-latest", "Mistral"),
        ("ministral-8b-latest", "Mistral"),
        ("claude-sonnet-4-6", "Claude"),
        ("grok-4.3", "an unknown"),
    ],
)
def test_each_family_has_its_measured_band(model: str, family: str) -> None:
    assert family_of(model).name.startswith(family)
    count = count_tokens("A kettle that boils a litre in three minutes. " * 20, model)
    base = counter_for("gpt-4o").count("A kettle that boils a litre in three minutes. " * 20)
    assert count.low <= base * family_of(model).low <= base * family_of(model).high <= count.high
    assert count.low < count.tokens < count.high
    assert "as measured with" in count.note


def test_bands_hold_their_middle() -> None:
    for family in (*FAMILIES, ANY):
        assert family.low <= family.typical <= family.high


def test_parts_names_calls_and_pictures_count() -> None:
    plain = [{"role": "user", "content": "Look at this"}]
    parts = [{"role": "user", "content": [{"type": "text", "text": "Look at this"}]}]
    seen = [
        {"role": "user", "content": [*parts[0]["content"], {"type": "image_url", "image_url": {"url": "x"}}]}
    ]
    low = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x", "detail": "low"}}]}]
    called = [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}]
    tokens = [count_tokens(chat, "gpt-4o").tokens for chat in (plain, parts, seen, low, called)]
    assert tokens[0] == tokens[1]
    assert tokens[2] - tokens[1] == 765  # 2048 × 2048 is four tiles
    assert tokens[3] == 3 + 3 + 1 + 85
    assert tokens[4] > 7
    assert not count_tokens(seen, "gpt-4o").is_exact


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4", "mistral-small-latest"])
@pytest.mark.parametrize("unit", ["a", " ", "😀", "中", "a b", "\n", "é\u0301", "=-"])
def test_100_kb_of_one_thing_are_counted(model: str, unit: str) -> None:
    text = unit * (100_000 // len(unit.encode()))
    count = count_tokens(text, model)
    assert 0 < count.tokens <= len(text.encode())
    assert count.low <= count.tokens <= count.high


def test_a_text_beyond_every_context_is_estimated_and_says_so() -> None:
    count = count_tokens("word " * 60_000, "gpt-4o")
    assert not count.is_exact
    assert "256 KiB" in count.note
    assert count.low == 0


def test_what_is_no_json_is_no_reason_to_fail() -> None:
    loop: dict[str, object] = {"type": "file"}
    loop["self"] = loop
    assert count_tokens([{"role": "user", "content": [loop]}], "gpt-4o").tokens == 3 + 3 + 1
