"""One HTTP call by the openai SDK: the reply as it came, or a failure.

The SDK makes the request and reads the stream; it retries nothing, and follows no redirect, which would carry the key
and the prompt to another host. Its headers are ours: variables such as OPENAI_CUSTOM_HEADERS or OPENAI_ORG_ID would
otherwise travel to whichever provider is asked.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import Mapping
from time import monotonic
from typing import Self
from urllib.parse import urlsplit

import httpx2
import openai
from openai import AsyncOpenAI, AsyncStream, DefaultAsyncHttpxClient, Omit

from batchllm.client.transport import BoundedTransport, TooLargeError
from batchllm.provider.heads import check_headers, check_url, merged, standard_headers, user_agent
from batchllm.provider.proxy import proxy_for
from batchllm.provider.redact import one_line
from batchllm.provider.wire_faults import failure_of
from batchllm.records import Action, Failure, FailureCode, Response

_NO_KEY = "-"
#: What is told in words of its own, most telling first.
_TOLD: tuple[tuple[type[BaseException], str], ...] = (
    (socket.gaierror, "the name of {host} cannot be resolved"),
    (httpx2.ConnectTimeout, "no connection to {host} within connect_timeout_s"),
    (httpx2.ProxyError, "no connection to {host} through the proxy: see HTTPS_PROXY and NO_PROXY"),
    (ConnectionRefusedError, "no connection to {host}: {why}"),
    (TooLargeError, "the answer of {host} is too large: {why}"),
)


class _Sdk(AsyncOpenAI):
    """`given` are all the headers that a request has beside what HTTP itself needs."""

    def __init__(self, given: Mapping[str, str], **options: object) -> None:
        self._given = dict(given)
        super().__init__(api_key=_NO_KEY, max_retries=0, **options)  # type: ignore[arg-type]  # the SDK's own, handed on

    @property
    def default_headers(self) -> dict[str, str | Omit]:
        return dict(self._given)


class Wire:
    """The connections to one address. `headers` carry the key; `secrets` never reach a message."""

    def __init__(
        self,
        base_url: str,
        headers: Mapping[str, str],
        *,
        secrets: tuple[str, ...],
        connect_timeout_s: float,
        environ: Mapping[str, str],
    ) -> None:
        check_url(base_url)
        check_headers(headers)
        self.host = urlsplit(base_url).netloc
        self._secrets = secrets
        given = merged(standard_headers(user_agent()), headers)
        given["Accept-Encoding"] = "identity"  # so that a reply is as large as what comes over the wire
        has_key = any(name.lower() == "authorization" for name in given)
        self._omitted: dict[str, Omit] = {} if has_key else {"Authorization": Omit()}
        proxy = proxy_for(base_url, environ)
        self._sdk = _Sdk(
            given,
            base_url=base_url,
            http_client=DefaultAsyncHttpxClient(
                timeout=httpx2.Timeout(None, connect=connect_timeout_s),
                follow_redirects=False,
                trust_env=False,  # the proxy is found as for a run, and no .netrc is asked
                # Making a TLS context takes 30 ms, and a local server has no use for it.
                transport=BoundedTransport(proxy=proxy, verify=urlsplit(base_url).scheme == "https"),
            ),
        )

    async def get(self, path: str, deadline_s: float) -> Response | Failure:
        return await self._timed(deadline_s, path, None)

    async def post(self, path: str, body: bytes, deadline_s: float) -> Response | Failure:
        return await self._timed(deadline_s, path, body)

    async def stream(self, path: str, body: bytes, deadline_s: float) -> "Events | Response | Failure":
        """The events of a reply, which must be closed; a Response where the server answers whole, or refuses."""
        started_s = monotonic()
        try:
            async with asyncio.timeout(deadline_s):
                opened = await self._opened(path, body)
        except (openai.APIError, TimeoutError, ssl.SSLError, OSError) as error:
            return self._outcome(error, started_s, deadline_s)
        if "application/json" not in opened.response.headers.get("content-type", ""):
            return Events(opened, self, started_s, deadline_s)
        try:
            return await self._whole(opened.response, started_s, deadline_s)
        finally:
            await opened.close()

    async def close(self) -> None:
        await self._sdk.close()

    async def _opened(self, path: str, body: bytes) -> AsyncStream[object]:
        return await self._sdk.post(
            path,
            cast_to=object,
            content=body,
            options={"headers": {**self._omitted, "Accept": "text/event-stream"}},
            stream=True,
            stream_cls=AsyncStream[object],
        )

    async def _whole(
        self, response: httpx2.Response, started_s: float, deadline_s: float
    ) -> Response | Failure:
        try:
            async with asyncio.timeout(max(0.0, deadline_s - (monotonic() - started_s))):
                await response.aread()
        except (httpx2.HTTPError, TimeoutError, OSError) as error:
            return self._outcome(error, started_s, deadline_s)
        return _reply(response, started_s)

    async def _timed(self, deadline_s: float, path: str, body: bytes | None) -> Response | Failure:
        started_s = monotonic()
        try:
            async with asyncio.timeout(deadline_s):
                if body is None:
                    reply = await self._sdk.get(
                        path, cast_to=httpx2.Response, options={"headers": self._omitted}
                    )
                else:
                    reply = await self._sdk.post(
                        path, cast_to=httpx2.Response, content=body, options={"headers": self._omitted}
                    )
        except (openai.APIError, TimeoutError, ssl.SSLError, OSError) as error:
            return self._outcome(error, started_s, deadline_s)
        return _reply(reply, started_s)

    def _outcome(self, error: BaseException, started_s: float, deadline_s: float) -> Response | Failure:
        """A refusal is a reply, too; everything else happened below HTTP."""
        if isinstance(error, openai.APIStatusError):
            return _reply(error.response, started_s)
        return self.failure(error, deadline_s)

    def failure(self, error: BaseException, deadline_s: float) -> Failure:
        return _failure(error, self.host, deadline_s, self._secrets)


class Events:
    """The events of one reply, parsed, up to its end. Raises StreamBrokenError inside the iteration."""

    def __init__(self, stream: AsyncStream[object], wire: Wire, started_s: float, deadline_s: float) -> None:
        self._stream = stream
        self._wire = wire
        self._ends_s = started_s + deadline_s
        self._deadline_s = deadline_s
        self.started_s = started_s

    @property
    def headers(self) -> Mapping[str, str]:
        return {name.lower(): value for name, value in self._stream.response.headers.items()}

    async def close(self) -> None:
        await self._stream.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> object:
        """The deadline is of the whole answer, however it trickles."""
        try:
            async with asyncio.timeout(max(0.0, self._ends_s - monotonic())):
                return await anext(self._stream)
        except openai.APIError as error:
            raise StreamBrokenError(self._failure_of(error)) from None
        except ValueError:
            message = f"an event that {self._wire.host} sent is no JSON"
            raise StreamBrokenError(Failure(Action.AGAIN, FailureCode.MALFORMED, message)) from None
        except (TimeoutError, OSError) as error:
            raise StreamBrokenError(self._wire.failure(error, self._deadline_s)) from None

    def _failure_of(self, error: openai.APIError) -> object:
        is_told = error.body is not None and not isinstance(error, openai.APIConnectionError)
        return error.body if is_told else self._wire.failure(error, self._deadline_s)


class StreamBrokenError(Exception):
    """A stream ended before its answer did; `cause` is a Failure, or the error that the provider sent."""

    def __init__(self, cause: object) -> None:
        super().__init__("the stream broke off")
        self.cause = cause


def _reply(response: httpx2.Response, started_s: float) -> Response:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Response(response.status_code, headers, response.content, monotonic() - started_s)


def _failure(error: BaseException, host: str, deadline_s: float, secrets: tuple[str, ...]) -> Failure:
    """The SDK and its transport wrap what happened several times."""
    chain = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None and len(chain) < 12:
        chain.append(inner)
    for kind, text in _TOLD:
        found = next((one for one in chain if isinstance(one, kind)), None)
        if found is not None:
            message = text.format(host=host, why=_why(found))
            return Failure(Action.AGAIN, FailureCode.CONNECTION, one_line(message, secrets))
    is_late = any(isinstance(one, TimeoutError | httpx2.TimeoutException) for one in chain)
    told = next((one for one in chain if isinstance(one, ssl.SSLCertVerificationError)), chain[0])
    return failure_of(TimeoutError() if is_late else told, host=host, deadline_s=deadline_s, secrets=secrets)


def _why(error: BaseException) -> str:
    """The system's word: the loop puts addresses into the text of a refused connection."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None:
        inner = error.__cause__ or error.__context__
        return _why(inner) if inner is not None else str(error)
    return os.strerror(number)
