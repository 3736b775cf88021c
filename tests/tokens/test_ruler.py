from base64 import b64encode

import pytest

from batchllm.tokens import Ruler, count_tokens, counter_for, tool_tokens

SMALL = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (128).to_bytes(4) + (64).to_bytes(4)
URL = f"data:image/png;base64,{b64encode(SMALL).decode()}"
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a city in the next days",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "Its name"}},
            },
        },
    }
]


@pytest.mark.parametrize(
    ("models", "url", "detail", "tokens"),
    [
        (["gpt-4o"], URL, "auto", 255),
        (["gpt-4o"], URL, "low", 85),
        (["gpt-4o"], "https://a.test/b.png", "auto", 765),
        (["claude-sonnet-5"], URL, "auto", 11),
        (["pixtral"], URL, "auto", 300),
        (["pixtral"], "https://a.test/b.png", "auto", 4000),
        (["gpt-4o", "gpt-4o-mini"], URL, "auto", 8500),
    ],
)
def test_a_picture_counts_as_with_the_model_that_counts_most(
    models: list[str], url: str, detail: str, tokens: int
) -> None:
    assert Ruler(tuple(models)).picture(url, "low" if detail == "low" else "auto") == tokens


def test_tools_are_reserved_for_with_a_margin_and_without_a_vocabulary_a_larger_one() -> None:
    counted = tool_tokens(TOOLS, "gpt-4o")
    exact = Ruler(("gpt-4o",), counter_for("gpt-4o")).tools(TOOLS)
    assert counted < exact <= counted * 1.2
    assert counted < Ruler(("gpt-4o",)).tools(TOOLS) < counted * 2
    assert Ruler().tools([]) == 0


def test_a_message_s_picture_counts_by_its_size() -> None:
    def message(url: str) -> list[dict[str, object]]:
        return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]

    small, large = (count_tokens(message(url), "gpt-4o").tokens for url in (URL, "https://a.test/b"))
    assert large - small == 765 - 255
