"""A small disk of one's own: a tmpfs in a mount namespace, in which commands run and which the test looks into."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent
_MOUNT = 'mount -t tmpfs -o size="$1" tmpfs "$2" && echo mounted && exec cat'


def has_namespaces() -> bool:
    """Whether this user may mount a tmpfs for itself, and enter its namespace again."""
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        return False
    tried = ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(tried, capture_output=True, check=False).returncode == 0


class SmallDisk:
    """`place` is where commands that `start` runs see it; `seen` where the test does."""

    def __init__(self, holder: subprocess.Popen[str], place: Path) -> None:
        self._holder = holder
        self._started: list[subprocess.Popen[str]] = []
        self.place = place
        self.seen = Path(f"/proc/{holder.pid}/root{place}")

    def start(self, args: Sequence[str], **environ: str) -> subprocess.Popen[str]:
        enter = ["nsenter", "-t", str(self._holder.pid), "-U", "-m", "--preserve-credentials"]
        process = subprocess.Popen(
            [*enter, *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(ROOT), **environ},  # it starts in /
        )
        self._started.append(process)
        return process

    def close(self) -> None:
        """End what a test that failed has left running."""
        for process in self._started:
            process.kill()

    def batchllm(self, *args: str, **environ: str) -> subprocess.Popen[str]:
        return self.start([sys.executable, "-m", "batchllm", *args], **environ)

    def remount(self, option: str) -> None:
        mount = self.start(["mount", "-o", f"remount,{option}", str(self.place)])
        _, error = mount.communicate(timeout=20)
        assert mount.returncode == 0, error

    @property
    def free_bytes(self) -> int:
        found = os.statvfs(self.seen)
        return found.f_bavail * found.f_frsize

    def fill(self) -> None:
        """To the last byte, as a neighbour may do it at any moment."""
        with (self.seen / "neighbour").open("ab", buffering=0) as file:
            for size in (1 << 16, 1 << 12, 1):
                try:
                    while True:
                        file.write(bytes(size))
                except OSError:
                    continue

    def clear(self) -> None:
        (self.seen / "neighbour").unlink()


@contextmanager
def small_disk(place: Path, mebibytes: int) -> Iterator[SmallDisk]:
    place.mkdir(parents=True, exist_ok=True)
    command = ["unshare", "-rm", "sh", "-c", _MOUNT, "sh", f"{mebibytes}m", str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "mounted\n"
            disk = SmallDisk(holder, place)
            try:
                yield disk
            finally:
                disk.close()
        finally:
            holder.kill()
