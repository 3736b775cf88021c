"""Completion: a row's values → a prompt; the reply → the text that goes on from it, and what else the job asks for."""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from batchllm.errors import RowError
from batchllm.ports import Ruler
from batchllm.prompt import Template, well_formed
from batchllm.records import Answer, AnswerValue, Failure, FailureCode, Reading, Request, Row
from batchllm.spec import models
from batchllm.task.extras import Told, extras_of, parts_of
from batchllm.task.reasking import Reasking
from batchllm.task.reply import (
    Acceptance,
    Generated,
    finish_reason,
    judge,
    judge_kept,
    kept_texts,
    open_envelope,
    ordered_choices,
)


class CompletionTask:
    """Raises TemplateError."""

    kind = "completion"
    path = "/completions"
    content_field = "prompt"
    is_packed = False
    typed_fields: tuple[pa.Field, ...] = ()

    def __init__(self, spec: models.CompletionTask) -> None:
        self._prompt = Template(spec.prompt, where="task.prompt")
        self._acceptance = Acceptance.by(None, spec.truncated, spec.filtered)
        self._reasking = Reasking.of(spec)
        self._wanted = spec.params.n or 1
        self._extras = extras_of(spec, _text_of)
        self.template_columns = self._prompt.columns
        self.answer_fields: tuple[pa.Field, ...] = (pa.field("content", pa.string()), *self._extras.fields)

    def content(self, row: Row) -> object:
        prompt = self._prompt.render(row.values)
        if not prompt.strip():
            raise RowError("the prompt is empty for this row: there is nothing to complete")
        return prompt

    def texts(self, content: object) -> Sequence[str]:
        return [content] if isinstance(content, str) else []

    def fixed_tokens(self, _ruler: Ruler, /) -> int:
        return 0

    def other_tokens(self, _content: object, _ruler: Ruler, /) -> int:
        return 0

    def read(self, reply: object, request: Request) -> Reading | Failure:
        envelope = open_envelope(reply)
        if isinstance(envelope, Failure):
            return envelope
        choices = ordered_choices(envelope, self._wanted)
        if isinstance(choices, Failure):
            return choices
        choice = choices[0]
        text = choice.get("text")
        if not isinstance(text, str | None):
            return envelope.malformed("the first choice's text is no text")
        verdict = judge(Generated(text or "", finish_reason(choice)), envelope, self._acceptance)
        if isinstance(verdict, Failure):
            return self._reasking.judged(verdict, request)
        if not self._extras:
            return verdict
        (answer,) = verdict.answers
        kept = self._extras.kept(_text_of(choice), Told(envelope.body, choices, {}))
        return verdict._replace(answers=(Answer(kept, answer.finish_reason),))

    def reread(self, text: str, finish_reason: str | None) -> tuple[FailureCode, str] | None:
        return judge_kept(text, finish_reason, self._acceptance)

    def judged_texts(self, lines: pa.RecordBatch) -> list[str | None]:
        texts: list[str | None] = lines.column("content").to_pylist()
        return texts

    def typed_columns(self, texts: Sequence[str | None]) -> list[pa.Array]:  # noqa: ARG002 - as of a chat
        return []

    def columns(self, values: Sequence[AnswerValue]) -> list[pa.Array]:
        if not self._extras:
            return [pa.array(kept_texts(values), pa.string())]
        answers = [parts_of(value) for value in values]
        contents = pa.array([answer["content"] for answer in answers], pa.string())
        return [contents, *self._extras.columns(answers)]


def _text_of(choice: Mapping[str, object]) -> str | None:
    text = choice.get("text")
    return well_formed(text) if isinstance(text, str) and text else None
