"""Whole runs against servers that nobody here wrote: `python -m benchmarks.real_servers [NAME ...]`.

Each server is installed into an environment of its own (`--environments FOLDER` keeps them), started on a free port of
loopback, and asked by `batchllm run` for each task that it offers. A cell is ok when every row has an answer of the
right shape and the usage of each call is recorded.
"""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import harness
from benchmarks.openapi import VARIABLE, find_document
from benchmarks.real_servers.asked import TASKS, ask
from benchmarks.real_servers.catalogue import SERVERS, Place, Server
from benchmarks.real_servers.environments import NotInstalledError, install, version
from benchmarks.real_servers.running import running
from benchmarks.servers import ServerError, free_port, limited_server
from benchmarks.tables import Column, Report

_ROWS, _FEW = 10, 3
_COLUMNS = (
    Column("server", "server"),
    Column("version", "version"),
    *(Column(name, name) for name in TASKS),
    Column("problem", "problem"),
)


@dataclass(frozen=True, slots=True)
class Bench:
    """Where environments are kept, where servers and runs have their folders, and the simulator behind some of them."""

    environments: Path
    folder: Path
    upstream: str
    rows: int


def measure(key: str, server: Server, bench: Bench) -> dict[str, object]:
    """The server's line; what went wrong stands in its place."""
    line: dict[str, object] = {"key": key, "server": server.shown}
    try:
        place = install(server.packages, bench.environments)
        line["version"] = version(server.packages, place)
    except (NotInstalledError, OSError) as error:
        return {**line, "problem": f"not installed: {error}"}
    folder = bench.folder / key
    folder.mkdir(parents=True)
    where = Place(place, folder, free_port(), bench.upstream, find_document())
    try:
        with running(server, where) as base_url:
            for name, offer in server.offers.items():
                line[name] = ask(name, offer, base_url, folder / name, bench.rows)
    except ServerError as error:
        line["problem"] = str(error)
    return line


def main(argv: Sequence[str]) -> None:
    parsed = _parsed(argv)
    chosen = harness.options(parsed)
    with tempfile.TemporaryDirectory(prefix="real-servers-") as name, limited_server() as upstream:
        folder = Path(name)
        environments = (parsed.environments or folder / "environments").absolute()
        bench = Bench(environments, folder / "runs", upstream, _FEW if chosen.is_quick else _ROWS)
        lines: list[dict[str, object]] = []
        for key in parsed.names or SERVERS:
            print(f"{SERVERS[key].shown} …", flush=True)
            lines.append(measure(key, SERVERS[key], bench))
            harness.keep(report(lines, bench.rows), chosen)
    harness.publish(report(lines, bench.rows), chosen)


def report(lines: Sequence[dict[str, object]], rows: int) -> Report:
    notes = (
        f"{rows} rows a task through `batchllm run`, provider: custom. ok: every row answered, its usage recorded.",
        "llama.cpp and transformers run a llama of two layers with random weights, made on the spot.",
    )
    return Report("real-servers", "Servers that nobody here wrote", harness.machine(), _COLUMNS, lines, notes)


def _parsed(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real_servers",
        description=__doc__,
        epilog=f"Prism needs OpenAI's OpenAPI document: {VARIABLE} names a copy of it.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(SERVERS)} (default: all)")
    parser.add_argument("--environments", type=Path, metavar="FOLDER", help="keep the environments there")
    harness.add_options(parser)
    parsed = parser.parse_args(argv)
    if unknown := [name for name in parsed.names if name not in SERVERS]:
        parser.error(f"no server {', '.join(unknown)}; there are: {', '.join(SERVERS)}")
    return parsed


if __name__ == "__main__":
    harness.entry(main)
