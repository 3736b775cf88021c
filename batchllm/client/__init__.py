"""A provider from Python, without a job: chat, completion, embedding, moderation, streaming, models, tokens.

    settings   what `connect` was given          wire        the openai SDK as one call
    calls      one planned call                  retrying    attempts until there is an answer
    reading    replies → results                 failures    failures → errors
    streams    answers as they arrive            listing     which models there are
    transport  the SDK's, with an end to each reply
    connection `connect_async`                   blocking    `connect`

What is sent is made by the parts that make it for the rows of a job.
"""

from batchllm.client.blocking import Client, connect
from batchllm.client.connection import AsyncClient, connect_async
from batchllm.client.results import Embeddings, Moderation, Moderations, TextAnswer, ToolCall
from batchllm.client.streams import AsyncTextStream, TextStream

__all__ = [
    "AsyncClient",
    "AsyncTextStream",
    "Client",
    "Embeddings",
    "Moderation",
    "Moderations",
    "TextAnswer",
    "TextStream",
    "ToolCall",
    "connect",
    "connect_async",
]
