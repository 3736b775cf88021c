"""`${NAME}`, and the addresses that a key may be sent to."""

from urllib.parse import urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batchllm.errors import ExitCode, Fault
from batchllm.provider.proxy import is_loopback
from batchllm.spec.env import (
    ExpansionError,
    address_faults,
    connection_faults,
    escape,
    expand,
    expanded,
    variables,
)

ENVIRON = {"KEY": "secret", "HOST": "api.example.com", "EMPTY": "", "BLANK": " \n"}
_NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", ""),
        ("plain", "plain"),
        ("${KEY}", "secret"),
        ("Bearer ${KEY}", "Bearer secret"),
        ("https://${HOST}/${KEY}", "https://api.example.com/secret"),
        ("$KEY $ {KEY} {KEY}", "$KEY $ {KEY} {KEY}"),
        ("$${KEY}", "${KEY}"),
        ("$$${KEY}", "$${KEY}"),
        ("$$", "$$"),
        ("${KEY}$${KEY}${KEY}", "secret${KEY}secret"),
    ],
)
def test_variables_are_filled_in_and_all_else_stays(text: str, value: str) -> None:
    assert expand(text, ENVIRON) == value


@pytest.mark.parametrize("name", ["ABSENT", "EMPTY", "BLANK"])
def test_a_variable_without_a_value_is_missing(name: str) -> None:
    with pytest.raises(ExpansionError) as caught:
        expand(f"x${{{name}}}", ENVIRON)
    assert caught.value.missing == (name,)
    assert f"export {name}=..." in caught.value.remedy
    assert caught.value.exit_code == ExitCode.CONFIG


@pytest.mark.parametrize(
    "text", ["${}", "${KEY:-x}", "${KEY", "${ KEY }", "${1A}", "${${KEY}}", "${KÉY}", "${a.b}"]
)
def test_other_syntax_is_malformed(text: str) -> None:
    with pytest.raises(ExpansionError) as caught:
        expand(text, ENVIRON)
    assert caught.value.malformed
    assert not caught.value.missing


def test_a_value_is_not_read_again() -> None:
    assert expand("${A}", {"A": "${KEY}", "KEY": "x"}) == "${KEY}"


def test_names_come_once_and_in_order() -> None:
    assert variables("${B}${A}${B}$${C}${}${D:-x}") == ["B", "A"]


@settings(deadline=None)
@given(st.text(st.sampled_from("${}AB")))
def test_escaped_text_comes_back_as_it_was(text: str) -> None:
    assert expand(escape(text), {}) == text
    assert variables(escape(text)) == []


@settings(deadline=None)
@given(
    st.dictionaries(_NAMES, st.text(min_size=1).filter(str.strip)),
    st.text(st.characters(exclude_characters="$")),
)
def test_text_of_variables_becomes_text_of_their_values(environ: dict[str, str], between: str) -> None:
    text = between.join(f"${{{name}}}" for name in environ)
    assert expand(text, environ) == between.join(environ.values())


@settings(deadline=None)
@given(st.text(st.sampled_from("${}AB:")), st.dictionaries(st.sampled_from("AB"), st.text("xyz", max_size=2)))
def test_expansion_fills_in_or_names_what_is_wrong(text: str, environ: dict[str, str]) -> None:
    try:
        expand(text, environ)
    except ExpansionError as error:
        wrong = (error.missing, error.malformed)
    else:
        wrong = ((), ())
    assert set(wrong[0]) == {name for name in variables(text) if not environ.get(name)}
    assert bool(wrong[0] or wrong[1]) == isinstance(expanded("p", text, environ), list)


def test_each_missing_variable_is_a_fault_with_its_remedy() -> None:
    assert expanded("providers.0.api_key", "${A}${EMPTY}", ENVIRON) == [
        Fault("providers.0.api_key", "the environment variable A is not set", "set A: export A=..."),
        Fault(
            "providers.0.api_key", "the environment variable EMPTY is empty", "set EMPTY: export EMPTY=..."
        ),
    ]


@pytest.mark.parametrize("pasted", ["gsk_abcdefghij1234567890", "sk-proj-abcdefghij123456"])
def test_a_key_pasted_as_a_name_is_not_repeated(pasted: str) -> None:
    text = f"${{{pasted}}}"
    faults = expanded("providers.0.api_key", text, {})
    assert isinstance(faults, list)
    assert faults
    assert pasted not in repr(faults)
    with pytest.raises(ExpansionError) as caught:
        expand(text, {})
    assert pasted not in str(caught.value)


def messages(url: str) -> str:
    return " | ".join(f"{fault.message} ({fault.remedy})" for fault in address_faults("base_url", url))


