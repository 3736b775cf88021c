import pytest
from yarl import URL

from batchllm.errors import CredentialsError
from batchllm.provider.heads import check_headers, merged, path_url, render_head

KEY = "sk-canary-0123456789abcdef"


def lines(url: str, headers: dict[str, str] | None = None, proxy: str | None = None) -> list[str]:
    raw = render_head(URL(url), headers or {}, URL(proxy) if proxy else None)
    return raw.decode().split("\r\n")


@pytest.mark.parametrize(
    ("url", "first", "host"),
    [
        ("https://api.example/v1/x", "POST /v1/x HTTP/1.1", "api.example"),
        ("https://api.example:8443/v1?a=b%20c#d", "POST /v1?a=b%20c HTTP/1.1", "api.example:8443"),
        ("http://api.example:80", "POST / HTTP/1.1", "api.example"),
        ("http://[::1]:8000/v1", "POST /v1 HTTP/1.1", "[::1]:8000"),
        ("https://bücher.example/ü", "POST /%C3%BC HTTP/1.1", "xn--bcher-kva.example"),
    ],
)
def test_first_line_and_host(url: str, first: str, host: str) -> None:
    assert lines(url) == [first, f"Host: {host}", "Content-Length: "]


def test_host_of_the_lane_wins() -> None:
    assert lines("http://a/", {"host": "b"}) == ["POST / HTTP/1.1", "host: b", "Content-Length: "]


def test_values_beyond_ascii_are_sent_as_utf8() -> None:
    assert b"\r\nx: \xc3\xa9\r\n" in render_head(URL("http://a/"), {"x": "é"})


def test_proxy_for_plain_http_gets_the_whole_address_and_its_password() -> None:
    told = lines("http://a.test/v1?q=1", proxy="http://me:p%40ss@proxy:1")
    assert told[0] == "POST http://a.test/v1?q=1 HTTP/1.1"
    assert told[1:3] == ["Host: a.test", "Proxy-Authorization: Basic bWU6cEBzcw=="]


def test_server_behind_a_tunnel_sees_nothing_of_the_proxy() -> None:
    told = lines("https://a.test/v1", proxy="http://me:pass@proxy:1")
    assert told == ["POST /v1 HTTP/1.1", "Host: a.test", "Content-Length: "]


@pytest.mark.parametrize("pair", ["é:ü", "пароль:x"])
def test_password_beyond_ascii_can_be_sent(pair: str) -> None:
    assert any(
        line.startswith("Proxy-Authorization: Basic ")
        for line in lines("http://a/", proxy=f"http://{pair}@p")
    )


def test_given_headers_win_however_they_are_spelt() -> None:
    assert merged({"User-Agent": "a", "Accept": "b"}, {"user-agent": "c"}) == {
        "Accept": "b",
        "user-agent": "c",
    }


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("https://h/v1", "https://h/v1/x"),
        ("https://h/v1/", "https://h/v1/x"),
        ("https://h/o/?api-version=1", "https://h/o/x?api-version=1"),
    ],
)
def test_path_goes_under_the_base_url(base_url: str, url: str) -> None:
    assert path_url(base_url, "/x") == URL(url)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Length": "1"},
        {"transfer-encoding": "chunked"},
        {"Expect": "100-continue"},
        {"Upgrade": "h2c"},
        {"a": f"{KEY}\ud800"},
        {"a": f"{KEY}\n"},
        {"a:b": KEY},
    ],
)
def test_header_that_cannot_be_sent_is_refused_without_its_value(headers: dict[str, str]) -> None:
    with pytest.raises(CredentialsError) as caught:
        check_headers(headers)
    assert KEY not in str(caught.value)


def test_ordinary_headers_pass() -> None:
    check_headers({"Authorization": f"Bearer {KEY}", "x-note": "a\tb é"})
