"""Completion: a row's values → a prompt; the reply → the text that goes on from it."""

from collections.abc import Sequence

import pyarrow as pa

from batchllm.errors import RowError
from batchllm.prompt import Template
from batchllm.records import AnswerValue, Failure, FailureCode, Reading, Request, Row
from batchllm.spec import models
from batchllm.task.reasking import Reasking
from batchllm.task.reply import (
    Acceptance,
    Generated,
    finish_reason,
    first_choice,
    judge,
    judge_kept,
    kept_texts,
    open_envelope,
)


class CompletionTask:
    """Raises TemplateError."""

    kind = "completion"
    path = "/completions"
    content_field = "prompt"
    is_packed = False
    fixed_tokens = 0
    typed_fields: tuple[pa.Field, ...] = ()

    def __init__(self, spec: models.CompletionTask) -> None:
        self._prompt = Template(spec.prompt, where="task.prompt")
        self._acceptance = Acceptance.by(None, spec.truncated, spec.filtered)
        self._reasking = Reasking.of(spec)
        self.template_columns = self._prompt.columns
        self.answer_fields: tuple[pa.Field, ...] = (pa.field("content", pa.string()),)

    def content(self, row: Row) -> object:
        prompt = self._prompt.render(row.values)
        if not prompt.strip():
            raise RowError("the prompt is empty for this row: there is nothing to complete")
        return prompt

    def texts(self, content: object) -> Sequence[str]:
        return [content] if isinstance(content, str) else []

    def read(self, reply: object, request: Request) -> Reading | Failure:
        envelope = open_envelope(reply)
        if isinstance(envelope, Failure):
            return envelope
        choice = first_choice(envelope)
        if isinstance(choice, Failure):
            return choice
        text = choice.get("text")
        if not isinstance(text, str | None):
            return envelope.malformed("the first choice's text is no text")
        verdict = judge(Generated(text or "", finish_reason(choice)), envelope, self._acceptance)
        return self._reasking.judged(verdict, request) if isinstance(verdict, Failure) else verdict

    def reread(self, text: str, finish_reason: str | None) -> tuple[FailureCode, str] | None:
        return judge_kept(text, finish_reason, self._acceptance)

    def judged_texts(self, lines: pa.RecordBatch) -> list[str | None]:
        texts: list[str | None] = lines.column("content").to_pylist()
        return texts

    def typed_columns(self, texts: Sequence[str | None]) -> list[pa.Array]:  # noqa: ARG002 - as of a chat
        return []

    def columns(self, values: Sequence[AnswerValue]) -> list[pa.Array]:
        return [pa.array(kept_texts(values), pa.string())]
