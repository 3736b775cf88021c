"""Everything that is measured, one after the other: `python -m benchmarks [NAME ...] [--quick] [--json FOLDER]`."""

import argparse
from collections.abc import Sequence
from importlib import import_module

from benchmarks.harness import entry

#: Name on the command line, module with `main(argv)`, what it tells. In the order in which all of them run.
BENCHMARKS = {
    "throughput": ("benchmarks.throughput", "CPU a row of a whole run against the bare loop"),
    "peers": ("benchmarks.peers.__main__", "other runners, same server, same run"),
}


def main(argv: Sequence[str]) -> None:
    told = "\n".join(f"  {name:<12} {text}" for name, (_, text) in BENCHMARKS.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=f"Without a name all of them run:\n{told}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    parser.add_argument(
        "--quick", action="store_true", help="small and once: shows that it runs, proves nothing"
    )
    parser.add_argument("--json", metavar="FOLDER", help="write NAME.json there for each table")
    parsed = parser.parse_args(argv)
    if unknown := [name for name in parsed.names if name not in BENCHMARKS]:
        parser.error(f"no benchmark {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}")
    passed_on = ["--quick"] * parsed.quick + (["--json", parsed.json] if parsed.json else [])
    for name in parsed.names or BENCHMARKS:
        import_module(BENCHMARKS[name][0]).main(passed_on)


if __name__ == "__main__":
    entry(main)
