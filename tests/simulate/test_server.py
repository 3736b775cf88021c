"""The simulated provider over real sockets."""

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import orjson
import pytest

from batchllm.errors import InvariantError, JobError, NoProviderError, OutputError
from batchllm.simulate import SimulatedProvider
from batchllm.simulate.server import BODY_CAP_BYTES
from batchllm.spec.lanes import Simulation
from batchllm.testing import SteppedClock

BODY = {"model": "m", "messages": [{"role": "user", "content": "How are you?"}]}
AT_ONCE = {"latency": {"median_s": 0.0}}


class Client:
    """A provider and a session that talks to it."""

    def __init__(self, provider: SimulatedProvider, session: aiohttp.ClientSession, base_url: str) -> None:
        self.provider = provider
        self.session = session
        self.base_url = base_url

    async def post(
        self, path: str = "/chat/completions", **fields: object
    ) -> tuple[int, dict[str, str], bytes]:
        async with self.session.post(self.base_url + path, json={**BODY, **fields}) as response:
            return response.status, {k.lower(): v for k, v in response.headers.items()}, await response.read()


@asynccontextmanager
async def served(simulation: dict[str, object] | None = None, **options: object) -> AsyncIterator[Client]:
    provider = SimulatedProvider(Simulation.model_validate({**AT_ONCE, **(simulation or {})}), **options)
    base_url = await provider.start()
    try:
        async with aiohttp.ClientSession() as session:
            yield Client(provider, session, base_url)
    finally:
        await provider.stop()


def port_of(base_url: str) -> int:
    return int(base_url.removesuffix("/v1").rpartition(":")[2])


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110 - what is waited for happens at the other end of a socket
        await asyncio.sleep(0)


async def raw(base_url: str, data: bytes) -> bytes:
    """Send bytes and read until the server closes."""
    port = port_of(base_url)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


def post_bytes(body: bytes, *lines: str, version: str = "1.1") -> bytes:
    head = [
        f"POST /v1/chat/completions HTTP/{version}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *lines,
    ]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


async def test_each_endpoint_answers() -> None:
    async with served() as client:
        for path, field in (
            ("/chat/completions", "choices"),
            ("/completions", "choices"),
            ("/embeddings", "data"),
            ("/moderations", "results"),
        ):
            status, headers, body = await client.post(path, prompt="x", input="x")
            assert (status, headers["content-type"]) == (200, "application/json")
            assert len(orjson.loads(body)[field]) == 1
        for path in ("/models", "/models/m", "/healthz"):
            async with client.session.get(client.base_url + path) as response:
                assert response.status == 200
        assert client.provider.ledger.accepted == client.provider.ledger.answered == 4


async def test_two_servers_with_one_seed_answer_alike() -> None:
    faults = {"faults": {"error_rate": 0.3, "empty_rate": 0.2, "html_rate": 0.1}, "seed": 3}
    async with served(faults) as one, served(faults) as other:
        for number in range(30):
            first, second = await one.post(user=str(number), n=2), await other.post(user=str(number), n=2)
            assert first[0] == second[0]
            if first[2].startswith(b"{"):
                assert orjson.loads(first[2]).get("choices") == orjson.loads(second[2]).get("choices")


async def test_many_requests_share_one_connection() -> None:
    async with served() as client:
        for _ in range(20):
            assert (await client.post())[0] == 200
        assert len(client.provider._connections) == 1


async def test_a_limit_refuses_over_http_and_lets_in_when_it_said() -> None:
    clock = SteppedClock()
    async with served({"limits": {"rpm": 60}}, clock=clock) as client:
        assert (await client.post())[0] == 200
        status, headers, body = await client.post()
        assert (status, headers["retry-after"], headers["retry-after-ms"]) == (429, "1", "1000")
        assert headers["x-ratelimit-remaining-requests"] == "59"
        assert orjson.loads(body)["error"]["code"] == "rate_limit_exceeded"
        clock.advance(1.0)
        assert (await client.post())[0] == 200
        assert (client.provider.ledger.accepted, client.provider.ledger.refused) == (2, 1)


async def test_the_key_is_asked_for() -> None:
    async with served(api_key="canary") as client:
        assert (await client.post())[0] == 401
        client.session.headers["Authorization"] = "Bearer canary"
        assert (await client.post())[0] == 200


async def test_a_stream_arrives_as_events() -> None:
    async with served() as client:
        status, headers, body = await client.post(stream=True)
        assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        lines = [line for line in body.decode().split("\n\n") if line]
        assert all(line.startswith("data: ") for line in lines)
        assert lines[-1] == "data: [DONE]"


