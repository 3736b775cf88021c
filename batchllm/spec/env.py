"""`${NAME}`: what may be read from the environment, and where a key may be sent.

Only `api_key`, `base_url`, `headers` and paths are ever expanded; everywhere else `${NAME}` is plain text, so that
neither a prompt nor a row can read the environment. There are no defaults and no nesting: a variable that is not
set is a fault of the job, found before anything is sent, and not an empty key that a provider refuses later.
An address is checked after expansion and is not repeated in a message, for it may hold what should be secret.
"""

import re
import socket
from collections.abc import Iterator, Mapping
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import SplitResult, urlsplit

from batchllm.errors import BatchllmError, ExitCode, Fault
from batchllm.spec.faults import Parts, dotted

CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")

_TOKEN = re.compile(r"\$\$\{|\$\{(?P<name>[^}]*)\}|\$\{")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: RFC 9110 §5.6.2: what the name of a header may be made of.
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_SYNTAX_REMEDY = "write ${NAME}, a name of letters, digits and _; $${ stands for ${ itself"
#: Answers on these addresses are a cloud machine's own credentials, to whoever asks from inside it.
_METADATA_HOSTS = frozenset({"metadata.google.internal"})
_METADATA_ADDRESSES = frozenset({IPv6Address("fd00:ec2::254"), IPv4Address("100.100.100.200")})


class ExpansionError(BatchllmError):
    """`missing` names the variables that are not set or empty; `malformed` the `${...}` that name none."""

    exit_code = ExitCode.CONFIG

    def __init__(self, missing: tuple[str, ...], malformed: tuple[str, ...]) -> None:
        self.missing = missing
        self.malformed = malformed
        said = [f"{_shown(name)} is not set or empty" for name in missing]
        said += ["a ${...} names no variable"] if malformed else []
        remedies = [_export_remedy(name) for name in missing] + ([_SYNTAX_REMEDY] if malformed else [])
        super().__init__("; ".join(said), remedy="; ".join(remedies))


def variables(text: str) -> list[str]:
    """The names that `text` reads, each once, in order."""
    names = (token.group("name") or "" for token in _TOKEN.finditer(text))
    return list(dict.fromkeys(name for name in names if _NAME.fullmatch(name)))


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Put values in the place of `${NAME}`, and `${` in the place of `$${`. Raises ExpansionError.

    Values are put in as they are: a `${` inside a value is text.
    """
    missing = [name for name in variables(text) if not environ.get(name, "").strip()]
    malformed = [token.group() for token in _TOKEN.finditer(text) if _is_malformed(token)]
    if missing or malformed:
        raise ExpansionError(tuple(missing), tuple(malformed))
    return _TOKEN.sub(lambda token: environ[token["name"]] if token["name"] else "${", text)


def escape(text: str) -> str:
    """Text that `expand` gives back as it was."""
    return text.replace("${", "$${")


def _is_malformed(token: re.Match[str]) -> bool:
    return token.group() != "$${" and not _NAME.fullmatch(token.group("name") or "")


def expanded(path: str, text: str, environ: Mapping[str, str]) -> str | list[Fault]:
    """The text with its variables filled in, or what keeps it from that, one fault for each variable."""
    try:
        return expand(text, environ)
    except ExpansionError as error:
        faults = [_missing_fault(path, name, environ) for name in error.missing]
        if error.malformed:
            faults.append(Fault(path, "this ${...} names no variable", _SYNTAX_REMEDY))
        return faults


def _missing_fault(path: str, name: str, environ: Mapping[str, str]) -> Fault:
    if _looks_like_key(name):
        return Fault(path, "the text inside ${...} looks like a key itself", "name a variable that holds it")
    state = "is empty" if name in environ else "is not set"
    return Fault(path, f"the environment variable {name} {state}", _export_remedy(name))


def _export_remedy(name: str) -> str:
    return "" if _looks_like_key(name) else f"set {name}: export {name}=..."


def _looks_like_key(name: str) -> bool:
    """A pasted key (gsk_...) is a valid name too, and must not be printed as one."""
    return len(name) >= 20 and any(c.islower() for c in name) and any(c.isdigit() for c in name)


def _shown(name: str) -> str:
    return "a variable" if _looks_like_key(name) else name


def connection_faults(lane_at: Parts, lane: Mapping[str, object], environ: Mapping[str, str]) -> list[Fault]:
    """What is wrong with a lane's key, address and headers. `lane` may be unchecked: other types are passed over."""
    faults: list[Fault] = []
    check_address = partial(address_faults, allows_http=lane.get("allow_http") is True)
    for name, check in (("api_key", _key_faults), ("base_url", check_address)):
        text = lane.get(name)
        if isinstance(text, str) and text:
            path = dotted((*lane_at, name))
            value = expanded(path, text, environ)
            faults += check(path, value) if isinstance(value, str) else value
    headers = lane.get("headers")
    if isinstance(headers, Mapping):
        for header, text in headers.items():
            path = dotted((*lane_at, "headers", str(header)))
            faults += _header_faults(path, str(header), text, environ)
    return faults


