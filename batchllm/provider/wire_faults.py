"""What goes wrong below HTTP, as failures.

The exceptions of the exchange, and those of the HTTP library, which makes the connections, end here. The table goes
from the special to the general, and its last entries take whatever is left, so that no fault of the network can end
a run. What was surely not processed is not billed; once a request may have left, nobody can say.
"""

import errno
import ssl
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import aiohttp
from aiohttp.http import HttpProcessingError

from batchllm.provider.exchange import HalfSentError, LostError, StalledError
from batchllm.provider.redact import one_line
from batchllm.provider.reply import BrokenReplyError, NoHttpError, NoReplyError
from batchllm.records import Action, Billed, Failure, FailureCode

_MESSAGE_CHARS = 300


class _Place(NamedTuple):
    """Where it went wrong."""

    host: str
    deadline_s: float


_Teller: TypeAlias = Callable[[BaseException, _Place], str]


class _Fault(NamedTuple):
    kinds: tuple[type[BaseException], ...]
    tell: _Teller
    code: FailureCode = FailureCode.CONNECTION
    billed: Billed = Billed.UNKNOWN
    remedy: str = ""
    is_dead: bool = False


def _says(text: str) -> _Teller:
    """`{host}`, `{why}` and `{deadline_s}` are filled in."""
    return lambda error, place: text.format(host=place.host, why=_why(error), deadline_s=place.deadline_s)


def _why(error: BaseException) -> str:
    """The innermost cause in words: wrappers repeat the URL, and hide what happened four levels down."""
    deepest = error
    for deepest in _chain(error):
        if isinstance(deepest, OSError) and deepest.errno is not None and deepest.strerror:
            return deepest.strerror
    if isinstance(deepest, HttpProcessingError):
        return " ".join(line.strip() for line in deepest.message.splitlines() if line.strip(" ^"))
    return str(deepest) or type(deepest).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    for _ in range(10):
        if current is None:
            return
        yield current
        inner = getattr(current, "os_error", None)
        current = (
            current.__cause__ or (inner if isinstance(inner, BaseException) else None) or current.__context__
        )


def _proxy_status(error: BaseException, place: _Place) -> str:
    status = error.status if isinstance(error, aiohttp.ClientHttpProxyError) else 0
    return f"the proxy on the way to {place.host} answered with HTTP {status}"


_FAULTS: tuple[_Fault, ...] = (
    _Fault(
        (aiohttp.ClientConnectorCertificateError, ssl.SSLCertVerificationError),
        _says("the TLS certificate of {host} is not trusted: {why}"),
        billed=Billed.NO,
        remedy="for a private authority set SSL_CERT_FILE to its certificate",
        is_dead=True,
    ),
    _Fault(
        (aiohttp.ClientHttpProxyError,),
        _proxy_status,
        billed=Billed.NO,
        remedy="see HTTPS_PROXY and NO_PROXY",
    ),
    _Fault(
        (aiohttp.ClientProxyConnectionError,),
        _says("no connection to the proxy on the way to {host}: {why}"),
        billed=Billed.NO,
        remedy="see HTTPS_PROXY and NO_PROXY",
    ),
    _Fault(
        (aiohttp.ClientConnectorDNSError,),
        _says("the name of {host} cannot be resolved: {why}"),
        billed=Billed.NO,
        remedy="check base_url and the network",
    ),
    _Fault(
        (aiohttp.ClientConnectorSSLError,),
        _says("the TLS handshake with {host} failed: {why}"),
        billed=Billed.NO,
        remedy="is it https at all?",
    ),
    _Fault((aiohttp.ClientConnectorError,), _says("no connection to {host}: {why}"), billed=Billed.NO),
    _Fault(
        (aiohttp.ConnectionTimeoutError,),
        _says("no connection to {host} within connect_timeout_s"),
        billed=Billed.NO,
    ),
    _Fault((TimeoutError,), _says("no whole answer from {host} in {deadline_s:g} s"), FailureCode.TIMEOUT),
    _Fault((StalledError,), _says("the stream of {host} stood still: {why}"), FailureCode.TIMEOUT),
    _Fault(
        (NoReplyError, aiohttp.ServerDisconnectedError),
        _says("{host} closed the connection without an answer"),
    ),
    _Fault(
        (BrokenReplyError, aiohttp.ClientPayloadError),
        _says("the answer of {host} broke off or is damaged: {why}"),
    ),
    _Fault(
        (NoHttpError, aiohttp.ClientResponseError, HttpProcessingError),
        _says("what {host} sent is no HTTP: {why}"),
        FailureCode.MALFORMED,
    ),
    _Fault(
        (HalfSentError,),
        _says("{host} closed the connection before the request was sent"),
        billed=Billed.NO,
    ),
    _Fault((LostError, OSError), _says("the connection to {host} broke: {why}")),
    _Fault((BaseException,), _says("the call to {host} failed: {why}")),
)

#: What aiohttp raises when a part of the request meets a connection that is closing: half a request is none.
_HALF_SENT = _Fault((), _says("{host} closed the connection before the request was sent"), billed=Billed.NO)
_EXHAUSTED = {
    errno.EMFILE: "this process has no file descriptor left for a connection to {host}",
    errno.ENFILE: "this machine has no file descriptor left for a connection to {host}",
    errno.EADDRNOTAVAIL: "this machine has no local port left for a connection to {host}",
}


def failure_of(error: BaseException, *, host: str, deadline_s: float, secrets: Sequence[str] = ()) -> Failure:
    """What to make of an exception of the HTTP library."""
    place = _Place(host, deadline_s)
    chain = tuple(_chain(error))
    exhausted = next((_EXHAUSTED[code] for code in map(_errno, chain) if code in _EXHAUSTED), None)
    if exhausted is not None:
        fault = _Fault(
            (), _says(exhausted), billed=Billed.NO, remedy="raise `ulimit -n` or lower the lane's concurrency"
        )
    elif any(
        isinstance(cause, aiohttp.ClientConnectionResetError) and "closing" in str(cause) for cause in chain
    ):
        fault = _HALF_SENT
    else:
        fault = next(fault for fault in _FAULTS if isinstance(error, fault.kinds))
    tail = f" ({fault.remedy})" if fault.remedy else ""
    return Failure(
        Action.ELSEWHERE if fault.is_dead else Action.AGAIN,
        fault.code,
        one_line(fault.tell(error, place), secrets, _MESSAGE_CHARS - len(tail)) + tail,
        billed=fault.billed,
        lane_is_dead=fault.is_dead,
    )


def too_late() -> Failure:
    """Its time was over before it was sent."""
    return Failure(Action.AGAIN, FailureCode.TIMEOUT, "the deadline was over before the call was sent")


def reply_too_large(status: int, max_bytes: int) -> Failure:
    return Failure(
        Action.AGAIN,
        FailureCode.MALFORMED,
        f"the answer is larger than {max_bytes:,} bytes and was not read to its end",
        status=status,
        billed=Billed.UNKNOWN,
    )


def _errno(error: BaseException) -> int | None:
    return error.errno if isinstance(error, OSError) else None
