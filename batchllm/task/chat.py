"""Chat: a row's values → messages; the reply → the text of its first choice, and what else the job asks for.

An answer is kept as its text. With tools, several choices, log probabilities or parts of the reply beside it, it is
kept as JSON (see `extras`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa

from batchllm.errors import RowError
from batchllm.ports import ImageFiles, Ruler
from batchllm.prompt import Template, missing_column, well_formed
from batchllm.records import Action, Answer, AnswerValue, Failure, FailureCode, Reading, Request, Row
from batchllm.spec import models
from batchllm.task.answer_schema import AnswerSchema
from batchllm.task.extras import Told, extras_of, parts_of
from batchllm.task.images import RowImages, picture_tokens, pictures
from batchllm.task.reasking import Reasking
from batchllm.task.reply import (
    CUT_CALL,
    Acceptance,
    Envelope,
    Generated,
    finish_reason,
    judge,
    judge_kept,
    kept_texts,
    open_envelope,
    ordered_choices,
    snippet,
    was_cut,
)
from batchllm.task.tools import (
    CALLS_FIELD,
    Functions,
    are_kept_calls,
    calls_of,
    definitions,
    kept_calls,
)

# Tuples, not sets: what a row or a reply holds need not be hashable.
_ROLES = ("assistant", "developer", "system", "tool", "user")
_CALLS = CALLS_FIELD.name
#: Kinds of content part that are the answer's text; thinking, references and the like are not.
_TEXT_PARTS = ("output_text", "text")


class ChatTask:
    """`files` are for images that rows name by path. Raises TemplateError, JsonSchemaError, ToolsError."""

    kind = "chat"
    path = "/chat/completions"
    content_field = "messages"
    is_packed = False

    def __init__(self, spec: models.ChatTask, files: ImageFiles | None = None) -> None:
        self._column = spec.messages_column
        self._templates = _templates(spec)
        self._schema = None if spec.answer_schema is None else AnswerSchema(spec.answer_schema)
        self._takes_calls = spec.tools is not None
        self._definitions = definitions(spec.tools or ())
        self._functions = Functions(spec.tools or (), spec.tool_choice)
        self._acceptance = Acceptance.by(
            None if self._functions.must_call else self._schema,
            spec.truncated,
            spec.filtered,
            takes_calls=self._takes_calls,
        )
        self._reasking = Reasking.of(spec)
        self._images = None if spec.images is None else RowImages(spec.images, files)
        self._wanted = spec.params.n or 1
        self._extras = extras_of(spec, _text_of)
        columns = frozenset[str]().union(*(template.columns for _, template in self._templates))
        if self._column is not None:
            columns |= {self._column}
        self.template_columns = columns if self._images is None else columns | self._images.columns
        self.typed_fields: tuple[pa.Field, ...] = () if self._schema is None else self._schema.fields
        self.answer_fields: tuple[pa.Field, ...] = (
            pa.field("content", pa.string()),
            *self.typed_fields,
            *self._extras.fields,
        )

    def content(self, row: Row) -> object:
        if self._column is not None:
            return _given_messages(self._column, row.values)
        messages: list[dict[str, Any]] = [
            {"role": role, "content": template.render(row.values)} for role, template in self._templates
        ]
        if not messages[-1]["content"].strip():
            raise RowError("the last message is empty for this row: there is nothing to ask")
        return messages if self._images is None else _illustrated(messages, self._images.parts(row.values))

    def texts(self, content: object) -> Sequence[str]:
        texts: list[str] = []
        for message in _dicts(content):
            text = message.get("content")
            texts += [text] if isinstance(text, str) else _texts_in(text)
        return texts

    def fixed_tokens(self, ruler: Ruler, /) -> int:
        return ruler.tools(self._definitions)

    def other_tokens(self, content: object, ruler: Ruler, /) -> int:
        if self._images is not None:
            return self._images.tokens(content, ruler)
        if self._column is None:
            return 0
        called = [message["tool_calls"] for message in _dicts(content) if message.get("tool_calls")]
        words = sum(ruler.words(orjson.dumps(calls).decode()) for calls in called)
        return words + sum(picture_tokens(part, ruler) for part in pictures(content))

    def read(self, reply: object, request: Request) -> Reading | Failure:
        envelope = open_envelope(reply)
        if isinstance(envelope, Failure):
            return envelope
        choices = ordered_choices(envelope, self._wanted)
        if isinstance(choices, Failure):
            return choices._replace(content=_kept_text(envelope))
        generated = _generated(choices[0], envelope)
        if isinstance(generated, Failure):
            return generated
        verdict = judge(generated, envelope, self._acceptance)
        if isinstance(verdict, Failure):
            return self._turned_down(verdict, choices[0], request)
        if not self._extras:
            return verdict
        return self._with_extras(verdict, generated, envelope, choices, request)

    def reread(self, text: str, finish_reason: str | None) -> tuple[FailureCode, str] | None:
        if self._takes_calls and are_kept_calls(text):
            return FailureCode.TRUNCATED, CUT_CALL
        absence = self._functions.absence()
        if absence is not None:
            return FailureCode.TOOL_CALL, absence
        return judge_kept(text, finish_reason, self._acceptance)

    def columns(self, values: Sequence[AnswerValue]) -> list[pa.Array]:
        if not self._extras:
            texts = kept_texts(values)
            return [pa.array(texts, pa.string()), *self.typed_columns(texts)]
        answers = [parts_of(value) for value in values]
        contents = [answer["content"] for answer in answers]
        judged = [None if answer.get(_CALLS) else answer["content"] for answer in answers]
        return [
            pa.array(contents, pa.string()),
            *self.typed_columns(judged),
            *self._extras.columns(answers),
        ]

    def typed_columns(self, texts: Sequence[str | None]) -> list[pa.Array]:
        """The schema's columns alone; None is an answer that no schema judges."""
        return [] if self._schema is None else self._schema.columns(texts)

    def judged_texts(self, lines: pa.RecordBatch) -> list[str | None]:
        """Of lines of output/, the texts that were judged; None where a tool was asked for instead."""
        texts: list[str | None] = lines.column("content").to_pylist()
        if not self._takes_calls:
            return texts
        calls = lines.column(_CALLS).to_pylist()
        return [None if called else text for called, text in zip(calls, texts, strict=True)]

    def _with_extras(
        self,
        reading: Reading,
        generated: Generated,
        envelope: Envelope,
        choices: Sequence[Mapping[str, object]],
        request: Request,
    ) -> Reading | Failure:
        told = Told(envelope.body, choices, _message(choices[0]))
        (answer,) = reading.answers
        text = answer.value if isinstance(answer.value, str) else ""
        content: str | None = text
        if self._takes_calls:
            fault = self._call_fault(text, told, envelope, generated)
            if fault is not None:
                return self._reasking.judged(fault, request)
            content = (text or None) if generated.calls_tools else text
        return reading._replace(answers=(Answer(self._extras.kept(content, told), answer.finish_reason),))

    def _turned_down(self, failure: Failure, choice: Mapping[str, object], request: Request) -> Failure:
        if self._takes_calls and not failure.content:
            failure = failure._replace(content=kept_calls(calls_of(_message(choice))))
        return self._reasking.judged(failure, request)

    def _call_fault(self, text: str, told: Told, envelope: Envelope, generated: Generated) -> Failure | None:
        calls = calls_of(told.message)
        fault = self._functions.fault(calls) if generated.calls_tools else self._functions.absence()
        if fault is None:
            return None
        kept = text if not calls else kept_calls(calls)
        if was_cut(generated.finish_reason):
            return envelope.turn_down(Action.GIVE_UP, FailureCode.TRUNCATED, CUT_CALL, kept)
        return envelope.turn_down(Action.AGAIN, FailureCode.TOOL_CALL, fault, kept)


