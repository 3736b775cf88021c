import socket
import threading
import urllib.request

import orjson
import pytest

from batchllm.errors import InvariantError, JobError
from batchllm.simulate import EmbeddedProviders
from batchllm.spec.lanes import Simulation


def ask(base_url: str, text: str = "hi", timeout_s: float = 10) -> str:
    body = orjson.dumps({"model": "m", "messages": [{"role": "user", "content": text}]})
    request = urllib.request.Request(  # noqa: S310 - loopback
        f"{base_url}/chat/completions", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310
        return orjson.loads(response.read())["choices"][0]["message"]["content"]


def at_once(**fields: object) -> Simulation:
    return Simulation.model_validate({"latency": {"median_s": 0.0}, **fields})


def thread_names() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_each_spec_has_its_own_server() -> None:
    rules = [at_once(answers=[{"pattern": ".", "reply": name}]) for name in ("one", "two")]
    with EmbeddedProviders(rules) as embedded:
        assert [ask(base_url) for base_url in embedded.base_urls] == ["one", "two"]
        assert [provider.ledger.accepted for provider in embedded.providers] == [1, 1]


def test_after_a_stop_no_thread_and_no_server_is_left() -> None:
    embedded = EmbeddedProviders([at_once()])
    (base_url,) = embedded.start()
    assert "simulated-providers" in thread_names()
    embedded.stop()
    embedded.stop()
    assert "simulated-providers" not in thread_names()
    with pytest.raises(OSError, match="refused"):
        ask(base_url)


def test_a_stop_does_not_wait_for_stalled_requests() -> None:
    embedded = EmbeddedProviders([at_once(faults={"stall_rate": 1.0})])
    (base_url,) = embedded.start()
    failures: list[OSError] = []

    def wait() -> None:
        try:
            ask(base_url)
        except OSError as error:
            failures.append(error)

    client = threading.Thread(target=wait)
    client.start()
    while not embedded.providers[0].ledger.accepted:
        pass
    embedded.stop()
    client.join()
    assert len(failures) == 1


def test_it_can_be_started_again() -> None:
    embedded = EmbeddedProviders([at_once()])
    for _ in range(2):
        (base_url,) = embedded.start()
        with pytest.raises(InvariantError, match="already"):
            embedded.start()
        assert ask(base_url).startswith("echo")
        host, port = base_url.removeprefix("http://").removesuffix("/v1").split(":")
        with socket.create_connection((host, int(port))) as left_open:
            left_open.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
            assert left_open.recv(8) == b"HTTP/1.1"
            embedded.stop()
    assert embedded.providers[0].ledger.accepted == 2


def test_a_start_that_fails_leaves_nothing_running() -> None:
    embedded = EmbeddedProviders([at_once(), at_once()])
    embedded.providers[1] = embedded.providers[0]
    with pytest.raises(InvariantError):
        embedded.start()
    assert "simulated-providers" not in thread_names()


def test_a_wrong_spec_is_refused_before_anything_starts() -> None:
    with pytest.raises(JobError):
        EmbeddedProviders([at_once(answers=[{"pattern": "(", "reply": ""}])])


def test_no_specs_are_no_servers() -> None:
    with EmbeddedProviders([]) as embedded:
        assert embedded.base_urls == []


def test_memory_stays_flat_unless_details_are_asked_for() -> None:
    with EmbeddedProviders([at_once()]) as embedded, pytest.raises(InvariantError):
        _ = embedded.providers[0].ledger.billed
    with EmbeddedProviders([at_once()], keeps_details=True) as embedded:
        ask(embedded.base_urls[0], "row 1")
        assert embedded.providers[0].ledger.billed == {"row 1": 1}