async def test_a_stream_that_takes_its_time_arrives_whole() -> None:
    async with served({"latency": {"median_s": 0.02}}) as client:
        slow = await client.post(stream=True)
    async with served() as client:
        fast = await client.post(stream=True)
    assert [len(part) for part in slow[2].split(b"\n\n")] == [len(part) for part in fast[2].split(b"\n\n")]


async def test_an_answer_with_latency_arrives() -> None:
    async with served({"latency": {"median_s": 0.01}}) as client:
        status, headers, _ = await client.post()
        assert (status, headers["openai-processing-ms"]) == (200, "10")


@pytest.mark.parametrize("streams", [False, True])
async def test_a_cut_answer_is_never_whole(streams: bool) -> None:
    async with served({"faults": {"cut_rate": 1.0}}) as client:
        with pytest.raises(aiohttp.ClientPayloadError):
            await client.post(stream=streams)
        assert client.provider.ledger.abandoned == 1
        assert client.provider.ledger.faults == {"cut": 1}


async def test_a_stall_holds_its_slot_until_the_client_leaves() -> None:
    async with served({"faults": {"stall_rate": 1.0}, "limits": {"concurrency": 1}}) as client:
        waiting = asyncio.create_task(client.post())
        await until(lambda: client.provider.ledger.accepted == 1)
        assert (await client.post())[0] == 429
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await until(lambda: client.provider.ledger.abandoned == 1)
        assert client.provider._responder.in_flight == 0


async def test_a_client_that_has_left_is_forgotten_before_its_answer_is_due() -> None:
    async with served({"latency": {"median_s": 3600}}) as client:
        waiting = asyncio.create_task(client.post())
        await until(lambda: client.provider.ledger.accepted == 1)
        (connection,) = map(weakref.ref, client.provider._connections)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        await until(lambda: client.provider.ledger.abandoned == 1)
        gc.collect()
        assert connection() is None


@pytest.mark.parametrize("simulation", [{"faults": {"stall_rate": 1.0}}, {"latency": {"median_s": 3600}}])
@pytest.mark.parametrize("streams", [False, True])
async def test_a_stop_ends_what_is_still_waiting(simulation: dict[str, object], streams: bool) -> None:
    async with served(simulation) as client:
        waiting = [asyncio.create_task(client.post(stream=streams)) for _ in range(5)]
        await until(lambda: client.provider.ledger.accepted == 5)
        await client.provider.stop()
        assert client.provider.ledger.abandoned == 5
        assert not client.provider._connections
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert all(isinstance(result, aiohttp.ClientError) for result in results)


async def test_a_stop_in_the_middle_of_a_stream_ends_it() -> None:
    async with served({"latency": {"median_s": 0.4}}) as client:
        async with client.session.post(
            f"{client.base_url}/chat/completions", json={**BODY, "stream": True}
        ) as response:
            await response.content.readline()
            await client.provider.stop()
            with pytest.raises(aiohttp.ClientError):
                await response.read()
        assert client.provider.ledger.abandoned == 1


async def test_nothing_is_left_behind() -> None:
    before = len(asyncio.all_tasks())
    async with served({"faults": {"stall_rate": 0.5}}) as client:
        waiting = [asyncio.create_task(client.post(user=str(number))) for number in range(10)]
        await until(lambda: client.provider.ledger.accepted == 10)
        await client.provider.stop()
        await asyncio.gather(*waiting, return_exceptions=True)
    gc.collect()
    assert len(asyncio.all_tasks()) == before


