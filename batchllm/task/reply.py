"""What all replies share: what came beside the answer, and the judgement on a generated text.

Status 200 says that a call was made and most likely paid for, not that it was answered. So a reply that is turned
down keeps what arrived: its text, its tokens and the model that made it. Nothing is repaired and nothing is guessed;
a text counts only when it is whole, or when the job can use it although it was cut.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from batchllm.errors import InvariantError
from batchllm.prompt import well_formed
from batchllm.records import Action, Answer, AnswerValue, Billed, Failure, FailureCode, Reading, Usage
from batchllm.task.answer_schema import AnswerSchema
from batchllm.task.usage import read_usage

_SNIPPET_CHARS = 160
_FILTER = "content_filter"
#: The token limit ended the text (`model_length` is Mistral's word for a full context).
_CUT = frozenset({"length", "max_tokens", "model_length"})
#: The model came to an end by itself: with a text and without a refusal there is nothing to turn down.
_PLAIN_END = "stop"
_BROKEN_OFF = frozenset({"error", "insufficient_system_resource"})
_FILTERED = frozenset({_FILTER, "content_filtered", "safety"})
_REFUSED = frozenset({"refusal"})
CUT_CALL = "the call of a tool was cut at the token limit: raise max_tokens"
_SPOKEN_TYPES: dict[type, str] = {
    type(None): "null",
    bool: "a truth value",
    int: "a number",
    float: "a number",
    str: "text",
    list: "a list",
}
_CALLS = frozenset({"function_call", "tool_calls", "tool_use"})


class Envelope(NamedTuple):
    """A reply that is an object, with what it says beside its answer."""

    body: Mapping[str, object]
    usage: Usage
    model: str | None

    def accept(self, answers: tuple[Answer, ...]) -> Reading:
        return Reading(answers, self.usage, self.model)

    def turn_down(
        self, action: Action, code: FailureCode, message: str, content: str | None = None
    ) -> Failure:
        usage = self.usage
        is_counted = any(
            part is not None for part in (usage.prompt_tokens, usage.completion_tokens, usage.cost_usd)
        )
        return Failure(
            action,
            code,
            message,
            billed=Billed.YES if is_counted else Billed.UNKNOWN,
            content=content or None,
            usage=usage,
            model=self.model,
        )

    def malformed(self, message: str, content: str | None = None) -> Failure:
        return self.turn_down(Action.AGAIN, FailureCode.MALFORMED, message, content)


class Generated(NamedTuple):
    """What a model wrote, wherever in the reply it stood."""

    text: str
    finish_reason: str | None
    refusal: str = ""
    calls_tools: bool = False


def open_envelope(reply: object) -> Envelope | Failure:
    if not isinstance(reply, dict):
        return Failure(
            Action.AGAIN,
            FailureCode.MALFORMED,
            f"the reply is {_json_kind(reply)}, not an object (is /v1 missing in base_url?)",
            billed=Billed.UNKNOWN,
        )
    model = reply.get("model")
    return Envelope(reply, read_usage(reply), model if isinstance(model, str) and model else None)


def first_choice(envelope: Envelope) -> Mapping[str, object] | Failure:
    """Further choices are left out: `ordered_choices` is for jobs that ask for several."""
    choices = envelope.body.get("choices")
    if not isinstance(choices, list) or not choices:
        shown = "no choices" if choices is None or isinstance(choices, list) else _json_kind(choices)
        return envelope.malformed(
            f"the reply has {shown} where the answer should be{_stated_error(envelope)}"
        )
    if not isinstance(choices[0], dict):
        return envelope.malformed(f"the first choice is {_json_kind(choices[0])}, not an object")
    return choices[0]


def ordered_choices(envelope: Envelope, wanted: int) -> list[Mapping[str, object]] | Failure:
    """As many as were asked for, by their index; by their place where none has one. Of one: the first."""
    first = first_choice(envelope)
    if isinstance(first, Failure):
        return first
    if wanted == 1:
        return [first]
    given = envelope.body["choices"]
    choices: list[Mapping[str, object]] = []
    if isinstance(given, list):
        choices += [choice for choice in given if isinstance(choice, dict)]
    if len(choices) != wanted:
        return envelope.turn_down(
            Action.ELSEWHERE,
            FailureCode.CAPABILITY,
            f"the reply has {len(choices)} choices, and the job asks for {wanted} (params.n): does this server know n?",
        )
    told = [choice.get("index") for choice in choices]
    if all(index is None for index in told):
        return choices
    by_index = {index: choice for index, choice in zip(told, choices, strict=True) if type(index) is int}
    if by_index.keys() != set(range(wanted)):
        return envelope.malformed("the choices' indexes do not count from 0 without a gap")
    return [by_index[index] for index in range(wanted)]


def finish_reason(choice: Mapping[str, object]) -> str | None:
    reason = choice.get("finish_reason")
    return reason if isinstance(reason, str) and reason else None


class Acceptance(NamedTuple):
    """When a text counts: it fits the schema, and what the token limit or a content filter cut counts or does not.

    `takes_calls`: the job has tools, and a reply that asks for one is an answer, which no schema judges.
    """

    schema: AnswerSchema | None
    fails_cut: bool
    keeps_filtered: bool = False
    takes_calls: bool = False

    @classmethod
    def by(
        cls,
        schema: AnswerSchema | None,
        truncated: str | None,
        filtered: str | None = None,
        *,
        takes_calls: bool = False,
    ) -> "Acceptance":
        """JSON that is cut is no JSON, so a schema wants whole answers unless the job says otherwise."""
        fails_cut = schema is not None if truncated is None else truncated != "keep"
        return cls(schema, fails_cut, filtered == "keep", takes_calls)


def judge(generated: Generated, envelope: Envelope, acceptance: Acceptance) -> Reading | Failure:
    schema = acceptance.schema
    text = well_formed(generated.text)
    if generated.finish_reason != _PLAIN_END or generated.refusal or not text.strip():
        failure = _turned_down(
            Generated(text, generated.finish_reason, well_formed(generated.refusal), generated.calls_tools),
            envelope,
            acceptance,
        )
        if failure is not None:
            return failure
    if schema is None or (generated.calls_tools and acceptance.takes_calls):
        return envelope.accept((Answer(text, generated.finish_reason),))
    fault = schema.fault(text)
    if fault is not None:
        return envelope.turn_down(Action.AGAIN, FailureCode.SCHEMA_MISMATCH, _mismatch(fault), text)
    return envelope.accept((Answer(text, generated.finish_reason),))


def judge_kept(
    text: str, finish_reason: str | None, acceptance: Acceptance
) -> tuple[FailureCode, str] | None:
    """The same for a text that was kept, of which no more than this is known; None when it is an answer."""
    if finish_reason in _CUT and (cut := _cut_message(text, acceptance)) is not None:
        return FailureCode.TRUNCATED, cut
    if is_filtered(finish_reason) and not _is_kept(text, acceptance):
        return FailureCode.CONTENT_FILTER, _filter_message(finish_reason)
    if not text.strip():
        return FailureCode.MALFORMED, f"the answer is empty (finish_reason: {finish_reason or 'none'})"
    fault = None if acceptance.schema is None else acceptance.schema.fault(text)
    return None if fault is None else (FailureCode.SCHEMA_MISMATCH, _mismatch(fault))


def _mismatch(fault: str) -> str:
    return f"not by the schema: {fault}"


def _turned_down(generated: Generated, envelope: Envelope, acceptance: Acceptance) -> Failure | None:
    return (
        _broken_off(generated, envelope)
        or _refused(generated, envelope, acceptance)
        or _cut(generated, envelope, acceptance)
        or _wordless(generated, envelope, acceptance)
    )


def kept_texts(values: Sequence[AnswerValue]) -> list[str]:
    return [_kept_text(value) for value in values]


def snippet(text: str) -> str:
    return text if len(text) <= _SNIPPET_CHARS else text[: _SNIPPET_CHARS - 1] + "…"


def _kept_text(value: AnswerValue) -> str:
    if not isinstance(value, str):
        raise InvariantError("a kept answer holds bytes where its task keeps text")
    return value


def _broken_off(generated: Generated, envelope: Envelope) -> Failure | None:
    if generated.finish_reason not in _BROKEN_OFF:
        return None
    message = f"the provider broke off the answer (finish_reason: {generated.finish_reason})"
    return envelope.turn_down(Action.AGAIN, FailureCode.SERVER, message, generated.text)


def _refused(generated: Generated, envelope: Envelope, acceptance: Acceptance) -> Failure | None:
    reason = (generated.finish_reason or "").lower()
    if generated.refusal or reason in _REFUSED:
        said = generated.refusal or generated.text
        return envelope.turn_down(
            Action.GIVE_UP, FailureCode.REFUSAL, f"the model refused: {snippet(said)}", said
        )
    if is_filtered(reason) and not _is_kept(generated.text, acceptance):
        message = _filter_message(generated.finish_reason)
        return envelope.turn_down(Action.GIVE_UP, FailureCode.CONTENT_FILTER, message, generated.text)
    return None


def was_cut(finish_reason: str | None) -> bool:
    """By the token limit."""
    return finish_reason in _CUT


def is_filtered(finish_reason: str | None) -> bool:
    reason = (finish_reason or "").lower()
    return reason in _FILTERED or reason.startswith(_FILTER)


def _is_kept(text: str, acceptance: Acceptance) -> bool:
    """Whether the job takes what a content filter left of an answer."""
    schema = acceptance.schema
    return acceptance.keeps_filtered and bool(text.strip()) and (schema is None or schema.fault(text) is None)


def _filter_message(finish_reason: str | None) -> str:
    return f"the provider's content filter ended the answer (finish_reason: {finish_reason})"


def _cut(generated: Generated, envelope: Envelope, acceptance: Acceptance) -> Failure | None:
    if generated.finish_reason not in _CUT:
        return None
    if generated.calls_tools and acceptance.takes_calls and not generated.text.strip():
        message = CUT_CALL if acceptance.fails_cut else None
    else:
        message = _cut_message(generated.text, acceptance)
    if message is None:
        return None
    return envelope.turn_down(Action.GIVE_UP, FailureCode.TRUNCATED, message, generated.text)


def _cut_message(text: str, acceptance: Acceptance) -> str | None:
    if not text.strip():
        return "the answer's tokens were spent before any text: raise max_tokens"
    if not acceptance.fails_cut:
        return None
    if acceptance.schema is not None:
        return "the answer was cut at the token limit, so its JSON is not whole: raise max_tokens"
    return "the answer was cut at the token limit, and the job takes whole ones only (task.truncated): raise max_tokens"


def _wordless(generated: Generated, envelope: Envelope, acceptance: Acceptance) -> Failure | None:
    is_empty = not generated.text.strip()
    if acceptance.takes_calls and (generated.calls_tools or not is_empty):
        return None
    asks = generated.finish_reason in _CALLS or (is_empty and generated.calls_tools)
    if asks and not acceptance.takes_calls:
        message = (
            "the model asked for a tool instead of answering, and this job has none: name them in task.tools, or take"
            " tools out of extra_body"
        )
        return envelope.turn_down(Action.GIVE_UP, FailureCode.CAPABILITY, message, generated.text)
    if is_empty:
        reason = generated.finish_reason or "none"
        return envelope.malformed(f"the answer is empty (finish_reason: {reason})")
    return None


def _stated_error(envelope: Envelope) -> str:
    error = envelope.body.get("error")
    if isinstance(error, dict):
        error = error.get("message")
    return f"; it says: {snippet(error)}" if isinstance(error, str) and error else ""


def _json_kind(value: object) -> str:
    return _SPOKEN_TYPES.get(type(value), "an object")
