"""A file that holds space for the moment at which the disk is full: removed then, it makes room for what is paid for.

A floor below which nothing is sent cannot keep a neighbour from taking the rest of the disk at once. What has been
asked by then comes home and must be kept; it is kept where the ballast was.
"""

import errno
import os
from contextlib import suppress
from pathlib import Path

from batchllm.journal.files import NO_SPACE, open_new, remove_files, storage_fault

_CHUNK = bytes(1 << 20)
#: Not enough room, a limit of this process on the size of a file, a disk that cannot reserve: a run without ballast.
_NONE_TO_HAVE = NO_SPACE | {errno.EFBIG, errno.EINVAL, errno.EOPNOTSUPP}


class Ballast:
    """Of `size` bytes; none with 0."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self.size = size

    def fill(self) -> bool:
        """Take the space; False when it is not to be had. Whatever stood there before is gone."""
        if not self.size:
            return False
        try:
            self.drop()
            descriptor = open_new(self._path, 0o600)
            try:
                _allocate(descriptor, self.size)
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno not in _NONE_TO_HAVE:
                raise storage_fault("create", self._path, error) from error
            with suppress(OSError):  # half of it helps nobody; where it cannot be removed the next start does
                self._path.unlink(missing_ok=True)
            return False
        return True

    def drop(self) -> bool:
        """Give the space back; whether there was any."""
        was_there = os.path.lexists(self._path)
        if was_there:
            remove_files([self._path])
        return was_there


def _allocate(descriptor: int, size: int) -> None:
    reserve = getattr(os, "posix_fallocate", None)
    if reserve is not None:
        reserve(descriptor, 0, size)
        return
    for start in range(0, size, len(_CHUNK)):  # macOS has no such call
        os.write(descriptor, _CHUNK[: size - start])
