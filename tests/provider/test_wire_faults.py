"""Each exception of the HTTP library has its place; those that real sockets raise are in test_connection."""

import errno
import inspect
import socket
import ssl

import aiohttp
import pytest
from aiohttp import client_exceptions
from aiohttp.client_reqrep import ConnectionKey
from aiohttp.http import HttpProcessingError
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from batchllm.provider.exchange import HalfSentError, LostError
from batchllm.provider.reply import BrokenReplyError, NoHttpError, NoReplyError, ReplyError
from batchllm.provider.wire_faults import failure_of, reply_too_large, too_late
from batchllm.records import Action, Billed, Failure, FailureCode

KEY = "topsecret-0123456789"
CONNECTION = ConnectionKey("api.example", 443, True, True, None, None, None)
REQUEST = aiohttp.RequestInfo(
    URL(f"https://api.example/v1?key={KEY}"),
    "POST",
    CIMultiDictProxy(CIMultiDict()),
    URL("https://api.example/v1"),
)


def fault(error: BaseException) -> Failure:
    return failure_of(error, host="api.example", deadline_s=600.0, secrets=[KEY])


def caused(error: BaseException, *causes: BaseException) -> BaseException:
    inner = error
    for cause in causes:
        inner.__cause__ = cause
        inner = cause
    return error


NO_DNS = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
UNTRUSTED = ssl.SSLCertVerificationError(1, "certificate verify failed: certificate has expired")
LOST = aiohttp.ClientConnectionResetError("Cannot write to closing transport")

CASES: list[tuple[BaseException, FailureCode, Billed, str]] = [
    (
        aiohttp.ClientConnectorDNSError(CONNECTION, NO_DNS),
        FailureCode.CONNECTION,
        Billed.NO,
        "cannot be resolved",
    ),
    (
        aiohttp.ClientConnectorError(
            CONNECTION, ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        ),
        FailureCode.CONNECTION,
        Billed.NO,
        "Connection refused",
    ),
    (
        aiohttp.ClientConnectorSSLError(CONNECTION, ssl.SSLError(1, "wrong version number")),
        FailureCode.CONNECTION,
        Billed.NO,
        "handshake",
    ),
    (
        aiohttp.ClientProxyConnectionError(CONNECTION, OSError(errno.ECONNREFUSED, "Connection refused")),
        FailureCode.CONNECTION,
        Billed.NO,
        "proxy",
    ),
    (
        aiohttp.ClientHttpProxyError(REQUEST, (), status=407, message="auth"),
        FailureCode.CONNECTION,
        Billed.NO,
        "HTTP 407",
    ),
    (aiohttp.ConnectionTimeoutError("x"), FailureCode.CONNECTION, Billed.NO, "connect_timeout_s"),
    (TimeoutError(), FailureCode.TIMEOUT, Billed.UNKNOWN, "600 s"),
    (aiohttp.SocketTimeoutError("x"), FailureCode.TIMEOUT, Billed.UNKNOWN, "600 s"),
    (aiohttp.ServerDisconnectedError(), FailureCode.CONNECTION, Billed.UNKNOWN, "without an answer"),
    (aiohttp.ClientPayloadError("x"), FailureCode.CONNECTION, Billed.UNKNOWN, "broke off"),
    (aiohttp.ClientResponseError(REQUEST, (), status=400), FailureCode.MALFORMED, Billed.UNKNOWN, "no HTTP"),
    (
        HttpProcessingError(code=400, message="bad\n  ^^"),
        FailureCode.MALFORMED,
        Billed.UNKNOWN,
        "no HTTP: bad",
    ),
    (ConnectionResetError(errno.ECONNRESET, "reset"), FailureCode.CONNECTION, Billed.UNKNOWN, "reset"),
    (
        aiohttp.ClientOSError(errno.EPIPE, "Broken pipe"),
        FailureCode.CONNECTION,
        Billed.UNKNOWN,
        "Broken pipe",
    ),
    (caused(aiohttp.ClientOSError(None, "x"), LOST), FailureCode.CONNECTION, Billed.NO, "before the request"),
    (
        aiohttp.ClientConnectionError("Connection closed"),
        FailureCode.CONNECTION,
        Billed.UNKNOWN,
        "Connection closed",
    ),
    (
        caused(aiohttp.ClientOSError(None, "x"), aiohttp.ClientConnectionResetError("Connection lost")),
        FailureCode.CONNECTION,
        Billed.UNKNOWN,
        "Connection lost",
    ),
    (aiohttp.ClientError(), FailureCode.CONNECTION, Billed.UNKNOWN, "ClientError"),
    (NoReplyError(), FailureCode.CONNECTION, Billed.UNKNOWN, "without an answer"),
    (
        caused(BrokenReplyError("x"), ValueError("bad block")),
        FailureCode.CONNECTION,
        Billed.UNKNOWN,
        "damaged: bad block",
    ),
    (NoHttpError("bad status"), FailureCode.MALFORMED, Billed.UNKNOWN, "no HTTP: bad status"),
    (HalfSentError(), FailureCode.CONNECTION, Billed.NO, "before the request was sent"),
    (LostError("closed"), FailureCode.CONNECTION, Billed.UNKNOWN, "broke: closed"),
    (RuntimeError("odd"), FailureCode.CONNECTION, Billed.UNKNOWN, "odd"),
]