def _templates(spec: models.ChatTask) -> list[tuple[str, Template]]:
    if spec.messages is not None:
        return [
            (message.role, Template(message.content, where=f"task.messages.{at}.content"))
            for at, message in enumerate(spec.messages)
        ]
    pairs = (("system", spec.system, "task.system"), ("user", spec.prompt, "task.prompt"))
    return [(role, Template(text, where=where)) for role, text, where in pairs if text is not None]


def _illustrated(messages: list[dict[str, Any]], images: list[dict[str, object]]) -> list[dict[str, Any]]:
    """The images behind the text of the last user message; without one, of the last message."""
    users = [at for at, message in enumerate(messages) if message["role"] == "user"]
    asked = messages[users[-1] if users else -1]
    asked["content"] = [{"type": "text", "text": asked["content"]}, *images]
    return messages


def _generated(choice: Mapping[str, object], envelope: Envelope) -> Generated | Failure:
    message = choice.get("message")
    if not isinstance(message, dict):
        return envelope.malformed("the first choice has no message")
    content, refusal = message.get("content"), message.get("refusal")
    calls_tools = bool(message.get("tool_calls") or message.get("function_call"))
    if isinstance(content, str):
        if refusal is None:
            return Generated(content, finish_reason(choice), "", calls_tools)
        text, refusals = content, [refusal]
    elif content is None or isinstance(content, list):
        text = "".join(_texts_in(content))
        refusals = [refusal, *(part.get("refusal") for part in _dicts(content))]
    else:
        return envelope.malformed("the message's content is neither text nor a list of parts")
    refused = "".join([part for part in refusals if isinstance(part, str)])
    return Generated(text, finish_reason(choice), refused, calls_tools)


