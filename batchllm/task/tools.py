"""Functions that a model may ask for: their definitions, checked, and the calls that a reply holds.

Nothing is called here. Arguments are kept as the text that was received, and held to the schema of their function's
parameters: whoever carries the calls out need not look again.
"""

from collections.abc import Mapping, Sequence

import orjson
import pyarrow as pa

from batchllm.prompt import well_formed
from batchllm.spec.extras import CalledTool, Tool
from batchllm.task.json_schema import JsonSchema, JsonSchemaError, clipped, parse

CALLS_FIELD = pa.field(
    "tool_calls",
    pa.list_(pa.struct([("id", pa.string()), ("name", pa.string()), ("arguments", pa.string())])),
)
_CALL_KEYS = frozenset({"id", "name", "arguments"})


class ToolsError(ValueError):
    """Definitions that cannot be used; `path` is the way to the place inside `task.tools`."""

    def __init__(self, path: Sequence[str | int], message: str) -> None:
        self.path = tuple(path)
        self.message = message
        super().__init__(message)


class Functions:
    """Those of a job, and what it wants of them (`choice` is `task.tool_choice`). Raises ToolsError."""

    def __init__(self, tools: Sequence[Tool], choice: str | CalledTool | None = None) -> None:
        self._schemas = {tool.function.name: _parameters(tool, at) for at, tool in enumerate(tools)}
        self._only = choice.function.name if isinstance(choice, CalledTool) else None
        self.must_call = self._only is not None or choice == "required"
        self._may_call = choice != "none"

    def fault(self, calls: Sequence[Mapping[str, str | None]]) -> str | None:
        """What is wrong with the calls of a reply that has any; None when each can be carried out."""
        if not calls:
            return "the reply has tool calls of an unknown form"
        if not self._may_call:
            return "a tool was called, and the job wants words (tool_choice: none)"
        return next(filter(None, map(self._call_fault, calls)), None)

    def absence(self) -> str | None:
        """What is wrong with a reply without any call."""
        if not self.must_call:
            return None
        what = self._only or "any"
        return f"no tool was called, and the job wants a call ({what}: tool_choice)"

    def _call_fault(self, call: Mapping[str, str | None]) -> str | None:
        name = call["name"]
        if not name:
            return "a tool call has no name"
        if name not in self._schemas:
            return clipped(f"there is no tool {name!r} to call, only {', '.join(self._schemas)}")
        if self._only not in (None, name):
            return clipped(f"{name} was called, and the job wants {self._only} (tool_choice)")
        # Nothing at all is what some servers send for a function without parameters.
        text = (call["arguments"] or "").strip() or "{}"
        of_call = f"the arguments of the call of {name}"
        try:
            arguments = parse(text)
        except ValueError as error:
            return clipped(f"{of_call} are no JSON: {error}")
        except RecursionError:
            return f"{of_call} are nested too deep"
        schema = self._schemas[name]
        fault = None if schema is None else schema.fault(arguments, "the arguments as a whole")
        return None if fault is None else clipped(f"{of_call} are not by its parameters: {fault}")


def _parameters(tool: Tool, at: int) -> JsonSchema | None:
    parameters = tool.function.parameters
    if parameters is None:
        return None
    place = (at, "function", "parameters")
    if parameters.get("type") != "object":
        raise ToolsError(place, "the parameters of a function are an object: type: object")
    try:
        return JsonSchema(parameters)
    except JsonSchemaError as error:
        raise ToolsError((*place, *error.path), error.message) from None


def definitions(tools: Sequence[Tool]) -> list[dict[str, object]]:
    """As they are sent."""
    return [tool.model_dump(mode="json", exclude_none=True) for tool in tools]


def calls_of(message: Mapping[str, object]) -> list[dict[str, str | None]]:
    """The calls of a message, also in the older form of a single `function_call`; empty when there are none."""
    given = message.get("tool_calls")
    if isinstance(given, list) and given:
        return [_call(call) for call in given if isinstance(call, dict)]
    older = message.get("function_call")
    return [_call({"function": older})] if isinstance(older, dict) else []


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
