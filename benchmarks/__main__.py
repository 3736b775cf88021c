"""Everything that is measured, one after the other: `python -m benchmarks [NAME ...] [--quick] [--json FOLDER]`."""

import argparse
from collections.abc import Sequence
from importlib import import_module

from benchmarks.harness import BenchmarkError, add_options, entry

_PEERS = "peers"
#: Name on the command line, module with `main(argv)`, what it tells. In the order in which all of them run.
BENCHMARKS = {
    "throughput": ("benchmarks.throughput", "CPU a row of a whole run against the bare loop"),
    "stages": ("benchmarks.stages", "CPU of each stage of a row's way"),
    "client": ("benchmarks.client", "CPU of one HTTP call, by client, http and https"),
    "vectors": ("benchmarks.vectors", "vectors a second, against the SDK and against decoding alone"),
    "startup": ("benchmarks.startup", "CPU of --help, and time to the first request"),
    "saturation": ("benchmarks.saturation", "limits as the provider sees them"),
    "backfill": ("benchmarks.backfill", "a changed input over a large record"),
    "consensus": ("benchmarks.consensus", "a million rows of five votes, decided"),
    "memory": ("benchmarks.memory", "peak memory of long runs"),
    "durability": ("benchmarks.durability.__main__", "kills, failing disks, and how soon an answer is safe"),
    _PEERS: ("benchmarks.peers.__main__", "other runners, same server, same run"),
}


def plan(names: Sequence[str], peers: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Modules to run, each with arguments of its own; no name: all, but peers only when some are given.

    Raises BenchmarkError for an unknown name.
    """
    if unknown := [name for name in names if name not in BENCHMARKS]:
        raise BenchmarkError(f"no benchmark {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}")
    chosen = names or [name for name in BENCHMARKS if name != _PEERS or peers]
    return [(BENCHMARKS[name][0], list(peers) if name == _PEERS else []) for name in chosen]


def main(argv: Sequence[str]) -> None:
    told = "\n".join(f"  {name:<12} {text}" for name, (_, text) in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"Without a name all of them run, peers only with --peer:\n{told}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    parser.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME",
        help="install and measure this runner (repeatable), or all",
    )
    add_options(parser)
    parsed = parser.parse_args(argv)
    shared = ["--quick"] * parsed.quick + (["--json", str(parsed.json)] if parsed.json else [])
    for module, own in plan(parsed.names, parsed.peer):
        import_module(module).main([*own, *shared])


if __name__ == "__main__":
    entry(main)