def _key_faults(path: str, key: str) -> Iterator[Fault]:
    if not (key.isascii() and key.isprintable()) or key != key.strip():
        message = "the key has a space at an end, a line break, or a character beyond ASCII"
        yield Fault(path, message, "copy it again; HTTP cannot carry it like this")


def _header_faults(path: str, header: str, text: object, environ: Mapping[str, str]) -> list[Fault]:
    if not _HEADER_NAME.fullmatch(header):
        return [Fault(path, "a header's name is made of letters, digits and -", "remove spaces and colons")]
    if not isinstance(text, str):
        return []
    value = expanded(path, text, environ)
    if isinstance(value, list):
        return value
    if CONTROL_CHARACTER.search(value):
        return [Fault(path, "a header cannot hold a line break or control character")]
    return []


def address_faults(path: str, url: str, *, allows_http: bool = False) -> Iterator[Fault]:
    """A base_url must be one that a key can be sent to. Names are judged as written: nothing is looked up.

    `allows_http`: http:// may lead to another machine.
    """
    if "://" not in url:
        scheme = "http" if _is_loopback(re.split("[:/]", url)[0]) else "https"
        yield Fault(path, "the address has no scheme", f"begin it with {scheme}://")
        return
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        yield Fault(path, "this is no valid address", "it looks like https://host:port/v1")
        return
    is_clean = url.isprintable() and not set(url) & set(" \\")
    if parts.scheme not in ("http", "https") or not host or not is_clean:
        yield Fault(path, "this is no web address", "it looks like https://host/v1")
        return
    yield from _part_faults(path, parts)
    yield from _host_faults(path, parts.scheme, host, allows_http=allows_http)


def _part_faults(path: str, parts: SplitResult) -> Iterator[Fault]:
    if "@" in parts.netloc:
        yield Fault(path, "a user name or password stands in the address", "a key goes to api_key")
    if parts.query or parts.fragment:
        yield Fault(path, "the address goes on after ? or #", "a key goes to api_key, or into headers")
    for ending in ("/chat/completions", "/completions", "/embeddings", "/moderations"):
        if parts.path.rstrip("/").endswith(ending):
            yield Fault(
                path, f"the address ends with {ending}", "give the part before it; the task adds the rest"
            )
            return


def _host_faults(path: str, scheme: str, host: str, *, allows_http: bool) -> Iterator[Fault]:
    address = _address(host)
    if host.rstrip(".") in _METADATA_HOSTS or (address and _is_metadata(address)):
        message = "this is a link-local address, where clouds keep their machines' credentials"
        yield Fault(path, message, "give the provider's own address")
    elif scheme == "http" and address and address.is_unspecified:
        yield Fault(path, f"{host} is an address to listen on, not to call", "write 127.0.0.1")
    elif scheme == "http" and not allows_http and not _is_loopback(host):
        message = "http:// sends the key and the prompts in the clear to another machine"
        yield Fault(
            path, message, "use https, or a tunnel to localhost; allow_http: true is for a network you trust"
        )


def _is_loopback(host: str) -> bool:
    address = _address(host)
    return address.is_loopback if address else host.lower().rstrip(".") == "localhost"


def _is_metadata(address: IPv4Address | IPv6Address) -> bool:
    return address.is_link_local or address in _METADATA_ADDRESSES


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a host stands for, in every notation that a system's resolver takes without asking."""
    try:
        found = ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return _old_notation(host)
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def _old_notation(host: str) -> IPv4Address | None:
    """`2852039166`, `0xa9fea9fe` and `169.254.43518` are all 169.254.169.254."""
    if not re.fullmatch(r"[0-9a-fA-FxX.]+", host):
        return None
    try:
        return IPv4Address(socket.inet_aton(host.rstrip(".")))
    except OSError:
        return None
