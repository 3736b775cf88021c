"""Another model than the asked one answers: told once, and refused never."""

import pytest

from batchllm.provider.echo import Echo, plain_name


@pytest.mark.parametrize(
    ("asked", "answers"),
    [
        ("gpt-4.1-nano", "gpt-4.1-nano-2025-04-14"),
        ("mistral-small-latest", "mistral-small-2603"),
        ("openai/gpt-oss-20b", "gpt-oss-20b"),
        ("openai/gpt-oss-20b:free", "openai/gpt-oss-20b"),
        ("accounts/fireworks/models/gpt-oss-20b", "gpt-oss-20b"),
        ("GPT-4o", "gpt-4o-2024-08-06"),
        ("grok-4.20-0309-non-reasoning", "grok-4.20-0309-non-reasoning"),
    ],
)
def test_names_of_one_model(asked: str, answers: str) -> None:
    assert plain_name(asked) == plain_name(answers)


@pytest.mark.parametrize(
    ("asked", "answers"), [("gpt-4.1", "gpt-4.1-nano"), ("deepseek-v4-pro", "deepseek-flash"), ("a", "")]
)
def test_names_of_two_models(asked: str, answers: str) -> None:
    assert plain_name(asked) != plain_name(answers)


def told(*answers: str, is_free: bool = False, mixes_badly: bool = False) -> list[str]:
    said: list[str] = []
    echo = Echo("gpt-4.1", is_free=is_free, mixes_badly=mixes_badly, say=said.append)
    for model in answers:
        if model not in echo.seen:
            echo.note(model)
    return said


def test_another_model_is_told_once() -> None:
    assert told("gpt-4.1", "gpt-4.1-2025-04-14") == []
    (line,) = told("gpt-4.1-nano", "gpt-4.1-nano", "gpt-4.1")
    assert "gpt-4.1 was asked for" in line
    assert "gpt-4.1-nano answers" in line


def test_a_server_of_ones_own_names_its_models_as_it_likes() -> None:
    assert told("/models/qwen.gguf", is_free=True) == []


def test_vectors_of_two_models_are_told() -> None:
    (line,) = told("embed-a", "embed-b", is_free=True, mixes_badly=True)
    assert "do not compare" in line
    assert told("embed-a", "embed-a-2025-01-01", is_free=True, mixes_badly=True) == []


def test_a_gateway_with_ever_new_names_is_told_of_a_few_times_at_most() -> None:
    assert len(told(*(f"model-{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"))) < 10
