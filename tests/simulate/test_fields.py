import pytest

from batchllm.simulate.fields import CallError, boolean, describe, integer, missing, wrong_type, wrong_value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "null"),
        (True, "a boolean"),
        (1, "an integer"),
        (1.5, "a decimal number"),
        ("x", "a string"),
        ([], "an array"),
        ({}, "an object"),
    ],
)
def test_each_json_value_has_its_name(value: object, words: str) -> None:
    assert describe(value) == words


def test_an_absent_field_has_no_value() -> None:
    assert integer({}, "n", 1) is None
    assert boolean({}, "stream") is False


@pytest.mark.parametrize("value", [1, 5])
def test_both_bounds_of_an_integer_are_allowed(value: int) -> None:
    assert integer({"n": value}, "n", 1, 5) == value


@pytest.mark.parametrize("value", [0, 6])
def test_beyond_its_bounds_an_integer_is_a_fault(value: int) -> None:
    with pytest.raises(CallError, match=f"but got {value} instead"):
        integer({"n": value}, "n", 1, 5)


def test_faults_are_said_as_openai_says_them() -> None:
    assert missing("input").message == "Missing required parameter: 'input'."
    assert (
        wrong_type("n", "an integer", "5").message
        == "Invalid type for 'n': expected an integer, but got a string instead."
    )
    assert (
        wrong_value("role", "boss", ("user",)).message
        == "Invalid value: 'boss'. Supported values are: 'user'."
    )