@pytest.mark.parametrize(
    ("error", "code", "billed", "said"), CASES, ids=[type(case[0]).__name__ for case in CASES]
)
def test_fault_of_the_wire_may_pass(
    error: BaseException, code: FailureCode, billed: Billed, said: str
) -> None:
    failure = fault(error)
    assert (failure.action, failure.lane_is_dead) == (Action.AGAIN, False)
    assert (failure.code, failure.billed) == (code, billed)
    assert said in failure.message
    assert failure.status is None


def test_certificate_that_is_not_trusted_ends_the_lane_with_a_remedy() -> None:
    failure = fault(aiohttp.ClientConnectorCertificateError(CONNECTION, UNTRUSTED))
    assert (failure.action, failure.code, failure.billed) == (
        Action.ELSEWHERE,
        FailureCode.CONNECTION,
        Billed.NO,
    )
    assert failure.lane_is_dead
    assert "SSL_CERT_FILE" in failure.message


@pytest.mark.parametrize(
    ("code", "said"),
    [(errno.EMFILE, "this process"), (errno.ENFILE, "this machine"), (errno.EADDRNOTAVAIL, "local port")],
)
def test_exhaustion_is_found_however_deep_it_hides(code: int, said: str) -> None:
    deep = OSError(code, "Too many")
    wrapped = aiohttp.ClientConnectorError(CONNECTION, caused(OSError("a"), OSError("b"), deep))  # type: ignore[arg-type]
    for error in (wrapped, caused(ValueError("1"), ValueError("2"), ValueError("3"), deep)):
        failure = fault(error)
        assert (failure.action, failure.code, failure.billed) == (
            Action.AGAIN,
            FailureCode.CONNECTION,
            Billed.NO,
        )
        assert said in failure.message
        assert "ulimit -n" in failure.message


def _of_the_library() -> list[type[BaseException]]:
    classes = {kind for _, kind in inspect.getmembers(client_exceptions, inspect.isclass)}
    return sorted(
        (kind for kind in classes if issubclass(kind, aiohttp.ClientError)), key=lambda kind: kind.__name__
    )


@pytest.mark.parametrize("kind", _of_the_library())
def test_none_of_the_library_s_exceptions_is_missing(kind: type[BaseException]) -> None:
    """Their constructors differ; what counts here is the place in the tree."""
    error = kind("bad url") if issubclass(kind, aiohttp.InvalidURL) else kind.__new__(kind)
    if isinstance(error, aiohttp.ClientConnectorError):
        error._conn_key, error._os_error = CONNECTION, OSError(1, "x")
    elif isinstance(error, aiohttp.ClientResponseError):
        error.request_info, error.status, error.message = REQUEST, 400, "x"
    failure = fault(error)
    assert failure.message
    assert failure.code in (FailureCode.CONNECTION, FailureCode.TIMEOUT, FailureCode.MALFORMED)


def test_what_the_exchange_raises_is_known_by_its_kind() -> None:
    """Each fault of a reply but the size of it, which has its own words."""
    kinds = [kind for kind in ReplyError.__subclasses__() if kind.__name__ != "ReplyTooLargeError"]
    assert {kind.__name__ for kind in kinds} == {"NoReplyError", "BrokenReplyError", "NoHttpError"}
    assert not any("the call to" in fault(kind("x")).message for kind in kinds)


def test_circle_of_causes_ends() -> None:
    one, other = OSError("one"), OSError("other")
    one.__cause__, other.__cause__ = other, one
    assert fault(one).code is FailureCode.CONNECTION


def test_secret_in_an_exception_is_hidden() -> None:
    failure = fault(aiohttp.ClientError(f"cannot reach https://api.example/v1?x={KEY}"))
    assert KEY not in failure.message
    assert "[key]" in failure.message


def test_message_is_one_line_of_bounded_length() -> None:
    failure = fault(aiohttp.ClientError("x\n\x1b" * 1_000))
    assert len(failure.message) <= 300
    assert failure.message.isprintable()


def test_call_that_was_never_sent_costs_nothing() -> None:
    assert (too_late().code, too_late().billed) == (FailureCode.TIMEOUT, Billed.NO)


def test_reply_that_is_too_large_may_be_billed() -> None:
    failure = reply_too_large(200, 1_000_000)
    assert (failure.code, failure.billed, failure.status) == (FailureCode.MALFORMED, Billed.UNKNOWN, 200)
    assert "1,000,000" in failure.message
