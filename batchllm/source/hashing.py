"""The digest of what is read, made in a thread beside the reading: SHA-256 lets go of the interpreter."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256


class Hashing:
    """No more than two pieces are in memory: one that is hashed, and the next one."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._digest = sha256()
        self._last: Future[None] | None = None

    def update(self, data: bytes) -> None:
        self._wait()
        self._last = self._pool.submit(self._digest.update, data)

    def hexdigest(self) -> str:
        self._wait()
        return self._digest.hexdigest()

    def _wait(self) -> None:
        if self._last is not None:
            self._last.result()


@contextmanager
def hashing() -> Iterator[Hashing]:
    with ThreadPoolExecutor(1, thread_name_prefix="batchllm-digest") as pool:
        yield Hashing(pool)
