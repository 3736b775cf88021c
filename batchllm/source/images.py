"""Images that rows name by path.

A row is rendered in the thread that reads the input, or before a run begins, so a file may be read right there: the
event loop waits for none of it. This is the only part of rendering that opens files, and so it stands here, behind
`ports.ImageFiles`, and the tasks stay free of the disk.
"""

import os
import stat
from pathlib import Path

from batchllm.errors import RowInputError


class ImageFolder:
    """Relative paths begin in `root`, the folder of the job file."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, path: str, most_bytes: int) -> bytes:
        """The whole file. Raises RowInputError: missing, unreadable, no file, or larger than `most_bytes`."""
        try:
            # Not blocking: a named pipe that nobody writes to would hold up the run for ever.
            handle = os.open(self._root / path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        except (OSError, ValueError) as error:
            raise RowInputError(f"the image {path!r} cannot be opened: {_reason(error)}") from None
        try:
            with os.fdopen(handle, "rb") as file:
                if not stat.S_ISREG(os.fstat(handle).st_mode):
                    raise RowInputError(f"the image {path!r} is no regular file")
                data = file.read(most_bytes + 1)
        except OSError as error:
            raise RowInputError(f"the image {path!r} cannot be read: {_reason(error)}") from None
        if len(data) > most_bytes:
            raise RowInputError(f"the image {path!r} is larger than {most_bytes / 1e6:g} MB")
        return data


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
