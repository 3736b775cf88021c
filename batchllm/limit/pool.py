"""What a provider limits, and its name in a file that must not give a key away."""

import hashlib
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Pool:
    """All lanes of all processes that ask one model of one service with one key."""

    base_url: str
    model: str
    api_key: str = field(default="", repr=False)

    def name(self, secret: bytes) -> bytes:
        """16 bytes that tell nothing to whoever does not have `secret` (up to 64 bytes), not even for a guessed key.

        `secret` never stands in the file that the names stand in.
        """
        digest = hashlib.blake2b(key=secret, digest_size=16, person=b"batchllm-pool")
        for part in (_place(self.base_url), self.api_key, self.model):
            text = part.encode("utf-8", "surrogatepass")
            digest.update(len(text).to_bytes(8, "big"))
            digest.update(text)
        return digest.digest()


def _place(base_url: str) -> str:
    """Scheme, host and path: whatever else is written there makes no other limit."""
    try:
        parts = urlsplit(base_url.strip())
        port = parts.port
    except ValueError:  # no address at all: still the same text for the same lane
        return base_url
    host = (parts.hostname or "").rstrip(".")
    where = host if port in (None, _DEFAULT_PORTS.get(parts.scheme)) else f"{host}:{port}"
    return f"{parts.scheme}://{where}{parts.path.rstrip('/')}"
