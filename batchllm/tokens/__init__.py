"""Tokens before anything is sent, without a network.

counting   texts, as OpenAI counts them, or estimated      images    what a picture costs
families   how far an estimate may be off, as measured     messages  chats with frame, tools and images
"""

from batchllm.tokens.counting import (
    BYTES_PER_TOKEN,
    MOST_BYTES,
    TOKENS_PER_MESSAGE,
    TOKENS_PER_REPLY,
    VOCABULARIES,
    HeadStart,
    TokenCounter,
    Vocabulary,
    VocabularyError,
    build_counter,
    counter_for,
    data_folder,
    encoding_name,
    estimate,
    load_encoding,
)
from batchllm.tokens.images import image_tokens
from batchllm.tokens.messages import TokenCount, count_tokens, tool_tokens

__all__ = [
    "BYTES_PER_TOKEN",
    "MOST_BYTES",
    "TOKENS_PER_MESSAGE",
    "TOKENS_PER_REPLY",
    "VOCABULARIES",
    "HeadStart",
    "TokenCount",
    "TokenCounter",
    "Vocabulary",
    "VocabularyError",
    "build_counter",
    "count_tokens",
    "counter_for",
    "data_folder",
    "encoding_name",
    "estimate",
    "image_tokens",
    "load_encoding",
    "tool_tokens",
]
