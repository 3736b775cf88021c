"""Tokens are counted as OpenAI does, offline; what cannot be counted is estimated, and says so."""

import base64
import gzip
import inspect
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import pytest
import tiktoken_ext.openai_public
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.tokens import (
    MOST_BYTES,
    VOCABULARIES,
    HeadStart,
    TokenCounter,
    VocabularyError,
    build_counter,
    counter_for,
    data_folder,
    encoding_name,
    estimate,
    load_encoding,
)


class Panicking:
    """Fails as the encoder's Rust code does."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def encode_ordinary(self, text: str) -> NoReturn:
        raise self.error


PanicException = type("PanicException", (BaseException,), {})


class Counting:
    """Notes what it was asked, and finds one token in everything."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def encode_ordinary(self, text: str) -> list[int]:
        self.texts.append(text)
        return [0]


@pytest.mark.parametrize(
    ("model", "text", "expected"),
    [
        ("gpt-4", "hello world", [15339, 1917]),
        ("gpt-4o", "hello world", [24912, 2375]),
        ("text-embedding-3-small", "tiktoken is great!", [83, 1609, 5963, 374, 2294, 0]),
    ],
)
def test_texts_become_the_tokens_that_openai_publishes(model: str, text: str, expected: list[int]) -> None:
    counter = counter_for(model)
    assert counter.encoding is not None
    assert counter.encoding.encode_ordinary(text) == expected
    assert counter.count(text) == len(expected)
    assert counter.is_exact
    assert counter.note == ""


@pytest.mark.parametrize("name", VOCABULARIES)
def test_the_definitions_are_tiktokens_own(name: str) -> None:
    source = inspect.getsource(getattr(tiktoken_ext.openai_public, name))
    assert VOCABULARIES[name].sha256 in source
    literals = [line.strip().rstrip(",").removeprefix('"pat_str": ') for line in source.splitlines()]
    parts = [line[4:-3] for line in literals if line.startswith('r"""')]
    assert VOCABULARIES[name].pattern == "|".join(parts)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gpt-4o-mini", ("o200k_base", True)),
        ("gpt-4.1-nano", ("o200k_base", True)),
        ("gpt-5.6-sol", ("o200k_base", True)),
        ("o3-mini", ("o200k_base", True)),
        ("gpt-4-0613", ("cl100k_base", True)),
        ("gpt-3.5-turbo-instruct", ("cl100k_base", True)),
        ("openai/gpt-oss-20b", ("o200k_base", True)),
        ("accounts/fireworks/models/gpt-oss-120b", ("o200k_base", True)),
        ("openai/gpt-oss-20b:free", ("o200k_base", True)),
        ("ft:gpt-4.1-nano-2025-04-14:org::id", ("o200k_base", True)),
        ("ft:gpt-3.5-turbo-0125:org::id", ("cl100k_base", True)),
        ("gpt-6-luna", ("o200k_base", False)),
        ("o9", ("o200k_base", False)),
        ("davinci", (None, False)),
        ("someone/gpt-4-like", (None, False)),
        ("mistral-small-latest", (None, False)),
        ("octopus", (None, False)),
        ("", (None, False)),
    ],
)
def test_a_models_vocabulary_goes_by_its_name(model: str, expected: tuple[str | None, bool]) -> None:
    assert encoding_name(model) == expected


def test_an_unknown_model_is_estimated_and_says_so() -> None:
    counter = counter_for("qwen/qwen3.6-27b")
    assert not counter.is_exact
    assert "qwen/qwen3.6-27b" in counter.note
    assert counter.count("x" * 35) == 10
    assert counter.count("中文") == 2
    assert counter.count("") == 0


def test_a_new_model_of_openais_is_counted_but_not_called_exact() -> None:
    counter = counter_for("gpt-6-luna")
    assert counter.encoding is not None
    assert not counter.is_exact
    assert "gpt-6-luna" in counter.note


