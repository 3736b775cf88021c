"""The head of a request as bytes, made once a path; and what cannot stand in one, found before the first call."""

import base64
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from yarl import URL

from batchllm.errors import CredentialsError, NoProviderError
from batchllm.provider.unpacking import ACCEPTED

_NO_TOKEN = frozenset(' "(),/:;<=>?@[\\]{}')
#: Where a body begins and ends is not for a lane to say: a wrong length would make the next request part of this one.
_FRAMING = frozenset({"content-length", "transfer-encoding", "expect", "upgrade"})


def user_agent() -> str:
    try:
        return f"batchllm/{version('batchllm')}"
    except PackageNotFoundError:  # run from a source tree
        return "batchllm/0"


def standard_headers(agent: str) -> dict[str, str]:
    return {
        "User-Agent": agent,
        "Content-Type": "application/json",
        "Accept": "application/json",
        "Accept-Encoding": ACCEPTED,
    }


def render_head(url: URL, headers: Mapping[str, str], proxy: URL | None = None) -> bytes:
    """A POST to `url`, up to where the number of the body's bytes follows.

    A proxy that is asked for plain http gets the whole address and its own password.
    """
    is_by_proxy = proxy is not None and url.scheme == "http"
    target = str(url.with_fragment(None)) if is_by_proxy else url.raw_path_qs
    told = {"Host": url.host_port_subcomponent or ""}
    if is_by_proxy and proxy is not None and (proxy.raw_user is not None or proxy.raw_password is not None):
        told["Proxy-Authorization"] = _basic(proxy)
    given = {name.lower() for name in headers}
    lines = [f"{name}: {value}" for name, value in told.items() if name.lower() not in given]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([f"POST {target} HTTP/1.1", *lines, "Content-Length: "]).encode()


def path_url(base_url: str, path: str) -> URL:
    """`path` under the base URL, whose query stays behind it."""
    root, mark, query = base_url.partition("?")
    return URL(f"{root.rstrip('/')}{path}{mark}{query}")


def merged(standard: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """The given ones win, however their names are spelt."""
    names = {name.lower() for name in given}
    return {**{name: value for name, value in standard.items() if name.lower() not in names}, **given}


def check_url(base_url: str) -> None:
    """Raises NoProviderError."""
    try:
        url = URL(base_url)
    except ValueError:
        url = URL()
    if url.scheme not in ("http", "https") or not url.host or url.user or url.password:
        raise NoProviderError(
            "a base_url is no http(s) address, or has a name or password in it",
            remedy="give it as https://host/v1, and the key as api_key",
        )


def check_headers(headers: Mapping[str, str]) -> None:
    """Raises CredentialsError, without the value."""
    for name, value in headers.items():
        if not name or not name.isascii() or not name.isprintable() or set(name) & _NO_TOKEN:
            raise CredentialsError(
                f"{name!r} cannot be the name of a header", remedy="correct the lane's headers"
            )
        if name.lower() in _FRAMING:
            raise CredentialsError(
                f"the header {name} is not for a lane to set: it says how a request is sent",
                remedy="remove it from the lane's headers",
            )
        if any(char < " " and char != "\t" for char in value) or "\x7f" in value:
            raise CredentialsError(
                f"the value of the header {name} has a line break or another control character in it",
                remedy="a key that was copied from a file often ends in a line break: remove it",
            )
        if any("\ud800" <= char <= "\udfff" for char in value):
            raise CredentialsError(
                f"the value of the header {name} has bytes in it that are no UTF-8",
                remedy="set the variable that it comes from anew",
            )


def _basic(proxy: URL) -> str:
    pair = f"{proxy.user or ''}:{proxy.password or ''}"
    raw = pair.encode("latin-1") if max(pair) <= "\xff" else pair.encode()
    return f"Basic {base64.b64encode(raw).decode()}"