def _message(choice: Mapping[str, object]) -> Mapping[str, object]:
    message = choice.get("message")
    return message if isinstance(message, dict) else {}


def _kept_text(envelope: Envelope) -> str | None:
    """Of a reply that has too few choices: what was paid for all the same."""
    choices = _dicts(envelope.body.get("choices"))
    return _text_of(choices[0]) if choices else None


def _text_of(choice: Mapping[str, object]) -> str | None:
    """The text of one choice among several; None where it has none."""
    content = _message(choice).get("content")
    if isinstance(content, list):
        content = "".join(_texts_in(content))
    return well_formed(content) if isinstance(content, str) and content else None


def _given_messages(column: str, values: Mapping[str, object]) -> list[dict[str, object]]:
    if column not in values:
        raise RowError(f"task.messages_column: {missing_column(column, values)}")
    given = values[column]
    if isinstance(given, str):
        try:
            given = orjson.loads(well_formed(given))
        except orjson.JSONDecodeError as error:
            raise RowError(f"column {column!r} holds text that is no JSON: {error}") from None
    if not isinstance(given, list) or not given:
        raise RowError(f"column {column!r} must hold a list of messages (here: {_shown(given)})")
    messages = [_given_message(part, f"column {column!r}, message {at}") for at, part in enumerate(given, 1)]
    last = messages[-1].get("content")
    if isinstance(last, str) and not last.strip():
        raise RowError(f"column {column!r}: the last message is empty: there is nothing to ask")
    return messages


def _given_message(given: object, place: str) -> dict[str, object]:
    if not isinstance(given, dict):
        raise RowError(f"{place}: not an object with role and content (here: {_shown(given)})")
    message = _present(given)
    role, content = message.get("role"), message.get("content")
    if role not in _ROLES:
        raise RowError(f"{place}: role must be one of {', '.join(_ROLES)} (here: {_shown(role)})")
    if isinstance(content, list) and content:
        if not all(isinstance(part, dict) and isinstance(part.get("type"), str) for part in content):
            raise RowError(f"{place}: each part of a content list is an object with a type")
    elif not isinstance(content, str) and not (role == "assistant" and message.get("tool_calls")):
        raise RowError(f"{place}: content must be text or a list of parts (here: {_shown(content)})")
    if role == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise RowError(
            f"{place}: a message of the role tool needs tool_call_id, the id of the call it answers"
        )
    calls = message.pop("tool_calls", None)
    if calls:
        message["tool_calls"] = _given_calls(calls, place)
    return message


def _given_calls(given: object, place: str) -> list[dict[str, object]]:
    """Calls of an earlier turn."""
    calls = []
    for call in given if isinstance(given, list) else [None]:
        if not isinstance(call, dict) or not isinstance(call.get("function"), dict):
            raise RowError(
                f"{place}: tool_calls must be a list of calls with a function (here: {_shown(given)})"
            )
        kept = _present(call)
        kept["function"] = _present(call["function"])
        calls.append(kept)
    return calls


def _present(given: Mapping[str, object]) -> dict[str, object]:
    """Without nulls, at every depth: a Parquet struct has every field in every row."""
    return {name: _whole(value) for name, value in given.items() if value is not None}


def _whole(value: object) -> object:
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, dict):
        return _present(value)
    return [_whole(part) for part in value] if isinstance(value, list) else value


def _texts_in(content: object) -> list[str]:
    texts = [part.get("text") for part in _dicts(content) if part.get("type") in _TEXT_PARTS]
    return [text for text in texts if isinstance(text, str)]


def _dicts(value: object) -> list[dict[str, object]]:
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []


def _shown(value: object) -> str:
    return snippet(repr(value))