def test_without_vocabulary_files_everything_is_estimated(tmp_path: Path) -> None:
    for folder in (None, tmp_path, tmp_path / "missing"):
        counter = build_counter("gpt-4o", folder)
        assert not counter.is_exact
        assert "estimated" in counter.note
        assert counter.count("x" * 35) == 10


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no gzip at all",
        gzip.compress(b"aGVsbG8= 0\n", mtime=0),
        gzip.compress(b"x" * 1000, mtime=0)[:-9],
        gzip.compress(b"", mtime=0)[:10] + b"\xff" * 20,
    ],
)
def test_a_vocabulary_that_is_not_the_published_one_is_not_used(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "o200k_base.tiktoken.gz").write_bytes(content)
    with pytest.raises(VocabularyError, match=r"o200k_base\.tiktoken\.gz"):
        load_encoding("o200k_base", tmp_path)
    assert not build_counter("gpt-4o", tmp_path).is_exact


def test_text_that_spells_a_special_token_is_text() -> None:
    assert counter_for("gpt-4o").count("<|endoftext|>") == 7


def test_a_lone_surrogate_is_counted() -> None:
    assert counter_for("gpt-4o").count("a\ud800b") > 0
    assert estimate("\ud800") == 1


@pytest.mark.parametrize("text", ["a" * 1_000_000, "中" * 100_000, "😀" * 70_000])
def test_texts_beyond_a_quarter_megabyte_are_estimated(text: str) -> None:
    assert counter_for("gpt-4o").count(text) == estimate(text)


@pytest.mark.parametrize("unit", ["a", " ", "\n", "A", "1", "!", "\x00"])
def test_the_longest_text_that_is_counted_is_counted(unit: str) -> None:
    text = unit * MOST_BYTES
    assert 0 < counter_for("gpt-4").count(text) <= MOST_BYTES
    assert counter_for("gpt-4").count(text) != estimate(text)


def test_a_panic_in_the_encoder_becomes_an_estimate() -> None:
    panicking = Panicking(PanicException("stack overflow"))
    counter = TokenCounter("x", panicking, True)  # type: ignore[arg-type] # stands in for the encoder
    assert counter.count("x" * 35) == 10


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1), RuntimeError("x")])
def test_nothing_but_a_panic_is_swallowed(error: BaseException) -> None:
    counter = TokenCounter("x", Panicking(error), True)  # type: ignore[arg-type] # stands in for the encoder
    with pytest.raises(type(error)):
        counter.count("x")


def test_an_encoding_is_read_once() -> None:
    assert counter_for("gpt-4o").encoding is counter_for("gpt-4.1").encoding


def test_threads_may_ask_at_the_same_time() -> None:
    with ThreadPoolExecutor(4) as pool:
        counts = list(pool.map(lambda _: counter_for("gpt-4").count("hello world"), range(8)))
    assert counts == [2] * 8


@settings(deadline=None)
@given(st.lists(st.text(max_size=50), max_size=5))
def test_many_texts_are_counted_like_each_alone(texts: list[str]) -> None:
    counter = counter_for("gpt-4")
    assert counter.count_many(texts) == [counter.count(text) for text in texts]


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=200))
def test_no_text_has_more_tokens_than_bytes(text: str) -> None:
    for model in ("gpt-4", "unknown"):
        counter = counter_for(model)
        assert (1 if text else 0) <= counter.count(text) <= len(text.encode())


@settings(deadline=None)
@given(st.text(st.characters(codec="utf-8"), max_size=80))
def test_tokens_decode_to_the_text_that_was_counted(text: str) -> None:
    encoding = load_encoding("o200k_base", data_folder()).built()
    assert encoding.decode(encoding.encode_ordinary(text)) == text


def test_the_vocabulary_holds_each_single_byte() -> None:
    encoding = load_encoding("o200k_base", data_folder()).built()
    assert all(len(encoding.decode_bytes([rank])) >= 1 for rank in range(256))
    assert base64.b64encode(encoding.decode_bytes([0])) == b"IQ=="


def test_a_head_start_counts_by_bytes_until_they_are_used_up() -> None:
    encoder = Counting()
    head = HeadStart(TokenCounter("x", encoder, True), most_bytes=100, margin=2.0)
    assert head.count_many(["x" * 35, "x" * 35]) == [20, 20]
    assert encoder.texts == []
    assert head.count_many(["x" * 35]) == [1]  # 105 bytes would be too many
    assert head.count_many(["x"]) == [1]
    assert encoder.texts == ["x" * 35, "x"]


def test_no_head_start_without_bytes() -> None:
    encoder = Counting()
    assert HeadStart(TokenCounter("x", encoder, True), most_bytes=0, margin=2.0).count_many(["", "x"]) == [
        1,
        1,
    ]
    assert encoder.texts == ["", "x"]
