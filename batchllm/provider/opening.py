"""Connections, made by aiohttp and taken over from it: names, both families, proxies with CONNECT, TLS.

aiohttp's connector is years of other people's networks and is kept for that. Its client is not: a call through
`ClientSession` costs 4 to 7 times what the exchange itself takes (see `connection`). The handover uses what is
public: `connect()` gives a connection with a transport, the transport gets another protocol, and aiohttp's own is
told that its connection is gone, after which closing it touches no socket.

Opening by hand (aiohappyeyeballs and `loop.create_connection`) would have needed a cache of names with one lookup
for many callers, CONNECT, and TLS within TLS: 200 lines in the place of 30, each with its own way to fail.
"""

import asyncio
import ssl

from aiohttp import ClientRequest, ClientTimeout, TCPConnector
from yarl import URL

from batchllm.provider.exchange import HalfSentError

_DNS_TTL_S = 60
#: The caller's limit covers name, socket, proxy and TLS together.
_NO_LIMIT = ClientTimeout()


class Opener:
    """Opens connections to the host of `url`. To be made in the running loop."""

    def __init__(self, url: URL, proxy: URL | None, ssl_context: ssl.SSLContext | None) -> None:
        self._url = url
        self._proxy = proxy
        self._connector = TCPConnector(
            limit=0, use_dns_cache=True, ttl_dns_cache=_DNS_TTL_S, ssl=ssl_context or True
        )

    async def open(self) -> asyncio.Transport:
        """A transport that waits for its protocol, which must be set before the loop turns.

        Raises aiohttp.ClientError, HttpProcessingError, OSError, HalfSentError.
        """
        request = ClientRequest("POST", self._url, loop=asyncio.get_running_loop(), proxy=self._proxy)
        connection = await self._connector.connect(request, [], _NO_LIMIT)
        protocol, transport = connection.protocol, connection.transport
        if protocol is None or transport is None or transport.is_closing():
            connection.close()
            raise HalfSentError
        protocol.connection_lost(None)
        connection.close()
        return transport

    async def close(self) -> None:
        await self._connector.close()
