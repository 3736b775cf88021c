"""What is asked and what came back: row → content of a request, reply → answers, answers → Arrow columns.

    chat, completion, embedding, moderation   one task each, behind `ports.Task`
    reply           what came beside an answer, and the judgement on generated text
    answer_schema   the JSON Schema of an answer, and the columns that it fills
    usage           tokens and money as the providers count them

Nothing here knows a provider or a lane; parameters and dialects are spoken where the body is made.
"""

from batchllm.spec import models
from batchllm.task.answer_schema import AnswerSchemaError
from batchllm.task.chat import ChatTask
from batchllm.task.completion import CompletionTask
from batchllm.task.embedding import EmbeddingTask
from batchllm.task.moderation import ModerationTask

__all__ = [
    "AnswerSchemaError",
    "AnyTask",
    "ChatTask",
    "CompletionTask",
    "EmbeddingTask",
    "ModerationTask",
    "build_task",
]

AnyTask = ChatTask | CompletionTask | EmbeddingTask | ModerationTask


def build_task(spec: models.TaskSpec, *, dimensions: int | None) -> AnyTask:
    """`dimensions`: the width of the vectors, known by now; only an embedding has one.

    Raises TemplateError and AnswerSchemaError, with the place in the job.
    """
    match spec:
        case models.ChatTask():
            return ChatTask(spec)
        case models.CompletionTask():
            return CompletionTask(spec)
        case models.EmbeddingTask():
            width = spec.dimensions if dimensions is None else dimensions
            if width is None:
                raise ValueError("an embedding task is built once the width of its vectors is known")
            return EmbeddingTask(spec, width)
        case models.ModerationTask():
            return ModerationTask(spec)
