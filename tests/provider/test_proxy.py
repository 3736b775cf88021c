from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batchllm.errors import NoProviderError
from batchllm.provider.proxy import is_loopback, proxy_for

PROXY = "http://proxy.corp:3128"


@pytest.mark.parametrize(
    ("url", "environ", "proxy"),
    [
        ("https://api.example/v1", {"HTTPS_PROXY": PROXY}, PROXY),
        ("https://api.example/v1", {"https_proxy": PROXY, "HTTPS_PROXY": "http://other"}, PROXY),
        ("https://api.example/v1", {"HTTP_PROXY": PROXY}, None),
        ("http://api.example/v1", {"HTTP_PROXY": PROXY}, PROXY),
        ("https://api.example/v1", {"ALL_PROXY": PROXY}, PROXY),
        ("https://api.example/v1", {"ALL_PROXY": "http://all", "HTTPS_PROXY": PROXY}, PROXY),
        ("https://api.example/v1", {"HTTPS_PROXY": "proxy.corp:3128"}, PROXY),
        ("https://api.example/v1", {"HTTPS_PROXY": "  "}, None),
        ("https://api.example/v1", {}, None),
    ],
)
def test_proxy_comes_from_the_variable_of_the_scheme(
    url: str, environ: Mapping[str, str], proxy: str | None
) -> None:
    assert proxy_for(url, environ) == proxy


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8000/v1",
        "http://LOCALHOST./v1",
        "http://me.localhost/v1",
        "http://127.0.0.1:1/v1",
        "http://127.9.9.9/v1",
        "http://[::1]:8000/v1",
        "http://0.0.0.0:8000/v1",
    ],
)
def test_loopback_has_no_proxy(url: str) -> None:
    assert proxy_for(url, {"HTTP_PROXY": PROXY, "ALL_PROXY": "socks5://x"}) is None


@pytest.mark.parametrize("host", ["localhost.example.com", "128.0.0.1", "api.example", "", "::2"])
def test_other_hosts_are_no_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("url", "no_proxy", "is_direct"),
    [
        ("https://api.example/v1", "*", True),
        ("https://api.example/v1", "other, api.example", True),
        ("https://api.example/v1", "API.EXAMPLE", True),
        ("https://api.example/v1", ".example", True),
        ("https://api.example/v1", "*.example", True),
        ("https://api.example/v1", "example", True),
        ("https://myexample/v1", "example", False),
        ("https://api.example/v1", "api.example:443", True),
        ("https://api.example/v1", "api.example:8443", False),
        ("https://api.example:8443/v1", "api.example:8443", True),
        ("https://10.1.2.3/v1", "10.0.0.0/8", True),
        ("https://11.1.2.3/v1", "10.0.0.0/8", False),
        ("https://10.1.2.3/v1", "10.1.2.3", True),
        ("https://[fd00::1]/v1", "fd00::/8", True),
        ("https://[fd00::1]/v1", "[fd00::1]", True),
        ("https://api.example/v1", "::1/128,127.0.0.1", False),
        ("https://api.example/v1", ",,  ,", False),
        ("https://api.example/v1", "", False),
    ],
)
def test_exempt_hosts_are_reached_directly(url: str, no_proxy: str, is_direct: bool) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        assert (proxy_for(url, {"HTTPS_PROXY": PROXY, name: no_proxy}) is None) is is_direct


@pytest.mark.parametrize("value", ["socks5://me:hush@h:1", "ftp://h", "http://"])
def test_other_kinds_of_proxy_are_refused_by_name(value: str) -> None:
    with pytest.raises(NoProviderError) as caught:
        proxy_for("https://api.example/v1", {"ALL_PROXY": value})
    assert "ALL_PROXY" in str(caught.value)
    assert "hush" not in str(caught.value)


@given(st.text(max_size=30))
def test_no_exemption_is_too_strange(no_proxy: str) -> None:
    assert proxy_for("https://api.example:44/v1", {"HTTPS_PROXY": PROXY, "NO_PROXY": no_proxy}) in (
        None,
        PROXY,
    )
