"""Which proxy the environment asks for. Pure: the environment is handed in.

HTTP libraries read these variables at every call, in a thread, and some crash on what people put into NO_PROXY.
A lane has one host, so the answer is found once. Loopback is never sent through a proxy: a local server, or the
simulator, would be out of its reach.
"""

from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

from batchllm.errors import NoProviderError

_DEFAULT_PORTS = {"http": 80, "https": 443}


def proxy_for(base_url: str, environ: Mapping[str, str]) -> str | None:
    """The URL of the proxy to use for `base_url`, None for a direct connection. Raises NoProviderError."""
    parts = urlsplit(base_url)
    host = (parts.hostname or "").lower().rstrip(".")
    if is_loopback(host):
        return None
    name, value = _configured(parts.scheme, environ)
    if not value or _is_exempt(host, _port(parts), _lookup("no_proxy", environ)):
        return None
    proxy = value if "://" in value else f"http://{value}"
    proxy_parts = urlsplit(proxy)
    if proxy_parts.scheme not in _DEFAULT_PORTS or not proxy_parts.hostname:
        raise NoProviderError(
            f"{name.upper()} names a proxy of the kind {proxy_parts.scheme!r}, which is not supported",
            remedy=f"give an http:// proxy, or add {host} to NO_PROXY",
        )
    return proxy


def is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def _configured(scheme: str, environ: Mapping[str, str]) -> tuple[str, str]:
    for name in (f"{scheme}_proxy", "all_proxy"):
        value = _lookup(name, environ)
        if value:
            return name, value
    return "", ""


def _lookup(name: str, environ: Mapping[str, str]) -> str:
    """Both spellings are in use; the lower-case one goes first, as curl has it."""
    return (environ.get(name) or environ.get(name.upper()) or "").strip()


def _port(parts: SplitResult) -> int | None:
    try:
        return parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None


def _is_exempt(host: str, port: int | None, no_proxy: str) -> bool:
    return any(
        _matches(host, port, entry)
        for entry in (part.strip().lower() for part in no_proxy.split(","))
        if entry
    )


def _matches(host: str, port: int | None, entry: str) -> bool:
    """`*`, a host, a domain with or without its dot, an address, a network in CIDR form; each may name a port."""
    if entry == "*":
        return True
    try:
        network = ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        name, _, told_port = entry.rpartition(":")
        if name and told_port.isdecimal():
            return int(told_port) == port and _matches(host, None, name)
        domain = entry.removeprefix("*").strip("[].")
        return bool(domain) and (host == domain or host.endswith(f".{domain}"))
    try:
        return ip_address(host) in network
    except ValueError:
        return False
