"""Fields of a request body, checked one by one; what is wrong is said in the words and codes that OpenAI uses."""

from collections.abc import Mapping, Sequence
from typing import Final

_NAMES: Final[Mapping[type, str]] = {
    type(None): "null",
    bool: "a boolean",
    str: "a string",
    int: "an integer",
    float: "a decimal number",
    list: "an array",
}


class CallError(Exception):
    """What is asked makes no sense; the fields of OpenAI's error body, and the method that a path allows."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        allow: str | None = None,
    ) -> None:
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.allow = allow
        super().__init__(message)


def integer(body: Mapping[str, object], name: str, low: int, high: int | None = None) -> int | None:
    value = body.get(name)
    if value is None:
        return None
    if type(value) is not int:
        raise wrong_type(name, "an integer", value)
    if value < low:
        raise CallError(
            f"Invalid '{name}': integer below minimum value. Expected a value >= {low}, but got {value} instead.",
            param=name,
            code="integer_below_min_value",
        )
    if high is not None and value > high:
        raise CallError(
            f"Invalid '{name}': integer above maximum value. Expected a value <= {high}, but got {value} instead.",
            param=name,
            code="integer_above_max_value",
        )
    return value


def boolean(body: Mapping[str, object], name: str) -> bool:
    value = body.get(name)
    if value is None or isinstance(value, bool):
        return bool(value)
    raise wrong_type(name, "a boolean", value)


def missing(name: str) -> CallError:
    return CallError(f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter")


def wrong_type(name: str, wanted: str, value: object) -> CallError:
    message = f"Invalid type for '{name}': expected {wanted}, but got {describe(value)} instead."
    return CallError(message, param=name, code="invalid_type")


def wrong_value(name: str, value: object, allowed: Sequence[str]) -> CallError:
    shown = f"'{value[:80]}'" if isinstance(value, str) else describe(value)
    choices = ", ".join(f"'{item}'" for item in allowed)
    return CallError(
        f"Invalid value: {shown}. Supported values are: {choices}.", param=name, code="invalid_value"
    )


def describe(value: object) -> str:
    """What a JSON value is, with its article."""
    return _NAMES.get(type(value), "an object")
