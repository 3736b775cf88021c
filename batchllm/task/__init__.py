"""What is asked and what came back: row → content of a request, reply → answers, answers → Arrow columns.

    chat, completion, embedding, moderation   one task each, behind `ports.Task`
    reply           what came beside an answer, and the judgement on generated text
    json_schema     what a model's words are held to
    answer_schema   the schema of an answer, and the columns that it fills
    extras, tools   what else of a reply is kept; functions that a model may ask for
    images          images of a row, as parts of a message
    reasking        how a row is asked again after an answer that is no use
    usage           tokens and money as the providers count them

Nothing here knows a provider or a lane; parameters and dialects are spoken where the body is made.
"""

from batchllm.ports import ImageFiles
from batchllm.spec import models
from batchllm.task.chat import ChatTask
from batchllm.task.completion import CompletionTask
from batchllm.task.embedding import EmbeddingTask
from batchllm.task.json_schema import JsonSchemaError
from batchllm.task.moderation import ModerationTask
from batchllm.task.reasking import reasking
from batchllm.task.tools import ToolsError

__all__ = [
    "AnyTask",
    "ChatTask",
    "CompletionTask",
    "EmbeddingTask",
    "JsonSchemaError",
    "ModerationTask",
    "ToolsError",
    "build_task",
    "reasking",
]

AnyTask = ChatTask | CompletionTask | EmbeddingTask | ModerationTask


def build_task(spec: models.TaskSpec, *, dimensions: int | None, files: ImageFiles | None = None) -> AnyTask:
    """`dimensions`: the width of the vectors, known by now; only an embedding has one. `files`: for rows with images.

    Raises TemplateError, JsonSchemaError and ToolsError, with the place in the job.
    """
    match spec:
        case models.ChatTask():
            return ChatTask(spec, files)
        case models.CompletionTask():
            return CompletionTask(spec)
        case models.EmbeddingTask():
            width = spec.dimensions if dimensions is None else dimensions
            if width is None:
                raise ValueError("an embedding task is built once the width of its vectors is known")
            return EmbeddingTask(spec, width)
        case models.ModerationTask():
            return ModerationTask(spec, files)
