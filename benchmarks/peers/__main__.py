"""Other runners, same server, same run: `python -m benchmarks.peers [NAME ...] [--rows N]`.

Free: no limit, one core; rows a second, and CPU a row against the bare loop, both without starting up.
Limited: 1,000 rows against a provider that enforces 3,000 requests a minute by the second and takes 0.3 s to
answer; the provider's own ledger tells what it let in and what it refused.

A peer is installed by name into an environment of its own (`--environments FOLDER` keeps them); one that cannot be
installed, fails or does not end is reported as that. Without a name this project alone is measured.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from benchmarks import harness
from benchmarks.harness import Cores, Ended, Usage
from benchmarks.peers.asked import KEY
from benchmarks.peers.environments import OURS, PEERS, Peer, interpreter, version
from benchmarks.peers.results import PeerError, answered, free_line, problem, seen, share_of_ideal
from benchmarks.servers import CHAT, constant_server, limited_server, write_rows
from benchmarks.tables import Column, Report

_ROOT = Path(__file__).parents[2]
_FEW = 10
#: The bare loop is so fast that fewer calls would measure its start.
_BARE_CALLS = 5_000
_FREE_IN_FLIGHT = 64
_FREE_S = 300.0
_RPM = 3_000.0
_LATENCY_S = 0.3
#: 15 are needed on average (50 a second, 0.3 s each); this is what a user sets who does not know.
_LIMITED_IN_FLIGHT = 200
_LIMITED_S = 180.0

_FREE = (
    Column("peer", "no limit"),
    Column("version", "version"),
    Column("rows_s", "rows/s on one core", ",.0f"),
    Column("core_share", "got of the core", ".0%"),
    Column("ratio", "CPU × bare", ".1f"),
    Column("cpu_us", "CPU µs/row", ",.0f"),
    Column("start_s", "start CPU s", ".1f"),
    Column("peak_mb", "peak MB", ",.0f"),
    Column("problem", "problem"),
)
_LIMITED = (
    Column("peer", "3,000 requests a minute"),
    Column("answered", "answered", ",d"),
    Column("share", "share of the ideal rate", ".2f"),
    Column("refused", "refused", ",d"),
    Column("cpu_s", "CPU s", ".1f"),
    Column("problem", "problem"),
)


#: A peer's line without a limit and that under one.
_Lines: TypeAlias = tuple[dict[str, object], dict[str, object]]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Rows without and under a limit, and the turns without."""

    free: int
    limited: int
    repeats: int


@dataclass(frozen=True, slots=True)
class Bench:
    """A folder with rows.jsonl, and where things run."""

    folder: Path
    cores: Cores

    @property
    def rows(self) -> Path:
        return self.folder / "rows.jsonl"

    def script(self, python: str, peer: Peer, *asked: str, timeout_s: float) -> Ended:
        """One run of the peer's script in a folder of its own, which is also its home."""
        home = self.folder / "home"
        if home.exists():
            shutil.rmtree(home)
        home.mkdir()
        command = [python, "-m", f"benchmarks.peers.{peer.module}", *asked]
        return harness.run_child(
            command,
            folder=home,
            core=self.cores.client,
            environ=_environ(home),
            is_apart=True,
            timeout_s=timeout_s,
        )

    def bare(self, url: str, calls: int) -> Usage:
        where = [url, str(self.rows), str(calls), str(_FREE_IN_FLIGHT)]
        command = [sys.executable, "-m", "benchmarks.bare", *where]
        return harness.measured(command, folder=_ROOT, core=self.cores.client)


