"""A server's process: its files, its start, and its end with everything that it started."""

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.peers.results import problem
from benchmarks.real_servers.catalogue import Place, Server
from benchmarks.servers import ServerError

_START_S = 300.0
_PREPARE_S = 300.0
_STOP_S = 20.0


@contextmanager
def running(server: Server, place: Place) -> Iterator[str]:
    """Its base_url, once it answers. Raises ServerError with the last line that it said."""
    environ = environment(server, place)
    for name, text in server.files(place).items():
        (place.folder / name).write_text(text, "utf-8")
    for command in server.prepare(place):
        _prepared(command, place, environ)
    log = place.folder / "server.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            server.command(place),
            cwd=place.folder,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait(process, f"{place.url}{server.ready}", log)
        yield f"{place.url}{server.base}"
    finally:
        _end(process)


def environment(server: Server, place: Place) -> dict[str, str]:
    """All that a server gets: no key or cache of the user's, and no hub to ask."""
    return {
        "PATH": f"{place.environment / 'bin'}:{os.environ.get('PATH', os.defpath)}",
        "HOME": str(place.folder),
        "NO_PROXY": "127.0.0.1,localhost",
        "HF_HUB_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        **server.environ,
    }


def _prepared(command: list[str], place: Place, environ: Mapping[str, str]) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=place.folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=_PREPARE_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ServerError(f"was not prepared within {_PREPARE_S:.0f} s") from error
    if done.returncode:
        raise ServerError(f"was not prepared: {last_line(done.stderr or done.stdout)}")


def _wait(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    end_s = time.monotonic() + _START_S
    while time.monotonic() < end_s:
        if process.poll() is not None:
            said = last_line(log.read_text("utf-8", "replace"))
            raise ServerError(f"did not start ({process.returncode}): {said}")
        if _answers(url):
            return
        time.sleep(0.2)
    raise ServerError(f"did not answer {url} within {_START_S:.0f} s")


def _answers(url: str) -> bool:
    """Any reply but "not yet": some servers know no such path, or want a key."""
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310 - loopback, http
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return error.code < 500
    except OSError:
        return False


def _end(process: "subprocess.Popen[bytes]") -> None:
    """The process and what it started, which is a session of its own."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return problem(lines[-1]) if lines else "it said nothing"
