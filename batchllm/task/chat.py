"""Chat: a row's values → messages; the reply → the text of its first choice."""

from collections.abc import Mapping, Sequence

import orjson
import pyarrow as pa

from batchllm.errors import RowError
from batchllm.prompt import Template, missing_column, well_formed
from batchllm.records import AnswerValue, Failure, FailureCode, Reading, Request, Row
from batchllm.spec import models
from batchllm.task.answer_schema import AnswerSchema
from batchllm.task.reply import (
    Acceptance,
    Envelope,
    Generated,
    finish_reason,
    first_choice,
    judge,
    judge_kept,
    kept_texts,
    open_envelope,
    snippet,
)

# Tuples, not sets: what a row or a reply holds need not be hashable.
_ROLES = ("assistant", "developer", "system", "tool", "user")
#: Kinds of content part that are the answer's text; thinking, references and the like are not.
_TEXT_PARTS = ("output_text", "text")


class ChatTask:
    """Raises TemplateError, AnswerSchemaError."""

    kind = "chat"
    path = "/chat/completions"
    content_field = "messages"
    is_packed = False

    def __init__(self, spec: models.ChatTask) -> None:
        self._column = spec.messages_column
        self._templates = _templates(spec)
        self._schema = None if spec.answer_schema is None else AnswerSchema(spec.answer_schema)
        self._acceptance = Acceptance.by(self._schema, spec.truncated)
        columns = frozenset[str]().union(*(template.columns for _, template in self._templates))
        self.template_columns = columns if self._column is None else columns | {self._column}
        typed = () if self._schema is None else self._schema.fields
        self.answer_fields: tuple[pa.Field, ...] = (pa.field("content", pa.string()), *typed)

    def content(self, row: Row) -> object:
        if self._column is not None:
            return _given_messages(self._column, row.values)
        messages = [
            {"role": role, "content": template.render(row.values)} for role, template in self._templates
        ]
        if not messages[-1]["content"].strip():
            raise RowError("the last message is empty for this row: there is nothing to ask")
        return messages

    def texts(self, content: object) -> Sequence[str]:
        texts: list[str] = []
        for message in _dicts(content):
            text = message.get("content")
            texts += [text] if isinstance(text, str) else _texts_in(text)
        return texts

    def read(self, reply: object, request: Request) -> Reading | Failure:  # noqa: ARG002 - the port's signature
        envelope = open_envelope(reply)
        if isinstance(envelope, Failure):
            return envelope
        choice = first_choice(envelope)
        if isinstance(choice, Failure):
            return choice
        generated = _generated(choice, envelope)
        return generated if isinstance(generated, Failure) else judge(generated, envelope, self._acceptance)

    def reread(self, text: str, finish_reason: str | None) -> tuple[FailureCode, str] | None:
        return judge_kept(text, finish_reason, self._acceptance)

    def columns(self, values: Sequence[AnswerValue]) -> list[pa.Array]:
        texts = kept_texts(values)
        return [pa.array(texts, pa.string()), *([] if self._schema is None else self._schema.columns(texts))]


def _templates(spec: models.ChatTask) -> list[tuple[str, Template]]:
    if spec.messages is not None:
        return [
            (message.role, Template(message.content, where=f"task.messages.{at}.content"))
            for at, message in enumerate(spec.messages)
        ]
    pairs = (("system", spec.system, "task.system"), ("user", spec.prompt, "task.prompt"))
    return [(role, Template(text, where=where)) for role, text, where in pairs if text is not None]


def _generated(choice: Mapping[str, object], envelope: Envelope) -> Generated | Failure:
    message = choice.get("message")
    if not isinstance(message, dict):
        return envelope.malformed("the first choice has no message")
    content, refusal = message.get("content"), message.get("refusal")
    calls_tools = bool(message.get("tool_calls") or message.get("function_call"))
    if isinstance(content, str):
        text, refusals = content, [refusal]
    elif content is None or isinstance(content, list):
        text = "".join(_texts_in(content))
        refusals = [refusal, *(part.get("refusal") for part in _dicts(content))]
    else:
        return envelope.malformed("the message's content is neither text nor a list of parts")
    refused = "".join([part for part in refusals if isinstance(part, str)])
    return Generated(text, finish_reason(choice), refused, calls_tools)


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
        message["content"] = [_present(part) for part in content]
    elif not isinstance(content, str) and not (role == "assistant" and message.get("tool_calls")):
        raise RowError(f"{place}: content must be text or a list of parts (here: {_shown(content)})")
    return message


def _present(given: Mapping[str, object]) -> dict[str, object]:
    """Without nulls: a Parquet struct has every field in every row."""
    return {
        name: well_formed(value) if isinstance(value, str) else value
        for name, value in given.items()
        if value is not None
    }


def _texts_in(content: object) -> list[str]:
    texts = [part.get("text") for part in _dicts(content) if part.get("type") in _TEXT_PARTS]
    return [text for text in texts if isinstance(text, str)]


def _dicts(value: object) -> list[dict[str, object]]:
    return [part for part in value if isinstance(part, dict)] if isinstance(value, list) else []


def _shown(value: object) -> str:
    return snippet(repr(value))