@pytest.mark.parametrize(
    "url",
    [
        "https://api.groq.com/openai/v1",
        "https://10.0.0.5:8443/v1/",
        "http://localhost:8000/v1",
        "http://LOCALHOST.:8000",
        "http://127.0.0.1:11434/v1",
        "http://127.8.9.1",
        "http://[::1]:8080/v1",
        "http://[::ffff:127.0.0.1]/v1",
        "http://2130706433/v1",
        "HTTPS://api.example.com",
    ],
)
def test_a_good_address_has_no_fault(url: str) -> None:
    assert messages(url) == ""


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("api.example.com/v1", "begin it with https://"),
        ("localhost:8000/v1", "begin it with http://"),
        ("localhost/v1", "begin it with http://"),
        ("127.0.0.1:8000", "begin it with http://"),
        ("ftp://api.example.com", "no web address"),
        ("file:///etc/passwd", "no web address"),
        ("https:///v1", "no web address"),
        ("https://", "no web address"),
        ("https://a b.com", "no web address"),
        ("https://a.com\\@b.com/", "no web address"),
        ("https://a.com/v1\n", "no web address"),
        ("https://[::1", "no valid address"),
        ("https://a.com:99999", "no valid address"),
        ("https://a.com:x", "no valid address"),
        ("http://api.example.com/v1", "use https, or a tunnel to localhost"),
        ("http://10.0.0.5/v1", "use https, or a tunnel to localhost"),
        ("http://localhost.example.com", "use https, or a tunnel to localhost"),
        ("http://127.0.0.1.example.com", "use https, or a tunnel to localhost"),
        ("http://0.0.0.0:8000/v1", "write 127.0.0.1"),
        ("https://169.254.169.254/v1", "link-local"),
        ("https://169.254.0.1/v1", "link-local"),
        ("https://2852039166/", "link-local"),
        ("https://0xA9FEA9FE/", "link-local"),
        ("https://169.254.43518/", "link-local"),
        ("https://[::ffff:169.254.169.254]/", "link-local"),
        ("https://[fe80::1%25eth0]/", "link-local"),
        ("https://[fd00:ec2::254]/", "link-local"),
        ("https://metadata.google.internal./", "link-local"),
        ("https://user:pass@a.com/v1", "api_key"),
        ("https://user@a.com/v1", "api_key"),
        ("https://a.com/v1?key=abc", "api_key"),
        ("https://a.com/v1#abc", "api_key"),
        ("https://a.com/v1/chat/completions", "the task adds the rest"),
        ("https://a.com/v1/embeddings/", "the task adds the rest"),
    ],
)
def test_a_bad_address_is_told_what_to_be(url: str, said: str) -> None:
    assert said in messages(url)


@settings(deadline=None)
@given(st.text(st.sampled_from("htps:/@?#[]%.1:aA\\ "), max_size=25) | st.text(max_size=15))
def test_any_address_is_refused_or_safe(url: str) -> None:
    for address in (url, f"https://{url}"):
        if not messages(address):
            parts = urlsplit(address)
            assert parts.hostname
            assert parts.scheme == "https" or is_loopback(parts.hostname)
            assert (parts.username, parts.query, parts.fragment) == (None, "", "")


def test_an_address_is_judged_after_expansion_and_never_repeated() -> None:
    lane = {"base_url": "${URL}"}
    faults = connection_faults(("providers", 0), lane, {"URL": "http://tok3n@evil.example/v1?k=tok3n"})
    assert [fault.path for fault in faults] == ["providers.0.base_url"] * 3
    assert "tok3n" not in repr(faults)
    assert "evil" not in repr(faults)


@pytest.mark.parametrize("key", ["sk-1\n", " sk-1", "sk–1", "sk-\x001"])
def test_a_key_that_http_cannot_carry_is_a_fault_that_does_not_show_it(key: str) -> None:
    (fault,) = connection_faults(("providers", 0), {"api_key": "${K}"}, {"K": key})
    assert fault.path == "providers.0.api_key"
    assert key.strip() not in repr(fault)


def test_headers_are_expanded_and_checked_one_by_one() -> None:
    headers = {
        "X-Good": "Bearer ${KEY}",
        "X-Missing": "${ABSENT}",
        "X-Split": "${TWO}",
        "bad name": "x",
        "X.Dot": "${}",
        "X-Number": 5,
    }
    faults = connection_faults(("providers", 1), {"headers": headers}, {**ENVIRON, "TWO": "a\r\nHost: b"})
    assert [fault.path for fault in faults] == [
        "providers.1.headers.X-Missing",
        "providers.1.headers.X-Split",
        'providers.1.headers."bad name"',
        'providers.1.headers."X.Dot"',
    ]


def test_what_has_another_type_is_passed_over() -> None:
    assert connection_faults(("providers", 0), {"api_key": 5, "base_url": None, "headers": "x"}, {}) == []
