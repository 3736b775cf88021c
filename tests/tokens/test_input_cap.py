import pytest

from batchllm.tokens import InputCap, TokenCounter, counter_for

OPENAI = InputCap("text-embedding-3-small", 20, lambda: counter_for("text-embedding-3-small"))
OTHER = InputCap("mistral-embed", 20, lambda: TokenCounter("bytes/3.5"))


@pytest.mark.parametrize(
    ("cap", "text", "fault"),
    [
        (OPENAI, "word" + " word" * 19, None),
        (OPENAI, "word" + " word" * 21, "the text has 22 tokens; text-embedding-3-small reads 20 tokens"),
        (OPENAI, "internationalisation " * 5, None),
        (OTHER, "internationalisation " * 20, None),
        (OTHER, "word " * 21, "the text has 21 words; mistral-embed reads 20 tokens"),
        (OTHER, "", None),
    ],
)
def test_only_what_is_surely_too_long_is_said_to_be(cap: InputCap, text: str, fault: str | None) -> None:
    assert cap.fault(text) == fault
