"""Idle connections of one lane, the newest first, and places for those that may be open at once.

The newest first, so that the surplus of a burst grows old and is closed. Who finds neither connection nor place
waits in line; a connection that comes back goes to the first in the line and not to whoever comes by.
"""

import asyncio
from collections import deque
from typing import Generic, Protocol, TypeVar

from batchllm.provider.deadlines import Timer, Timers

#: Idle connections are kept this long. Servers that close sooner are noticed; the race that is left grows with it.
KEEP_ALIVE_S = 15.0


class Poolable(Protocol):
    """What the pool knows of a connection."""

    idle_since_s: float

    @property
    def is_fit(self) -> bool:
        """Whether a call may be made on it."""

    def release(self) -> bool:
        """Its call is over; whether another one may follow."""

    def abort(self) -> None: ...


ConnectionT = TypeVar("ConnectionT", bound=Poolable)


class Pool(Generic[ConnectionT]):
    """Of at most `limit` connections, 0: of as many as are asked for.

    A place belongs to a connection from before it is opened until it is dropped.
    """

    def __init__(self, timers: Timers, limit: int) -> None:
        self._timers = timers
        self._limit = limit
        self._places_taken = 0
        self._idle: dict[ConnectionT, None] = {}  # the newest last
        self._line: deque[asyncio.Future[ConnectionT | None]] = deque()
        self._timer: Timer | None = None

    @property
    def idle_count(self) -> int:
        return len(self._idle)

    def take(self) -> ConnectionT | None:
        """An idle connection that a call may be made on, if there is one."""
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.is_fit and self._timers.time() - connection.idle_since_s <= KEEP_ALIVE_S:
                return connection
            self._drop(connection)
        return None

    async def place(self) -> ConnectionT | None:
        """Wait for a connection; None: for the right to open one, which is returned with `free` if that fails."""
        if not self._limit or self._places_taken < self._limit:
            self._places_taken += 1
            return None
        turn: asyncio.Future[ConnectionT | None] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            return await turn
        except asyncio.CancelledError:
            self._leave(turn)
            raise

    def put(self, connection: ConnectionT) -> None:
        """The call on it is over."""
        if not connection.release():
            self._drop(connection)
            return
        turn = self._first_in_line()
        if turn is not None:
            turn.set_result(connection)
            return
        connection.idle_since_s = self._timers.time()
        self._idle[connection] = None
        if self._timer is None:
            self._timer = self._timers.call_at(connection.idle_since_s + KEEP_ALIVE_S, self._expire)

    def lost(self, connection: ConnectionT) -> None:
        """It has ended. One that carries a call comes back by `put`."""
        if connection in self._idle:
            del self._idle[connection]
            self.free()

    def free(self) -> None:
        """A place is not needed any more."""
        turn = self._first_in_line()
        if turn is None:
            self._places_taken -= 1
        else:
            turn.set_result(None)

    def drop_idle(self) -> None:
        idle, self._idle = self._idle, {}
        for connection in idle:
            self._drop(connection)

    def close(self, error: Exception) -> None:
        """End what is idle, and the wait of those in line with `error`."""
        while (turn := self._first_in_line()) is not None:
            turn.set_exception(error)
        self.drop_idle()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _drop(self, connection: ConnectionT) -> None:
        connection.abort()
        self.free()

    def _first_in_line(self) -> "asyncio.Future[ConnectionT | None] | None":
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                return turn
        return None

    def _leave(self, turn: "asyncio.Future[ConnectionT | None]") -> None:
        """Cancelled in line: what it was given at the same moment goes to the next."""
        if turn.cancelled() or turn.exception() is not None:
            return
        connection = turn.result()
        if connection is None:
            self.free()
        else:
            self.put(connection)

    def _expire(self) -> None:
        """The oldest stand first."""
        self._timer = None
        oldest_s = self._timers.time() - KEEP_ALIVE_S
        for connection in list(self._idle):
            if connection.idle_since_s > oldest_s:
                self._timer = self._timers.call_at(connection.idle_since_s + KEEP_ALIVE_S, self._expire)
                return
            del self._idle[connection]
            self._drop(connection)