async def test_a_stop_and_a_start_again_keep_limits_and_ledger(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    clock = SteppedClock()
    async with served({"limits": {"rpm": 60}}, clock=clock, ledger_path=path) as client:
        await client.post()
        port = port_of(client.base_url)
        await client.provider.stop()
        await client.provider.stop()
        with pytest.raises(aiohttp.ClientConnectionError):
            await client.post()
        assert await client.provider.start(port=port) == client.base_url
        assert (await client.post())[0] == 429
        assert [orjson.loads(line)["status"] for line in path.read_bytes().splitlines()] == [200, 429]


async def test_it_is_started_once_at_a_time() -> None:
    async with served() as client:
        with pytest.raises(InvariantError, match="already"):
            await client.provider.start()


async def test_a_port_in_use_is_said() -> None:
    async with served() as client:
        port = port_of(client.base_url)
        with pytest.raises(NoProviderError, match=f"Port {port} of 127.0.0.1 is in use"):
            await SimulatedProvider(Simulation()).start(port=port)


async def test_an_address_of_another_machine_cannot_be_listened_on() -> None:
    with pytest.raises(NoProviderError, match=r"Cannot listen on 192\.0\.2\.1"):
        await SimulatedProvider(Simulation()).start("192.0.2.1")


async def test_a_ledger_in_no_folder_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        await SimulatedProvider(Simulation(), ledger_path=tmp_path / "missing" / "x").start()


def test_a_wrong_simulation_is_refused_with_all_its_faults() -> None:
    spec = Simulation.model_validate(
        {"latency": {"median_s": 2, "p99_s": 1}, "answers": [{"pattern": "(", "reply": ""}]}
    )
    with pytest.raises(JobError) as raised:
        SimulatedProvider(spec)
    assert [fault.path for fault in raised.value.faults] == ["answers.0.pattern", "latency.p99_s"]


async def test_pipelined_requests_are_answered_in_order() -> None:
    bodies = [
        orjson.dumps({"model": "m", "messages": [{"role": "user", "content": f"row {number}"}]})
        for number in range(30)
    ]
    async with served({"latency": {"median_s": 0.002}}) as client:
        data = b"".join(map(post_bytes, bodies[:-1])) + post_bytes(bodies[-1], "Connection: close")
        answer = (await raw(client.base_url, data)).decode()
    places = [answer.index(f': row {number}"') for number in range(30)]
    assert places == sorted(places)


async def test_a_client_that_sends_far_ahead_is_read_later() -> None:
    body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": "x" * 100_000}]})
    async with served({"latency": {"median_s": 0.005}}) as client:
        data = post_bytes(body) * 9 + post_bytes(body, "Connection: close")
        answer = await raw(client.base_url, data)
    assert answer.count(b"HTTP/1.1 200 OK") == 10


async def test_an_old_client_gets_its_answer_and_the_end() -> None:
    async with served() as client:
        answer = await raw(client.base_url, post_bytes(orjson.dumps(BODY), version="1.0"))
        stream = await raw(client.base_url, post_bytes(orjson.dumps({**BODY, "stream": True}), version="1.0"))
    assert b"connection: close" in answer
    assert b"chunked" not in stream
    assert stream.endswith(b"data: [DONE]\n\n")


async def test_leave_to_send_a_body_is_given() -> None:
    body = orjson.dumps(BODY)
    async with served() as client:
        port = port_of(client.base_url)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head, _, _ = post_bytes(body, "Expect: 100-continue", "Connection: close").partition(b"\r\n\r\n")
        writer.write(head + b"\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK")
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", b"400 Bad Request"),
        (b"GET /v1/models HTTP/3.0\r\n\r\n", b"505 HTTP Version Not Supported"),
        (f"POST /x HTTP/1.1\r\nContent-Length: {BODY_CAP_BYTES + 1}\r\n\r\n".encode(), b"413 "),
    ],
)
async def test_bytes_that_are_no_request_are_answered_and_the_connection_ends(
    data: bytes, status: bytes
) -> None:
    async with served() as client:
        answer = await raw(client.base_url, data)
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert orjson.loads(answer.partition(b"\r\n\r\n")[2])["error"]["type"] == "invalid_request_error"
        assert (await client.post())[0] == 200


async def test_a_head_request_has_no_body() -> None:
    async with served() as client:
        answer = await raw(client.base_url, b"HEAD /v1/models HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 405")
    assert answer.endswith(b"\r\n\r\n")


async def test_a_body_in_chunks_is_read() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        data = orjson.dumps(BODY)
        yield data[:10]
        yield data[10:]

    async with (
        served() as client,
        client.session.post(
            f"{client.base_url}/chat/completions", data=pieces(), headers={"Content-Type": "application/json"}
        ) as response,
    ):
        assert response.status == 200


async def test_a_client_that_leaves_early_is_no_trouble() -> None:
    async with served({"latency": {"median_s": 0.01}}) as client:
        port = port_of(client.base_url)
        for data in (b"", b"POST /v1/ch", post_bytes(orjson.dumps(BODY))):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(data)
            await writer.drain()
            writer.close()
            await writer.wait_closed()
        assert (await client.post())[0] == 200


async def test_ipv6_loopback_is_served() -> None:
    provider = SimulatedProvider(Simulation())
    try:
        base_url = await provider.start("::1")
    except NoProviderError:
        pytest.skip("this machine has no IPv6 loopback")
    assert base_url.startswith("http://[::1]:")
    await provider.stop()
