"""CPU a call of three HTTP clients: aiohttp's session, the lanes' own connection, pyreqwest (where it is installed).

`python -m benchmarks.client [--calls N] [--repeats N] [--quick] [--json FOLDER]`: the same calls to the same nginx, one
client after the other in turns, each in a process of its own; medians, and ratios to aiohttp. Absolute times are
those of the machine; the ratios travel.
"""

import argparse
import asyncio
import json
import resource
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, TypeAlias

import orjson
import uvloop

from benchmarks import harness
from benchmarks.servers import CHAT, constant_server
from benchmarks.tables import Column, Report

_IN_FLIGHT = (64, 1024)
_QUICK_CALLS = 2_000
_COLUMNS = (
    Column("scheme", "scheme"),
    Column("in_flight", "in flight", ",.0f"),
    Column("client", "client"),
    Column("cpu_us", "CPU µs/call", ",.1f"),
    Column("kernel_us", "of it in the kernel", ",.1f"),
    Column("of_aiohttp", "of aiohttp's", ".3f"),
)
_HEADERS = {"Authorization": "Bearer of-nothing"}
_DEADLINE_S = 600.0
#: Body in, body out; raises where the answer is none.
Call: TypeAlias = Callable[[bytes], Awaitable[bytes]]
Run: TypeAlias = Callable[[Call], Awaitable[None]]


class Timing(NamedTuple):
    """Of one process, by call: µs of CPU (of which in the kernel) and of wall time."""

    cpu_us: float
    kernel_us: float
    wall_us: float


class Service(NamedTuple):
    """What is called; `authority` is the file of the certificate that signed its own, over TLS."""

    base_url: str
    authority: Path | None


async def with_aiohttp(server: Service, in_flight: int, run: Run) -> None:
    import aiohttp

    connector = aiohttp.TCPConnector(limit=in_flight, ssl=_trusting(server) or True)
    url, headers = f"{server.base_url}/chat/completions", {**_HEADERS, "Content-Type": "application/json"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def call(body: bytes) -> bytes:
            async with session.post(url, data=body) as reply:
                return await reply.read()

        await run(call)


async def with_connection(server: Service, in_flight: int, run: Run) -> None:
    from batchllm.provider.connection import HttpConnection
    from batchllm.records import Failure

    connection = HttpConnection(
        base_url=server.base_url,
        headers=_HEADERS,
        connect_timeout_s=60.0,
        max_connections=in_flight,
        ssl_context=_trusting(server),
        environ={},
    )

    async def call(body: bytes) -> bytes:
        response = await connection.send("/chat/completions", body, _DEADLINE_S)
        if isinstance(response, Failure):
            raise SystemExit(response.message)
        return response.body

    await run(call)
    await connection.close()


async def with_pyreqwest(server: Service, _: int, run: Run) -> None:
    from pyreqwest.client import ClientBuilder

    builder = ClientBuilder()
    if server.authority is not None:
        builder = builder.add_root_certificate_pem(server.authority.read_bytes())
    url = f"{server.base_url}/chat/completions"
    async with builder.build() as client:

        async def call(body: bytes) -> bytes:
            request = client.post(url).header("content-type", "application/json")
            request = request.header("authorization", _HEADERS["Authorization"]).body_bytes(body)
            return bytes(await (await request.build().send()).bytes())

        await run(call)


_CLIENTS = {"aiohttp": with_aiohttp, "connection": with_connection, "pyreqwest": with_pyreqwest}


def _trusting(server: Service) -> ssl.SSLContext | None:
    return ssl.create_default_context(cafile=server.authority) if server.authority else None


async def _measure(name: str, server: Service, calls: int, in_flight: int) -> Timing:
    """The first half warms up: connections are made, the reply is known."""
    marks: list[tuple[float, float, float]] = []

    async def run(call: Call) -> None:
        for _ in range(2):
            marks.append(_mark())
            left = iter(range(calls))
            await asyncio.gather(*(_work(call, left) for _ in range(in_flight)))
        marks.append(_mark())

    await _CLIENTS[name](server, in_flight, run)
    user_s, kernel_s, wall_s = (after - before for before, after in zip(marks[1], marks[2], strict=True))
    return Timing((user_s + kernel_s) / calls * 1e6, kernel_s / calls * 1e6, wall_s / calls * 1e6)


async def _work(call: Call, left: Iterator[int]) -> None:
    for number in left:
        body = {
            "model": "sim",
            "messages": [{"role": "user", "content": f"Which sentiment has review {number}?"}],
            "max_tokens": 20,
        }
        if "choices" not in orjson.loads(await call(orjson.dumps(body))):
            raise SystemExit("that was no answer")


def _mark() -> tuple[float, float, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime, used.ru_stime, time.monotonic()


def _in_a_process(name: str, server: Service, calls: int, in_flight: int) -> Timing:
    command = [sys.executable, "-m", "benchmarks.client", "--one", name, server.base_url]
    command += [str(server.authority or ""), str(calls), str(in_flight)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if not done.stdout:
        raise SystemExit(f"{name} ended with {done.returncode}: {done.stderr[-500:]}")
    if done.returncode:
        print(f"{name} answered all calls and ended with {done.returncode}", file=sys.stderr)
    return Timing(**json.loads(done.stdout))


def compare(server: Service, calls: int, repeats: int) -> list[dict[str, object]]:
    """A row for each client and number in flight, medians over the repeats."""
    names = [name for name in _CLIENTS if name != "pyreqwest" or find_spec("pyreqwest")]
    rows: list[dict[str, object]] = []
    for in_flight in _IN_FLIGHT:
        found: dict[str, list[Timing]] = {name: [] for name in names}
        for _ in range(repeats):
            for name in names:
                found[name].append(_in_a_process(name, server, calls, in_flight))
        medians = {name: Timing(*map(statistics.median, zip(*found[name], strict=True))) for name in names}
        rows += [
            {
                "client": name,
                "scheme": server.base_url.partition(":")[0],
                "in_flight": in_flight,
                **{key: round(value, 1) for key, value in medians[name]._asdict().items()},
                "of_aiohttp": round(medians[name].cpu_us / medians["aiohttp"].cpu_us, 3),
            }
            for name in names
        ]
    return rows


def one(arguments: Sequence[str]) -> None:
    """In a process of its own: measure one client and print its timing."""
    name, base_url, authority, calls, in_flight = arguments
    server = Service(base_url, Path(authority) if authority else None)
    print(json.dumps(uvloop.run(_measure(name, server, int(calls), int(in_flight)))._asdict()), flush=True)


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.client", description=__doc__)
    parser.add_argument("--calls", type=int, default=30_000, help="of each process (default: 30000)")
    parser.add_argument("--repeats", type=int, default=5, help="medians of so many (default: 5)")
    harness.add_options(parser)
    asked = parser.parse_args(argv)
    chosen = harness.options(asked)
    calls, repeats = (_QUICK_CALLS, 1) if chosen.is_quick else (asked.calls, asked.repeats)
    harness.allow_open_files()
    rows: list[dict[str, object]] = []
    for tls in (False, True):
        with constant_server(is_tls=tls) as server:
            file = server.environ.get("SSL_CERT_FILE")
            service = Service(server.url + CHAT, Path(file) if file else None)
            rows += compare(service, calls, repeats)
    notes = (
        f"{calls:,} calls after as many to warm up, medians of {repeats}, each client in a process of its own.",
    )
    harness.publish(
        Report("client", "CPU of one HTTP call", harness.machine(), _COLUMNS, rows, notes), chosen
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2:])
    else:
        main(sys.argv[1:])
