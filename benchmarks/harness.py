"""How everything here is measured: a command as a child, pairs within one run, medians, one report.

Absolute times are noise on a shared machine. What is compared runs in turns (`in_turns`), a ratio is taken within
each turn, and the median of the ratios is what is quoted (`paired_ratio`).
"""

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

from benchmarks.tables import Report, as_json, as_text

_CHILD = Path(__file__).with_name("child.py")
#: 1,024 connections, and files beside them.
_OPEN_FILES = 8192
#: For tables with a rate beside `core_share`.
CORE_NOTE = (
    "Rows/s hold where the command got all of its core; with less, others used the machine: go by CPU."
)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Usage:
    """What one command has used. `peak_mb` is its largest resident set, not below about 10 MB."""

    wall_s: float
    cpu_s: float
    peak_mb: float

    def cpu_us(self, rows: int) -> float:
        return self.cpu_s / rows * 1e6


@dataclass(frozen=True, slots=True)
class Ended:
    """`code` is None when the command was ended because its time was up; then there is no usage."""

    code: int | None
    usage: Usage | None
    stdout: str
    stderr: str

    @property
    def last_line(self) -> str:
        """The last line that says something, on stderr before stdout: most programs end with what went wrong."""
        said = [line.strip() for text in (self.stderr, self.stdout) for line in reversed(text.splitlines())]
        return next((line for line in said if line), "it said nothing")


class BenchmarkError(Exception):
    """Nothing can be measured like this; the message says what to do, or what was the last that was said."""


class CommandError(BenchmarkError):
    """A command that was to be measured failed; the message ends with its last line."""


def entry(main: Callable[[Sequence[str]], None]) -> None:
    """Run `main` with the command line; a BenchmarkError ends it with its message alone.

    A SIGTERM ends it like an exception, so that the servers and the children are ended as well.
    """
    signal.signal(signal.SIGTERM, _ended)
    try:
        main(sys.argv[1:])
    except BenchmarkError as error:
        raise SystemExit(str(error)) from error


def _ended(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


@dataclass(frozen=True, slots=True)
class Cores:
    """Where the measured command and the server run; None: anywhere."""

    client: int | None
    server: int | None

    def text(self) -> str:
        if self.client is None:
            return "nothing is pinned: this system has a single core or cannot pin"
        return f"measured command on core {self.client}, server on core {self.server}, one core each"


def cores() -> Cores:
    """One core for what is measured and another for its server, where the system can pin and has two."""
    if not hasattr(os, "sched_getaffinity"):
        return Cores(None, None)
    return choose_cores(os.sched_getaffinity(0))


def choose_cores(allowed: set[int]) -> Cores:
    if len(allowed) < 2:
        return Cores(None, None)
    first, second, *_ = sorted(allowed)
    return Cores(first, second)


def run_child(
    command: Sequence[str],
    *,
    folder: Path,
    core: int | None = None,
    environ: Mapping[str, str] | None = None,
    is_apart: bool = False,
    timeout_s: float = 1800.0,
) -> Ended:
    """Run `command` in `folder` and account for it alone.

    `environ` is added to this process's environment, or is all of it with `is_apart`: no variable of the user's,
    which may be a key, reaches the command then.
    """
    with tempfile.TemporaryDirectory(prefix="measured-") as name:
        report, stdout, stderr = (Path(name) / part for part in ("usage.json", "stdout", "stderr"))
        place = "-" if core is None else str(core)
        with stdout.open("wb") as out, stderr.open("wb") as err:
            process = subprocess.Popen(
                [sys.executable, "-S", "-E", str(_CHILD), str(report), place, *command],
                cwd=folder,
                env={**({} if is_apart else os.environ), **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
            is_in_time = _wait(process, timeout_s)
        said = [path.read_text("utf-8", "replace") for path in (stdout, stderr)]
        if not is_in_time or not report.exists():
            return Ended(None if not is_in_time else process.returncode, None, *said)
        measured = json.loads(report.read_text("utf-8"))
        code = measured.pop("code")
        return Ended(code, Usage(**measured), *said)


def _wait(process: "subprocess.Popen[bytes]", timeout_s: float) -> bool:
    """False when the time was up; then the command's whole session is ended. So is it when this is interrupted."""
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        return False
    else:
        return True
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def measured(
    command: Sequence[str],
    *,
    folder: Path,
    core: int | None = None,
    environ: Mapping[str, str] | None = None,
    timeout_s: float = 1800.0,
) -> Usage:
    """What `command` used; raises CommandError when it did not end with 0 in time."""
    ended = run_child(command, folder=folder, core=core, environ=environ, timeout_s=timeout_s)
    if ended.code != 0 or ended.usage is None:
        how = f"was ended after {timeout_s:.0f} s" if ended.code is None else f"ended with {ended.code}"
        raise CommandError(f"{' '.join(map(str, command))} {how}: {ended.last_line}")
    return ended.usage


def in_turns(repeats: int, **measures: Callable[[], T]) -> dict[str, list[T]]:
    """Each measure once a turn, `repeats` turns: what disturbs the machine disturbs all of them."""
    found: dict[str, list[T]] = {name: [] for name in measures}
    for _ in range(repeats):
        for name, measure in measures.items():
            found[name].append(measure())
    return found


def paired_ratio(tops: Sequence[float], bottoms: Sequence[float]) -> float:
    """The median of the ratios within each turn. Raises ValueError when the turns do not match."""
    return median(top / bottom for top, bottom in zip(tops, bottoms, strict=True))


@dataclass(frozen=True, slots=True)
class Options:
    """What every benchmark takes on its command line."""

    is_quick: bool
    json_folder: Path | None


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--quick", action="store_true", help="small and once: shows that it runs, proves nothing"
    )
    parser.add_argument("--json", type=Path, metavar="FOLDER", help="write NAME.json there for each table")


def options(parsed: argparse.Namespace) -> Options:
    return Options(parsed.quick, parsed.json)


def publish(report: Report, chosen: Options) -> None:
    """Print the table, and write it as JSON where asked."""
    print(as_text(report), flush=True)
    keep(report, chosen)


def keep(report: Report, chosen: Options) -> None:
    """Write the table as JSON where asked."""
    if chosen.json_folder is not None:
        chosen.json_folder.mkdir(parents=True, exist_ok=True)
        (chosen.json_folder / f"{report.name}.json").write_text(as_json(report), "utf-8")


def allow_open_files() -> None:
    """As many connections as the benchmarks open, for this process and what it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def machine() -> str:
    """Kind and number of processors, memory, system, Python, and the load of the last minute.

    Of that load, one or two are what is measured and its server; more were others.
    """
    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return (
        f"{count} cores ({_processor()}), {pages * page / 2**30:.0f} GB, {platform.system()},"
        f" Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"
    )


def _processor() -> str:
    found = Path("/proc/cpuinfo")
    lines = found.read_text("utf-8", "replace").splitlines() if found.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
