"""Tokens before anything is sent, without a network.

counting   texts, as OpenAI counts them, or estimated      images        what a picture costs
families   how far an estimate may be off, as measured     picture_size  how large it is, from its first bytes
messages   chats with frame, tools and images              ruler         what a run reserves beside texts
input_cap  texts that are longer than a model reads
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
from batchllm.tokens.input_cap import InputCap
from batchllm.tokens.messages import TokenCount, count_tokens, tool_tokens
from batchllm.tokens.picture_size import picture_size
from batchllm.tokens.ruler import Ruler

__all__ = [
    "BYTES_PER_TOKEN",
    "MOST_BYTES",
    "TOKENS_PER_MESSAGE",
    "TOKENS_PER_REPLY",
    "VOCABULARIES",
    "HeadStart",
    "InputCap",
    "Ruler",
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
    "picture_size",
    "tool_tokens",
]
