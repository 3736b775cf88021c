"""Is the server behind a loopback address one of our simulators?

A job that is rehearsed by overriding `base_url` must not leave answers that pass for real ones. `batchllm simulate`
says what it is in the `server` header of each reply; only this machine is asked, once, and silence means no.
"""

from http.client import HTTPConnection, HTTPException
from ipaddress import ip_address
from urllib.parse import urlsplit

SERVER = "batchllm-simulator"
_TIMEOUT_S = 1.0


def is_simulator(base_url: str) -> bool:
    """Ask a loopback server for its name; False for any other host, and for one that does not answer in time."""
    parts = urlsplit(base_url)
    if parts.scheme != "http" or parts.hostname is None or not _is_loopback(parts.hostname):
        return False
    connection = HTTPConnection(parts.hostname, parts.port or 80, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/healthz")
        reply = connection.getresponse()
        reply.read(1024)
        return reply.getheader("server") == SERVER
    except (OSError, HTTPException):
        return False  # whether it can be reached at all is for the run to find out
    finally:
        connection.close()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
