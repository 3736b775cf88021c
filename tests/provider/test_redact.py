import base64
from urllib.parse import quote

import orjson
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from batchllm.provider.redact import MASK, hide, one_line, redact

KEY = 'k/Y+"9=zzTop\\secret~é'


@pytest.mark.parametrize(
    "form",
    [
        KEY,
        quote(KEY, safe=""),
        orjson.dumps(KEY).decode()[1:-1],
    ],
    ids=["plain", "url", "json"],
)
def test_secret_is_hidden_in_each_spelling(form: str) -> None:
    assert hide(f"before {form} after", [KEY]) == f"before {MASK} after"


@given(
    st.text(st.characters(min_codepoint=33, max_codepoint=0x24F), min_size=8, max_size=40),
    st.text(max_size=7),
    st.text(max_size=7),
)
def test_nothing_of_a_secret_is_left_in_base64(secret: str, before: str, after: str) -> None:
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        text = encode(f"{before}{secret}{after}".encode()).decode()
        hidden = hide(text, [secret])
        assert MASK in hidden
        left = hidden.split(MASK)
        # What is left decodes to what stood around the secret, and to single bytes of it at most.
        assert sum(map(len, left)) <= (len(before.encode()) + len(after.encode())) * 4 / 3 + 8


@pytest.mark.parametrize("short", ["", "x", "none", "12345"])
def test_short_secrets_do_not_cut_words(short: str) -> None:
    text = "none of 12345 boxes"
    assert hide(text, [short]) == text


def test_secret_within_another_leaves_no_rest() -> None:
    assert hide("abcdef-long-one", ["abcdef", "abcdef-long-one"]) == MASK


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("Authorization: Bearer abcdef123456", f"Authorization: Bearer {MASK}"),
        ('{"authorization":"Bearer abcdef123456"}', f'{{"authorization":"Bearer {MASK}"}}'),
        ("Authorization: abcdef123456", f"Authorization: {MASK}"),
        ("Proxy-Authorization: Basic bWU6cHc=", f"Proxy-Authorization: Basic {MASK}"),
        ("bearer abcdef123456 was sent", f"bearer {MASK} was sent"),
        ("x-api-key: 0123456789", f"x-api-key: {MASK}"),
        ("https://h/v1?api_key=0123456789&x=1", f"https://h/v1?api_key={MASK}&x=1"),
        ("https://me:hush@host/v1", f"https://{MASK}@host/v1"),
        ("key sk-proj-AbC123xyz789_-AbC was wrong", f"key {MASK} was wrong"),
        ("Incorrect API key provided: sk-abcde***********wxyz.", f"Incorrect API key provided: {MASK}."),
        ("gsk_0123456789abcdef", MASK),
        ("xai-0123456789abcdef", MASK),
        ("pplx-0123456789abcdef", MASK),
        ("AIzaSyA0123456789abcdef", MASK),
        ("hf_0123456789abcdefg", MASK),
    ],
)
def test_what_looks_like_a_key_is_hidden(text: str, safe: str) -> None:
    assert redact(text, []) == safe


@pytest.mark.parametrize(
    "text",
    [
        "the basic idea",
        "risk-assessment-management and task-scheduling-service",
        "bearer of bad news",
        "sk-learn",
        "authorization failed",
        "mail me@host",
        "https://docs.example/v1/errors",
    ],
)
def test_plain_words_stay(text: str) -> None:
    assert redact(text, []) == text


def test_text_that_is_kept_loses_its_secrets_only() -> None:
    text = "use `Bearer abcdef123456` and my-own-secret\n"
    assert hide(text, ["my-own-secret"]) == f"use `Bearer abcdef123456` and {MASK}\n"


def test_line_is_folded_escaped_and_cut() -> None:
    assert one_line("a\r\n\tb\x1b]0;x\x07\u202e\ud800", limit=300) == "a b\\x1b]0;x\\x07\\u202e\\ud800"
    assert one_line("x" * 50, limit=10) == "x" * 9 + "…"
    assert one_line("x" * 10, limit=10) == "x" * 10


@given(st.text(max_size=400), st.integers(10, 300))
def test_line_is_always_printable_and_short(text: str, limit: int) -> None:
    line = one_line(text, ["secret-secret"], limit)
    assert line.isprintable()
    assert len(line) <= limit


def test_short_secret_hides_no_longer_spelling_either() -> None:
    assert hide("caf%C3%A9", ["é"]) == "caf%C3%A9"


@pytest.mark.parametrize("before", range(8_090, 8_200, 9))
def test_no_part_of_a_secret_shows_where_the_text_is_cut(before: int) -> None:
    secret = "Qz7" * 30
    assert "Qz7" not in one_line(" " * before + secret + " and more" * 9, [secret])


@given(st.integers(0, 9_000), st.sampled_from([" ", "x", "\n"]), st.integers(20, 600))
def test_no_part_of_a_secret_shows_wherever_it_stands(before: int, filler: str, limit: int) -> None:
    secret = "Qz7" * 30
    assert "Qz7Qz7" not in one_line(filler * before + secret + filler * 50, [secret], limit)


@given(st.text(min_size=6, max_size=30), st.text(max_size=50))
def test_any_text_may_be_a_secret(secret: str, text: str) -> None:
    assume(secret not in MASK)
    hidden = hide(f"{text}{secret}{text}", [secret])
    assert secret not in hidden.replace(MASK, "\x00")