def _environ(home: Path) -> dict[str, str]:
    """All that a peer gets: no key or cache of the user's, and nobody calls home or asks a hub."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "PYTHONPATH": str(_ROOT),
        "OPENAI_API_KEY": KEY,
        "NO_PROXY": "127.0.0.1,localhost",
        "TELEMETRY_ENABLED": "false",
        "CURATOR_CACHE_DIR": str(home / "curator"),
        "CURATOR_DISABLE_RICH_DISPLAY": "1",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_TELEMETRY": "False",
        "LANGSMITH_TRACING": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
    }


def free(bench: Bench, python: str, peer: Peer, url: str, *, rows: int, repeats: int) -> dict[str, object]:
    """Rows a second and CPU without a limit. Raises PeerError."""

    def ask(limit: int) -> Usage:
        ended = bench.script(
            python, peer, url, str(bench.rows), str(limit), str(_FREE_IN_FLIGHT), timeout_s=_FREE_S
        )
        count = answered(ended, _FREE_S)
        if count != limit or ended.usage is None:
            raise PeerError(problem(f"answered {count} of {limit} rows: {ended.last_line}"))
        return ended.usage

    calls = max(rows, _BARE_CALLS)
    found = harness.in_turns(
        repeats,
        peer=lambda: ask(rows),
        start=lambda: ask(_FEW),
        bare=lambda: bench.bare(url, calls),
        bare_start=lambda: bench.bare(url, _FEW),
    )
    return free_line((rows, calls, _FEW), **found)


def limited(bench: Bench, python: str, peer: Peer, rows: int) -> dict[str, object]:
    """What the provider saw of one run under its limit, with what went wrong in it."""
    ledger = bench.folder / "ledger.jsonl"
    ledger.unlink(missing_ok=True)
    options = ("--rpm", str(_RPM), "--latency", str(_LATENCY_S), "--ledger", str(ledger))
    line: dict[str, object] = {}
    with limited_server(*options, core=bench.cores.server) as url:
        asked = (url, str(bench.rows), str(rows), str(_LIMITED_IN_FLIGHT), "--rpm", str(_RPM))
        ended = bench.script(python, peer, *asked, timeout_s=_LIMITED_S)
    with ledger.open(encoding="utf-8") as file:
        saw = seen(file)
    try:
        line["answered"] = answered(ended, _LIMITED_S)
    except PeerError as error:
        line["problem"] = f"{error}; {len(saw.accepted_at_s):,} were let in by then"
    if line.get("answered") == rows:
        line["share"] = share_of_ideal(saw.accepted_at_s, _RPM)
    cpu_s = ended.usage.cpu_s if ended.usage is not None else None
    return {**line, "refused": saw.refused, "rejected": saw.rejected, "cpu_s": cpu_s}


def measure(bench: Bench, key: str, peer: Peer, url: str, *, environments: Path, sizes: Sizes) -> _Lines:
    """The peer's line in both tables; what went wrong stands in its place."""
    print(f"{peer.shown} …", flush=True)
    named: dict[str, object] = {"peer": peer.shown}
    try:
        python = interpreter(key, peer, environments)
        free_named = {**named, "version": version(python, peer)}
    except PeerError as error:
        fault = {**named, "problem": str(error)}
        return fault, fault
    under_limit = {**named, **limited(bench, python, peer, sizes.limited)}
    try:
        without = free(bench, python, peer, url, rows=sizes.free * peer.times, repeats=sizes.repeats)
    except PeerError as error:
        without = {"problem": str(error)}
    return {**free_named, **without}, under_limit


def main(argv: Sequence[str]) -> None:
    parsed = _parsed(argv)
    chosen = harness.options(parsed)
    harness.allow_open_files()
    sizes = Sizes(
        free=parsed.rows or (200 if chosen.is_quick else 2_000),
        limited=200 if chosen.is_quick else 1_000,
        repeats=parsed.repeats or (1 if chosen.is_quick else 5),
    )
    cores = harness.cores()
    with tempfile.TemporaryDirectory(prefix="peers-") as name, constant_server(core=cores.server) as server:
        bench = Bench(Path(name), cores)
        place = (parsed.environments or Path(name) / "environments").absolute()
        write_rows(bench.rows, max(sizes.free * OURS.times, sizes.limited))
        peers = {"batchllm": OURS, **{key: PEERS[key] for key in parsed.names}}
        url = server.url + CHAT
        lines: list[_Lines] = []
        for key, peer in peers.items():
            lines.append(measure(bench, key, peer, url, environments=place, sizes=sizes))
            # An hour of peers is not lost with the last of them.
            for report in _reports(lines, sizes, cores):
                harness.keep(report, chosen)
    for report in _reports(lines, sizes, cores):
        harness.publish(report, chosen)


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(PEERS)}, or all")
    parser.add_argument("--rows", type=int, help="rows without a limit (default 2,000; quick: 200)")
    parser.add_argument("--repeats", type=int, help="turns without a limit (default 5; quick: 1)")
    parser.add_argument("--environments", type=Path, metavar="FOLDER", help="keep the environments there")
    harness.add_options(parser)
    parsed = parser.parse_args(argv)
    if parsed.names == ["all"]:
        parsed.names = list(PEERS)
    if unknown := [name for name in parsed.names if name not in PEERS]:
        parser.error(f"no peer {', '.join(unknown)}; there are: {', '.join(PEERS)}")
    return parsed


def _reports(lines: Sequence[_Lines], sizes: Sizes, cores: Cores) -> tuple[Report, Report]:
    frees, limiteds = zip(*lines, strict=True)
    machine = harness.machine()
    size = f"{sizes.free:,} rows (batchllm: {sizes.free * OURS.times:,})"
    notes: tuple[str, ...] = (
        f"{size} at {_FREE_IN_FLIGHT} in flight, medians of {sizes.repeats} turns; {cores.text()}.",
        f"Starting up (a run of {_FEW} rows) is taken off rows/s and CPU, for the bare loop as well.",
        "Kept: Parquet and journal by batchllm, Parquet by saturate, JSONL and Arrow by Curator, JSONL by the rest.",
        harness.CORE_NOTE,
    )
    without = Report("peers-free", "Peers without a limit", machine, _FREE, frees, notes)
    size = f"{sizes.limited:,} rows, at most {_LIMITED_IN_FLIGHT} in flight, {_LATENCY_S} s latency, one run"
    notes = (
        f"{size}. Told the rate: all but the openai SDK and saturate, which take none.",
        "Answered is what the peer has at its end; rate and refusals are the provider's count.",
        f"The provider lets a second's worth in at once, so that the most is {_most(sizes.limited):.2f}.",
    )
    return without, Report("peers-limited", "Peers under a limit", machine, _LIMITED, limiteds, notes)


def _most(rows: int) -> float:
    """The share that a run reaches which always has a request waiting."""
    return rows / max(rows - _RPM / 60, 1)


if __name__ == "__main__":
    harness.entry(main)
