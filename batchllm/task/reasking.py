"""How a row is asked again after an answer that was paid for and is no use.

What the token limit cut is asked once more with twice the limit. What breaks the schema, and a call of a tool that
cannot be carried out, is sent back once, with what is wrong with it; should that be no use either, the row is asked as
it was at first. How often in all, `retry` decides.

A call is sent back as words: servers answer 400 to a conversation whose calls have arguments that are no JSON, or no
answers behind them.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from batchllm.records import Action, Failure, FailureCode, Request
from batchllm.spec import models
from batchllm.tokens import TOKENS_PER_MESSAGE, estimate

#: Of a cut answer's output cap.
GROWTH = 2
#: An estimate by bytes is low by so much at most, on text that is not prose: budgets reserve for it.
_MARGIN = 2.0
_REPAIR = "Your answer is {fault}.\n\nAnswer the same question again, with the corrected JSON object and nothing else."
_CALL_AGAIN = "What you called cannot be used: {fault}.\n\nAnswer the same question again."
_SENT_BACK = {FailureCode.SCHEMA_MISMATCH: _REPAIR, FailureCode.TOOL_CALL: _CALL_AGAIN}
#: What a schema can say of a long answer takes no more.
_FAULT_CHARS = 500


class Reasking(NamedTuple):
    """What a job wants of it."""

    repairs: bool = False
    grows: bool = False

    @classmethod
    def of(cls, spec: models.ChatTask | models.CompletionTask) -> "Reasking":
        is_held = isinstance(spec, models.ChatTask) and (spec.answer_schema or spec.tools) is not None
        wants_repair = getattr(spec, "repair", None) is not False
        return cls(is_held and wants_repair, spec.truncated == "grow")

    def judged(self, failure: Failure, request: Request) -> Failure:
        """The failure, where what it asks of the caller depends on what was tried before."""
        if failure.code is FailureCode.TRUNCATED and self.grows and request.growth < GROWTH:
            return failure._replace(action=Action.AGAIN)
        return failure

    def next_request(self, request: Request, failure: Failure) -> Request:
        """What to send for the row of `request` now that it failed like this."""
        if failure.code is FailureCode.TRUNCATED and self.grows:
            return request._replace(growth=GROWTH)
        said = _SENT_BACK.get(failure.code)
        if said is None:
            return request
        if request.first is None and self.repairs and failure.content and isinstance(request.content, list):
            return _repaired(request, failure.content, said.format(fault=failure.message[:_FAULT_CHARS]))
        return (request.first or request)._replace(growth=request.growth, first=request.first)


def reasking(spec: models.TaskSpec) -> Callable[[Request, Failure], Request] | None:
    """What a lane calls before it asks again; None where a row is always asked as it was."""
    if isinstance(spec, models.ChatTask | models.CompletionTask):
        return Reasking.of(spec).next_request
    return None


def _repaired(request: Request, answer: str, said: str) -> Request:
    """The conversation so far, with the answer, and what is said to it."""
    turns = [{"role": "assistant", "content": answer}, {"role": "user", "content": said}]
    content = [*request.content, *turns] if isinstance(request.content, list) else turns
    more = math.ceil(_MARGIN * (estimate(answer) + estimate(said))) + len(turns) * TOKENS_PER_MESSAGE
    return request._replace(
        content=content,
        tokens=(request.prompt_tokens + more,),
        size=request.size + len(answer) + len(said),
        first=request,
    )
