"""A request → the body that one lane sends."""

from collections.abc import Callable, Mapping, Sequence

import orjson

from batchllm.provider.dialect import CAPS
from batchllm.provider.responses_body import InputWriter, form_of
from batchllm.records import Request
from batchllm.wiring.lanes import LanePlan


class Encoder:
    """A request → the body that one lane sends.

    What stands before and after the content is the same in each body, a schema of some KB included: written once.
    """

    __slots__ = ("_fields", "_head", "_highest", "_instruction", "_tail", "_write")

    def __init__(self, plan: LanePlan, content_field: str) -> None:
        self._fields = plan.translation.fields
        self._write: Callable[[object], bytes] = orjson.dumps
        if plan.api == "responses":
            content_field = "input"
            instructs = "instructions" not in self._fields
            self._write = InputWriter(form_of(plan.entry.dialect), may_instruct=instructs)
        before = orjson.dumps({plan.model_field: plan.info.model})
        self._head = before[:-1] + b"," + orjson.dumps(content_field) + b":"
        self._highest: int | None = None
        self._tail = _tail(self._fields)
        self._instruction = plan.translation.instruction

    def __call__(self, request: Request) -> bytes:
        content = request.content
        if self._instruction and isinstance(content, list):
            content = with_instruction(content, self._instruction)
        tail = self._tail if request.growth == 1 else _tail(self._capped(request.growth))
        return b"".join((self._head, self._write(content), tail))

    def cap(self, request: Request) -> int | None:
        """The longest answer that the body of a request asks for, in tokens; None where it does not say."""
        fields = self._capped(request.growth)
        caps = [fields.get(name) for name in CAPS]
        return max((cap for cap in caps if isinstance(cap, int)), default=None)

    def lower_cap(self, highest: int) -> None:
        """Ask for no longer answers than this from now on."""
        self._highest = highest
        self._tail = _tail(self._capped(1))

    def _capped(self, growth: int) -> dict[str, object]:
        """The fields with an output cap that is so many times the job's, whichever name it goes by."""
        fields = dict(self._fields)
        for name in CAPS & fields.keys():
            value = fields[name]
            if isinstance(value, int):
                grown = value * growth
                fields[name] = grown if self._highest is None else min(grown, self._highest)
        return fields


def _tail(fields: Mapping[str, object]) -> bytes:
    return b"," + orjson.dumps(dict(fields))[1:] if fields else b"}"


def with_instruction(messages: Sequence[object], instruction: str) -> list[object]:
    """The messages with an instruction in the system message; one is put first where there is none."""
    first = messages[0] if messages else None
    if isinstance(first, dict) and first.get("role") in ("system", "developer"):
        text = first.get("content")
        if isinstance(text, str):
            return [{**first, "content": f"{text}\n\n{instruction}"}, *messages[1:]]
    return [{"role": "system", "content": instruction}, *messages]
