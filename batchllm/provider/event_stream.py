"""Server-sent events, out of bytes that were cut anywhere: no socket, no clock.

Only what providers send is read: the data of each event. Its name stands in the data as well, comments (`: keep-alive`)
are the sender's sign of life, ids and retry times mean nothing to a call that is made once.
"""

_MARK = b"data:"
_BOM = b"\xef\xbb\xbf"


class EventReader:
    """Pieces in, the data of whole events out, in order."""

    __slots__ = ("_data", "_is_new", "_pieces")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # of a line whose end has not come
        self._data: list[bytes] = []
        self._is_new = True

    def feed(self, data: bytes) -> list[bytes]:
        if b"\n" not in data:
            self._pieces.append(data)
            return []
        if self._pieces:
            data = b"".join((*self._pieces, data))
            self._pieces.clear()
        if self._is_new:
            self._is_new = False
            data = data.removeprefix(_BOM)
        lines = data.split(b"\n")
        if rest := lines.pop():
            self._pieces.append(rest)
        return self._events(lines)

    def end(self) -> list[bytes]:
        """What stands behind the last line break; servers leave the blank line after the last event away."""
        return self.feed(b"\n\n")

    def _events(self, lines: list[bytes]) -> list[bytes]:
        events = []
        for ended in lines:
            line = ended.removesuffix(b"\r")
            if line.startswith(_MARK):
                self._data.append(line[len(_MARK) :].removeprefix(b" "))
            elif not line and self._data:
                events.append(self._data[0] if len(self._data) == 1 else b"\n".join(self._data))
                self._data = []
        return events
