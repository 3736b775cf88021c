"""Functions that a model may ask for: their definitions, checked, and the calls that a reply holds.

Nothing is called here. Arguments are kept as the text that was received; whether that is JSON is all that is judged,
since the model was free to write anything.
"""

from collections.abc import Mapping, Sequence

import orjson
import pyarrow as pa

from batchllm.prompt import well_formed
from batchllm.spec.extras import Tool
from batchllm.task.answer_schema import AnswerSchemaError, check_schema

CALLS_FIELD = pa.field(
    "tool_calls",
    pa.list_(pa.struct([("id", pa.string()), ("name", pa.string()), ("arguments", pa.string())])),
)
#: Definitions are JSON, which has more tokens for its bytes than prose.
_TOKENS_PER_BYTE = 1 / 2.5


_CALL_KEYS = frozenset({"id", "name", "arguments"})


class ToolsError(ValueError):
    """Definitions that cannot be used; `path` is the way to the place inside `task.tools`."""

    def __init__(self, path: Sequence[str | int], message: str) -> None:
        self.path = tuple(path)
        self.message = message
        super().__init__(message)


def check_tools(tools: Sequence[Tool]) -> None:
    """Raises ToolsError where the parameters of a function are no JSON Schema of an object."""
    for at, tool in enumerate(tools):
        parameters = tool.function.parameters
        if parameters is None:
            continue
        place = (at, "function", "parameters")
        if parameters.get("type") != "object":
            raise ToolsError(place, "the parameters of a function are an object: type: object")
        try:
            check_schema(parameters)
        except AnswerSchemaError as error:
            raise ToolsError((*place, *error.path), error.message) from None


def definition_tokens(tools: Sequence[Tool]) -> int:
    """About what the definitions count as, in each request."""
    told = [tool.model_dump(mode="json", exclude_none=True) for tool in tools]
    return int(len(orjson.dumps(told)) * _TOKENS_PER_BYTE) + 1 if told else 0


def calls_of(message: Mapping[str, object]) -> list[dict[str, str | None]]:
    """The calls of a message, also in the older form of a single `function_call`; empty when there are none."""
    given = message.get("tool_calls")
    if isinstance(given, list) and given:
        return [_call(call) for call in given if isinstance(call, dict)]
    older = message.get("function_call")
    return [_call({"function": older})] if isinstance(older, dict) else []


def calls_fault(calls: Sequence[Mapping[str, str | None]]) -> str | None:
    """What is wrong with calls; None when each has a name and arguments that are JSON."""
    if not calls:
        return "the reply has tool calls of an unknown form"
    for call in calls:
        name, arguments = call["name"], call["arguments"]
        if not name:
            return "a tool call has no name"
        if not (arguments or "").strip():
            continue  # what some servers send for a function without parameters
        try:
            orjson.loads(arguments or "")
        except orjson.JSONDecodeError as error:
            return f"the arguments of the call of {name} are no JSON: {error}"
    return None


def kept_calls(calls: Sequence[Mapping[str, str | None]]) -> str | None:
    """Calls that are no answer, as the text of a failure."""
    return orjson.dumps(calls).decode() if calls else None


def are_kept_calls(text: str) -> bool:
    """Whether `kept_calls` wrote it."""
    if not text.startswith('[{"id":'):
        return False
    try:
        calls = orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return all(isinstance(call, dict) and call.keys() == _CALL_KEYS for call in calls)


def _call(given: Mapping[str, object]) -> dict[str, str | None]:
    function = given.get("function")
    told = function if isinstance(function, dict) else {}
    identity, name, arguments = given.get("id"), told.get("name"), told.get("arguments")
    if isinstance(arguments, dict):  # Ollama and some of Mistral's servers send them as they are
        arguments = orjson.dumps(arguments).decode()
    return {
        "id": well_formed(identity) if isinstance(identity, str) else None,
        "name": well_formed(name) if isinstance(name, str) else None,
        "arguments": well_formed(arguments) if isinstance(arguments, str) else None,
    }
